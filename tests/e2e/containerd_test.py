#!/usr/bin/python3
"""containerd, told by hosts.toml to ask the daemon, names the registry by `ns=`."""

from __future__ import annotations

import unittest

from lab import LabTest, needs_root


@needs_root
class ContainerdThroughTheDaemon(LabTest):
    def test_digests_are_the_origins_and_a_container_runs(self) -> None:
        staithed = self.lab.staithed.start()
        containerd = self.lab.containerd()
        containerd.mirror("contoso.azurecr.io", staithed.url)
        for image, options in (
            ("busybox:1", ()),
            ("debian:1", ()),
            ("multi:1", ("--all-platforms",)),
        ):
            with self.subTest(image=image):
                reference = f"contoso.azurecr.io/{image}"
                expected = self.lab.digest(f"contoso/{image}")
                self.assertEqual(containerd.pull(reference, *options), expected)
                if image == "busybox:1":
                    self.assertEqual(containerd.run(reference, "echo", "ashore"), "ashore\n")
                containerd.forget(reference)
                self.assertEqual(containerd.content(), set())

                self.lab.azure.reset_log()
                self.assertEqual(containerd.pull(reference, *options), expected)
                self.assertEqual(self.lab.azure.stats()["blob_bytes"], 0)
                containerd.forget(reference)

    def test_two_registries_keep_images_of_one_name_apart(self) -> None:
        staithed = self.lab.staithed.start()
        containerd = self.lab.containerd()
        for name in ("contoso", "fabrikam"):
            containerd.mirror(f"{name}.azurecr.io", staithed.url)
            digest = containerd.pull(f"{name}.azurecr.io/busybox:1")
            self.assertEqual(digest, self.lab.digest(f"{name}/busybox:1"))

    def test_hub_images_through_ns_docker_io(self) -> None:
        staithed = self.lab.staithed.start()
        containerd = self.lab.containerd()
        containerd.mirror("docker.io", staithed.url)
        digest = containerd.pull("docker.io/library/busybox:1")
        self.assertEqual(digest, self.lab.digest("hub/library/busybox:1"))


if __name__ == "__main__":
    unittest.main()
