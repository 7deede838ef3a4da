#!/usr/bin/python3
"""Each call to the file system of the cache fails in turn, while an image is pulled and while the
daemon starts and ends: no pull fails, nothing is wrong, nothing leaks, and no file is synced again
whose sync has failed (F6, F7, F9, F11, F12).

A point is `pull:error:number`, and so for `hit`, `start` and `stop`; `halve` instead of an error
makes a read or write do half of what it was asked for. STAITHE_POINTS=N says how many of each.
"""

from __future__ import annotations

import errno
import itertools
import shutil
import time
import unittest
from collections.abc import Iterator

import disk_calls
from disk_calls import OPENING, READING, SIZED, WRITING
from disks import MIB
from node import Broken, Client, Node, Wrong
from origin import Image, Origin, make_image
from points import Tally, fast_directory, only_point, seed, wanted
from scenario import wait_until_quiet

# What a kernel may answer, and to which calls.
ERRORS: dict[str, tuple[str, ...]] = {
    "EIO": READING + WRITING + OPENING,
    "ENOMEM": READING + WRITING + OPENING,
    "ENOSPC": WRITING + OPENING,
    "EDQUOT": WRITING + OPENING,
    "EMFILE": OPENING,
    "EINTR": SIZED,
    "halve": SIZED,
}
# These are no failures at all: what was pulled is stored.
HARMLESS = ("EINTR", "halve")
SIZES = [0, 4096, 150_000, 700_000]
# A start gives up, with a sentence, only if the directory itself cannot be taken.
TAKING = {"", "/lock"}
GIVES_UP = (1, 3)


def arm(node: Node, error: str, number: int) -> None:
    if error == "halve":
        node.calls.arm(number, disk_calls.HALVE, only=ERRORS[error])
    else:
        code = getattr(errno, error)
        node.calls.arm(number, disk_calls.FAIL, error=code, only=ERRORS[error])


class Faults(unittest.TestCase):
    def setUp(self) -> None:
        self.home = fast_directory("staithe-fault-")
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)
        self.origin = Origin()
        self.addCleanup(self.origin.close)

    def node(self, name: str) -> Node:
        # Room for all of them: an eviction that the end interrupts is another test.
        node = Node(self.home / name, self.origin, max_size=1024 * MIB)
        self.addCleanup(node.stop)
        node.counted = True
        return node

    def image(self, number: int) -> Image:
        return self.origin.add(make_image(f"image{number}", SIZES, seed()))


    def pull(self, node: Node, image: Image) -> None:
        """As a client does that tries once more what was cut off in the middle of a body."""
        for digest in ["", *image.blobs]:
            with node.client() as client:
                try:
                    self.get(client, image, digest)
                    continue
                except Broken as broken:
                    if client.sent == 0:
                        raise Wrong(f"cut before its first byte: {broken}") from broken
            self.tally.counts["transfers tried twice"] += 1
            with node.client() as client:
                self.get(client, image, digest)

    @staticmethod
    def get(client: Client, image: Image, digest: str) -> None:
        if digest:
            client.blob(image, digest)
        else:
            client.manifest(image, "1")


class Pull(Faults):
    def test_a_call_that_fails_costs_no_pull(self) -> None:
        self.daemon = self.node("node").start()
        self.numbers = itertools.count()
        self.tally = Tally("system_fault_test, pulls")
        self.learn_descriptors()
        alone = only_point()
        points = [alone] if alone else itertools.islice(self.points(), wanted(10_000))
        if not alone or alone.startswith("pull:"):
            self.tally.run(points, self.try_point, self.daemon.log)
        self.assertEqual(self.tally.failures, [])
        self.daemon.stop_cleanly()
        self.daemon.check_files()
        self.daemon.check_index()

    def points(self) -> Iterator[str]:
        for error, only in ERRORS.items():
            self.store_again()
            self.daemon.calls.count(only)
            self.pull_another()
            calls = self.daemon.calls.matching
            yield from (f"pull:{error}:{number}" for number in range(1, calls + 1))

    def pull_another(self) -> None:
        image = self.image(next(self.numbers))
        self.daemon.pull(image)
        self.daemon.settle()
        self.origin.remove(image)

    def learn_descriptors(self) -> None:
        """What is open whatever is pulled, once everything has been used."""
        self.pull_another()
        self.always_open = self.others_open()

    def store_again(self) -> None:
        """The next point is of a daemon that stores; Lasting is about how it finds back alone."""
        if self.daemon.status()["cache"]["mode"] == "read-write":
            return
        self.tally.counts["faults that stopped the storing"] += 1
        self.daemon.stop_cleanly()
        self.daemon.start()
        self.learn_descriptors()

    def try_point(self, point: str) -> None:
        _, error, number = point.split(":")
        self.store_again()
        image = self.image(next(self.numbers))
        arm(self.daemon, error, int(number))
        try:
            self.pull(self.daemon, image)
            self.daemon.settle()
            self.daemon.calls.disarm()
            self.check(image, error)
        except AssertionError as why:
            raise Wrong(f"{self.daemon.calls.hit()}: {why}") from why
        finally:
            self.daemon.calls.disarm()
        self.tally.counts["calls failed"] += self.daemon.calls.hits
        self.origin.remove(image)

    def check(self, image: Image, error: str) -> None:
        calls = self.daemon.calls
        if calls.resyncs:
            raise Wrong(f"{calls.resync_path} was synced again after its sync had failed")
        if self.daemon.process.exit_code() is not None:
            raise Wrong(f"the daemon ended with {self.daemon.process.exit_code()}")
        if error in HARMLESS:
            stored = self.daemon.blob_files()
            for digest in image.blobs:
                if digest not in stored:
                    raise Wrong(f"{digest} is not stored")
        self.daemon.pull(image)
        self.check_descriptors()

    def check_descriptors(self) -> None:
        """A stored blob may stay open once; all else is as before."""
        deadline = time.monotonic() + 5
        while True:
            stored = {str(path) for path in self.daemon.blob_files().values()}
            opened = self.daemon.descriptors()
            blobs = [target for target in opened if target in stored]
            if len(blobs) == len(set(blobs)) and self.others_open() == self.always_open:
                return
            if time.monotonic() > deadline:
                more = sorted(set(opened) - stored - set(self.always_open))
                raise Wrong(f"descriptors are left: {more or blobs}")
            time.sleep(0.01)

    def others_open(self) -> list[str]:
        blobs = str(self.daemon.cache / "blobs")
        return [
            target
            for target in self.daemon.descriptors()
            if not target.startswith(blobs) or target.endswith("(deleted)")
        ]


