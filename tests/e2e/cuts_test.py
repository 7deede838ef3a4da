#!/usr/bin/python3
"""One pull over an upstream that cuts again and again: one right blob, next to nothing twice.

CI takes 64 MiB and 40 cuts. The long run:
    STAITHE_CUT_MIB=1024 STAITHE_CUTS=1000 /usr/bin/python3 tests/e2e/cuts_test.py
"""

from __future__ import annotations

import os
import random
import threading
import time
import unittest

from rough_case import MIB, RoughCase, full_size
from rough_origin import Answer, Asked

SIZE = full_size("STAITHE_CUT_MIB", 64) * MIB
CUTS = full_size("STAITHE_CUTS", 40)
DEADLINE = 60.0 + 2 * CUTS
HOWS = ("fin", "rst", "expired")
SILENCES = 2  # each takes a second of the daemon's patience


class Cuts:
    """Bends answers until there have been as many cuts as were ordered."""

    def __init__(self, cuts: int, redirects: bool, expire) -> None:
        self._chance = random.Random(f"{SIZE} {cuts} {redirects}")
        self._lock = threading.Lock()
        self._left = cuts
        self._expire = expire
        hows = [how for how in HOWS if redirects or how != "expired"]
        self._hows = [self._chance.choice(hows) for _ in range(cuts - SILENCES)]
        self._hows += ["silence"] * SILENCES
        self._chance.shuffle(self._hows)
        self.made: dict[str, int] = {}

    def bend(self, asked: Asked, answer: Answer) -> None:
        if not asked.is_transfer() or answer.status not in (200, 206):
            return
        with self._lock:
            if not self._left:
                return
            # Over the whole blob there is room for all cuts, with a fifth to spare.
            cut = self._chance.randrange(1, int(2 * SIZE / CUTS * 0.8))
            if cut >= answer.end - answer.begin:
                return  # A short range may pass.
            self._left -= 1
            how = self._hows[self._left]
            self.made[how] = self.made.get(how, 0) + 1
        if how == "expired":
            self._expire()
        answer.cut = cut
        answer.how = how if how in ("rst", "silence") else "fin"

    @property
    def done(self) -> bool:
        return self._left == 0


class CutsInOnePull(RoughCase):
    def pull(self) -> None:
        content = self.directory / "content"
        source = random.Random(SIZE)
        with open(content, "wb") as file:
            for _ in range(SIZE // MIB):
                file.write(source.randbytes(MIB))
        digest = self.origin.add_blob(content)
        truth = self.origin.content(digest)
        cuts = Cuts(CUTS, self.redirects, self.origin.expire_links)
        self.origin.bend = cuts.bend
        self.node.start()
        began = time.monotonic()
        with self.connect(DEADLINE) as client:
            client.ask(self.target(digest))
            self.assertEqual(client.read_head().status, 200)
            received = client.match(truth)
        seconds = time.monotonic() - began
        self.assertEqual((received, client.ended), (SIZE, "fin"))
        self.node.wait_until_stored()
        self.assertIn(digest, self.node.blob_files())
        self.node.check_files()
        left = self.origin.sent(digest)
        print(
            f"\n{SIZE // MIB} MiB with {CUTS} cuts {cuts.made}: {seconds:.1f} s, "
            f"{len(self.origin.transfers(digest))} requests, "
            f"{100 * (left - SIZE) / SIZE:.3f} % fetched twice"
        )
        self.assertTrue(cuts.done, "the pull was over before all cuts were made")
        self.assertGreaterEqual(left, SIZE)
        self.assertLessEqual(left, SIZE * 1.01, "more than 1 % was fetched twice")
        os.unlink(content)


class CutsAtTheRegistry(CutsInOnePull):
    def test_one_right_blob_and_next_to_nothing_fetched_twice(self) -> None:
        self.pull()


class CutsAtTheStorage(CutsInOnePull):
    """Where a link leads to, and links that expire in the middle."""

    redirects = True

    def test_one_right_blob_and_next_to_nothing_fetched_twice(self) -> None:
        self.pull()


del CutsInOnePull  # It is no test of its own.

if __name__ == "__main__":
    unittest.main()
