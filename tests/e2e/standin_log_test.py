#!/usr/bin/python3
"""The credential chain as the cloud sees it: one of each, and none where it does not belong."""

from __future__ import annotations

import unittest

from lab import LabTest

IMAGES = ("busybox:1", "multi:1", "debian:1", "team-a/private:1")


class CredentialChain(LabTest):
    def test_one_imds_request_one_exchange_one_token_for_each_repository(self) -> None:
        staithed = self.lab.staithed.start()
        skopeo = self.lab.skopeo()
        for _ in range(2):
            for image in IMAGES:
                skopeo.pull(f"{staithed.address}/contoso.azurecr.io/{image}")
        stats = self.lab.azure.stats()
        self.assertEqual(stats["imds_requests"], 1)
        self.assertEqual(stats["imds_max_concurrent"], 1)
        self.assertEqual(stats["exchanges"], 1)
        self.assertEqual(stats["token_requests"], len(IMAGES))
        self.assertEqual(
            stats["tokens"],
            {f"contoso repository:{image.partition(':')[0]}:pull": 1 for image in IMAGES},
        )
        self.assertGreater(stats["storage_requests"], 0)
        self.assertEqual(stats["storage_with_authorization"], 0)
        self.assertEqual(stats["data_401_with_bearer"], 0)

    def test_what_a_client_sends_as_authorization_goes_nowhere(self) -> None:
        staithed = self.lab.staithed.start()
        target = "/v2/contoso.azurecr.io/busybox/manifests/1"
        reply = staithed.get(target, Authorization="Basic c29tZTpib2R5")
        self.assertEqual(reply.status, 200)
        reply = staithed.get("/v2/library/busybox/manifests/1", Authorization="Bearer mine")
        self.assertEqual(reply.status, 200)
        seen = {entry["authorization"] for entry in self.lab.azure.log()}
        self.assertEqual(seen, {"none", "bearer"})
        self.assertEqual(self.lab.azure.stats()["data_401_with_bearer"], 0)

    def test_a_second_registry_costs_an_exchange_but_no_imds_request(self) -> None:
        staithed = self.lab.staithed.start()
        for registry in ("contoso", "fabrikam"):
            reply = staithed.get(f"/v2/{registry}.azurecr.io/busybox/manifests/1")
            self.assertEqual(reply.status, 200)
        stats = self.lab.azure.stats()
        self.assertEqual((stats["imds_requests"], stats["exchanges"]), (1, 2))

    def test_no_secret_is_in_log_or_status(self) -> None:
        staithed = self.lab.staithed
        staithed.configured({"log": {"level": "trace"}}).start()
        self.lab.skopeo().pull(f"{staithed.address}/contoso.azurecr.io/multi:1")
        status = staithed.command("status", "--json").stdout
        self.assertIn("contoso.azurecr.io", status)
        staithed.stop()
        log = staithed.log.read_text(errors="replace")
        # JWTs begin so, and signed links carry their signature under this key.
        for secret in ("eyJ", "sig="):
            self.assertNotIn(secret, log)
            self.assertNotIn(secret, status)


if __name__ == "__main__":
    unittest.main()