class OnStored(Faults):
    """Each point begins with a copy of a cache that holds an image."""

    def setUp(self) -> None:
        super().setUp()
        self.few = self.image(0)
        self.stored = self.node("stored")
        self.stored.start()
        self.stored.pull(self.few)
        self.stored.settle()
        self.stored.stop_cleanly()

    def copy(self) -> Node:
        node = self.node("point")
        shutil.copytree(self.stored.cache, node.cache)
        return node

    def drop(self, node: Node) -> None:
        node.stop()
        shutil.rmtree(self.home / "point")

    @staticmethod
    def in_turn(scenario: str, calls: dict[str, int]) -> Iterator[str]:
        """The first call with each error, the second with each, and so on."""
        for number in range(1, max(calls.values()) + 1):
            for error in calls:
                if number <= calls[error]:
                    yield f"{scenario}:{error}:{number}"


class Start(OnStored):
    def test_a_call_that_fails_hinders_no_start(self) -> None:
        self.tally = Tally("system_fault_test, starts")
        self.given_up: dict[str, str] = {}
        alone = only_point()
        points = [alone] if alone else itertools.islice(self.points(), wanted(120))
        if not alone or alone.startswith("start:"):
            self.tally.run(points, self.try_point, self.home / "log")
        for what, sentence in sorted(self.given_up.items()):
            print(f"no start: {what}: {sentence}")
        self.assertEqual(self.tally.failures, [])

    def points(self) -> Iterator[str]:
        """The calls until it is ready, and then some of those that follow: it looks into many
        directories that are not there."""
        calls = {}
        for error, only in ERRORS.items():
            node = self.copy()
            node.calls.count(only)
            node.start()
            calls[error] = node.calls.matching
            self.drop(node)
        yield from self.in_turn("start", calls)

    def try_point(self, point: str) -> None:
        _, error, number = point.split(":")
        node = self.copy()
        try:
            arm(node, error, int(number))
            node.launch()
            if node.wait_until_ready():
                self.check(node)
            else:
                self.check_end(node)
            self.tally.counts["calls failed"] += node.calls.hits
        except Exception as why:
            shutil.copy(node.log, self.home / "log")
            raise Wrong(f"{node.calls.hit()}: {why!r}") from why
        finally:
            self.drop(node)

    def check(self, node: Node) -> None:
        node.pull(self.few)
        node.settle()
        node.calls.disarm()
        if node.calls.resyncs:
            raise Wrong(f"{node.calls.resync_path} was synced again after its sync had failed")
        node.pull(self.few)
        node.stop_cleanly()
        node.check_files()

    def check_end(self, node: Node) -> None:
        code = node.wait_for_death()
        of = node.calls.hit_path.removeprefix(str(node.cache))
        said = [line for line in node.log.read_text().splitlines() if "cannot run" in line]
        if of not in TAKING or code not in GIVES_UP or not said:
            raise Wrong(f"no start: exit code {code}, {said}")
        self.tally.counts["starts given up"] += 1
        what = f"{node.calls.hit_call} of the {'lock' if of else 'directory'}, exit code {code}"
        self.given_up[what] = said[-1].partition("error=")[2]


