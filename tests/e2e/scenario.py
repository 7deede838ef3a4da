"""What a daemon does while it is broken: it starts, fills, evicts, for clients that pull images.

Everything is drawn from the seed and the number of the round; the first round is the plain one.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from disks import MIB
from node import Broken, Node
from origin import Image, Origin, make_image
from points import seed

MAX_SIZE = 12 * MIB
# Of the later rounds, whose calls are much the same again.
PER_SCENARIO = 300
# The scenarios that have calls to be counted, and what is stored when they begin.
STORED = {
    "start": "small",
    "pull": "small",
    "continue": "part",
    "evict": "full",
    "moment": "full",
}
COUNTED = ("start", "pull", "continue", "evict")


class Images:
    """A few that are stored beforehand, and one that is pulled."""

    def __init__(self, origin: Origin, round_number: int) -> None:
        self._origin = origin
        chance = random.Random(f"{seed()} {round_number}")
        odd = chance.randrange if round_number else lambda least, most: (least + most) // 2

        def image(name: str, sizes: list[int]) -> Image:
            return origin.add(make_image(name, sizes, seed() * 1000 + round_number))

        self.few = image("few", [odd(1, 200_000) for _ in range(3)])
        # Together these nearly fill the cache, so that the fresh one makes some of them go.
        self.old = [image(f"old{i}", [odd(2 * MIB, 3 * MIB), 70_000]) for i in range(4)]
        sizes = [0, 1, 4096, 100_000, odd(MIB, 2 * MIB), odd(2 * MIB, 4 * MIB)]
        self.fresh = image("fresh", sizes)
        self.order = list(self.fresh.blobs)
        if round_number:
            chance.shuffle(self.order)
        self.clients = 1 + round_number % 2

    def store(self, node: Node, name: str) -> None:
        """Runs the daemon until it holds what a scenario begins with."""
        node.start()
        node.pull(self.few)
        if name == "full":
            for image in self.old:
                node.pull(image)
        node.settle()
        if name == "part":
            self._leave_part(node)
        else:
            node.stop_cleanly()

    def _leave_part(self, node: Node) -> None:
        """Of the largest blob, as a daemon leaves it that is stopped in the middle of it."""
        digest = max(self.fresh.blobs, key=lambda name: len(self.fresh.blobs[name]))
        half = len(self.fresh.blobs[digest]) // 2
        release = self._origin.hold(digest, half)
        clients = Clients()

        def stop_in_the_middle() -> None:
            while not any(fill["bytes"] >= half for fill in node.status()["fills"]):
                time.sleep(0.005)
            node.stop_cleanly()

        clients.run([lambda: node.pull(self.fresh, [digest])], stop_in_the_middle)
        release()
        clients.check()


class World(Protocol):
    """What the points of one round are tried in."""

    round: int
    calls: dict[str, int]  # how many each scenario has

    def close(self) -> None: ...


class Rounds:
    """One round after the other, each with a world that is made when it begins."""

    def __init__(self, make: Callable[[int], World]) -> None:
        self._make = make
        self._world: World | None = None

    def world(self, number: int) -> World:
        if not self._world or self._world.round != number:
            self.close()
            self._world = self._make(number)
        return self._world

    def close(self) -> None:
        if self._world:
            self._world.close()
        self._world = None

    def points(self) -> Iterator[tuple[str, int, int]]:
        """Scenario, call and round: a call of each scenario in turn, until there are no more in
        this round."""
        for number in itertools.count():
            calls = self.world(number).calls
            left = {name: list(range(1, calls[name] + 1)) for name in calls}
            left["moment"] = list(range(PER_SCENARIO))
            for name, drawn in left.items():
                random.Random(f"{seed()} {number} {name}").shuffle(drawn)
                if number:
                    del drawn[PER_SCENARIO:]
            while any(left.values()):
                yield from ((name, drawn.pop(), number) for name, drawn in left.items() if drawn)


class Clients:
    """Several at one time, and what became of them."""

    def __init__(self) -> None:
        self.broken: list[Broken] = []
        self._wrong: list[BaseException] = []

    def run(self, pulls: list[Callable[[], None]], meanwhile: Callable[[], None]) -> None:
        threads = [threading.Thread(target=self._run, args=(pull,)) for pull in pulls]
        for thread in threads:
            thread.start()
        meanwhile()
        for thread in threads:
            thread.join()

    def _run(self, pull: Callable[[], None]) -> None:
        try:
            pull()
        except Broken as error:
            self.broken.append(error)
        except BaseException as error:
            self._wrong.append(error)

    def check(self) -> None:
        """Whatever came whole was right."""
        if self._wrong:
            raise self._wrong[0]


def some_moment(chance: random.Random) -> None:
    """While the clients pull; half of these moments are within the first 20 ms."""
    time.sleep(chance.choice((0.02, 0.1)) * chance.random())


def wait_until_quiet(node: Node, seconds: float = 0.025) -> None:
    """Until the start has looked at all files: the calls from here on are the clients'. No call
    for this long is a guess, which costs no more than the scenario's name when it is wrong."""
    before, since = -1, time.monotonic()
    while time.monotonic() - since < seconds:
        if before != (now := node.calls.counted):
            before, since = now, time.monotonic()
        time.sleep(0.002)
