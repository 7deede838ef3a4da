#!/usr/bin/python3
"""An upstream that lies in every way: no wrong byte completes, nothing hangs, and it ends with it.

Each kind of lies.py is told at the registry and at the storage behind it, of a blob of its own, to
four clients at once: one wants the whole, the others a range. What is demanded of every answer:

- it ends within the deadline, by FIN, and is no 401 and no 429;
- a whole blob that is complete is right; a range that is complete is the one that was asked for,
  and right, unless nothing but the digest of the whole could have told;
- a lie that shows in the framing leaves nothing but right bytes before the cut;
- the truth in an odd form, and a body that breaks off once, are not noticed at all;
- as soon as upstream is honest again, so is the answer.

A machine that has much else to do misses deadlines, which looks like a lie that was noticed, or told
to nobody: such a lie is told once more, alone.

STAITHE_LIES=N tells each N times as often; STAITHE_LIE=TEXT only those with TEXT in their name.
"""

from __future__ import annotations

import os
import random
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import lies
from node import REGISTRY
from raw import RawReply
from rough_case import MIB, Connection, RoughCase, full_size
from rough_origin import Answer, Asked

TIMES = full_size("STAITHE_LIES", 0)  # 0: each of them in one place only
ONLY = os.environ.get("STAITHE_LIE", "")
WORKERS = 32
DEADLINE = 50.0
HONEST_AGAIN = 20.0
POOL = random.Random("lies").randbytes(20 * MIB)


@dataclass
class Told:
    """One lie about one blob."""

    kind: lies.Kind
    place: str  # home | storage
    registry: str
    content: bytes
    chance: random.Random
    digest: str = ""
    honest: bool = False
    answers: int = 0
    struck: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def bend(self, asked: Asked, answer: Answer) -> None:
        if self.honest or asked.method != "GET" or asked.storage != (self.place == "storage"):
            return
        if answer.status not in (200, 206):
            return
        with self.lock:
            number, self.answers = self.answers, self.answers + 1
            if lies.tells(self.kind, asked, answer, number):
                self.struck += 1
                other = POOL[self.chance.randrange(MIB) :]
                self.kind.what.lie(answer, self.chance, other)
            elif self.kind.when == "rest" and number == 0:
                answer.cut = self.chance.randrange(1, max(2, answer.end - answer.begin))


