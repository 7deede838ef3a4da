"""What the tests of slow, broken and lying upstreams share: a rough origin, a daemon, raw clients.

The daemon's patience with upstream is a second or two, so that a test of silence is short.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import sys
import tempfile
import time
import unittest
from pathlib import Path

from lab import MIB  # which also makes a SIGTERM orderly
from node import REGISTRY, Node
from raw import RawReply
from rough_origin import RoughOrigin, wait_for
from staithed import REPOSITORY_ROOT

__all__ = ["MIB", "REPOSITORY", "RoughCase", "full_size", "wait_for"]

REPOSITORY = "rough"
DEADLINE = 60.0


def full_size(name: str, small: int) -> int:
    """A size that CI keeps small; the environment gives the one of the long run."""
    return int(os.environ.get(name, small))


class Connection:
    """One client, who reads as much as it likes and leaves as it likes."""

    def __init__(self, path: Path | str, deadline: float = DEADLINE) -> None:
        self._until = time.monotonic() + deadline
        self.socket = socket.socket(socket.AF_UNIX)
        self.received = bytearray()
        self.ended = ""
        self._arm()
        self.socket.connect(str(path))

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, target: str, method: str = "GET", **headers: str) -> Connection:
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        return self

    def read(self, most: int = 1 << 18) -> bool:
        """False once the answer has ended, or the deadline is over; see `ended`."""
        try:
            self._arm()
            more = self.socket.recv(most)
        except TimeoutError:
            self.ended = "timeout"
            return False
        except (ConnectionResetError, BrokenPipeError):
            self.ended = "rst"
            return False
        if not more:
            self.ended = "fin"
            return False
        self.received += more
        return True

    def read_body(self, size: int) -> bytes:
        """The first bytes of the body; fewer if the answer ends before."""
        while len(self._body()) < size and self.read():
            pass
        return bytes(self._body()[:size])

    def reply(self) -> RawReply:
        """So far."""
        return RawReply(bytes(self.received), self.ended)

    def rest(self) -> RawReply:
        while self.read():
            pass
        return self.reply()

    def read_head(self) -> RawReply:
        while b"\r\n\r\n" not in self.received and self.read():
            pass
        return self.reply()

    def match(self, truth: bytes | memoryview) -> int:
        """Reads to the end, comparing and keeping nothing, so that a GiB costs no memory; gives
        the length of the body, and raises where it is wrong."""
        self.read_head()
        piece, at = bytearray(self._body()), 0
        while True:
            if truth[at : at + len(piece)] != piece:
                raise AssertionError(f"wrong bytes in the {len(piece)} after {at}")
            at += len(piece)
            self.received.clear()
            if not self.read(1 << 20):
                return at
            piece = self.received

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _body(self) -> memoryview:
        head = self.received.find(b"\r\n\r\n")
        return memoryview(self.received)[head + 4 :] if head >= 0 else memoryview(b"")

    def _arm(self) -> None:
        self.socket.settimeout(max(0.001, self._until - time.monotonic()))


class RoughCase(unittest.TestCase):
    redirects = False
    limits = {"upstream_connect": "1s", "upstream_first_byte": "2s", "upstream_stall": "1s"}

    def setUp(self) -> None:
        # A short name: paths of Unix sockets have little room.
        self.directory = Path(tempfile.mkdtemp(prefix="staithe-"))
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.origin = RoughOrigin(redirects=self.redirects)
        self.addCleanup(self.origin.close)
        self.node = Node(self.directory / "node", self.origin)
        self.node.configured({"limits": self.limits})
        self.node.config["registry"][0]["data_hosts"] = ["localhost"]
        self.addCleanup(self._end)

    def _end(self) -> None:
        self.node.stop()
        outcome = self._outcome  # type: ignore[attr-defined]
        failed = [test for test, _ in outcome.result.failures + outcome.result.errors]
        if any(getattr(test, "test_case", test) is self for test in failed):
            kept = REPOSITORY_ROOT / "build/e2e-logs" / self.id()
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.node.log, kept / self.node.log.name)
            print(self.node.process.tail(25), file=sys.stderr)
            print(f"--- the log is in {kept}", file=sys.stderr)

    def target(self, digest: str, repository: str = REPOSITORY, registry: str = REGISTRY) -> str:
        return f"/v2/{registry}/{repository}/blobs/{digest}"

    def connect(self, deadline: float = DEADLINE) -> Connection:
        # What is not closed by the test is closed with the daemon.
        return Connection(self.node.registry_socket, deadline)

    def get(self, digest: str, deadline: float = DEADLINE, **headers: str) -> RawReply:
        with self.connect(deadline) as client:
            return client.ask(self.target(digest), **headers).rest()

    def assert_whole(self, reply: RawReply, truth: bytes | memoryview, status: int = 200) -> None:
        """An answer of this status that is complete and right."""
        self.assertEqual(reply.status, status, reply.received[:500])
        self.assertEqual(reply.ended, "fin")
        self.assertTrue(reply.is_whole(), f"{len(reply.body)} bytes came of {reply.headers}")
        same = reply.body == truth
        self.assertTrue(same, f"{len(reply.body)} bytes came that are not the {len(truth)} right")

    def daemon_kib(self, name: str = "VmRSS") -> int:
        """Memory of the daemon as the kernel counts it: VmRSS now, VmHWM at most so far."""
        for line in Path(f"/proc/{self.node.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise LookupError(name)
