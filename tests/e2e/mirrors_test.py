#!/usr/bin/python3
"""Several upstreams for one registry: whoever of them fails, and however, a client gets the bytes.

The mirrors and the registry itself are origins of this process, or of one that is killed.
"""

from __future__ import annotations

import base64
import multiprocessing
import socket
import tempfile
import time
import unittest
from contextlib import ExitStack
from pathlib import Path

from node import REGISTRY, Client, Node
from origin import Image, Origin, _handler_for, make_image

MIB = 1024 * 1024
SIZES = [4 * MIB, 300_000]


class Registry(Origin):
    """Remembers what it was asked, and may want a password."""

    def __init__(self, password: str = "") -> None:
        super().__init__()
        self.asked: list[str] = []  # method and target
        self.authorizations: list[str] = []
        expected = "Basic " + base64.b64encode(f"puller:{password}".encode()).decode()
        registry = self

        class Guarded(_handler_for(self)):
            def do_GET(self) -> None:
                given = self.headers.get("Authorization", "")
                if given:
                    registry.authorizations.append(given)
                if not password or given == expected:
                    return super().do_GET()
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="registry"')
                self.send_header("Content-Length", "0")
                return self.end_headers()

            do_HEAD = do_GET

        self._server.RequestHandlerClass = Guarded

    def answer(self, method: str, path: str) -> tuple[str, str, bytes] | None:
        self.asked.append(f"{method} {path}")
        return super().answer(method, path.partition("?")[0])


def serve_a_part(pipe, repository: str, sizes: list[int], after: int) -> None:
    """A mirror in a process of its own that sends so many bytes of the first layer and no more."""
    mirror = Registry()
    image = mirror.add(make_image(repository, sizes, 1))
    mirror.hold(list(image.blobs)[1], after)
    pipe.send(mirror.url)
    pipe.recv()