class LyingUpstream(RoughCase):
    limits = {key: "500ms" for key in RoughCase.limits}

    def setUp(self) -> None:
        super().setUp()
        self.told: dict[str, Told] = {}
        self.problems: list[str] = []
        self.missed: list[str] = []  # what a deadline that was missed would explain
        self.kinds = [kind for kind in lies.all_kinds() if ONLY in kind.name]
        self.origin.redirects = lambda host: host.startswith("s")
        self.origin.bend = lambda asked, answer: (
            self.told[asked.digest].bend(asked, answer) if asked.digest in self.told else None
        )
        # A registry for each, so that what one of them is paused for does not hide another lie.
        self.node.config["registry"] = [
            {
                "name": f"{letter}{number}.{REGISTRY}",
                "upstream": [f"http://{letter}{number}.localhost:{self.origin.port}"],
                "data_hosts": [f"data.{letter}{number}.localhost"],
            }
            for number in range(len(self.kinds))
            for letter in "hs"
        ]
        self.node.config["log"]["level"] = "warn"
        self.node.start()

    def test_no_wrong_byte_no_hang_and_honest_again_afterwards(self) -> None:
        jobs = [
            (number, kind, place, time_)
            for time_ in range(max(1, TIMES))
            for number, kind in enumerate(self.kinds)
            for place in self.places(number, kind)
        ]
        # Those that wait begin first.
        jobs.sort(key=lambda job: not job[1].what.broken)
        began = time.monotonic()
        with ThreadPoolExecutor(WORKERS) as pool:
            told = list(pool.map(lambda job: self.tell(*job), jobs))
        again = [job for job in jobs if any(self.name_of(*job) in text for text in self.missed)]
        self.missed.clear()
        for number, kind, place, time_ in again:
            print(f"told again: {self.name_of(number, kind, place, time_)}")
            # Of another blob, since the first is cached by now.
            self.tell(number, kind, place, max(1, TIMES) + time_)
        self.problems += self.missed
        seconds = time.monotonic() - began
        print(
            f"\n{len(self.kinds)} kinds of lies, {len(told)} told in {sum(told)} answers: "
            f"{seconds:.0f} s"
        )
        try:
            self.node.settle()
        except TimeoutError:
            fills = [fill["registry"] for fill in self.node.status()["fills"]]
            self.problems.append(f"fills that nobody waits for do not end: {fills}")
        self.node.check_files()
        shown = "\n".join(sorted(self.problems)[:60])
        self.assertFalse(self.problems, f"{len(self.problems)} findings\n{shown}")

    @staticmethod
    def places(number: int, kind: lies.Kind) -> tuple[str, ...]:
        if kind.what.home:
            return ("home",)
        return ("home", "storage") if TIMES else (("home", "storage")[number % 2],)

    @staticmethod
    def name_of(_number: int, kind: lies.Kind, place: str, _time: int) -> str:
        return f"{kind.name}, at the {place}: "

    def tell(self, number: int, kind: lies.Kind, place: str, time_: int) -> int:
        chance = random.Random(f"{kind.name} {place} {time_}")
        size = chance.choice((MIB, MIB, 2 * MIB, 9 * MIB)) + chance.randrange(MIB)
        # Nothing of it is a lie's other blob, or anything else twice.
        at = chance.randrange(len(POOL) - size)
        content = chance.randbytes(4096) + POOL[at : at + size - 4096]
        registry = f"{place[0]}{number}.{REGISTRY}"
        told = Told(kind, place, registry, content, chance)
        told.digest = self.origin.add_blob(content)
        self.told[told.digest] = told
        try:
            self.pull(told)
            told.honest = True
            self.pull_honest(told)
        except Exception as why:  # A finding as any other; the rest of the kinds go on.
            self.finds(told, f"{type(why).__name__}: {why}")
        finally:
            del self.told[told.digest]
            self.origin.remove_blob(told.digest)
        if not told.struck:
            self.finds(told, "the lie was never told", self.missed)
        return told.struck

    def finds(self, told: Told, problem: str, where: list[str] | None = None) -> None:
        text = self.name_of(0, told.kind, told.place, 0) + problem
        (self.problems if where is None else where).append(text)

    def pull(self, told: Told) -> None:
        size = len(told.content)
        middle = told.chance.randrange(1, size - 1)
        spans = [
            ("", 0, size),
            (f"bytes={middle}-", middle, size),
            (f"bytes=-{size - middle}", middle, size),
            (f"bytes={middle // 2}-{middle}", middle // 2, middle + 1),
        ]
        clients = [self.connect(DEADLINE) for _ in spans]
        try:
            for client, (range_, _, _) in zip(clients, spans, strict=True):
                headers = {"Range": range_} if range_ else {}
                client.ask(self.target(told.digest, registry=told.registry), **headers)
            for client, span in zip(clients, spans, strict=True):
                self.judge(told, client.rest(), *span)
        finally:
            for client in clients:
                client.socket.close()

    def judge(self, told: Told, reply: RawReply, range_: str, begin: int, end: int) -> None:
        what = told.kind.what
        name = f"{range_ or 'the whole'} got {reply.status}"
        truth = told.content[begin:end]
        body = unchunked(reply)
        if reply.ended != "fin":
            self.finds(told, f"{name}, and after {len(reply.body)} bytes a {reply.ended}")
            return
        if reply.status in (0, 401, 429) or reply.status // 100 in (1, 3):
            self.finds(told, f"{name} {reply.received[:80]!r}")
        complete = reply.status in (200, 206) and body is not None
        if complete and reply.status == 200:
            if body != told.content:
                self.finds(told, f"{name}: {len(body or b'')} bytes that are complete and wrong")
        elif complete and not what.hidden:
            expected = f"bytes {begin}-{end - 1}/{len(told.content)}"
            if reply.headers.get("content-range") != expected or body != truth:
                found = reply.headers.get("content-range")
                self.finds(told, f"{name}: {found} that is wrong in its place or its bytes")
        elif reply.status in (200, 206) and not what.hidden:
            part = told.content if reply.status == 200 else truth
            if "transfer-encoding" not in reply.headers and not part.startswith(reply.body):
                self.finds(told, f"{name}: {len(reply.body)} bytes before the cut, not all right")
        absorbed = what.harmless or (what.broken and told.kind.when == "first")
        if absorbed and not complete:
            text = f"{name}, and {len(reply.body)} bytes; it need not have noticed"
            self.finds(told, text, self.missed)

    def pull_honest(self, told: Told) -> None:
        """Until it comes right, which a pause that upstream has asked for may put off."""
        if "asks for Basic" in told.kind.name:
            return  # Credentials that were refused are not tried again for up to two minutes.
        until = time.monotonic() + HONEST_AGAIN
        while True:
            with Connection(self.node.registry_socket, DEADLINE) as client:
                reply = client.ask(self.target(told.digest, registry=told.registry)).rest()
            body = unchunked(reply)
            if reply.status == 200 and body == told.content:
                return
            if reply.status == 200 and body is not None:
                self.finds(told, "upstream is honest again, and the answer is complete and wrong")
                return
            if time.monotonic() > until:
                why = (reply.status, reply.ended, bytes(reply.body[:200]))
                self.finds(told, f"upstream is honest again, and the blob does not come: {why}")
                return
            time.sleep(0.1)


def unchunked(reply: RawReply) -> bytes | None:
    """The body, if it is complete."""
    if reply.headers.get("transfer-encoding") != "chunked":
        return reply.body if reply.is_whole() else None
    found, rest = bytearray(), memoryview(reply.body)
    while True:
        line = bytes(rest[:20]).partition(b"\r\n")
        if not line[1]:
            return None
        size = int(line[0], 16)
        if size == 0:
            return bytes(found)
        if len(rest) < len(line[0]) + 4 + size:
            return None
        begin = len(line[0]) + 2
        found += rest[begin : begin + size]
        rest = rest[begin + size + 2 :]


if __name__ == "__main__":
    unittest.main()
