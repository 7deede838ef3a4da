#!/usr/bin/python3
"""kill -9 at each call to the file system of a start, a cold pull, one that goes on where another
stopped, and an eviction, and at random moments; after each the next start serves whole, true blobs
and nothing is leaked (F1).

A point is `scenario:number:round`: the call at which the daemon dies, or the random moment, and the
round, from which images and clients are drawn. The first round has each call of each scenario.
STAITHE_POINTS=N says how many (./dev test --crash N); see points.py.
"""

from __future__ import annotations

import itertools
import random
import shutil
import time
import unittest
from collections.abc import Callable
from pathlib import Path

import disk_calls
from disks import MIB
from node import Node, Wrong, disk_usage
from origin import Origin
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

# What the status may count beyond the files: blocks that this file system does not take for its
# directories, and room for an index that is still to grow.
SLACK = MIB


class World:
    """The images of one round, and directories in which some of them are stored."""

    def __init__(self, home: Path, round_number: int) -> None:
        self.round = round_number
        self.home = home / f"round{round_number}"
        self.home.mkdir()
        self.origin = Origin()
        self.images = Images(self.origin, round_number)
        for name in sorted(set(STORED.values())):
            self._store(name)
        self.calls = {name: self._count(name) for name in COUNTED}

    def node(self, name: str) -> Node:
        return Node(self.home / name, self.origin, max_size=MAX_SIZE)

    def _store(self, name: str) -> None:
        self.images.store(self.node(name), name)

    def _count(self, scenario: str) -> int:
        """How many calls it has. Not always as many: the threads meet differently each time."""
        point = Point(self, scenario, 0)
        try:
            point.run()
            return point.node.calls.matching
        finally:
            point.close()

    def close(self) -> None:
        self.origin.close()
        shutil.rmtree(self.home)


class Point:
    def __init__(self, world: World, scenario: str, number: int) -> None:
        self._world = world
        self._scenario = scenario
        self._number = number
        self._chance = random.Random(f"{seed()} {world.round} {scenario} {number}")
        # Number 0 is the one by which the calls are counted, and must not count the start's.
        self._quiet = () if number else (0.3,)
        self._clients = Clients()
        self.node = world.node("point")
        shutil.copytree(world.home / STORED[scenario] / "cache", self.node.cache)

    def close(self) -> None:
        self.node.stop()
        shutil.rmtree(self._world.home / "point")

    def run(self) -> bool:
        """True if the daemon was killed, and did not come to its end before."""
        node = self.node
        node.counted = True
        if self._scenario == "start":
            self._arm()
            node.launch()
            if node.wait_until_ready():
                self._clients.run([lambda: node.pull(self._world.images.few)], lambda: None)
            return self._end()
        node.start()
        wait_until_quiet(node, *self._quiet)
        if self._scenario == "moment":
            self._clients.run(self._pulls(clients=2), self._kill_at_some_moment)
            return True
        self._arm()
        self._clients.run(self._pulls(self._world.images.clients), lambda: None)
        return self._end()

    def _arm(self) -> None:
        after = self._world.round > 0 and self._chance.random() < 0.5
        action = disk_calls.KILL_AFTER if after else disk_calls.KILL_BEFORE
        self.node.calls.arm(self._number, action, times=1 if self._number else 0)

    def _pulls(self, clients: int) -> list[Callable[[], None]]:
        images = self._world.images
        orders = [images.order, images.order[::-1]][:clients]
        return [lambda order=order: self.node.pull(images.fresh, order) for order in orders]

    def _kill_at_some_moment(self) -> None:
        some_moment(self._chance)
        self.node.kill()

    def _end(self) -> bool:
        """It is killed now, if not yet, by what it does after its clients or for its end."""
        node, broken = self.node, self._clients.broken
        if not node.calls.hits and not broken:
            try:
                node.settle()
            except OSError:
                pass  # Killed while it was asked.
        code = node.wait_for_death() if node.calls.hits else node.stop()
        if node.killed():
            return True
        if code != 0 or broken:
            raise Wrong(f"it ended with {code}, and clients were told {broken}")
        return False

    def check(self) -> None:
        self._clients.check()
        node = self.node
        node.counted = False
        node.start()
        for image in (self._world.images.fresh, self._world.images.few):
            node.pull(image)
        cache = self._settled_status()["cache"]
        if cache["quarantined"]:
            raise Wrong(f"{cache['quarantined']} objects were set aside, and a kill damages none")
        if cache["mode"] != "read-write":
            raise Wrong(f"the cache is {cache['mode']}: {cache['mode_reason']}")
        used = disk_usage(node.cache)
        if used > MAX_SIZE:
            raise Wrong(f"{used} bytes are used of max_size = {MAX_SIZE}")
        node.stop_cleanly()
        node.check_files()
        node.check_index()
        if "set aside" in node.log.read_text():
            raise Wrong("the index was set aside, and a kill damages none")

    def _settled_status(self) -> dict:
        """Once what the status counts is what is there."""
        deadline = time.monotonic() + 5
        while True:
            status = self.node.settle()
            counted, there = status["cache"]["bytes"], self.node.object_bytes()
            if there <= counted <= disk_usage(self.node.cache) + SLACK:
                return status
            if time.monotonic() > deadline:
                raise Wrong(f"the status counts {counted} bytes, and {there} are there")
            time.sleep(0.005)


class Crash(unittest.TestCase):
    def test_no_kill_at_any_call_leaves_anything_wrong(self) -> None:
        home = fast_directory("staithe-crash-")
        self.addCleanup(shutil.rmtree, home, ignore_errors=True)
        rounds = Rounds(lambda number: World(home, number))
        self.addCleanup(rounds.close)
        tally = Tally("crash_test")

        def try_point(name: str) -> None:
            scenario, number, round_number = name.split(":")
            world = rounds.world(int(round_number))
            continued = world.origin.continued
            point = Point(world, scenario, int(number))
            try:
                tally.counts["kills"] += point.run()
                point.check()
                tally.counts["blobs continued"] += world.origin.continued - continued
            except Exception as error:
                shutil.copy(point.node.log, home / "log")
                raise Wrong(f"{point.node.calls.hit()}: {error!r}") from error
            finally:
                point.close()

        alone = only_point()
        points = (":".join(map(str, point)) for point in rounds.points())
        points = [alone] if alone else itertools.islice(points, wanted(150))
        tally.run(points, try_point, home / "log")
        self.assertEqual(tally.failures, [])
        if not alone:
            # Some come after the end: a scenario does not always have as many calls.
            self.assertGreater(tally.counts["kills"], 0.8 * tally.points)


if __name__ == "__main__":
    unittest.main()
