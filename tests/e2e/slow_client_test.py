#!/usr/bin/python3
"""Clients that take their time: each phase has its deadline, and none counts upstream's time."""

from __future__ import annotations

import select
import socket
import time
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

from node import Node
from origin import Origin, make_image

SIZE = 32 << 20
HELLO = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


class SlowClient(unittest.TestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.origin = Origin()
        self.addCleanup(self.origin.close)
        self.image = self.origin.add(make_image("app", [SIZE], seed=1))
        self.digest = list(self.image.blobs)[1]
        self.node = Node(Path(directory.name) / "node", self.origin)
        self.addCleanup(self.node.stop)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.node.config["listen"]["registry"].append(f"127.0.0.1:{self.port}")
        self.node.configured({"limits": {"header_timeout": "1s", "idle_timeout": "2s"}})
        self.node.start()

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        self.addCleanup(client.close)
        return client

    def ask_for_blob(self) -> socket.socket:
        client = self.connect()
        path = f"/v2/origin.test/app/blobs/{self.digest}"
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode())
        return client

    def rest(self, client: socket.socket) -> bytes:
        """Until the end, which has to be a FIN: a reset would be an exception."""
        received = bytearray()
        while piece := client.recv(1 << 20):
            received += piece
        return bytes(received)

    def ended(self, phase: str) -> int:
        return self.node.status()["connections"]["ended"][phase]

    def wait_for_end(self, phase: str) -> None:
        deadline = time.monotonic() + 30
        while not self.ended(phase):
            self.assertLess(time.monotonic(), deadline, "it is still waited for")
            time.sleep(0.05)

    def test_a_head_that_drips_is_not_waited_for(self) -> None:
        client = self.connect()
        for byte in b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"y" * 1000:
            client.sendall(bytes([byte]))
            if select.select([client], [], [], 0.05)[0]:
                break
        self.assertEqual(client.recv(1), b"", "ended by FIN")
        self.assertEqual(self.ended("head"), 1)

    def test_an_idle_connection_ends_by_fin(self) -> None:
        client = self.connect()
        client.sendall(HELLO)
        self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 200"))
        self.assertEqual(client.recv(1), b"")
        self.assertEqual(self.ended("idle"), 1)

    def test_a_client_that_takes_nothing_is_ended_by_fin(self) -> None:
        self.node.pull(self.image)
        client = self.ask_for_blob()
        self.wait_for_end("slow")
        self.assertLess(len(self.rest(client)), SIZE)

    def test_a_client_that_takes_little_at_a_time_gets_all(self) -> None:
        self.node.pull(self.image)
        client = self.ask_for_blob()
        received = bytearray()
        # About a MB a second, for several times as long as it may be idle.
        for _ in range(100):
            received += client.recv(64 * 1024)
            select.select([], [], [], 0.06)
        received += self.rest(client)
        self.assertEqual(received.partition(b"\r\n\r\n")[2], self.image.blobs[self.digest])
        self.assertEqual(self.ended("slow"), 0)

    def test_a_client_that_waits_for_upstream_is_waited_for(self) -> None:
        release = self.origin.hold(self.digest, 1 << 20)
        client = self.ask_for_blob()
        received = client.recv(1 << 20)
        # Longer than any deadline of ours: three connections come and are ended for being idle.
        for _ in range(3):
            idle = self.connect()
            idle.sendall(HELLO)
            self.rest(idle)
        release()
        received += self.rest(client)
        self.assertEqual(received.partition(b"\r\n\r\n")[2], self.image.blobs[self.digest])
        self.assertEqual(self.ended("slow"), 0)


if __name__ == "__main__":
    unittest.main()
