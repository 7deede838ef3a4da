#!/usr/bin/python3
"""32 clients want one uncached blob at one instant: upstream sends it once."""

from __future__ import annotations

import subprocess
import sys
import threading
import unittest

from bodies import Reading, problems
from lab import MIB, LabTest

CLIENTS = 32
IMAGE = "contoso/crowd:256MiB"
SIZE = 256 * MIB

# Reads one MiB, says so, and reads on until it is killed.
DOOMED = """
import sys, urllib.request
body = urllib.request.urlopen(sys.argv[1])
body.read(1 << 20)
print("reading", flush=True)
while body.read(1 << 20): pass
print("finished", flush=True)
"""


class Crowd(LabTest):
    noise = [(IMAGE, SIZE)]

    def setUp(self) -> None:
        super().setUp()
        self.staithed = self.lab.staithed.start()
        self.blob = self.lab.image(IMAGE)["layers"][0]["digest"]
        self.target = f"/v2/contoso.azurecr.io/crowd/blobs/{self.blob}"

    def reading(self, **steps) -> Reading:
        return Reading(self.staithed.address, self.target, self.lab.origin_file(self.blob), **steps)

    def test_one_upstream_get_and_every_body_right(self) -> None:
        start = threading.Barrier(CLIENTS)
        crowd = [self.reading(before_request=start.wait) for _ in range(CLIENTS)]
        for client in crowd:
            client.start()
        self.assertEqual(problems(crowd), [])
        stats = self.lab.azure.stats()
        self.assertEqual(stats["blob_sent"], {self.blob: SIZE})
        self.assertEqual(stats["blob_redirects"], 1)
        self.assertEqual(stats["imds_requests"], 1)
        self.assertEqual(stats["exchanges"], 1)
        how = [c.cache_status for c in crowd]
        alone = [h for h in how if "fwd=miss" in h and "collapsed" not in h]
        self.assertEqual(len(alone), 1, how)
        # On a slow machine the last of them may find the blob whole.
        self.assertTrue(all("collapsed" in h or "hit" in h for h in how if h not in alone), how)

    def test_the_first_client_is_killed_and_the_others_do_not_notice(self) -> None:
        self.lab.azure.faults(
            {"role": "storage", "action": {"hold": "half-way", "at": SIZE // 2}}
        )
        url = self.staithed.url + self.target
        first = subprocess.Popen(
            [sys.executable, "-c", DOOMED, url], stdout=subprocess.PIPE, text=True
        )
        assert first.stdout
        self.addCleanup(first.stdout.close)
        self.addCleanup(first.wait)
        self.addCleanup(first.kill)
        self.assertEqual(first.stdout.readline(), "reading\n")
        self.lab.azure.wait_until_held("half-way")

        # All the others are in the middle of their bodies when the first one dies.
        joined = threading.Barrier(CLIENTS)
        others = [self.reading(after_headers=joined.wait) for _ in range(CLIENTS - 1)]
        for client in others:
            client.start()
        joined.wait(60)
        first.kill()
        first.wait()
        self.lab.azure.release("half-way")

        self.assertEqual(problems(others), [])
        self.assertEqual(self.lab.azure.stats()["blob_sent"], {self.blob: SIZE})

    def test_a_fill_that_every_client_has_left_is_there_for_the_next(self) -> None:
        self.lab.azure.faults({"role": "storage", "action": {"hold": "early", "at": 8 * MIB}})
        alone = subprocess.Popen(
            [sys.executable, "-c", DOOMED, self.staithed.url + self.target],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert alone.stdout
        self.addCleanup(alone.stdout.close)
        self.assertEqual(alone.stdout.readline(), "reading\n")
        self.lab.azure.wait_until_held("early")
        alone.kill()
        alone.wait()
        next_one = self.reading(at=(1, lambda: self.lab.azure.release("early")))
        next_one.start()
        self.assertEqual(problems([next_one]), [])
        self.assertEqual(self.lab.azure.stats()["blob_sent"], {self.blob: SIZE})


if __name__ == "__main__":
    unittest.main()
