"""File systems of a test's own: in a file behind a loop device, or in memory.

Everything is mounted in a mount namespace of this process, so that nothing of it is left over,
however the test ends. Needs root.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import unittest
from pathlib import Path

MIB = 1024 * 1024
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
# _IOR('X', 125, __u32), which is EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN; the value: without
# flushing the log, as a loss of power does.
_SHUT_DOWN = 0x8004587D
_WITHOUT_LOG_FLUSH = 2

# Where these programs stand; not everybody's path has it.
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

# What each file system is made and mounted with. XFS is not made smaller than this.
SIZES = {"ext4": 64 * MIB, "xfs": 320 * MIB}
_MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "nodiscard"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-K"],
}
_OPTIONS = {"ext4": "loop,noinit_itable", "xfs": "loop"}
_CHECK = {"ext4": ["e2fsck", "-fn"], "xfs": ["xfs_repair", "-n"]}


def enter_private_mounts() -> None:
    """From here on this process and those it starts have mounts of their own."""
    if os.geteuid() != 0:
        raise unittest.SkipTest("mounting file systems needs root")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0 or libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, 0):
        reason = os.strerror(ctypes.get_errno())
        raise unittest.SkipTest(f"no mount namespace can be made here: {reason}")


def mount_memory(place: Path, options: str) -> None:
    place.mkdir()
    _run("mount", "-t", "tmpfs", "-o", options, "none", place)


def remount(place: Path, options: str) -> None:
    _run("mount", "-o", f"remount,{options}", place)


def unmount(place: Path) -> None:
    _run("umount", place)


class Disk:
    """One file system in a file."""

    def __init__(self, kind: str, file: Path, place: Path, size: int = 0) -> None:
        self.kind = kind
        self.file = file
        self.place = place
        self._size = size or SIZES[kind]
        self._mounted = False

    def make(self, *options: str) -> Disk:
        self.file.unlink(missing_ok=True)
        with open(self.file, "wb") as file:
            file.truncate(self._size)
        _run(*_MAKE[self.kind], *options, self.file)
        return self

    def copy(self, other: Disk) -> Disk:
        """Its holes stay holes."""
        _run("cp", "--sparse=auto", other.file, self.file)
        return self

    def mount(self) -> Disk:
        self.place.mkdir(exist_ok=True)
        _run("mount", "-t", self.kind, "-o", _OPTIONS[self.kind], self.file, self.place)
        self._mounted = True
        return self

    def unmount(self) -> None:
        if self._mounted:
            _run("umount", self.place)
        self._mounted = False

    def lose_power(self) -> None:
        """What is not on the disk by now is lost. All that is left to do is to unmount it."""
        fd = os.open(self.place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _SHUT_DOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))
        finally:
            os.close(fd)

    def fail(self) -> bool:
        """Has an ext4 believe that it has found an error in itself; False if it cannot be told."""
        device = _ask("findmnt", "-n", "-o", "SOURCE", self.place).stdout.strip()
        trigger = Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error")
        if not trigger.exists():
            return False
        trigger.write_text("1")
        return True

    def check(self) -> str:
        """What the file system's own checker has to say against it; it is not mounted."""
        found = _ask(*_CHECK[self.kind], self.file)
        return "" if found.returncode == 0 else found.stdout + found.stderr


def usable(kinds: tuple[str, ...], directory: Path) -> list[str]:
    """Those that can be made, mounted and shut down here; skips the test if there are none."""
    reasons = []
    found = []
    for kind in kinds:
        disk = Disk(kind, directory / "probe.img", directory / "probe")
        try:
            if not shutil.which(_MAKE[kind][0], path=_PATH):
                raise RuntimeError(f"{_MAKE[kind][0]} is not installed")
            disk.make().mount()
            try:
                disk.lose_power()
            finally:
                disk.unmount()
            found.append(kind)
        except (RuntimeError, OSError) as error:
            reasons.append(f"{kind}: {error}")
        finally:
            disk.file.unlink(missing_ok=True)
    if not found:
        raise unittest.SkipTest(f"no file system can lose its power here ({'; '.join(reasons)})")
    for reason in reasons:
        print(f"without {reason}")
    return found


def _ask(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": _PATH, "LC_ALL": "C"},
        check=False,
    )


def _run(*words: object) -> None:
    done = _ask(*words)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise RuntimeError(f"{' '.join(map(str, words))}: {said}")
