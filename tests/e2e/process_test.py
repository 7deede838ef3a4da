#!/usr/bin/python3
"""No core and no look inside: every program that holds secrets, and everything tried on it.

Each attempt is also made on a program that is not protected, so that a machine on which nobody may
try shows as such.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import socket
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path

from intruder import REFUSED, intrude
from lab import needs_root
from staithed import binary, toml

USER = 54331  # whose programs these are
STRANGER = 54332
SLEEP = ["/bin/sleep", "60"]


class Child:
    """A program of a user that may write cores of any size, in a directory of its own."""

    def __init__(self, directory: Path, command: list[str], uid: int = USER) -> None:
        directory.mkdir()
        os.chown(directory, uid, uid)
        self.directory = directory
        self._in, self.stdin = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._become(command, uid)
            finally:
                os._exit(127)
        os.close(self._in)

    def _become(self, command: list[str], uid: int) -> None:
        os.dup2(self._in, 0)
        out = os.open(self.directory / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(out, 1)
        os.dup2(out, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
        os.chdir(self.directory)
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        os.execv(command[0], command)

    def output(self) -> str:
        return (self.directory / "output").read_text()

    def file(self, name: str) -> Path:
        return Path(f"/proc/{self.pid}/{name}")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            if os.waitpid(self.pid, os.WNOHANG)[0] or time.monotonic() > deadline:
                raise AssertionError(f"{what}: {self.output()}")
            time.sleep(0.01)

    def is_a_program_that_waits(self, name: str) -> bool:
        """Not this test's fork any more, and it has come to where it waits for input."""
        state = self.file("stat").read_text().rpartition(")")[2].split()[0]
        return self.file("comm").read_text().strip() == name[:15] and state == "S"

    def killed_by(self, number: int) -> bool:
        """Whether that has left a core."""
        os.kill(self.pid, number)
        _, status = os.waitpid(self.pid, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == number, status
        self.pid = 0
        return os.WCOREDUMP(status)

    def close(self) -> None:
        os.close(self.stdin)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@needs_root
class Protection(unittest.TestCase):
    def setUp(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="staithe-"))
        self.addCleanup(shutil.rmtree, self.place, True)
        self.place.chmod(0o755)
        self._count = 0

    def program(self, name: str) -> str:
        """Where that user may run it, wherever it was built."""
        copy = self.place / name
        if not copy.exists():
            shutil.copy(binary(name), copy)
            copy.chmod(0o755)
        return str(copy)

    def start(self, command: list[str]) -> Child:
        self._count += 1
        child = Child(self.place / str(self._count), command)
        self.addCleanup(child.close)
        return child

    def staithed(self) -> Child:
        directory = self.place / f"own{self._count}"
        directory.mkdir()
        os.chown(directory, USER, USER)
        config = self.place / "staithe.toml"
        self.control = directory / "control.sock"
        config.write_text(toml({
            "listen": {"registry": [f"unix:{directory}/registry.sock"],
                       "control": str(self.control)},
            "cache": {"directory": str(directory / "cache"), "min_free": 0},
        }))  # fmt: skip
        config.chmod(0o644)
        child = self.start([self.program("staithed"), "--config", str(config)])
        child.wait_until(self.control.exists, "staithed does not start")
        return child

    def staithe(self) -> Child:
        """The operator's command, at a daemon that takes its time."""
        path = self.place / f"silent{self._count}.sock"
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        child = self.start([self.program("staithe"), "--socket", str(path), "status"])
        child.wait_until(lambda: child.is_a_program_that_waits("staithe"), "staithe does not wait")
        connection, _ = listener.accept()
        self.addCleanup(connection.close)
        return child

    def helper(self, name: str, *words: str) -> Child:
        """Waits for what its client has to say."""
        child = self.start([self.program(name), *words])
        child.wait_until(lambda: child.is_a_program_that_waits(name), f"{name} does not wait")
        return child

    def programs(self) -> dict[str, Callable[[], Child]]:
        return {
            "staithed": self.staithed,
            "staithe": self.staithe,
            "docker-credential-staithe": lambda: self.helper("docker-credential-staithe", "get"),
            "staithe-credential-provider": lambda: self.helper("staithe-credential-provider"),
        }

    def unprotected(self) -> Child:
        child = self.start(SLEEP)
        child.wait_until(lambda: child.is_a_program_that_waits("sleep"), "no sleep")
        return child

    def test_no_signal_makes_them_leave_a_core(self) -> None:
        for number in (signal.SIGQUIT, signal.SIGABRT, signal.SIGSEGV):
            child = self.unprotected()
            if not child.killed_by(number):
                self.skipTest("this machine writes no cores at all")
        for name, start in self.programs().items():
            for number in (signal.SIGQUIT, signal.SIGABRT, signal.SIGSEGV):
                with self.subTest(program=name, signal=number.name):
                    child = start()
                    limits = child.file("limits").read_text()
                    self.assertRegex(limits, r"Max core file size\s+0\s+0\s")
                    self.assertFalse(child.killed_by(number))
                    left = [path.name for path in child.directory.iterdir()]
                    self.assertEqual(left, ["output"])

    def test_nobody_of_another_user_and_nobody_of_the_same_looks_inside(self) -> None:
        bait = self.unprotected()
        same, loot = intrude(bait.pid, USER)
        self.assertEqual((same["mem"], same["environ"]), ("read", "read"))
        self.assertIn(b"\x7fELF", loot)
        if same["attach"] == "done":  # Else this machine lets nobody trace, which proves no more.
            self.assertEqual(same["process_vm_readv"], "Bad address")
        for name, start in self.programs().items():
            child = start()
            for uid in (USER, STRANGER):
                with self.subTest(program=name, uid=uid):
                    self.assertEqual(intrude(child.pid, uid), (REFUSED, b""))
                    # It is its own user's process, whose files are not that user's.
                    self.assertEqual(child.file("status").stat().st_uid, 0)

    def test_the_daemons_secrets_have_locked_memory_from_the_start(self) -> None:
        child = self.staithed()
        lines = child.file("status").read_text().splitlines()
        found = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        self.assertGreaterEqual(int(found["VmLck"][0]), 128)  # KiB: one region
        self.assertEqual(found["Uid"], [str(USER)] * 4)
        self.assertEqual(set(found["CapEff"] + found["CapPrm"] + found["CapAmb"]), {"0" * 16})


if __name__ == "__main__":
    unittest.main()
