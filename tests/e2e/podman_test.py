#!/usr/bin/python3
"""podman with the daemon as a mirror in registries.conf."""

from __future__ import annotations

import unittest

from lab import LabTest, needs_root


@needs_root
class PodmanThroughTheDaemon(LabTest):
    def test_digests_are_the_origins(self) -> None:
        staithed = self.lab.staithed.start()
        podman = self.lab.podman("contoso.azurecr.io", f"{staithed.address}/contoso.azurecr.io")
        for image in ("busybox:1", "debian:1"):
            with self.subTest(image=image):
                digest = podman.pull(f"contoso.azurecr.io/{image}")
                self.assertEqual(digest, self.lab.digest(f"contoso/{image}"))
        self.assertEqual(self.lab.azure.stats()["storage_with_authorization"], 0)


if __name__ == "__main__":
    unittest.main()
