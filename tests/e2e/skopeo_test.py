#!/usr/bin/python3
"""skopeo copies every kind of image through the daemon, cold and warm, byte for byte."""

from __future__ import annotations

import unittest

from lab import LabTest

IMAGES = ("busybox:1", "debian:1", "multi:1")


class SkopeoThroughTheDaemon(LabTest):
    def test_digests_are_the_origins_cold_and_warm(self) -> None:
        staithed = self.lab.staithed.start()
        skopeo = self.lab.skopeo()
        for image in IMAGES:
            with self.subTest(image=image):
                reference = f"{staithed.address}/contoso.azurecr.io/{image}"
                expected = self.lab.digest(f"contoso/{image}")
                self.assertEqual(skopeo.pull(reference), expected)
                self.lab.azure.reset_log()
                self.assertEqual(skopeo.pull(reference), expected)
                stats = self.lab.azure.stats()
                self.assertEqual(stats["blob_bytes"], 0)
                self.assertEqual(stats["manifest_gets"], 0)

    def test_a_registry_with_anonymous_tokens_from_another_host(self) -> None:
        staithed = self.lab.staithed.start()
        skopeo = self.lab.skopeo()
        for image in ("library/busybox:1", "library/multi:1"):
            with self.subTest(image=image):
                expected = self.lab.digest(f"hub/{image}")
                named = f"{staithed.address}/docker.io/{image}"
                default = f"{staithed.address}/{image}"
                self.assertEqual(skopeo.pull(named), expected)
                self.assertEqual(skopeo.pull(default), expected)
        self.assertEqual(self.lab.azure.stats()["storage_with_authorization"], 0)


if __name__ == "__main__":
    unittest.main()
