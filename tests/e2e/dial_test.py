#!/usr/bin/python3
"""Where the daemon connects, whatever a registry or a client writes and whatever DNS says.

The test runs in a network of its own. There every address that a hostile registry could want the
daemon to reach is one of this machine's, and a canary listens at all of them: whoever connects is
noticed. Names come from an /etc/hosts that only the daemon sees.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from urllib.parse import quote

import raw
from clean_root import run
from lab import needs_root
from node import Node
from origin import digest_of
from registry import free_port
from staithed import REPOSITORY_ROOT

OWN_NETWORK = "STAITHE_TEST_OWN_NETWORK"
CANARY = 7007
ORIGIN = 7008
PUBLIC = "20.38.146.158"
# By the words that an error has for it.
LEADS_TO = {
    "a loopback address": ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"],
    "a link-local address": ["169.254.7.7"],
    "a cloud's metadata address": ["169.254.169.254", "168.63.129.16", "100.100.100.200",
                                   "fd00:ec2::254", "64:ff9b::a9fe:a9fe", "::ffff:169.254.169.254"],
    "an unspecified address": ["0.0.0.0", "::", "0.0.0.1"],
    "a multicast address": ["224.0.0.1", "ff02::1"],
    "the broadcast address": ["255.255.255.255"],
    "a reserved address": ["240.0.0.1", "198.51.100.5", "::7f00:1"],
}  # fmt: skip
PRIVATE = ["10.1.2.3", "172.16.0.4", "192.168.7.7", "100.64.1.1", "fd12::4", "64:ff9b::a01:203",
           "2002:a01:203::1", "::ffff:10.1.2.3"]  # fmt: skip
LAYER = b"a layer that is not there"
HOSTS = [tuple(json.loads(line)) for line in
         (REPOSITORY_ROOT / "tests/spellings/hosts.jsonl").read_text().splitlines()]  # fmt: skip


def setUpModule() -> None:
    run("ip", "link", "set", "lo", "up")
    here = [a for group in LEADS_TO.values() for a in group] + PRIVATE + [PUBLIC]
    here += [address for address, _ in HOSTS]
    for address in dict.fromkeys(here):
        # What no machine can have (multicast, unspecified) is refused here.
        bits = 128 if ":" in address else 32
        run("ip", "address", "add", f"{address}/{bits}", "dev", "lo", check=False)
    # Duplicate addresses are looked for before an IPv6 address is used.
    deadline = time.monotonic() + 10
    while "tentative" in run("ip", "-6", "address").stdout and time.monotonic() < deadline:
        time.sleep(0.02)


class Canary:
    """At every address, and the ports that a URL may name or leave out."""

    PORTS = (80, 443, CANARY)

    def __init__(self) -> None:
        self._came: list[tuple[str, int, int]] = []  # address and port here, port there
        self._changed = threading.Condition()
        self._listeners = [_listener(port) for port in self.PORTS]
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, peer = listener.accept()
            except OSError:
                return
            here = connection.getsockname()
            with self._changed:
                self._came.append((here[0].removeprefix("::ffff:"), here[1], peer[1]))
                self._changed.notify_all()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    @staticmethod
    def _answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            if connection.recv(4096).startswith(b"GET "):
                # What nobody asks for a second time.
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n"
                                   b"Connection: close\r\n\r\n")  # fmt: skip

    def dials(self) -> list[tuple[str, int]]:
        """Address and port of all that came since this was last asked. Behind each stands a
        connection of our own, so that none is still on its way."""
        for port in self.PORTS:
            with socket.create_connection(("127.0.0.1", port)) as ours:
                me = ("127.0.0.1", port, ours.getsockname()[1])
                with self._changed:
                    if not self._changed.wait_for(lambda me=me: me in self._came, 20):
                        raise TimeoutError("the canary does not notice who comes")
                    self._came.remove(me)
        with self._changed:
            found, self._came = [(address, port) for address, port, _ in self._came], []
        return found

    def close(self) -> None:
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


def _listener(port: int) -> socket.socket:
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True,
                                backlog=512)  # fmt: skip


def url_of(index: int) -> str:
    """In one of the ways that a header can say where to go."""
    scheme = ("http://", "https://", "//", "HTTP://")[index % 4]
    return f"{scheme}{HOSTS[index][1]}:{CANARY}/x"


class Registry:
    """Of a hostile owner. Asked for `/v2/s7/...` it wants the daemon to go to spelling 7: by a
    redirect, a further page, or a manifest that says where its layer is. As `r7.names.test` it says
    that its tokens are there. `names/HOST` redirects to a name."""

    def __init__(self) -> None:
        self.digest = digest_of(LAYER)
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                owner.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = _listener(ORIGIN)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        name = request.headers.get("Host", "").partition(".")[0]
        words = request.path.split("/")
        if name[:1] == "r" and name[1:].isdecimal():
            url = url_of(int(name[1:]))
            return self._send(request, 401, f'WWW-Authenticate: Bearer realm="{url}",service="s"')
        if name == "realm":
            url = f"https://{request.headers['Host'].split('.')[1]}.names.test:{CANARY}/token"
            return self._send(request, 401, f'WWW-Authenticate: Bearer realm="{url}",service="s"')
        if name == "mine":
            url = f"http://{request.headers['Host']}/oauth2/token"
            return self._send(request, 401, f'WWW-Authenticate: Bearer realm="{url}",service="s"')
        if len(words) < 4:
            return self._send(request, 200)
        if words[2] == "names":
            return self._send(request, 307, f"Location: http://{words[3]}:{CANARY}/x")
        url = url_of(int(words[2][1:]))
        if words[3] == "tags":
            return self._send(request, 200, f'Link: <{url}>; rel="next"', b'{"name":"x","tags":[]}')
        if words[4] == "urls":
            return self._send(request, 200, "Content-Type: " + _DOCKER, self._manifest(url))
        if words[4] == self.digest:
            return self._send(request, 404)
        return self._send(request, 307, f"Location: {url}")

    def _manifest(self, url: str) -> bytes:
        layer = {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                 "size": len(LAYER), "digest": self.digest, "urls": [url]}  # fmt: skip
        config = {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 2,
                  "digest": digest_of(b"{}"), "urls": [url]}  # fmt: skip
        return json.dumps({"schemaVersion": 2, "mediaType": _DOCKER, "config": config,
                           "layers": [layer]}).encode()  # fmt: skip

    @staticmethod
    def _send(request: http.server.BaseHTTPRequestHandler, status: int, field: str = "",
              body: bytes = b"") -> None:  # fmt: skip
        # By hand, since some of what is to be said is no text of HTTP.
        head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n"
        head += f"{field}\r\n\r\n" if field else "\r\n"
        request.wfile.write(head.encode() + (b"" if request.command == "HEAD" else body))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{ORIGIN}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Client(http.client.HTTPConnection):
    """At a Unix socket; connects again by itself when the daemon has closed."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


_DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


@needs_root
class Dial(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="staithe-"))
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.canary = Canary()
        self.addCleanup(self.canary.close)
        self.origin = Registry()
        self.addCleanup(self.origin.close)
        self.names = self.directory / "hosts"
        self.names.write_text("127.0.0.1 localhost\n")
        self.node = Node(self.directory / "node", self.origin)
        self.node.in_place_of["/etc/hosts"] = self.names
        self.address = f"127.0.0.1:{free_port()}"
        listen = [f"unix:{self.node.registry_socket}", self.address]
        self.node.configured({"listen": {"registry": listen},
                              "limits": {"upstream_connect": "2s", "upstream_first_byte": "2s"},
                              "log": {"level": "info"}})  # fmt: skip
        self.addCleanup(self.node.stop)
        self.client = Client(self.node.registry_socket)
        self.addCleanup(self.client.close)

    def registry(self, name: str, upstream: str, **more: object) -> None:
        entry = {"name": name, "upstream": [upstream], "identity": "nobody", **more}
        self.node.config["registry"].append(entry)

    def name(self, name: str, *addresses: str) -> str:
        with self.names.open("a") as file:
            file.writelines(f"{address} {name}\n" for address in addresses)
        return name

    def ask(self, target: str) -> tuple[int, str]:
        """Status, and the error's sentence or what else came."""
        self.client.request("GET", target)
        answer = self.client.getresponse()
        text = answer.read().decode()
        with contextlib.suppress(ValueError, LookupError):
            return answer.status, json.loads(text)["errors"][0]["message"]
        return answer.status, text

    def assert_refused(self, target: str, *words: str) -> None:
        status, text = self.ask(target)
        self.assertGreaterEqual(status, 500, text)
        for word in words:
            self.assertIn(word, text)

    def test_no_spelling_makes_it_dial(self) -> None:
        """Each spelling, in everything that a registry or a client can write it into."""
        self.assertGreaterEqual(len(HOSTS), 500)
        for index in range(len(HOSTS)):
            host = self.name(f"r{index}.names.test", PUBLIC)
            self.registry(f"r{index}.test", f"http://{host}:{ORIGIN}")
        self.node.start()
        refused = 0
        for index, (address, spelling) in enumerate(HOSTS):
            with self.subTest(address=address, spelling=spelling):
                base = f"/v2/origin.test/s{index}"
                there = f"{spelling}:{CANARY}"
                written = quote(there, safe=":[]@%")
                for target in (f"{base}/blobs/{digest_of(spelling.encode())}",
                               f"{base}/manifests/moved",
                               f"/v2/r{index}.test/app/manifests/1",
                               f"/v2/app/manifests/1?ns={quote(there, safe='')}",
                               f"/v2/{written}/app/manifests/1"):  # fmt: skip
                    status, text = self.ask(target)
                    self.assertGreaterEqual(status, 400, f"{target}: {text}")
                    refused += 1
                # These are answered: a page without its neighbour, a manifest as it is.
                self.assertEqual(self.ask(f"{base}/tags/list")[0], 200)
                self.assertEqual(self.ask(f"{base}/manifests/urls")[0], 200)
                self.assertEqual(self.ask(f"{base}/blobs/{self.origin.digest}")[0], 404)
                for head in (f"GET {base}/manifests/1 HTTP/1.1\r\nHost: {there}\r\n",
                             f"GET http://{there}{base}/manifests/1 HTTP/1.1\r\nHost: {there}\r\n",
                             f"GET http://{there}/x HTTP/1.1\r\nHost: {self.address}\r\n"):  # fmt: skip
                    text = (head + "Connection: close\r\n\r\n").encode()
                    self.assertGreaterEqual(raw.exchange(self.address, text).status, 400, head)
        self.assertEqual(self.canary.dials(), [])
        print(f"{len(HOSTS)} spellings in 11 places each: no dial; {refused} upstream refusals")

    def test_names_that_lead_where_nobody_may_go_are_not_dialled(self) -> None:
        """The registry's own name, and that of a host for its blobs."""
        cases = [(words, address) for words, group in LEADS_TO.items() for address in group]
        for index, (_, address) in enumerate(cases):
            host = self.name(f"n{index}.names.test", address)
            self.registry(f"n{index}.test", f"http://{host}:{CANARY}")
            self.registry(f"d{index}.test", f"http://localhost:{ORIGIN}", data_hosts=[host])
        self.node.start()
        for index, (words, address) in enumerate(cases):
            with self.subTest(address=address):
                host = f"n{index}.names.test"
                self.assert_refused(f"/v2/n{index}.test/app/manifests/1", host, words)
                self.assert_refused(f"/v2/d{index}.test/names/{host}/manifests/1", host, words)
        self.assertEqual(self.canary.dials(), [])

    def test_public_and_private_names_of_the_configuration_are(self) -> None:
        cases = [PUBLIC, *PRIVATE]
        for index, address in enumerate(cases):
            host = self.name(f"n{index}.names.test", address)
            self.registry(f"n{index}.test", f"http://{host}:{CANARY}")
            self.registry(f"d{index}.test", f"http://localhost:{ORIGIN}", data_hosts=[host])
        self.node.start()
        for index, address in enumerate(cases):
            with self.subTest(address=address):
                plain = address.removeprefix("::ffff:")
                for target in (f"/v2/n{index}.test/app/manifests/1",
                               f"/v2/d{index}.test/names/n{index}.names.test/manifests/1"):  # fmt: skip
                    self.ask(target)
                    self.assertIn((plain, CANARY), self.canary.dials(), target)

    def test_a_name_of_the_registrys_own_choice_is_dialled_at_public_addresses_only(self) -> None:
        """A token server: in HTTPS, which is all that such a challenge may name."""
        self.name("public.names.test", PUBLIC)
        self.name("private.names.test", "10.1.2.3")
        self.name("loopback.names.test", "127.0.0.1")
        for name in ("public", "private", "loopback"):
            self.name(f"realm.{name}.names.test", PUBLIC)
            self.registry(f"{name}.test", f"http://realm.{name}.names.test:{ORIGIN}")
        self.registry("named.test", f"http://realm.private.names.test:{ORIGIN}",
                      token_hosts=[f"private.names.test:{CANARY}"])  # fmt: skip
        self.node.start()
        self.assert_refused("/v2/private.test/app/manifests/1", "a private address", "token_hosts")
        self.assert_refused("/v2/loopback.test/app/manifests/1", "a loopback address")
        self.assertEqual(self.canary.dials(), [])
        self.ask("/v2/public.test/app/manifests/1")
        self.assertIn((PUBLIC, CANARY), self.canary.dials())
        self.ask("/v2/named.test/app/manifests/1")
        self.assertIn(("10.1.2.3", CANARY), self.canary.dials())

    def test_of_several_addresses_only_those_are_dialled_that_may_be(self) -> None:
        """Rebinding: the name has a good address, and later or beside it another one."""
        self.name("both.names.test", "127.0.0.1", PUBLIC, "::1", "169.254.169.254")
        self.name("later.names.test", PUBLIC)
        for name in ("both", "later"):
            self.registry(f"{name}.test", f"http://{name}.names.test:{CANARY}")
        self.node.start()
        for _ in range(3):
            self.ask("/v2/both.test/app/manifests/1")
        dials = self.canary.dials()
        self.assertEqual(set(dials), {(PUBLIC, CANARY)}, dials)
        self.ask("/v2/later.test/app/manifests/1")
        self.assertEqual(set(self.canary.dials()), {(PUBLIC, CANARY)})
        self.node.stop()
        self.client.close()
        # The same file, which is what the daemon sees.
        self.names.write_text("127.0.0.1 later.names.test\n")
        self.node.start()
        self.assert_refused("/v2/later.test/app/manifests/1", "a loopback address")
        self.assertEqual(self.canary.dials(), [])

    def test_the_metadata_address_is_for_the_machines_identity_alone(self) -> None:
        self.registry("meta.test", "http://169.254.169.254")
        self.registry("wire.test", "http://168.63.129.16")
        self.registry("mine.azurecr.localhost", f"http://mine.azurecr.localhost:{ORIGIN}",
                      identity="vm")  # fmt: skip
        self.node.configured({"azure": {"acr_suffixes": ["azurecr.localhost"]},
                              "identity": {"vm": {"kind": "managed-identity", "source": "imds"}}})
        self.node.start()
        self.ask("/v2/mine.azurecr.localhost/app/manifests/1")
        self.assertIn(("169.254.169.254", 80), self.canary.dials())
        for name in ("meta", "wire"):
            self.assert_refused(f"/v2/{name}.test/app/manifests/1", "a cloud's metadata address")
        self.assertEqual(self.canary.dials(), [])


if __name__ == "__main__":
    if os.geteuid() == 0 and OWN_NETWORK not in os.environ:
        os.environ[OWN_NETWORK] = "1"
        os.execvp("unshare", ["unshare", "--net", "--", sys.executable, *sys.argv])
    unittest.main()
