#!/usr/bin/python3
"""`staithe verify`: damage on the disk is found, named, set aside, and fetched again."""

from __future__ import annotations

import json
import unittest

from lab import MIB, LabTest
from staithed import toml

IMAGE = "contoso/verify:16MiB"


class Verify(LabTest):
    noise = [(IMAGE, 16 * MIB)]

    def setUp(self) -> None:
        super().setUp()
        self.staithed = self.lab.staithed.start()
        self.reference = f"{self.staithed.address}/contoso.azurecr.io/verify:16MiB"
        self.blob = self.lab.image(IMAGE)["layers"][0]["digest"]
        self.pull()

    def pull(self) -> None:
        # A client of its own each time: it must not have the blobs already.
        pulled = self.lab.skopeo().pull(self.reference)
        self.assertEqual(pulled, self.lab.digest(IMAGE))
        self.staithed.wait_until_stored()

    def flip_a_bit(self, at: int) -> None:
        with self.staithed.blob_files()[self.blob].open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))

    def fetched_bytes(self) -> int:
        return self.staithed.status()["traffic"]["bytes_fetched"]

    def test_a_cache_without_damage_is_good(self) -> None:
        done = self.staithed.command("verify")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("nothing is damaged", done.stdout)
        self.assertEqual(self.staithed.status()["cache"]["quarantined"], 0)

    def test_a_flipped_bit_is_named_set_aside_and_fetched_again(self) -> None:
        for at in (0, 16 * MIB // 2, 16 * MIB - 1):
            with self.subTest(at=at):
                before = self.staithed.status()["cache"]["quarantined"]
                self.flip_a_bit(at)
                done = self.staithed.command("verify")
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn(self.blob, done.stdout)
                self.assertNotIn(self.blob, self.staithed.blob_files())
                self.assertEqual(self.staithed.status()["cache"]["quarantined"], before + 1)
                self.assertEqual(self.staithed.command("verify").returncode, 0)
                fetched = self.fetched_bytes()
                self.pull()
                self.assertGreaterEqual(self.fetched_bytes() - fetched, 16 * MIB)
                stored = self.staithed.blob_files()[self.blob].read_bytes()
                self.assert_bytes(stored, self.lab.origin_file(self.blob).read_bytes())
                self.assertEqual(self.staithed.command("verify").returncode, 0)

    def test_other_kinds_of_damage_are_found_as_well(self) -> None:
        truth = self.lab.origin_file(self.blob).read_bytes()
        for name, damaged in (
            ("empty", b""),
            ("truncated", truth[: len(truth) // 2]),
            ("NUL", bytes(len(truth))),
            ("longer", truth + b"x"),
        ):
            with self.subTest(name):
                self.staithed.blob_files()[self.blob].write_bytes(damaged)
                done = self.staithed.command("verify", "--json")
                self.assertEqual(done.returncode, 1, done.stderr)
                last = json.loads(done.stdout.splitlines()[-1])
                self.assertTrue(last["done"])
                self.assertEqual(last["damaged_digests"], [self.blob])
                self.pull()

    def test_damage_is_found_after_a_restart_too(self) -> None:
        self.assertEqual(self.staithed.stop(), 0)
        self.flip_a_bit(1000)
        self.staithed.start()
        self.assertEqual(self.staithed.command("verify").returncode, 1)
        self.pull()

    def test_status_tells_of_the_scrub(self) -> None:
        scrub = self.staithed.status()["cache"]["scrub"]
        self.assertEqual(scrub["state"], "waiting")
        self.assertIn("scrub waiting", self.staithed.command("status").stdout)
        self.staithed.configured({"cache": {"scrub_interval": "0s"}})
        self.staithed.config_file.write_text(toml(self.staithed.config))
        self.assertEqual(self.staithed.command("reload").returncode, 0)
        self.assertEqual(self.staithed.status()["cache"]["scrub"]["state"], "off")

    def test_without_a_daemon_it_says_so(self) -> None:
        self.staithed.stop()
        self.assertEqual(self.staithed.command("verify").returncode, 3)


if __name__ == "__main__":
    unittest.main()
