#!/usr/bin/python3
"""kill -9 in the middle of a fill, and what the next start makes of the leftovers."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
import unittest

from bodies import Reading, problems
from lab import MIB, LabTest

IMAGE = "contoso/restart:64MiB"
SIZE = 64 * MIB
# What marks may lag behind: 16 MiB at the front, and a piece on its way.
BEHIND = 18 * MIB


class Restart(LabTest):
    noise = [(IMAGE, SIZE)]

    def setUp(self) -> None:
        super().setUp()
        self.staithed = self.lab.staithed.start()
        self.blob = self.lab.image(IMAGE)["layers"][0]["digest"]
        self.target = f"/v2/contoso.azurecr.io/restart/blobs/{self.blob}"

    def reading(self, **steps) -> Reading:
        return Reading(self.staithed.address, self.target, self.lab.origin_file(self.blob), **steps)

    def kill_during_fill(self, after: int) -> None:
        barrier = f"after {after}"
        self.lab.azure.faults(
            {"role": "storage", "action": {"hold": barrier, "at": after}}
        )
        on_disk = threading.Event()
        client = self.reading(at=(MIB, on_disk.set))
        client.start()
        # What a client has received was written before.
        self.assertTrue(on_disk.wait(30), client.problem)
        self.lab.azure.wait_until_held(barrier)
        self.wait_for_marks(after - MIB)
        self.staithed.kill()
        client.join()
        self.assertLess(client.received, SIZE)
        self.lab.azure.release(barrier)

    def wait_for_marks(self, least: int, seconds: float = 60) -> None:
        """Until so much has come, and the index, written every second, has nothing more to say."""
        log = self.staithed.cache / "index.db-wal"
        deadline = time.monotonic() + seconds
        written, since = b"", time.monotonic()
        while True:
            self.assertLess(time.monotonic(), deadline, "no mark was written")
            time.sleep(0.05)
            fills = self.staithed.status()["fills"]
            now = log.read_bytes()
            if now != written or not fills or fills[0]["bytes"] < least:
                written, since = now, time.monotonic()
            elif self.blob.encode() in now and time.monotonic() - since > 2:
                return

    def bytes_asked_for(self) -> int:
        """Of storage, by ranges that do not overlap."""
        ranges = sorted(
            tuple(map(int, entry["range"].removeprefix("bytes=").split("-")))
            for entry in self.lab.azure.log(role="storage", method="GET")
            if entry["digest"] == self.blob or not entry["digest"]
        )
        for (_, last), (first, _) in itertools.pairwise(ranges):
            self.assertLess(last, first)
        return sum(last + 1 - first for first, last in ranges)

    def test_a_fill_goes_on_after_kill_9_in_its_middle(self) -> None:
        for after in (SIZE // 2, SIZE - 1):
            with self.subTest(after=after):
                self.kill_during_fill(after)
                self.staithed.start()
                self.assertEqual(len(self.staithed.partial_files()), 1)
                self.assertNotIn(self.blob, self.staithed.blob_files())
                self.lab.azure.reset_log()
                again = self.reading()
                again.start()
                self.assertEqual(problems([again]), [])
                self.staithed.wait_until_stored()
                self.assertEqual(self.staithed.partial_files(), [])
                self.assertLessEqual(self.bytes_asked_for(), SIZE - after + BEHIND)
                self.staithed.stop()
                self.index_and_disk_agree()
                # The next round has to fill anew.
                self.staithed.blob_files()[self.blob].unlink()
                self.staithed.start()

    def test_a_fill_goes_on_after_a_stop_where_it_was(self) -> None:
        self.staithed.configured({"listen": {"drain_timeout": "1s"}})
        self.staithed.stop()
        self.staithed.start()
        barrier = "half"
        self.lab.azure.faults(
            {"role": "storage", "action": {"hold": barrier, "at": SIZE // 2}}
        )
        client = self.reading()
        client.start()
        self.lab.azure.wait_until_held(barrier)
        self.assertEqual(self.staithed.stop(), 0)
        client.join()
        self.lab.azure.release(barrier)
        self.staithed.start()
        self.lab.azure.reset_log()
        again = self.reading()
        again.start()
        self.assertEqual(problems([again]), [])
        self.assertGreater(self.bytes_asked_for(), 0)
        self.assertLess(self.bytes_asked_for(), SIZE // 2 + MIB)

    def test_a_start_reconciles_index_and_disk(self) -> None:
        skopeo = self.lab.skopeo()
        reference = f"{self.staithed.address}/contoso.azurecr.io/multi:1"
        skopeo.pull(reference)
        self.assertEqual(self.staithed.stop(), 0)
        files = self.staithed.blob_files()
        lost = self.lab.image("contoso/multi:1")["layers"][0]["digest"]
        files[lost].unlink()
        (self.staithed.cache / "partial" / "leftover").write_bytes(b"half of something")
        self.staithed.start()
        self.assertEqual(self.staithed.partial_files(), [])
        self.assertEqual(skopeo.pull(reference), self.lab.digest("contoso/multi:1"))
        self.staithed.stop()
        self.index_and_disk_agree()

    def test_a_damaged_index_is_set_aside_and_rebuilt(self) -> None:
        skopeo = self.lab.skopeo()
        reference = f"{self.staithed.address}/contoso.azurecr.io/busybox:1"
        skopeo.pull(reference)
        self.staithed.stop()
        for suffix in ("-wal", "-shm"):
            (self.staithed.cache / f"index.db{suffix}").unlink(missing_ok=True)
        (self.staithed.cache / "index.db").write_bytes(b"this is not a database" * 1000)
        self.staithed.start()
        self.assertEqual(skopeo.pull(reference), self.lab.digest("contoso/busybox:1"))
        self.staithed.stop()
        self.index_and_disk_agree()

    def index_and_disk_agree(self) -> None:
        """Only for a daemon that has stopped."""
        index = sqlite3.connect(f"file:{self.staithed.cache / 'index.db'}?mode=ro", uri=True)
        try:
            indexed = dict(index.execute("SELECT digest, size_bytes FROM blobs"))
        finally:
            index.close()
        files = self.staithed.blob_files() | self.staithed.manifest_files()
        self.assertEqual(indexed, {digest: path.stat().st_size for digest, path in files.items()})


if __name__ == "__main__":
    unittest.main()
