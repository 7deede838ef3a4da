#!/usr/bin/python3
"""The wire contract: headers, HEAD, ranges, names of registries, TLS on the plain port."""

from __future__ import annotations

import json
import time
import unittest

import raw
from lab import MIB, LabTest

IMAGE = "contoso/wire:8MiB"
SIZE = 8 * MIB
REPOSITORY = "/v2/contoso.azurecr.io/wire"
OCI = "application/vnd.oci.image.manifest.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
# A TLS 1.2 ClientHello, as far as anybody looks at it.
CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(190)


class Wire(LabTest):
    noise = [(IMAGE, SIZE)]

    def setUp(self) -> None:
        super().setUp()
        self.staithed = self.lab.staithed.start()
        self.blob = self.lab.image(IMAGE)["layers"][0]["digest"]
        self.truth = self.lab.origin_file(self.blob)

    def test_ping_and_health(self) -> None:
        for path in ("/v2/", "/v2"):
            for method in ("GET", "HEAD"):
                reply = self.staithed.get(path, method)
                self.assertEqual(reply.status, 200)
                self.assertEqual(reply.headers["Content-Length"], "2")
                self.assertEqual(reply.headers["Docker-Distribution-Api-Version"], "registry/2.0")
                self.assertEqual(reply.body, b"{}" if method == "GET" else b"")
        for path in ("/healthz", "/readyz"):
            self.assertEqual(self.staithed.get(path).status, 200)
        self.assertEqual(self.lab.azure.log(), [])

    def test_manifest_headers_are_exact_for_head_and_get_cold_and_warm(self) -> None:
        for image, kind in (("busybox:1", DOCKER), ("wire:8MiB", OCI)):
            repository, _, tag = image.partition(":")
            digest = self.lab.digest(f"contoso/{image}")
            truth = self.lab.from_origin(
                f"/v2/contoso/{repository}/manifests/{digest}", Accept=kind
            ).body
            for reference in (tag, digest):
                for method in ("HEAD", "GET", "HEAD", "GET"):
                    with self.subTest(image=image, reference=reference, method=method):
                        target = f"/v2/contoso.azurecr.io/{repository}/manifests/{reference}"
                        reply = self.staithed.get(target, method, Accept=kind)
                        self.assertEqual(reply.status, 200)
                        self.assertEqual(reply.headers["Content-Type"], kind)
                        self.assertEqual(reply.headers["Content-Length"], str(len(truth)))
                        self.assertEqual(reply.headers["Docker-Content-Digest"], digest)
                        self.assertEqual(reply.body, truth if method == "GET" else b"")
                        self.assertIn("staithe", reply.headers["Cache-Status"])

    def test_blob_head_on_a_miss_downloads_nothing(self) -> None:
        reply = self.staithed.get(f"{REPOSITORY}/blobs/{self.blob}", "HEAD")
        self.assertEqual((reply.status, reply.body), (200, b""))
        self._blob_headers(reply, SIZE)
        self.assertEqual(self.lab.azure.stats()["blob_gets"], {})

    def test_blob_get_cold_and_warm_with_cache_status(self) -> None:
        for expected in ("fwd=miss", "hit"):
            reply = self.staithed.get(f"{REPOSITORY}/blobs/{self.blob}", Accept_Encoding="gzip")
            self.assertEqual(reply.status, 200)
            self._blob_headers(reply, SIZE)
            self.assertIsNone(reply.headers["Content-Encoding"])
            self.assertIn(expected, reply.headers["Cache-Status"])
            self.staithed.wait_until_stored()
            self.assert_bytes(reply.body, self.truth.read_bytes())
        self.assertEqual(self.lab.azure.stats()["blob_sent"], {self.blob: SIZE})

    def _blob_headers(self, reply, length: int) -> None:
        self.assertEqual(reply.headers["Content-Length"], str(length))
        self.assertEqual(reply.headers["Docker-Content-Digest"], self.blob)
        self.assertEqual(reply.headers["Accept-Ranges"], "bytes")
        self.assertEqual(reply.headers["Content-Type"], "application/octet-stream")

    def test_a_range_on_a_miss_is_206_at_once(self) -> None:
        # The fill stops in the middle: what comes before is served, not awaited to the end.
        self.lab.azure.faults({"role": "storage", "action": {"hold": "half", "at": SIZE // 2}})
        self._range("bytes=1000-1999", 1000, 1999)
        self.lab.azure.release("half")
        self._range(f"bytes={SIZE - 10}-", SIZE - 10, SIZE - 1)
        # What was in flight when a connection was cut short for the range is all that is lost.
        self.assertLessEqual(self.lab.azure.stats()["blob_sent"][self.blob], SIZE + SIZE // 100)

    def test_ranges_on_a_hit(self) -> None:
        self.staithed.get(f"{REPOSITORY}/blobs/{self.blob}")
        for wanted, first, last in (
            ("bytes=0-0", 0, 0),
            ("bytes=500-1499", 500, 1499),
            (f"bytes={SIZE - 1}-", SIZE - 1, SIZE - 1),
            ("bytes=-500", SIZE - 500, SIZE - 1),
            (f"bytes=-{SIZE * 2}", 0, SIZE - 1),
            (f"bytes=7-{SIZE * 2}", 7, SIZE - 1),
        ):
            self._range(wanted, first, last)

    def _range(self, wanted: str, first: int, last: int) -> None:
        with self.subTest(range=wanted):
            reply = self.staithed.get(f"{REPOSITORY}/blobs/{self.blob}", Range=wanted)
            self.assertEqual(reply.status, 206)
            self.assertEqual(reply.headers["Content-Range"], f"bytes {first}-{last}/{SIZE}")
            self.assertEqual(reply.headers["Content-Length"], str(last - first + 1))
            self.assertEqual(reply.headers["Docker-Content-Digest"], self.blob)
            self.assert_bytes(reply.body, self.truth.read_bytes()[first : last + 1])

    def test_several_ranges_are_answered_with_the_whole(self) -> None:
        reply = self.staithed.get(f"{REPOSITORY}/blobs/{self.blob}", Range="bytes=0-1,4-5")
        self.assertEqual((reply.status, len(reply.body)), (200, SIZE))

    def test_three_ways_to_name_a_registry(self) -> None:
        expected = self.lab.digest("contoso/busybox:1")
        for target in (
            "/v2/busybox/manifests/1?ns=contoso.azurecr.io",
            "/v2/contoso.azurecr.io/busybox/manifests/1",
        ):
            reply = self.staithed.get(target)
            self.assertEqual(reply.headers["Docker-Content-Digest"], expected, target)
        expected = self.lab.digest("hub/library/busybox:1")
        for target in (
            "/v2/library/busybox/manifests/1",
            "/v2/library/busybox/manifests/1?ns=docker.io",
            "/v2/docker.io/library/busybox/manifests/1",
        ):
            reply = self.staithed.get(target)
            self.assertEqual(reply.headers["Docker-Content-Digest"], expected, target)

    def test_tags_and_referrers(self) -> None:
        reply = self.staithed.get("/v2/contoso.azurecr.io/busybox/tags/list")
        self.assertEqual(reply.status, 200)
        self.assertEqual(sorted(reply.json()["tags"]), ["1", "2"])
        reply = self.staithed.get(f"{REPOSITORY}/referrers/{self.lab.digest(IMAGE)}")
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.json()["manifests"], [])

    def test_a_pages_link_of_tags_leads_back_to_the_daemon(self) -> None:
        reply = self.staithed.get("/v2/contoso.azurecr.io/busybox/tags/list?n=1")
        self.assertEqual(reply.json()["tags"], ["1"])
        link = reply.headers["Link"].partition("<")[2].partition(">")[0]
        target = link.removeprefix(self.staithed.url)
        self.assertTrue(target.startswith("/v2/"), link)
        self.assertEqual(self.staithed.get(target).json()["tags"], ["2"])

    def test_a_tls_hello_is_answered_in_plain_http_at_once(self) -> None:
        started = time.monotonic()
        reply = raw.exchange(self.staithed.address, CLIENT_HELLO, timeout=5)
        self.assertLess(time.monotonic() - started, 1.0)
        self.assertEqual((reply.version, reply.status), ("HTTP/1.0", 400))
        self.assertEqual(reply.headers["connection"].lower(), "close")
        self.assertEqual(reply.ended, "fin")

    def test_a_connection_is_kept_for_the_next_request_until_the_client_closes(self) -> None:
        one = f"GET /v2/ HTTP/1.1\r\nHost: {self.staithed.address}\r\n"
        both = one + "\r\n" + one + "Connection: close\r\n\r\n"
        reply = raw.exchange(self.staithed.address, both.encode())
        self.assertEqual(reply.received.count(b"HTTP/1.1 200"), 2)
        self.assertEqual(reply.ended, "fin")

    def test_status_counts_what_happened(self) -> None:
        for _ in range(2):
            self.staithed.get(f"{REPOSITORY}/blobs/{self.blob}")
            self.staithed.wait_until_stored()
        status = self.staithed.status()
        self.assertEqual(status["state"], "ready")
        self.assertEqual(status["listen"], [self.staithed.address])
        self.assertGreaterEqual(status["traffic"]["bytes_served"], 2 * SIZE)
        self.assertGreaterEqual(status["traffic"]["bytes_fetched"], SIZE)
        self.assertGreaterEqual(status["traffic"]["hits"], 1)
        registry = next(r for r in status["registries"] if r["name"] == "contoso.azurecr.io")
        kinds = {token["kind"] for token in registry["tokens"]}
        self.assertEqual(kinds, {"entra", "refresh", "access"})
        done = self.staithed.command("status", "--json")
        self.assertEqual((done.returncode, json.loads(done.stdout)["pid"]), (0, status["pid"]))


if __name__ == "__main__":
    unittest.main()
