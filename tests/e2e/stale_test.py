#!/usr/bin/python3
"""Upstream is gone: tags that were seen are still served, marked, and only as long as allowed."""

from __future__ import annotations

import json
import time
import unittest

from lab import LabTest

TAG = "/v2/contoso.azurecr.io/busybox/manifests/1"
DOWN = {"down": ["acr", "storage"]}


class Stale(LabTest):
    def test_a_tag_is_served_stale_while_upstream_refuses_connections(self) -> None:
        staithed = self.lab.staithed.start()
        fresh = self.pull()
        self.lab.azure.set(**DOWN)
        self.is_stale_copy_of(fresh)
        self.lab.azure.set(down=[])
        back = time.monotonic()
        while "stale" in (again := staithed.get(TAG)).headers["Cache-Status"]:
            self.assertEqual(again.status, 200)
            # Upstream is left alone for some seconds, and then found by one request.
            self.assertLess(time.monotonic() - back, 10.0)
            time.sleep(0.1)
        self.assertEqual(again.status, 200)

    def test_a_tag_is_served_stale_while_upstream_answers_5xx_or_429(self) -> None:
        self.lab.staithed.start()
        fresh = self.pull()
        for status in (429, 500, 503):
            with self.subTest(status=status):
                self.lab.azure.faults(
                    {"role": "acr", "path": "/manifests/", "action": {"status": status}}
                )
                self.is_stale_copy_of(fresh)

    def pull(self):
        """The whole image; gives the manifest's answer."""
        staithed = self.lab.staithed
        fresh = staithed.get(TAG)
        self.assertEqual(fresh.status, 200)
        image = fresh.json()
        for part in [image["config"], *image["layers"]]:
            path = f"/v2/contoso.azurecr.io/busybox/blobs/{part['digest']}"
            self.assertEqual(staithed.get(path).status, 200)
        staithed.wait_until_stored()
        return fresh

    def test_an_image_that_is_not_wholly_cached_is_left_to_the_next_source(self) -> None:
        staithed = self.lab.staithed.start()
        self.assertEqual(staithed.get(TAG).status, 200)
        self.lab.azure.set(**DOWN)
        self.assertIn(staithed.get(TAG).status, (502, 503, 504))
        self.assertEqual(staithed.get(TAG, "HEAD").status, 200)

    def test_a_token_service_that_is_down_is_no_failure_of_what_is_cached(self) -> None:
        busy = {"status": 503, "body": "busy"}
        for name, down, faults in (
            ("metadata service", ["imds"], ()),
            ("token endpoint", [], ({"role": "acr", "path": "/oauth2/", "action": busy},)),
        ):
            with self.subTest(name):
                self.lab.azure.set(down=[])
                self.lab.azure.faults()
                staithed = self.lab.staithed.start()
                fresh = self.pull()
                staithed.stop()  # Tokens are in memory alone.
                self.lab.azure.set(down=down)
                self.lab.azure.faults(*faults)
                staithed.start()
                stale = staithed.get(TAG)
                self.assertEqual(stale.body, fresh.body)
                self.assertIn("fwd=stale", stale.headers["Cache-Status"])
                staithed.stop()

    def is_stale_copy_of(self, fresh) -> None:
        for method in ("HEAD", "GET"):
            started = time.monotonic()
            reply = self.lab.staithed.get(TAG, method)
            # Who has an answer need not wait for upstream to recover first.
            self.assertLess(time.monotonic() - started, 2.0)
            self.assertEqual(reply.status, 200)
            self.assertIn("fwd=stale", reply.headers["Cache-Status"])
            self.assertTrue(reply.headers["Age"].isdecimal())
            for name in ("Docker-Content-Digest", "Content-Type", "Content-Length"):
                self.assertEqual(reply.headers[name], fresh.headers[name])
            self.assertEqual(reply.body, fresh.body if method == "GET" else b"")

    def test_a_whole_image_comes_from_the_cache_when_upstream_is_down(self) -> None:
        staithed = self.lab.staithed.start()
        skopeo = self.lab.skopeo()
        reference = f"{staithed.address}/contoso.azurecr.io/multi:1"
        skopeo.pull(reference)
        self.lab.azure.set(**DOWN)
        self.assertEqual(skopeo.pull(reference), self.lab.digest("contoso/multi:1"))

    def test_serve_stale_0_means_never(self) -> None:
        self.lab.staithed.configured({"freshness": {"serve_stale": "0s"}})
        staithed = self.lab.staithed.start()
        self.assertEqual(staithed.get(TAG).status, 200)
        self.lab.azure.set(**DOWN)
        reply = staithed.get(TAG)
        self.assertIn(reply.status, (502, 503, 504))
        error = json.loads(reply.body)["errors"][0]
        self.assertIn("contoso", error["message"])

    def test_a_tag_that_upstream_has_removed_is_not_served(self) -> None:
        """A 404 is an answer, not a failure."""
        staithed = self.lab.staithed.start()
        self.assertEqual(staithed.get(TAG).status, 200)
        body = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "unknown tag", "detail": None}]}
        gone = {
            "status": 404,
            "headers": {"Content-Type": "application/json"},
            "body": json.dumps(body),
        }
        self.lab.azure.faults({"role": "acr", "path": "/manifests/", "action": gone})
        reply = staithed.get(TAG)
        self.assertEqual(reply.status, 404)
        self.assertEqual(reply.json()["errors"][0]["code"], "MANIFEST_UNKNOWN")

    def test_what_was_never_seen_fails_fast_while_upstream_is_down(self) -> None:
        staithed = self.lab.staithed.start()
        self.lab.azure.set(**DOWN)
        reply = staithed.get(TAG)
        self.assertIn(reply.status, (502, 503, 504))
        self.assertTrue(json.loads(reply.body)["errors"][0]["message"])


if __name__ == "__main__":
    unittest.main()
