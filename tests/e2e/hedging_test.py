#!/usr/bin/python3
"""A registry that sometimes does not answer a small request: a second one is sent, and counts.

Nothing here looks at a clock: the late request is held until the test is over, so whoever has an
answer has that of the second.
"""

from __future__ import annotations

import threading
import unittest

from node import REGISTRY
from origin import make_image
from raw import RawReply
from rough_case import REPOSITORY, RoughCase
from rough_origin import Answer, Asked

# More than HeadTimes::enough, by which the daemon knows how long an answer usually takes.
USUAL = 20


class Hedging(RoughCase):
    limits = {"upstream_connect": "5s", "upstream_first_byte": "60s", "upstream_stall": "60s"}

    def setUp(self) -> None:
        super().setUp()
        self.late = ""  # the method whose next request waits
        self.held: list[Asked] = []
        self.released = threading.Event()
        self.addCleanup(self.released.set)
        self.origin.bend = self.bend
        self.image = make_image(REPOSITORY, [200_000], 1)
        self.origin.add(self.image)
        # Every question for the tag goes upstream.
        self.node.configured({"freshness": {"tag_ttl": "0s"}})
        self.node.start()
        for _ in range(USUAL):
            self.assertEqual(self.tag("HEAD").status, 200)

    def bend(self, asked: Asked, _: Answer) -> None:
        if asked.method != self.late:
            return
        self.late = ""
        self.held.append(asked)
        self.released.wait(60)

    def tag(self, method: str) -> RawReply:
        with self.connect() as client:
            return client.ask(f"/v2/{REGISTRY}/{REPOSITORY}/manifests/1", method).rest()

    def hedges(self) -> int:
        return sum(registry["hedges"] for registry in self.node.status()["registries"])

    def asked(self) -> int:
        return len(self.origin.asked)

    def test_a_head_that_is_late_is_asked_for_a_second_time(self) -> None:
        before = self.asked()
        self.late = "HEAD"
        reply = self.tag("HEAD")
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.headers["docker-content-digest"], self.image.digest)
        self.assertEqual(len(self.held), 1)
        self.assertFalse(self.released.is_set())
        self.assertEqual(self.asked() - before, 2)
        self.assertEqual(self.hedges(), 1)
        # The host counts as well, and the next questions cost one request each.
        before = self.asked()
        for _ in range(5):
            self.assertEqual(self.tag("HEAD").status, 200)
        self.assertEqual(self.asked() - before, 5)

    def test_a_blob_that_is_late_is_not(self) -> None:
        truth = b"late" * 100_000
        digest = self.origin.add_blob(truth)
        self.late = "GET"
        with self.connect() as client:
            client.ask(self.target(digest))
            self.origin.wait_for(lambda: bool(self.held))
            # Meanwhile a question has been late, and has been asked a second time.
            self.late = "HEAD"
            self.assertEqual(self.tag("HEAD").status, 200)
            self.assertEqual(self.hedges(), 1)
            self.assertEqual(len(self.origin.transfers(digest)), 1)
            self.released.set()
            self.assert_whole(client.rest(), truth)
        self.assertEqual(self.origin.sent(digest), len(truth))


if __name__ == "__main__":
    unittest.main()