class Mirrors(unittest.TestCase):
    def setUp(self) -> None:
        self.end = ExitStack()
        self.addCleanup(self.end.close)
        self.directory = Path(self.end.enter_context(tempfile.TemporaryDirectory()))
        self.home = self.origin()
        self.image = self.home.add(make_image("app", SIZES, 1))
        self.layer = list(self.image.blobs)[1]

    def origin(self, password: str = "") -> Registry:
        origin = Registry(password)
        self.end.callback(origin.close)
        return origin

    def node(self, *upstream: str, **registry: object) -> Node:
        node = Node(self.directory / "node", self.home)
        node.registry(REGISTRY).update({"upstream": list(upstream), **registry})
        self.end.callback(node.stop)
        return node.start()

    def states(self, node: Node) -> list[str]:
        (registry,) = node.status()["registries"]
        self.assertEqual([u["url"] for u in registry["upstreams"]], registry["upstream"])
        return [upstream["state"] for upstream in registry["upstreams"]]

    def test_a_mirror_that_has_it_spares_the_registry(self) -> None:
        mirror = self.origin()
        mirror.add(self.image)
        node = self.node(mirror.url, self.home.url)
        node.pull(self.image)
        self.assertEqual(self.home.asked, [])
        self.assertIn(f"GET /v2/app/manifests/1?ns={REGISTRY}", mirror.asked)
        self.assertEqual(self.states(node), ["ok", "idle"])

    def test_a_path_is_what_stands_before_the_name_at_that_upstream_alone(self) -> None:
        mirror = self.origin()
        cached = mirror.add(make_image("hub/library/app", SIZES, 2))
        behind = self.home.add(make_image("own/other", [1000], 3))
        node = self.node(f"{mirror.url}/hub", self.home.url, prefix="own/")
        node.pull(Image("library/app", cached.manifest, cached.blobs))
        self.assertEqual(self.home.asked, [])
        node.pull(Image("other", behind.manifest, behind.blobs))
        self.assertIn("GET /v2/own/other/manifests/1", self.home.asked)
        self.assertIn(f"GET /v2/hub/other/manifests/1?ns={REGISTRY}", mirror.asked)

    def test_one_that_lacks_it_is_passed_over_and_stays_well(self) -> None:
        mirror = self.origin()
        node = self.node(mirror.url, self.home.url)
        node.pull(self.image)
        for digest in self.image.blobs:
            self.assertEqual(self.home.fetches(digest), 1)
        self.assertEqual(self.states(node), ["ok", "ok"])
        with self.assertRaisesRegex(AssertionError, "404"), node.client() as client:
            client.manifest(make_image("nothing", [1], 1), "1")

    def test_one_that_is_dead_or_silent_is_asked_once(self) -> None:
        gone = self.origin()
        silent = self.end.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        node = self.node(
            f"http://127.0.0.1:{silent.getsockname()[1]}", "http://127.0.0.1:1", self.home.url
        )
        node.pull(self.image)
        self.assertEqual(self.states(node), ["unreachable", "unreachable", "ok"])
        silent.settimeout(5)
        silent.accept()[0].close()
        silent.setblocking(False)
        with self.assertRaises(BlockingIOError):
            silent.accept()
        self.assertEqual(gone.asked, [])

    def test_the_registry_itself_may_be_gone_while_a_mirror_has_it(self) -> None:
        mirror = self.origin()
        mirror.add(self.image)
        empty = self.origin()
        node = self.node(empty.url, mirror.url, "http://127.0.0.1:1")
        node.pull(self.image)
        self.assertEqual(self.states(node)[:2], ["ok", "ok"])
        # Nobody can say that this is not there.
        with self.assertRaises(AssertionError) as wrong, node.client() as client:
            client.manifest(make_image("nothing", [1], 1), "1")
        self.assertIn("answered 404", str(wrong.exception))
        self.assertRegex(str(wrong.exception), "503 ")

    def test_a_mirror_killed_in_the_middle_of_a_blob_is_continued_elsewhere(self) -> None:
        context = multiprocessing.get_context("spawn")
        for others in ("registry", "mirror and registry"):
            with self.subTest(others=others):
                after = 2 * MIB
                ours, theirs = context.Pipe()
                doomed = context.Process(
                    target=serve_a_part, args=(theirs, "app", SIZES, after), daemon=True
                )
                doomed.start()
                self.end.callback(doomed.kill)
                upstream = [ours.recv(), self.home.url]
                heir = self.home
                if "mirror" in others:
                    heir = self.origin()
                    heir.add(self.image)
                    upstream.insert(1, heir.url)
                before = self.home.continued
                self.directory = Path(self.end.enter_context(tempfile.TemporaryDirectory()))
                node = self.node(*upstream)
                with node.client() as client, client.open(self.image, self.layer) as reading:
                    while len(reading.received) < after:
                        self.assertGreater(reading.take(after - len(reading.received)), 0)
                    doomed.kill()
                    doomed.join()
                    reading.take_rest()
                self.assertEqual(heir.continued, 1 if heir is not self.home else before + 1)
                if heir is not self.home:
                    self.assertEqual(self.home.continued, before)
                self.assertEqual(self.states(node)[0], "unreachable")
                self.pull_again(node)
                node.stop_cleanly()
                node.check_files()

    def pull_again(self, node: Node) -> None:
        node.pull(self.image)
        deadline = time.monotonic() + 10
        while self.layer not in node.blob_files() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertIn(self.layer, node.blob_files())

    def test_wrong_bytes_of_a_mirror_fail_once_and_not_for_ever(self) -> None:
        mirror = self.origin()
        liar = make_image("app", SIZES, 1)
        liar.blobs[self.layer] = bytes(len(liar.blobs[self.layer]))
        mirror.add(liar)
        node = self.node(mirror.url, self.home.url)
        with self.assertRaises(Exception), Client(node.registry_socket) as client:
            client.blob(self.image, self.layer)
        with node.client() as client:
            client.blob(self.image, self.layer)
        self.assertEqual(self.home.fetches(self.layer), 1)

    def test_the_password_goes_to_the_registry_alone(self) -> None:
        password = "c0rrect-h0rse"
        secret = self.directory / "password"
        secret.write_text(password)
        secret.chmod(0o600)
        mirrors = [self.origin(password="another"), self.origin()]
        guarded = self.origin(password)
        guarded.add(self.image)
        node = Node(self.directory / "node", self.home)
        node.registry(REGISTRY).update(
            {"upstream": [*(m.url for m in mirrors), guarded.url], "identity": "puller"}
        )
        puller = {"kind": "basic", "username": "puller", "password_file": str(secret)}
        node.configured({"identity": {"puller": puller}})
        self.end.callback(node.stop)
        node.start().pull(self.image)
        self.assertTrue(guarded.authorizations)
        self.assertTrue(mirrors[1].asked)
        for mirror in mirrors:
            self.assertEqual(mirror.authorizations, [])
        self.assertNotIn(password, node.log.read_text())


if __name__ == "__main__":
    unittest.main()
