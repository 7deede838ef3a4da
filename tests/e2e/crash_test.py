#!/usr/bin/python3
"""kill -9 at each call to the file system of a start, a cold pull and an eviction, and at random
moments; after each the next start serves whole, true blobs and nothing is leaked (F1).

A point is `scenario:number:round`: the call at which the daemon dies, or the random moment, and the
round, from which images and clients are drawn. The first round has each call of each scenario.
STAITHE_POINTS=N says how many (./dev test --crash N); see points.py.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path

import disk_calls
from lab import MIB
from node import Broken, Node, Wrong, disk_usage
from origin import Image, Origin, make_image
from points import Tally, fast_directory, only_point, seed, wanted

SCENARIOS = ("start", "pull", "evict", "moment")
# What the status may count beyond the files: blocks that this file system does not take for its
# directories, and room for an index that is still to grow.
SLACK = MIB
MAX_SIZE = 12 * MIB
# Of the later rounds, whose calls are much the same again.
PER_SCENARIO = 300


class World:
    """The images of one round, and directories in which some of them are stored."""

    def __init__(self, home: Path, round_number: int) -> None:
        self.round = round_number
        chance = random.Random(f"{seed()} {round_number}")
        self.home = home / f"round{round_number}"
        self.home.mkdir()
        self.origin = Origin()
        odd = chance.randrange if round_number else lambda least, most: (least + most) // 2
        self.few = self._image("few", [odd(1, 200_000) for _ in range(3)])
        self.old = [self._image(f"old{i}", [odd(1 * MIB, 3 * MIB), 70_000]) for i in range(4)]
        fresh = [0, 1, 4096, 100_000, odd(MIB, 2 * MIB), odd(2 * MIB, 4 * MIB)]
        self.fresh = self._image("fresh", fresh)
        self.images = [self.few, *self.old, self.fresh]
        self.order = list(self.fresh.blobs)
        if round_number:
            chance.shuffle(self.order)
        self.clients = 1 + round_number % 2
        self._template([self.few], "small")
        self._template([self.few, *self.old], "full")
        self.calls = {name: self._count(name) for name in ("start", "pull", "evict")}

    def _image(self, name: str, sizes: list[int]) -> Image:
        return self.origin.add(make_image(name, sizes, seed() * 1000 + self.round))

    def node(self, name: str) -> Node:
        return Node(self.home / name, self.origin, max_size=MAX_SIZE)

    def _template(self, images: list[Image], name: str) -> None:
        node = self.node(name)
        node.start()
        for image in images:
            node.pull(image)
        node.settle()
        node.stop_cleanly()

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
        self.world = world
        self.scenario = scenario
        self.number = number
        self._chance = random.Random(f"{seed()} {world.round} {scenario} {number}")
        self.node = world.node("point")
        template = "small" if scenario in ("start", "pull") else "full"
        shutil.copytree(world.home / template / "cache", self.node.cache)
        self._broken: list[Broken] = []
        self._wrong: list[BaseException] = []

    def close(self) -> None:
        self.node.stop()
        shutil.rmtree(self.world.home / "point")

    # ---- up to the kill ------------------------------------------------------------------------

    def run(self) -> bool:
        """True if the daemon was killed, and did not come to its end before."""
        node = self.node
        node.counted = True
        if self.scenario == "start":
            self._arm()
            node.launch()
            if node.wait_until_ready():
                self._clients([lambda: node.pull(self.world.few)])
        else:
            node.start()
            self._wait_until_quiet()
            if self.scenario != "moment":
                self._arm()
            self._clients(self._fresh_pulls())
        if self.scenario == "moment":
            node.wait_for_death()
            return True
        return self._end()

    def _arm(self) -> None:
        after = self.world.round and self._chance.random() < 0.5
        action = disk_calls.KILL_AFTER if after else disk_calls.KILL_BEFORE
        self.node.calls.arm(self.number, action, times=1 if self.number else 0)

    def _wait_until_quiet(self) -> None:
        """Until the start has looked at all files: the calls from here on are the scenario's."""
        before = -1
        while before != (now := self.node.calls.counted):
            before = now
            time.sleep(0.003)

    def _fresh_pulls(self) -> list[Callable[[], None]]:
        fresh, order = self.world.fresh, self.world.order
        orders = [order, order[::-1]][: self.world.clients]
        if self.scenario == "moment":
            orders = [order, order[::-1]]
        return [lambda order=order: self.node.pull(fresh, order) for order in orders]

    def _clients(self, pulls: list[Callable[[], None]]) -> None:
        threads = [threading.Thread(target=self._client, args=(pull,)) for pull in pulls]
        for thread in threads:
            thread.start()
        if self.scenario == "moment":
            # Drawn so that half of them are within the first 20 ms.
            time.sleep(self._chance.choice((0.02, 0.1)) * self._chance.random())
            self.node.kill()
        for thread in threads:
            thread.join()

    def _client(self, pull: Callable[[], None]) -> None:
        try:
            pull()
        except Broken as error:
            self._broken.append(error)
        except BaseException as error:
            self._wrong.append(error)

    def _end(self) -> bool:
        node = self.node
        if not node.calls.hits and not self._broken and node.process.exit_code() is None:
            try:
                node.settle()
            except OSError:
                pass  # Killed by what it does after its clients have left.
        code = node.wait_for_death() if node.calls.hits else node.stop()
        if node.killed():
            return True
        if code != 0 or self._broken:
            raise Wrong(f"it ended with {code}, clients were told {self._broken}")
        return False

    # ---- and after -----------------------------------------------------------------------------

    def check(self) -> None:
        if self._wrong:
            raise self._wrong[0]
        node = self.node
        node.counted = False
        node.start()
        for image in (self.world.fresh, self.world.few):
            node.pull(image)
        status = self._settled_status()
        for what in ("quarantined",):
            if status["cache"][what]:
                raise Wrong(f"{status['cache'][what]} objects {what} by a kill, which damages none")
        if status["cache"]["mode"] != "read-write":
            raise Wrong(f"the cache is {status['cache']['mode']}: {status['cache']['mode_reason']}")
        used = disk_usage(node.cache)
        if used > MAX_SIZE:
            raise Wrong(f"{used} bytes are used of max_size = {MAX_SIZE}")
        node.stop_cleanly()
        node.check_files()
        node.check_index()
        if "set aside" in node.log.read_text():
            raise Wrong("something was set aside")

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


