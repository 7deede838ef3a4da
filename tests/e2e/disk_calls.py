"""The calls that a daemon makes to the file system of its cache, counted; one of them broken.

The other half is tests/crash/disk_calls.cc, which the daemon is started with; this one says what is
to happen at which call, while the daemon runs, and reads what has happened, after its death.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from pathlib import Path

import lab  # noqa: F401 - first, since it says where the other helpers are
from staithed import binary

KILL_BEFORE, KILL_AFTER, FAIL, HALVE, SHUT_DOWN = range(1, 6)
ALWAYS = 1 << 62

# What each kind of call may be told by a kernel, as tests/crash/disk_calls.cc names them.
READING = ("read", "readdir", "stat", "statvfs", "access", "sendfile", "lock")
WRITING = ("write", "sync", "truncate", "fallocate", "rename", "link", "unlink", "mkdir", "chmod")
OPENING = ("open",)
SIZED = ("read", "write", "sendfile")


class _Control(ctypes.Structure):
    _fields_ = [
        ("counted", ctypes.c_uint64),
        ("matching", ctypes.c_uint64),
        ("armed", ctypes.c_uint64),
        ("at", ctypes.c_uint64),
        ("times", ctypes.c_uint64),
        ("action", ctypes.c_uint64),
        ("error", ctypes.c_uint64),
        ("write_back_at", ctypes.c_uint64),
        ("hits", ctypes.c_uint64),
        ("resyncs", ctypes.c_uint64),
        ("only", ctypes.c_char * 128),
        ("hit_call", ctypes.c_char * 32),
        ("hit_path", ctypes.c_char * 256),
        ("resync_path", ctypes.c_char * 256),
    ]


class DiskCalls:
    """Shared with the daemons that get `environment`, one at a time."""

    def __init__(self, directory: Path, control: Path) -> None:
        self._directory = directory
        self._file = control
        control.write_bytes(bytes(ctypes.sizeof(_Control)))
        with open(control, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), ctypes.sizeof(_Control))
        self._control = _Control.from_buffer(self._map)

    @property
    def environment(self) -> dict[str, str]:
        """Only now is the library needed: there is none for a daemon with a sanitizer."""
        return {
            "LD_PRELOAD": str(binary("tests/disk_calls.so")),
            "STAITHE_CALLS_DIRECTORY": str(self._directory),
            "STAITHE_CALLS_CONTROL": str(self._file),
        }

    def arm(
        self,
        at: int,
        action: int,
        error: int = 0,
        only: tuple[str, ...] = (),
        times: int = 1,
        write_back_at: int = 0,
    ) -> None:
        """The `at`-th call from now, and `times - 1` after it; only those of these names count."""
        c = self._control
        c.armed = 0
        c.at, c.action, c.error, c.times = at, action, error, times
        c.write_back_at = write_back_at
        c.only = f",{','.join(only)},".encode() if only else b""
        c.hits = c.resyncs = c.matching = 0
        c.hit_call = c.hit_path = c.resync_path = b""
        c.armed = 1

    def count(self, only: tuple[str, ...] = ()) -> None:
        """Nothing happens; `matching` says how many calls there were since."""
        self.arm(0, FAIL, only=only, times=0)

    def disarm(self) -> None:
        self._control.armed = 0

    @property
    def counted(self) -> int:
        return self._control.counted

    @property
    def matching(self) -> int:
        return self._control.matching

    @property
    def hits(self) -> int:
        return self._control.hits

    @property
    def resyncs(self) -> int:
        """Syncs of a file whose sync had failed before, since the daemon's start."""
        return self._control.resyncs

    def hit(self) -> str:
        """The call that it happened to, for a sentence about it."""
        c = self._control
        if not c.hits:
            return "no call"
        what = {
            KILL_BEFORE: "killed before",
            KILL_AFTER: "killed after",
            FAIL: f"{errno.errorcode.get(c.error, c.error)} for",
            HALVE: "half of",
            SHUT_DOWN: "power lost before",
        }[c.action]
        return f"{what} {c.hit_call.decode()} {os.fsdecode(c.hit_path)} (call {c.at})"

    @property
    def hit_call(self) -> str:
        return self._control.hit_call.decode()

    @property
    def hit_path(self) -> str:
        return os.fsdecode(self._control.hit_path)

    @property
    def resync_path(self) -> str:
        return os.fsdecode(self._control.resync_path)
