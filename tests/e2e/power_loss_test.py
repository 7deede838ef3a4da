#!/usr/bin/python3
"""Power is lost at each call to the file system of a start, a cold pull, one that goes on where
another stopped, and an eviction, and at random moments: what was reported as stored is there, and
nothing under a digest is damaged (F2).

The cache is on a file system of its own behind a loop device, which is shut down without flushing
its log, then mounted again. That drops what was not synced, as a loss of power does. At a random
earlier call everything is written back, as the kernel does by itself now and then.

A point is `file system:scenario:number:round`; STAITHE_POINTS=N says how many, see points.py. Needs
root, loop devices, and mkfs.ext4 or mkfs.xfs.
"""

from __future__ import annotations

import itertools
import random
import shutil
import threading
import unittest
from pathlib import Path

import disk_calls
from disks import Disk, enter_private_mounts, usable
from node import Broken, Node, Wrong, disk_usage
from origin import Image, Origin
from points import Tally, fast_directory, only_point, seed, wanted
from scenario import (
    COUNTED,
    MAX_SIZE,
    STORED,
    Clients,
    Images,
    Rounds,
    some_moment,
    wait_until_quiet,
)

KINDS = ("ext4", "xfs")


class World:
    """The images of one round, and for each kind of file system those that have some of them."""

    def __init__(self, home: Path, kinds: list[str], round_number: int) -> None:
        self.round = round_number
        self.home = home / f"round{round_number}"
        self.home.mkdir()
        self.origin = Origin()
        self.images = Images(self.origin, round_number)
        self.disks = {
            (kind, name): self._store(kind, name)
            for kind in kinds
            for name in sorted(set(STORED.values()))
        }
        self.calls = {name: self._count(kinds[0], name) for name in COUNTED}

    def disk(self, kind: str, name: str) -> Disk:
        return Disk(kind, self.home / f"{kind}-{name}.img", self.home / "disk")

    def node(self, disk: Disk, name: str) -> Node:
        return Node(self.home / name, self.origin, disk.place / "cache", max_size=MAX_SIZE)

    def _store(self, kind: str, name: str) -> Disk:
        disk = self.disk(kind, name).make().mount()
        node = self.node(disk, f"{kind}-{name}")
        try:
            self.images.store(node, name)
        finally:
            node.stop()
            disk.unmount()
        return disk

    def _count(self, kind: str, scenario: str) -> int:
        point = Point(self, kind, scenario, 0)
        try:
            point.run()
            return point.node.calls.matching
        finally:
            point.close()

    def close(self) -> None:
        self.origin.close()
        shutil.rmtree(self.home)