class Worlds:
    """The world of a point, made when its round begins."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._world: World | None = None

    def of(self, round_number: int) -> World:
        if not self._world or self._world.round != round_number:
            self.close()
            self._world = World(self._home, round_number)
        return self._world

    def close(self) -> None:
        if self._world:
            self._world.close()
        self._world = None

    def points(self, count: int) -> Iterator[str]:
        """A call of each scenario in turn, until there are no more in this round."""
        given = round_number = 0
        while True:
            calls = self.of(round_number).calls
            numbers = {name: list(range(1, calls[name] + 1)) for name in calls}
            numbers["moment"] = list(range(PER_SCENARIO))
            for name, list_of in numbers.items():
                random.Random(f"{seed()} {round_number} {name}").shuffle(list_of)
                if round_number:
                    del list_of[PER_SCENARIO:]
            while any(numbers.values()):
                for name in SCENARIOS:
                    if not numbers[name]:
                        continue
                    if given == count:
                        return
                    given += 1
                    yield f"{name}:{numbers[name].pop()}:{round_number}"
            round_number += 1


class Crash(unittest.TestCase):
    def test_no_kill_at_any_call_leaves_anything_wrong(self) -> None:
        home = fast_directory("staithe-crash-")
        self.addCleanup(shutil.rmtree, home, ignore_errors=True)
        worlds = Worlds(home)
        self.addCleanup(worlds.close)
        tally = Tally("crash_test")

        def try_point(name: str) -> None:
            scenario, number, round_number = name.split(":")
            point = Point(worlds.of(int(round_number)), scenario, int(number))
            try:
                tally.counts["kills"] += point.run()
                point.check()
            except Exception as error:
                shutil.copy(point.node.log, home / "log")
                raise Wrong(f"{point.node.calls.hit()}: {error!r}") from error
            finally:
                point.close()

        alone = only_point()
        points = [alone] if alone else worlds.points(wanted(150))
        tally.run(points, try_point, home / "log")
        self.assertEqual(tally.failures, [])
        if not alone:
            # Some come after the end: a scenario does not always have as many calls.
            self.assertGreater(tally.counts["kills"], 0.8 * tally.points)


if __name__ == "__main__":
    unittest.main()
