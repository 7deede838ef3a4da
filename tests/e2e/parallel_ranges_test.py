#!/usr/bin/python3
"""Ranges of a blob that is not here: answered at once, while one transfer fills the whole.

containerd 2.1 and later may fetch a layer in parallel; Debian 12 has 1.6.20, which does not. So
its requests are replayed as they were recorded on the wire: each worker asks for an open-ended
range on a connection of its own, reads its chunk, and resets the connection.

What upstream has not sent is held back at a gate, so that "at once" is not a matter of time: what
comes while the gate is shut cannot have waited for what lies behind it.
"""

from __future__ import annotations

import random
import threading
import unittest

from raw import RawReply
from rough_case import MIB, Connection, RoughCase

SIZE = 64 * MIB
# What the gate keeps back. The rest is wide enough for a daemon that fetches in large pieces.
SHUT = (MIB, 32 * MIB)
PATIENCE = 10.0
WORKERS = 8
CHUNK = 4 * MIB
# What may leave upstream beyond the blob's size: a hundredth, and what is on its way when an answer
# is let go of half-way.
SPARE = SIZE // 100 + WORKERS * 256 * 1024


class ParallelRanges(RoughCase):
    limits = {"upstream_connect": "5s", "upstream_first_byte": "60s", "upstream_stall": "60s"}

    def setUp(self) -> None:
        super().setUp()
        self.truth = random.Random(self.id()).randbytes(SIZE)
        self.digest = self.origin.add_blob(self.truth)
        self.node.start()

    def ask(self, deadline: float = 60, **headers: str) -> Connection:
        client = self.connect(deadline)
        self.addCleanup(client.socket.close)
        return client.ask(self.target(self.digest), **headers)

    def assert_range(self, reply: RawReply, begin: int, end: int) -> None:
        self.assertEqual(reply.headers.get("content-range"), f"bytes {begin}-{end - 1}/{SIZE}")
        self.assert_whole(reply, self.truth[begin:end], 206)

    def assert_fetched_once(self) -> None:
        self.node.wait_until_stored()
        self.node.check_files()
        self.assertIn(self.digest, self.node.blob_files())
        left = self.origin.sent(self.digest)
        self.assertGreaterEqual(left, SIZE)
        self.assertLessEqual(left - SIZE, SPARE, "bytes left upstream twice")

    def test_eight_open_ended_ranges_each_reset_after_its_chunk_are_one_fill(self) -> None:
        # As storage limits a connection; what was asked for in vain has hardly left by then.
        self.origin.rate = 40e6
        self.fetch_in_parallel()

    def test_they_are_one_fill_from_an_upstream_as_fast_as_memory_too(self) -> None:
        self.fetch_in_parallel()

    def fetch_in_parallel(self) -> None:
        found = bytearray(SIZE)
        offsets = list(range(0, SIZE, CHUNK))
        lock = threading.Lock()
        problems: list[str] = []

        def work() -> None:
            while True:
                with lock:
                    if not offsets:
                        return
                    begin = offsets.pop(0)
                with self.connect() as client:
                    client.ask(self.target(self.digest), Range=f"bytes={begin}-")
                    chunk = client.read_body(CHUNK)
                    reply = client.reply()
                    if begin + len(chunk) < SIZE:
                        client.reset()
                if reply.status != 206 or len(chunk) != CHUNK:
                    problems.append(f"{begin}: {reply.status}, {len(chunk)} bytes")
                found[begin : begin + CHUNK] = chunk

        workers = [threading.Thread(target=work) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        most_fills = 0
        while any(worker.is_alive() for worker in workers):
            most_fills = max(most_fills, len(self.node.status()["fills"]))
            workers[0].join(0.02)
        for worker in workers:
            worker.join()
        self.assertEqual(problems, [])
        self.assertTrue(found == self.truth, "the chunks do not make the blob")
        self.assertLessEqual(most_fills, 1)
        self.assert_fetched_once()
        again = self.ask().rest()
        self.assert_whole(again, self.truth)
        self.assertIn("hit", again.headers["cache-status"])

    def test_a_closed_range_does_not_wait_for_what_lies_before_it(self) -> None:
        self.origin.gate.close(*SHUT)
        begin, end = 48 * MIB + 17, 50 * MIB + 3
        reply = self.ask(PATIENCE, Range=f"bytes={begin}-{end - 1}").rest()
        self.assert_range(reply, begin, end)
        self.origin.gate.open()
        self.assert_fetched_once()

    def test_an_open_range_does_not_wait_for_what_lies_before_it(self) -> None:
        self.begins_at_once(f"bytes={48 * MIB + 17}-", 48 * MIB + 17)

    def test_a_suffix_range_does_not_wait_for_what_lies_before_it(self) -> None:
        self.begins_at_once(f"bytes=-{12 * MIB + 1}", SIZE - 12 * MIB - 1)

    def begins_at_once(self, range_: str, begin: int) -> None:
        """The end of a blob may be kept back until its digest is known, so half of it will do."""
        self.origin.gate.close(*SHUT)
        half = (SIZE - begin) // 2
        client = self.ask(PATIENCE, Range=range_)
        came = client.read_body(half)
        self.assertEqual(client.reply().status, 206)
        self.assertEqual(len(came), half, f"the answer is {client.ended or 'cut'}")
        self.origin.gate.open()
        self.assert_range(client.rest(), begin, SIZE)
        self.assert_fetched_once()

    def test_a_reader_of_the_whole_and_readers_of_parts_share_one_transfer(self) -> None:
        self.origin.gate.close(*SHUT)
        whole = self.ask()
        self.assertEqual(len(whole.read_body(SHUT[0] // 2)), SHUT[0] // 2)
        begin, end = 40 * MIB, 41 * MIB
        for _ in range(2):  # The second finds it here.
            self.assert_range(
                self.ask(PATIENCE, Range=f"bytes={begin}-{end - 1}").rest(), begin, end
            )
        self.origin.gate.open()
        self.assert_whole(whole.rest(), self.truth)
        self.assert_fetched_once()

    def test_what_is_here_out_of_order_survives_a_restart(self) -> None:
        self.origin.gate.close(*SHUT)
        begin, end = 40 * MIB, 56 * MIB
        reply = self.ask(PATIENCE, Range=f"bytes={begin}-{end - 1}").rest()
        self.assert_range(reply, begin, end)
        self.node.stop_cleanly()
        before = self.origin.sent(self.digest)
        self.assertGreaterEqual(before, end - begin)
        self.node.start()
        # Still shut: what was here before is here now.
        self.assert_range(
            self.ask(PATIENCE, Range=f"bytes={begin}-{end - 1}").rest(), begin, end
        )
        self.origin.gate.open()
        self.assert_whole(self.ask().rest(), self.truth)
        self.assert_fetched_once()

    def test_a_range_behind_the_end_is_416_and_says_the_length(self) -> None:
        for stored in (False, True):
            with self.subTest(stored=stored):
                for range_ in (f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 9}"):
                    reply = self.ask(Range=range_).rest()
                    self.assertEqual(reply.status, 416)
                    self.assertEqual(reply.headers.get("content-range"), f"bytes */{SIZE}")
                self.assert_whole(self.ask().rest(), self.truth)
                self.node.wait_until_stored()

    def test_if_range_decides_between_the_range_and_the_whole(self) -> None:
        for stored in (False, True):
            with self.subTest(stored=stored):
                same = self.ask(Range="bytes=5-99", If_Range=f'"{self.digest}"').rest()
                self.assert_range(same, 5, 100)
                other = self.ask(Range="bytes=5-99", If_Range='"another"').rest()
                self.assert_whole(other, self.truth)
                self.node.wait_until_stored()

    def test_several_ranges_are_answered_with_the_whole(self) -> None:
        for stored in (False, True):
            with self.subTest(stored=stored):
                reply = self.ask(Range="bytes=0-9,20-29").rest()
                self.assert_whole(reply, self.truth)
                self.node.wait_until_stored()
        self.assert_fetched_once()

    def test_a_range_that_clips_the_end_gets_what_there_is(self) -> None:
        reply = self.ask(Range=f"bytes={SIZE - 10}-{SIZE + 1000}").rest()
        self.assert_range(reply, SIZE - 10, SIZE)
        self.assert_fetched_once()

    def test_upstream_that_knows_no_ranges_still_serves_them_all(self) -> None:
        self.origin.ranges = False
        for range_, begin, end in (
            (f"bytes={40 * MIB}-{41 * MIB - 1}", 40 * MIB, 41 * MIB),
            (f"bytes=-{MIB}", SIZE - MIB, SIZE),
            ("bytes=7-", 7, SIZE),
        ):
            self.assert_range(self.ask(Range=range_).rest(), begin, end)
        self.assert_fetched_once()


if __name__ == "__main__":
    unittest.main()
