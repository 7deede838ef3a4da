#!/usr/bin/python3
"""One user's crowd of connections: the others do not notice it, and the control socket answers."""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
import subprocess
import time
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

from lab import needs_root
from node import Node
from origin import Origin, make_image
from raw import exchange

OTHER = 54321
HELLO = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

# Asks once at the address ("127.0.0.1:5050" or a socket's path), and prints the status.
CLIENT = """
import socket, sys
address = sys.argv[1]
if address.startswith("/"):
    client = socket.socket(socket.AF_UNIX)
    client.connect(address)
else:
    host, port = address.split(":")
    client = socket.create_connection((host, int(port)))
client.settimeout(20)
client.sendall(%r)
print(client.recv(4096).split(b" ")[1].decode())
"""


class Connections(unittest.TestCase):
    def setUp(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        Path(directory.name).chmod(0o755)
        self.origin = Origin()
        self.addCleanup(self.origin.close)
        self.image = self.origin.add(make_image("app", [4 << 20], seed=1))
        self.node = Node(Path(directory.name) / "node", self.origin)
        self.addCleanup(self.node.stop)
        (Path(directory.name) / "node").chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.tcp = f"127.0.0.1:{self.port}"
        self.node.config["listen"]["registry"].append(self.tcp)
        self.clients: list[socket.socket] = []
        self.addCleanup(lambda: [client.close() for client in self.clients])

    def start(self, **limits: object) -> None:
        self.node.configured({"limits": limits}).start()

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        self.clients.append(client)
        return client

    def idle(self, count: int) -> list[socket.socket]:
        """Connections of ours that have been answered once and wait."""
        found = []
        for _ in range(count):
            client = self.connect()
            client.sendall(HELLO)
            self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 200"))
            found.append(client)
        return found

    def other_user_gets(self, address: str) -> str:
        done = subprocess.run(
            ["/usr/bin/python3", "-c", CLIENT % HELLO, address],
            user=OTHER, group=OTHER, extra_groups=[], capture_output=True, text=True, timeout=60,
            check=True,
        )  # fmt: skip
        return done.stdout.strip()

    def figures(self) -> dict:
        return self.node.status()["connections"]

    def wait_until_open(self, count: int) -> None:
        deadline = time.monotonic() + 30
        while self.figures()["open"] != count:
            self.assertLess(time.monotonic(), deadline, self.figures())
            time.sleep(0.01)


class PerUser(Connections):
    def test_beyond_its_share_a_user_is_told_so_and_can_come_again(self) -> None:
        self.start(connections_per_user=20)
        crowd = self.idle(20)
        refused = exchange(self.tcp, HELLO)
        self.assertEqual((refused.status, refused.ended), (503, "fin"))
        self.assertTrue(refused.is_whole())
        self.assertGreaterEqual(int(refused.headers["retry-after"]), 1)
        message = json.loads(refused.body)["errors"][0]["message"]
        self.assertIn("limits.connections_per_user", message)
        self.assertIn(f"uid {os.geteuid()}", message)
        figures = self.figures()
        self.assertEqual((figures["open"], figures["refused"]["user"]), (20, 1))
        # Those it has go on.
        crowd[0].sendall(HELLO)
        self.assertTrue(crowd[0].recv(4096).startswith(b"HTTP/1.1 200"))
        crowd.pop().close()
        self.wait_until_open(19)
        self.assertEqual(exchange(self.tcp, LAST).status, 200)

    def test_who_is_refused_and_says_nothing_is_ended(self) -> None:
        self.start(connections_per_user=5)
        self.idle(5)
        silent = [self.connect() for _ in range(100)]
        told = [client.recv(4096) for client in silent]
        self.assertEqual({text[:12] for text in told}, {b"", b"HTTP/1.1 503"})
        self.assertEqual(self.figures()["open"], 5)

    @needs_root
    def test_the_others_do_not_notice(self) -> None:
        self.start(connections_per_user=20)
        self.idle(20)
        for _ in range(30):
            self.assertEqual(exchange(self.tcp, HELLO).status, 503)
        for door in (self.tcp, str(self.node.registry_socket)):
            self.assertEqual(self.other_user_gets(door), "200")
        self.assertEqual(self.node.log.read_text().count("connections of a user are refused"), 1)

    @needs_root
    def test_when_all_are_taken_the_one_with_most_makes_room(self) -> None:
        self.start(connections=30, connections_per_user=30)
        crowd = self.idle(30)
        self.assertEqual(self.other_user_gets(self.tcp), "200")
        self.assertEqual(crowd[0].recv(1), b"", "the longest idle has ended, by FIN")
        crowd[1].sendall(HELLO)
        self.assertTrue(crowd[1].recv(4096).startswith(b"HTTP/1.1 200"))
        figures = self.figures()
        self.assertEqual((figures["shed"], figures["refused"]["full"]), (1, 0))

    def test_who_is_being_answered_does_not_make_room(self) -> None:
        self.start(connections=3, connections_per_user=3)
        digest = list(self.image.blobs)[1]
        release = self.origin.hold(digest, 1 << 20)
        self.addCleanup(release)
        for _ in range(3):
            client = self.connect()
            path = f"/v2/origin.test/app/blobs/{digest}"
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 200"))
        refused = exchange(self.tcp, HELLO)
        self.assertEqual(refused.status, 503)
        self.assertIn("limits.connections", json.loads(refused.body)["errors"][0]["message"])


class Descriptors(Connections):
    def limit(self, descriptors: int) -> None:
        pid = self.node.process.pid
        hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors, hard))

    def used(self) -> int:
        """One more than the highest number that is in use."""
        return max(int(n) for n in os.listdir(f"/proc/{self.node.process.pid}/fd")) + 1

    def test_a_crowd_leaves_enough_for_all_else(self) -> None:
        self.start()
        self.limit(400)
        self.idle(300)
        figures = self.figures()
        # 256 are for blobs, upstream and the control socket.
        self.assertLessEqual(figures["open"], 400 - 256)
        self.assertEqual(figures["open"] + figures["shed"], 300)
        self.node.pull(self.image)

    def test_without_any_left_the_control_socket_still_answers(self) -> None:
        self.start()
        crowd = self.idle(50)
        self.limit(self.used())
        for _ in range(20):
            self.assertEqual(self.node.status()["state"], "ready")
        # The newest is told to go, or takes the place of one that is idle.
        self.assertIn(exchange(self.tcp, LAST).status, (200, 503))
        self.assertEqual(self.node.status()["state"], "ready")
        crowd[-1].sendall(HELLO)
        self.assertTrue(crowd[-1].recv(4096).startswith(b"HTTP/1.1 200"))
        self.limit(4096)
        self.node.pull(self.image)


class EarlyResets(Connections):
    def test_are_no_news_and_disturb_nobody(self) -> None:
        """As containerd's parallel fetch does it: open-ended ranges, each reset after its part."""
        self.start()
        digest = list(self.image.blobs)[1]
        path = f"/v2/origin.test/app/blobs/{digest}"
        for n in range(100):
            client = self.connect()
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            client.recv(1 + n * 100)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        self.node.pull(self.image)
        self.assertEqual(self.origin.fetches(digest), 1)
        self.wait_until_open(0)
        loud = [
            line
            for line in self.node.log.read_text().splitlines()
            if " warn " in line or " error " in line
        ]
        self.assertEqual([line for line in loud if "memory for secrets" not in line], [])


if __name__ == "__main__":
    unittest.main()
