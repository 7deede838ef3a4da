#!/usr/bin/python3
"""The watchdog is fed by work: a thread that stands still is no work, whichever it is."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import tempfile
import time
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lab  # noqa: F401  where the other folders of tests are found
from node import Node
from origin import Origin

_PTRACE_SEIZE, _PTRACE_INTERRUPT, _PTRACE_DETACH = 0x4206, 0x4207, 17
_WALL = 0x40000000  # waitpid: for threads, too
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
INTERVAL = 0.2  # seconds between two signs of life


@contextmanager
def stopped(threads: list[int]) -> Iterator[None]:
    """These threads of another process do not run meanwhile, and all others do."""
    for thread in threads:
        for request in (_PTRACE_SEIZE, _PTRACE_INTERRUPT):
            if _libc.ptrace(request, thread, None, None) != 0:
                raise unittest.SkipTest(f"ptrace: {os.strerror(ctypes.get_errno())}")
        os.waitpid(thread, _WALL)
    try:
        yield
    finally:
        for thread in threads:
            _libc.ptrace(_PTRACE_DETACH, thread, None, None)


class Watchdog(unittest.TestCase):
    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        origin = Origin()
        self.addCleanup(origin.close)
        self.node = Node(Path(place.name) / "node", origin)
        self.node.environment["WATCHDOG_USEC"] = str(int(2 * INTERVAL * 1_000_000))
        self.node.launch()
        self.addCleanup(self.node.stop)
        self.manager = self.node.manager
        self.addCleanup(self.manager.close)
        self.wait_for_sign()

    def signs(self, seconds: float) -> int:
        """Those that come within this time."""
        count, end = 0, time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.manager], [], [], left)[0]:
                count += self.manager.recv(4096).split(b"\n").count(b"WATCHDOG=1")
        return count

    def wait_for_sign(self) -> None:
        self.manager.settimeout(20)
        while b"WATCHDOG=1" not in self.manager.recv(4096).split(b"\n"):
            pass

    def threads(self, name: str) -> list[int]:
        directory = Path(f"/proc/{self.node.process.pid}/task")
        return [int(t.name) for t in directory.iterdir() if (t / "comm").read_text() == f"{name}\n"]

    def wait_for_log(self, text: str) -> None:
        deadline = time.monotonic() + 20
        while text not in self.node.log.read_text():
            self.assertLess(time.monotonic(), deadline, f"the log does not say {text}")
            time.sleep(0.01)

    def test_is_fed_while_all_goes_on(self) -> None:
        for _ in range(3):
            self.wait_for_sign()

    def test_is_not_fed_while_one_thread_stands_still_and_the_log_names_it(self) -> None:
        for name, part in (("front", "part=front"), ("loop", "part=loops")):
            with self.subTest(name):
                self.assertTrue(self.threads(name))
                with stopped(self.threads(name)[-1:]):
                    self.wait_for_log(part)
                    self.signs(0)  # from before
                    self.assertEqual(self.signs(5 * INTERVAL), 0)
                self.wait_for_sign()

    def test_is_not_fed_while_the_main_loop_stands_still(self) -> None:
        with stopped([self.node.process.pid]):
            self.signs(INTERVAL)  # what was on its way
            self.assertEqual(self.signs(5 * INTERVAL), 0)
        self.wait_for_sign()


if __name__ == "__main__":
    unittest.main()