class Point:
    def __init__(self, world: World, kind: str, scenario: str, number: int) -> None:
        self._world = world
        self._scenario = scenario
        self._number = number
        self._chance = random.Random(f"{seed()} {world.round} {kind} {scenario} {number}")
        # Number 0 is the one by which the calls are counted, and must not count the start's.
        self._quiet = () if number else (0.3,)
        self._clients = Clients()
        self._lost = threading.Event()
        self.promised: list[tuple[Image, str]] = []
        self.disk = world.disk(kind, "point").copy(world.disks[kind, STORED[scenario]]).mount()
        self.node = world.node(self.disk, "point")
        if STORED[scenario] != "full":  # What another scenario evicts is not promised.
            self.promised = [(world.images.few, digest) for digest in world.images.few.blobs]

    def close(self) -> None:
        self.node.stop()
        self.disk.unmount()
        shutil.rmtree(self._world.home / "point")

    # ---- up to the loss ------------------------------------------------------------------------

    def run(self) -> bool:
        """True if power was lost, and the daemon did not come to its end before."""
        node = self.node
        node.counted = True
        if self._scenario == "start":
            self._arm()
            node.launch()
            if node.wait_until_ready():
                self._clients.run([lambda: node.pull(self._world.images.few)], lambda: None)
        else:
            node.start()
            wait_until_quiet(node, *self._quiet)
            if self._scenario == "moment":
                self._clients.run([self._pull], self._lose_power_at_some_moment)
                return True
            self._arm()
            self._clients.run([self._pull], lambda: None)
        code = node.wait_for_death() if node.calls.hits else node.stop()
        if node.killed():
            return True
        if code != 0 or self._clients.broken:
            raise Wrong(f"it ended with {code}, and clients were told {self._clients.broken}")
        return False

    def _arm(self) -> None:
        write_back_at = 0
        if self._number > 1 and self._chance.random() < 0.7:
            write_back_at = self._chance.randrange(1, self._number)
        times = 1 if self._number else 0
        self.node.calls.arm(
            self._number, disk_calls.SHUT_DOWN, times=times, write_back_at=write_back_at
        )

    def _lose_power_at_some_moment(self) -> None:
        some_moment(self._chance)
        self._lost.set()
        self.disk.lose_power()
        self.node.kill()

    def _pull(self) -> None:
        """Blob after blob; one that no fill is under way for any more is promised."""
        images = self._world.images
        with self.node.client() as client:
            client.manifest(images.fresh, "1")
            for digest in images.order:
                client.blob(images.fresh, digest)
                try:
                    self.node.settle()
                except OSError as error:
                    raise Broken(str(error)) from error
                # Between the loss and its death the daemon can only say that it did not store.
                if not self.node.calls.hits and not self._lost.is_set():
                    self.promised.append((images.fresh, digest))

    # ---- and after -----------------------------------------------------------------------------

    def check(self, tally: Tally) -> None:
        self._clients.check()
        self.disk.unmount()
        self.disk.mount()
        node, images, origin = self.node, self._world.images, self._world.origin
        # Before the daemon has had a look: what has its digest for a name must be whole already.
        if node.cache.is_dir():
            node.check_files()
        there = node.blob_files()
        for _, digest in self.promised:
            if digest not in there:
                raise Wrong(f"{digest} was stored and is lost")
        tally.counts["promised blobs"] += len(self.promised)
        node.log.unlink(missing_ok=True)
        node.calls.disarm()
        node.start()
        wait_until_quiet(node)
        node.wait_until_reconciled()
        fetched = {digest: origin.fetches(digest) for _, digest in self.promised}
        for image, digest in self.promised:
            with node.client() as client:
                client.blob(image, digest)
            # Files whose removal was lost have come back, and then some have to go again.
            if origin.fetches(digest) != fetched[digest] and not node.status()["cache"]["evicted"]:
                raise Wrong(f"{digest} was stored and had to be fetched again")
        for image in (images.fresh, images.few):
            node.pull(image)
        cache = node.settle()["cache"]
        if cache["quarantined"] or cache["mode"] != "read-write":
            raise Wrong(f"the status says {cache}")
        used = disk_usage(node.cache)
        if used > MAX_SIZE:
            raise Wrong(f"{used} bytes are used of max_size = {MAX_SIZE}")
        node.stop_cleanly()
        node.check_files()
        node.check_index()
        tally.counts["rebuilt indexes"] += "set aside" in node.log.read_text()
        self.disk.unmount()
        # XFS's own checker takes as long as all of the rest.
        found = self.disk.check() if self.disk.kind == "ext4" else ""
        if found:
            raise Wrong(f"the file system is damaged, so that this point says nothing: {found}")


class PowerLoss(unittest.TestCase):
    def test_what_was_stored_is_there_and_whole_after_power_is_lost(self) -> None:
        enter_private_mounts()
        home = fast_directory("staithe-power-")
        self.addCleanup(shutil.rmtree, home, ignore_errors=True)
        kinds = usable(KINDS, home)
        rounds = Rounds(lambda number: World(home, kinds, number))
        self.addCleanup(rounds.close)
        tally = Tally("power_loss_test")

        def try_point(name: str) -> None:
            kind, scenario, number, round_number = name.split(":")
            world = rounds.world(int(round_number))
            continued = world.origin.continued
            point = Point(world, kind, scenario, int(number))
            try:
                tally.counts[f"losses on {kind}"] += point.run()
                point.check(tally)
                tally.counts["blobs continued"] += world.origin.continued - continued
            except Exception as error:
                shutil.copy(point.node.log, home / "log")
                raise Wrong(f"{point.node.calls.hit()}: {error!r}") from error
            finally:
                point.close()

        alone = only_point()
        points = (
            ":".join(map(str, (kind, *point))) for point in rounds.points() for kind in kinds
        )
        points = [alone] if alone else itertools.islice(points, wanted(40))
        tally.run(points, try_point, home / "log")
        self.assertEqual(tally.failures, [])


if __name__ == "__main__":
    unittest.main()
