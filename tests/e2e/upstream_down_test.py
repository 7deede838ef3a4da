#!/usr/bin/python3
"""Upstream is gone: what is cached pulls, a miss fails fast, real clients go on to the origin."""

from __future__ import annotations

import time
import unittest

from lab import LabTest, needs_root
from staithed import Staithed

ROLES = ("acr", "storage", "hub", "auth")
# Once upstream is known to be down.
MISS_SECONDS = 2.0
SLOWEST = {"upstream_connect": "1s", "upstream_first_byte": "1500ms", "upstream_stall": "1500ms"}


class UpstreamDown(LabTest):
    """Refusing as a host whose registry has ended, silent as one that has gone."""

    def setUp(self) -> None:
        super().setUp()
        self.staithed = self.daemon("node")

    def daemon(self, name: str) -> Staithed:
        staithed = self.lab.another_staithed(name)
        return staithed.configured({"limits": SLOWEST}).start()

    def take_down(self, how: str) -> None:
        if how == "refusing":
            self.lab.azure.set(down=list(ROLES))
        else:
            self.lab.azure.faults(*[{"role": role, "action": {"hang": True}} for role in ROLES])

    def bring_back(self) -> None:
        self.lab.azure.set(down=[])
        self.lab.azure.faults()

    @needs_root
    def test_everything_cached_pulls_by_every_real_client(self) -> None:
        staithed, registry = self.staithed, "contoso.azurecr.io"
        containerd = self.lab.containerd()
        containerd.mirror(registry, staithed.url)
        dockerd = self.lab.dockerd(mirrors=[staithed.url])
        skopeo = self.lab.skopeo()

        def podman(image: str) -> str:
            # A new one each time, because it keeps what it has.
            found = self.lab.podman(registry, f"{staithed.address}/{registry}")
            return found.pull(f"{registry}/{image}")

        def ctr(image: str) -> str:
            reference = f"{registry}/{image}"
            digest = containerd.pull(reference)
            containerd.forget(reference)
            return digest

        def docker(reference: str) -> str:
            digest = dockerd.pull(reference)
            dockerd.forget(reference)
            return digest

        pulls = {
            "containerd": ("contoso/busybox:1", lambda: ctr("busybox:1")),
            "dockerd's mirror": ("hub/library/multi:1", lambda: docker("multi:1")),
            "dockerd": (
                "contoso/busybox:1",
                lambda: docker(f"{staithed.address}/{registry}/busybox:1"),
            ),
            "podman": ("contoso/busybox:1", lambda: podman("busybox:1")),
            "skopeo": (
                "contoso/multi:1",
                lambda: skopeo.pull(f"{staithed.address}/{registry}/multi:1"),
            ),
        }
        for name, (image, pull) in pulls.items():
            self.assertEqual(pull(), self.lab.digest(image), name)
        for how in ("refusing", "silent"):
            self.take_down(how)
            for name, (image, pull) in pulls.items():
                with self.subTest(how=how, client=name):
                    began = time.monotonic()
                    self.assertEqual(pull(), self.lab.digest(image))
                    seconds = time.monotonic() - began
                    print(f"\n{name}, upstream {how}: {seconds:.1f} s", end="")
            self.bring_back()

    def test_a_miss_fails_fast_once_upstream_is_known_to_be_down(self) -> None:
        blob = self.lab.image("contoso/debian:1")["layers"][0]["digest"]
        paths = [f"busybox/manifests/{tag}" for tag in ("1", "2", "never", "seen")]
        paths += [f"debian/blobs/{blob}", f"debian/manifests/{self.lab.digest('contoso/debian:1')}"]
        for how in ("refusing", "silent"):
            staithed = self.daemon(f"fast-{how}")
            # It has its tokens, so that what fails is the registry.
            for repository in ("busybox", "debian"):
                reply = staithed.get(f"/v2/contoso.azurecr.io/{repository}/tags/list")
                self.assertEqual(reply.status, 200)
            self.take_down(how)
            times = []
            for number in range(10 + len(paths)):
                path = paths[number % len(paths)]
                began = time.monotonic()
                reply = staithed.get(f"/v2/contoso.azurecr.io/{path}")
                times.append(time.monotonic() - began)
                # On a blob's 404 every client moves on; on a 5xx dockerd tries for 50 s.
                expected = (404,) if "/blobs/" in path else (502, 503, 504)
                self.assertIn(reply.status, expected, path)
                self.assertTrue(reply.json()["errors"][0]["message"])
            shown = " ".join(f"{seconds:.2f}" for seconds in times)
            print(f"\nmisses while upstream is {how}, seconds: {shown}", end="")
            # The first few are how it comes to be known.
            slow = [seconds for seconds in times[6:] if seconds > MISS_SECONDS]
            self.assertEqual(slow, [], f"upstream {how}: {shown}")
            self.bring_back()

    @needs_root
    def test_real_clients_fall_back_to_the_origin(self) -> None:
        origin, registry = self.lab.second_origin(), "contoso.azurecr.io"
        containerd = self.lab.containerd()
        dockerd = self.lab.dockerd(mirrors=[self.staithed.url, origin])
        containerd.mirror(registry, self.staithed.url, server=origin)
        # Manifests are cached here, and their layers are not: the turn comes at a blob.
        self.cache_manifest("contoso.azurecr.io/busybox", "2", "contoso/busybox:2")
        self.cache_manifest("docker.io/library/multi", "2", "hub/library/multi:2")
        for how in ("refusing", "silent"):
            self.take_down(how)
            for tag, what in (("1", "an image that was never seen"), ("2", "missing layers")):
                with self.subTest(client="containerd", how=how, what=what):
                    reference = f"{registry}/busybox:{tag}"
                    began = time.monotonic()
                    digest = containerd.pull(reference)
                    self.tell("containerd", how, what, began)
                    self.assertEqual(digest, self.lab.digest(f"contoso/busybox:{tag}"))
                    containerd.forget(reference)
                with self.subTest(client="dockerd", how=how, what=what):
                    began = time.monotonic()
                    digest = dockerd.pull(f"multi:{tag}")
                    self.tell("dockerd", how, what, began)
                    self.assertEqual(digest, self.lab.digest(f"hub/library/multi:{tag}"))
                    dockerd.forget(f"multi:{tag}")
            self.bring_back()

    def tell(self, client: str, how: str, what: str, began: float) -> None:
        seconds = time.monotonic() - began
        print(f"\n{client} falls back, {what}, upstream {how}: {seconds:.1f} s", end="")

    def cache_manifest(self, repository: str, tag: str, image: str) -> None:
        """All manifests of an image, as a HEAD of the tag and a pull by digest leave them."""
        found = self.lab.image(image)
        for reference in (tag, found["digest"], *found.get("children", {}).values()):
            reply = self.staithed.get(f"/v2/{repository}/manifests/{reference}")
            self.assertEqual(reply.status, 200)


if __name__ == "__main__":
    unittest.main()
