#!/usr/bin/python3
"""dockerd through the daemon: as a mirror of the default registry, and by the daemon's address."""

from __future__ import annotations

import unittest

from lab import LabTest, needs_root


@needs_root
class DockerdThroughTheDaemon(LabTest):
    def test_registry_mirrors_leads_to_the_default_registry(self) -> None:
        staithed = self.lab.staithed.start()
        dockerd = self.lab.dockerd(mirrors=[staithed.url])
        # dockerd sends no ns; it cannot say which registry it means.
        self.assertEqual(dockerd.pull("busybox:1"), self.lab.digest("hub/library/busybox:1"))
        self.assertEqual(dockerd.pull("multi:1"), self.lab.digest("hub/library/multi:1"))
        self.assertEqual(dockerd.run("busybox:1", "echo", "ashore"), "ashore\n")

    def test_an_acr_image_by_the_daemons_address_runs(self) -> None:
        staithed = self.lab.staithed.start()
        dockerd = self.lab.dockerd(mirrors=[])
        for image in ("busybox:1", "debian:1"):
            with self.subTest(image=image):
                reference = f"{staithed.address}/contoso.azurecr.io/{image}"
                self.assertEqual(dockerd.pull(reference), self.lab.digest(f"contoso/{image}"))
                self.assertEqual(dockerd.run(reference, "/bin/echo", "ashore"), "ashore\n")


if __name__ == "__main__":
    unittest.main()
