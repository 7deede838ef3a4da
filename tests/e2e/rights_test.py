#!/usr/bin/python3
"""What is in the cache for one repository is not thereby open to another."""

from __future__ import annotations

import unittest

from lab import LabTest

REGISTRY = "contoso.azurecr.io"


class Rights(LabTest):
    def setUp(self) -> None:
        super().setUp()
        self.staithed = self.lab.staithed.start()
        (layer,) = self.lab.image("contoso/busybox:1")["layers"]
        self.shared = layer["digest"]
        self.lab.skopeo().pull(f"{self.staithed.address}/{REGISTRY}/busybox:1")
        self.assertIn(self.shared, self.staithed.blob_files())

    def test_a_cached_blob_is_refused_through_a_repository_without_rights(self) -> None:
        self.lab.azure.set(denied=["contoso/team-a/*"])
        for method in ("GET", "HEAD"):
            target = f"/v2/{REGISTRY}/team-a/private/blobs/{self.shared}"
            reply = self.staithed.get(target, method)
            # 404 is the answer on which every client moves on; its message names the cause.
            self.assertIn(reply.status, (403, 404))
            self.assertIsNone(reply.headers["WWW-Authenticate"])
        self.assertEqual(reply.body, b"")

    def test_a_cached_blob_is_unknown_where_upstream_does_not_have_it(self) -> None:
        for repository in (f"{REGISTRY}/debian", "fabrikam.azurecr.io/busybox"):
            with self.subTest(repository=repository):
                reply = self.staithed.get(f"/v2/{repository}/blobs/{self.shared}")
                self.assertEqual(reply.status, 404)
                self.assertEqual(reply.json()["errors"][0]["code"], "BLOB_UNKNOWN")

    def test_a_cached_blob_is_served_where_upstream_shows_it(self) -> None:
        truth = self.lab.origin_file(self.shared).read_bytes()
        for repository in (f"{REGISTRY}/team-a/private", "docker.io/library/busybox"):
            with self.subTest(repository=repository):
                reply = self.staithed.get(f"/v2/{repository}/blobs/{self.shared}")
                self.assertEqual(reply.status, 200)
                self.assert_bytes(reply.body, truth)

    def test_a_denied_manifest_is_403_and_never_a_challenge(self) -> None:
        self.lab.azure.set(denied=["contoso/team-a/*"])
        target = f"/v2/{REGISTRY}/team-a/private/manifests/1"
        for method in ("GET", "HEAD"):
            reply = self.staithed.get(target, method)
            self.assertEqual(reply.status, 403)
            self.assertIsNone(reply.headers["WWW-Authenticate"])
        error = self.staithed.get(target).json()["errors"][0]
        self.assertEqual(error["code"], "DENIED")
        self.assertIn("team-a/private", error["message"])

    def test_an_identity_without_a_role_is_403_and_says_so(self) -> None:
        system = self.lab.azure.log(role="imds")[0]["identity"]
        self.lab.azure.set(identities_without_role=[system])
        reply = self.staithed.get("/v2/fabrikam.azurecr.io/busybox/manifests/1")
        self.assertEqual(reply.status, 403)
        error = reply.json()["errors"][0]
        self.assertEqual(error["code"], "DENIED")
        self.assertIn("fabrikam", error["message"])


if __name__ == "__main__":
    unittest.main()
