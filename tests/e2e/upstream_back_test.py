#!/usr/bin/python3
"""Upstream was gone and is back: one request finds out, then everybody gets theirs, and no herd."""

from __future__ import annotations

import random
import threading
import time
import unittest
from collections.abc import Callable

from rough_case import RoughCase, wait_for
from rough_origin import Answer, Asked, error

CLIENTS = 40
SIZE = 64 * 1024
# From the issue: so long after its return, all is as it was.
NORMAL_AGAIN = 10.0
# Attempts by which everybody has seen it down.
ATTEMPTS = 10 * CLIENTS
# Requests that may go up before one of them has been answered.
PROBES = 2
# And in all, for each blob that is wanted; one to show it, one to fetch it.
REQUESTS_PER_BLOB = 2


class Client(threading.Thread):
    """Wants one blob, and asks for it again as restart loops do, until it has it."""

    def __init__(self, get: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self._get = get
        self.attempts = 0
        self.done = threading.Event()
        self.gives_up = False

    def run(self) -> None:
        while not self.gives_up and not self._get():
            self.attempts += 1
            # As a client's own pause; nothing is waited for.
            time.sleep(0.02)
        self.done.set()


class UpstreamBack(RoughCase):
    limits = {"upstream_connect": "1s", "upstream_first_byte": "5s", "upstream_stall": "5s"}

    def setUp(self) -> None:
        super().setUp()
        self.failing = False
        self.held = threading.Event()
        self.held.set()
        self.origin.bend = self.bend
        self.node.configured({"log": {"level": "info"}})
        self.node.start()
        chance = random.Random(self.id())
        self.blobs = [chance.randbytes(SIZE) for _ in range(CLIENTS)]
        self.digests = [self.origin.add_blob(blob) for blob in self.blobs]

    def bend(self, asked: Asked, answer: Answer) -> None:
        self.held.wait(30)
        if self.failing:
            refusal = error(503, "UNAVAILABLE", "not now")
            answer.status, answer.headers, answer.body = 503, refusal.headers, refusal.body

    def crowd(self) -> list[Client]:
        def getter(number: int) -> Callable[[], bool]:
            def get() -> bool:
                reply = self.get(self.digests[number])
                return reply.status == 200 and reply.body == self.blobs[number]

            return get

        clients = [Client(getter(number)) for number in range(CLIENTS)]

        def end() -> None:
            for client in clients:
                client.gives_up = True
            self.held.set()
            for client in clients:
                client.join()

        self.addCleanup(end)
        for client in clients:
            client.start()
        return clients

    def attempts(self, clients: list[Client]) -> int:
        return sum(client.attempts for client in clients)

    def run_through(self, goes: Callable[[], None], comes: Callable[[], None], name: str) -> None:
        first = self.get(self.origin.add_blob(b"it was well before"))
        self.assertEqual(first.status, 200)
        goes()
        asked_before = len(self.origin.asked)
        clients = self.crowd()
        wait_for(lambda: self.attempts(clients) >= ATTEMPTS, 60, "the crowd")
        while_down = len(self.origin.asked) - asked_before

        # Back, but its first answer is some way off: who else asks upstream meanwhile?
        self.held.clear()
        before = len(self.origin.asked)
        comes()
        back = time.monotonic()
        wait_for(lambda: len(self.origin.asked) > before, NORMAL_AGAIN, "the first probe")
        probed = time.monotonic() - back
        seen = self.attempts(clients)
        try:
            wait_for(lambda: self.attempts(clients) >= seen + ATTEMPTS, 2, "more of them")
        except TimeoutError:
            pass  # They wait for the answer, which is as good.
        probes = len(self.origin.asked) - before
        self.held.set()
        try:
            wait_for(
                lambda: all(client.done.is_set() for client in clients),
                NORMAL_AGAIN,
                "all clients",
            )
        except TimeoutError:
            left = sum(not client.done.is_set() for client in clients)
            self.fail(f"{left} of {CLIENTS} have nothing {NORMAL_AGAIN} s after its return")
        seconds = time.monotonic() - back
        asked = [a.time - back for a in self.origin.asked[before:]]
        per_second = [sum(int(t) == second for t in asked) for second in range(int(seconds) + 1)]
        print(
            f"\n{name}: {while_down} requests upstream for {seen} attempts while it was down; "
            f"back: the first after {probed:.2f} s, {probes} before it was answered, "
            f"{len(asked)} in all, by second {per_second}; all had theirs after {seconds:.1f} s",
            end="",
        )
        self.assertLessEqual(probes, PROBES, "a herd, before anybody knew that it is well")
        self.assertLessEqual(len(asked), CLIENTS * REQUESTS_PER_BLOB + PROBES)
        self.while_down = while_down

    def test_after_it_refused_connections(self) -> None:
        self.run_through(self.origin.refuse, self.origin.come_back, "refused")

    def test_after_it_was_silent(self) -> None:
        self.run_through(self.origin.keep_silent, self.origin.come_back, "silent")

    def test_after_it_failed(self) -> None:
        def fails(failing: bool) -> None:
            self.failing = failing

        self.run_through(lambda: fails(True), lambda: fails(False), "failed")
        # While it fails it is left alone, but for probes.
        self.assertLess(self.while_down, CLIENTS, "asked again and again while it failed")


if __name__ == "__main__":
    unittest.main()