class Hit(OnStored):
    """The first reading of what is stored, which is verified meanwhile."""

    def test_a_call_that_fails_costs_no_hit(self) -> None:
        self.tally = Tally("system_fault_test, hits")
        alone = only_point()
        points = [alone] if alone else itertools.islice(self.points(), wanted(80))
        if not alone or alone.startswith("hit:"):
            self.tally.run(points, self.try_point, self.home / "log")
        self.assertEqual(self.tally.failures, [])

    def points(self) -> Iterator[str]:
        calls = {}
        for error, only in ERRORS.items():
            node = self.running()
            node.calls.count(only)
            self.pull(node, self.few)
            calls[error] = node.calls.matching
            self.drop(node)
        yield from self.in_turn("hit", calls)

    def running(self) -> Node:
        node = self.copy().start()
        wait_until_quiet(node)
        return node

    def try_point(self, point: str) -> None:
        _, error, number = point.split(":")
        node = self.running()
        try:
            arm(node, error, int(number))
            self.pull(node, self.few)
            self.tally.counts["calls failed"] += node.calls.hits
            node.calls.disarm()
            self.pull(node, self.few)
            node.settle()
            node.stop_cleanly()
            node.check_files()
        except Exception as why:
            shutil.copy(node.log, self.home / "log")
            raise Wrong(f"{node.calls.hit()}: {why!r}") from why
        finally:
            self.drop(node)


class Stop(OnStored):
    """The end, when the index is written and its log goes into it."""

    def test_a_call_that_fails_hinders_no_end(self) -> None:
        self.tally = Tally("system_fault_test, ends")
        alone = only_point()
        points = [alone] if alone else itertools.islice(self.points(), wanted(80))
        if not alone or alone.startswith("stop:"):
            self.tally.run(points, self.try_point, self.home / "log")
        self.assertEqual(self.tally.failures, [])

    def points(self) -> Iterator[str]:
        calls = {}
        for error, only in ERRORS.items():
            node = self.running()
            node.calls.count(only)
            node.stop_cleanly()
            calls[error] = node.calls.matching
            self.drop(node)
        yield from self.in_turn("stop", calls)

    def running(self) -> Node:
        """With something that its end has to write."""
        node = self.copy().start()
        wait_until_quiet(node)
        node.pull(self.few)
        node.settle()
        return node

    def try_point(self, point: str) -> None:
        _, error, number = point.split(":")
        node = self.running()
        try:
            arm(node, error, int(number))
            node.stop_cleanly()
            self.tally.counts["calls failed"] += node.calls.hits
            if node.calls.resyncs:
                raise Wrong(f"{node.calls.resync_path} was synced again after its sync had failed")
            node.calls.disarm()
            node.start()
            node.pull(self.few)
            node.wait_until_reconciled()
            node.stop_cleanly()
            node.check_files()
            node.check_index()
        except Exception as why:
            shutil.copy(node.log, self.home / "log")
            raise Wrong(f"{node.calls.hit()}: {why!r}") from why
        finally:
            self.drop(node)


class Lasting(Faults):
    """A file system that goes on failing, and then works again."""

    CASES = {
        "EIO": ("write",),
        "ENOSPC": ("write", "mkdir"),
        "EDQUOT": ("write",),
        "EMFILE": ("open",),
        "EROFS": WRITING,
    }

    def test_writing_resumes_by_itself(self) -> None:
        nodes = {error: self.node(error).start() for error in self.CASES}
        for error, node in nodes.items():
            node.pull(self.image(0))
            node.settle()
            code = getattr(errno, error)
            only = self.CASES[error]
            node.calls.arm(1, disk_calls.FAIL, code, only, disk_calls.ALWAYS)
            for number in range(1, 6):
                node.pull(self.image(number))
            cache = node.settle()["cache"]
            self.assertIn(cache["mode"], ("pass-through", "read-only"), f"{error}: {cache}")
            self.assertTrue(cache["mode_reason"], error)
            if error in ("ENOSPC", "EDQUOT"):
                continue  # For which what was cached may have had to go.
            with node.client() as client:
                for digest in self.image(0).blobs:
                    self.assertIn("hit", client.blob(self.image(0), digest), error)
        for node in nodes.values():
            node.calls.disarm()
        deadline = time.monotonic() + 20
        waiting = dict(nodes)
        while waiting:
            for error, node in list(waiting.items()):
                if node.status()["cache"]["mode"] == "read-write":
                    del waiting[error]
            if time.monotonic() > deadline:
                self.fail(f"it did not find back to writing after {', '.join(waiting)}")
            time.sleep(0.05)
        for error, node in nodes.items():
            node.pull(self.image(6))
            node.settle()
            stored = node.blob_files()
            self.assertLessEqual(set(self.image(6).blobs), set(stored), error)
            node.stop_cleanly()
            node.check_files()
        print(f"system_fault_test: {len(nodes)} lasting faults, {6 * len(nodes)} pulls, 0 failures")


if __name__ == "__main__":
    unittest.main()
