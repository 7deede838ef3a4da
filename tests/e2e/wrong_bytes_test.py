#!/usr/bin/python3
"""Upstream sends other bytes than the digest promises: no client ever gets a whole wrong body."""

from __future__ import annotations

import unittest

import raw
from lab import MIB, LabTest

IMAGE = "contoso/wrong:32MiB"
SIZE = 32 * MIB


class WrongBytes(LabTest):
    noise = [(IMAGE, SIZE)]

    def setUp(self) -> None:
        super().setUp()
        self.staithed = self.lab.staithed.start()
        self.large = self.lab.image(IMAGE)["layers"][0]["digest"]
        self.small = self.lab.image(IMAGE)["config"]

    def get(self, digest: str) -> raw.RawReply:
        target = f"/v2/contoso.azurecr.io/wrong/blobs/{digest}"
        return raw.request(self.staithed.address, "GET", target)

    def test_a_body_with_wrong_bytes_never_completes(self) -> None:
        for digest, size in ((self.large, SIZE), (self.small, None)):
            size = size or self.lab.origin_file(digest).stat().st_size
            for action in (
                {"flip": 0},
                {"flip": size // 2},
                {"flip": size - 1},
                {"shorten": 7},
                {"lengthen": 7},
            ):
                with self.subTest(size=size, action=action):
                    self.lab.azure.faults({"role": "storage", "action": action})
                    reply = self.get(digest)
                    self.assertEqual(reply.ended, "fin")
                    if reply.status == 200:
                        self.assertFalse(reply.is_whole())
                    else:
                        self.assertGreaterEqual(reply.status, 500)
                    self.assertNotIn(digest, self.staithed.blob_files())

        # Once upstream is honest again, so is the answer.
        self.lab.azure.faults()
        for digest in (self.large, self.small):
            reply = self.get(digest)
            self.assertEqual(reply.status, 200)
            self.assert_bytes(reply.body, self.lab.origin_file(digest).read_bytes())

    def test_a_manifest_with_wrong_bytes_is_refused(self) -> None:
        self.lab.azure.faults({"role": "acr", "path": "/manifests/", "action": {"flip": 30}})
        digest = self.lab.digest(IMAGE)
        for reference in (digest, "32MiB"):
            with self.subTest(reference=reference):
                target = f"/v2/contoso.azurecr.io/wrong/manifests/{reference}"
                reply = self.staithed.get(target)
                self.assertIn(reply.status, (502, 503))
                self.assertTrue(reply.json()["errors"][0]["message"])

    def test_when_upstream_cuts_the_client_sees_a_fin(self) -> None:
        """A FIN lets containerd ask for the rest; a RST ends its pull."""
        for action in ({"close": 5 * MIB}, {"reset": 5 * MIB}):
            with self.subTest(action=action):
                self.lab.azure.faults(
                    {"role": "storage", "times": 1, "action": action},
                    {"role": "storage", "action": {"status": 503}},
                )
                reply = self.get(self.large)
                self.assertEqual(reply.status, 200)
                self.assertFalse(reply.is_whole())
                self.assertEqual(reply.ended, "fin")
                self.assertGreater(len(reply.body), 0)
                truth = self.lab.origin_file(self.large).read_bytes()
                self.assert_bytes(reply.body, truth[: len(reply.body)])


if __name__ == "__main__":
    unittest.main()
