#!/usr/bin/python3
"""A thousand pulls each on a full disk, on one without inodes, on a read-only one, and within a
file size limit: all succeed with the right bytes, the status says what is the matter, and storing
resumes by itself when the cause is gone (F7, F8, F9, F10).

STAITHE_PULLS=N says how many. Needs root; those on ext4 need mkfs.ext4 and loop devices.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import time
import unittest
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from disks import MIB, Disk, enter_private_mounts, mount_memory, remount, unmount
from node import Node
from origin import Image, Origin, make_image
from points import fast_directory, seed

PULLS = int(os.environ.get("STAITHE_PULLS", 1000))
# Pulled in turn; together they are more than what a full disk gives back by an eviction.
IMAGES = 40
SIZES = [40_000]
# More than the file size limit.
LARGE = [300_000]
LIMIT = 256 * 1024
# The store looks at its disk and tries to write every 10 s.
RESUMES_WITHIN = 20


class Case:
    """A daemon whose disk takes nothing, or not all."""

    modes = ("pass-through",)
    keeps = True  # what was stored before
    large = False

    def __init__(self, home: Path, origin: Origin) -> None:
        self.name = type(self).__name__
        self.home = home / self.name
        self.home.mkdir()
        self.place = self.home / "disk"
        self.end = ExitStack()
        self.end.callback(shutil.rmtree, self.home, ignore_errors=True)
        self.mount()
        self.node = Node(self.home / "node", origin, self.place / "cache", max_size=64 * MIB)
        # One sentence per pull would fill the log's own disk.
        self.node.configured({"log": {"level": "error"}})
        self.end.callback(self.node.stop)

    def mount(self) -> None:
        self.memory("size=8m")

    def memory(self, options: str) -> None:
        mount_memory(self.place, options)
        self.end.callback(unmount, self.place)

    def ext4(self, *options: str) -> None:
        self.disk = Disk("ext4", self.home / "disk.img", self.place, 16 * MIB)
        self.disk.make(*options).mount()
        self.end.callback(self.disk.unmount)

    def exhaust(self) -> None:
        """The daemon runs, or is about to start."""
        self.give_back = fill_blocks(self.place)

    def give_back(self) -> None:
        raise NotImplementedError


class FullInMemory(Case):
    keeps = False


class FullExt4(Case):
    keeps = False

    def mount(self) -> None:
        self.ext4("-m", "0")


class WithoutInodes(Case):
    keeps = False

    def mount(self) -> None:
        self.ext4("-m", "0", "-N", "300")

    def exhaust(self) -> None:
        self.give_back = fill_inodes(self.place)


class ReadOnlyBefore(Case):
    """While the index is open for writing, a file system cannot be mounted read-only."""

    modes = ("read-only",)

    def exhaust(self) -> None:
        self.node.stop_cleanly()
        remount(self.place, "ro")
        self.node.start()

    def give_back(self) -> None:
        remount(self.place, "rw")


class TurnedReadOnly(Case):
    """By an error that the file system finds, which only mounting it anew mends."""

    modes = ("read-only", "pass-through")

    def mount(self) -> None:
        self.ext4()
        remount(self.place, "errors=remount-ro")

    def exhaust(self) -> None:
        if not self.disk.fail():
            raise RuntimeError("this kernel cannot be told to find an error in an ext4")

    give_back = None


class FileSizeLimit(Case):
    """What is small enough is stored all the time."""

    modes = ("pass-through", "read-write")
    large = True

    def mount(self) -> None:
        self.memory("size=64m")

    def exhaust(self) -> None:
        self.limit(LIMIT)

    def give_back(self) -> None:
        self.limit(resource.RLIM_INFINITY)

    def limit(self, size: int) -> None:
        limits = (size, resource.RLIM_INFINITY)
        resource.prlimit(self.node.process.pid, resource.RLIMIT_FSIZE, limits)


CASES = (FullInMemory, FullExt4, WithoutInodes, ReadOnlyBefore, TurnedReadOnly, FileSizeLimit)


class SmallDisk(unittest.TestCase):
    def test_all_pulls_succeed_and_storing_resumes(self) -> None:
        enter_private_mounts()
        home = fast_directory("staithe-small-")
        self.addCleanup(shutil.rmtree, home, ignore_errors=True)
        self.origin = Origin()
        self.addCleanup(self.origin.close)
        self.images = [self.image(f"image{i}", SIZES) for i in range(IMAGES)]
        self.large = [self.image(f"large{i}", LARGE) for i in range(4)]
        self.kept = self.image("kept", SIZES)
        exhausted = []
        for case_type in CASES:
            with self.subTest(case_type.__name__):
                try:
                    case = case_type(home, self.origin)
                except (RuntimeError, FileNotFoundError) as error:
                    print(f"small_disk_test: not {case_type.__name__}: {error}")
                    continue
                self.addCleanup(case.end.close)
                self.pull_exhausted(case)
                exhausted.append(case)
        # All of them wait for the next look at the disk together.
        for case in exhausted:
            if case.give_back:
                case.give_back()
        for case in exhausted:
            with self.subTest(case.name):
                if case.give_back:
                    self.resumes(case.node)
                    print(f"small_disk_test: {case.name} stores again", flush=True)

    def image(self, name: str, sizes: list[int]) -> Image:
        return self.origin.add(make_image(name, sizes, seed()))

    def pull_exhausted(self, case: Case) -> None:
        node = case.node.start()
        if case.keeps:
            node.pull(self.kept)
            node.settle()
        try:
            case.exhaust()
        except RuntimeError as error:
            print(f"small_disk_test: not {case.name}: {error}")
            case.give_back = None
            return
        images = self.large if case.large else self.images
        start = time.monotonic()
        for number in range(PULLS):
            node.pull(images[number % len(images)])
        seconds = time.monotonic() - start
        print(f"small_disk_test: {case.name}: {PULLS} pulls in {seconds:.1f} s, 0 failures")
        cache = node.settle()["cache"]
        self.assertIn(cache["mode"], case.modes, cache)
        self.assertEqual(cache["mode_reason"] == "", cache["mode"] == "read-write", cache)
        if case.keeps:
            with node.client() as client:
                for digest in self.kept.blobs:
                    self.assertIn("hit", client.blob(self.kept, digest))
        else:
            # A disk that is full is no reason not to start.
            node.stop_cleanly()
            case.exhaust()
            node.start()
            node.pull(self.kept)

    def resumes(self, node: Node) -> None:
        deadline = time.monotonic() + RESUMES_WITHIN
        while (cache := node.status()["cache"])["mode"] != "read-write":
            self.assertLess(time.monotonic(), deadline, cache)
            time.sleep(0.05)
        fresh = self.image("fresh", [*SIZES, *LARGE])
        node.pull(fresh)
        node.settle()
        self.assertLessEqual(set(fresh.blobs), set(node.blob_files()))
        node.stop_cleanly()
        node.check_files()


def fill_blocks(place: Path) -> Callable[[], None]:
    """Takes every block that is left; gives what gives them back."""
    filler = place / "filler"
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (MIB, 64 * 1024, 4096, 4096):
            while True:
                try:
                    os.write(fd, bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break
            os.fsync(fd)
    finally:
        os.close(fd)
    return filler.unlink


def fill_inodes(place: Path) -> Callable[[], None]:
    directory = place / "fillers"
    directory.mkdir(exist_ok=True)
    number = len(list(directory.iterdir()))
    while True:
        try:
            (directory / str(number)).touch()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            break
        number += 1
    return lambda: shutil.rmtree(directory)


if __name__ == "__main__":
    unittest.main()
