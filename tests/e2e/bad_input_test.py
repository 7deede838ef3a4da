#!/usr/bin/python3
"""Bad input gets the right status and an error body whose message a person understands."""

from __future__ import annotations

import json
import unittest

import raw
from lab import MIB, LabTest

REGISTRY = "/v2/contoso.azurecr.io"
ABSENT = "sha256:" + "0" * 64


class BadInput(LabTest):
    def setUp(self) -> None:
        super().setUp()
        self.staithed = self.lab.staithed.start()
        self.address = self.staithed.address

    def refused(
        self, target: str, statuses: int | tuple, codes: str | tuple, method: str = "GET",
        **headers: str,
    ) -> str:  # fmt: skip
        """Asks, checks status, code and form of the answer; gives the message."""
        with self.subTest(target=target[:100], method=method):
            reply = raw.request(self.address, method, target, **headers)
            self.assertIn(reply.status, statuses if isinstance(statuses, tuple) else (statuses,))
            self.assertEqual(reply.ended, "fin")
            self.assertNotIn("www-authenticate", reply.headers)
            self.assertTrue(reply.headers["content-type"].startswith("application/json"))
            error = json.loads(reply.body)["errors"][0]
            self.assertIn(error["code"], codes if isinstance(codes, tuple) else (codes,))
            # A sentence, not a code in other words.
            self.assertGreater(len(error["message"].split()), 2, error)
            return error["message"]
        return ""

    def test_digests(self) -> None:
        for digest in ("sha256:abc", "sha256:" + "A" * 64, "md5:" + "0" * 32, "sha256:", "sha256"):
            self.refused(f"{REGISTRY}/busybox/blobs/{digest}", 400, "DIGEST_INVALID")
        self.refused(f"{REGISTRY}/busybox/blobs/{ABSENT}", 404, "BLOB_UNKNOWN")
        self.refused(f"{REGISTRY}/busybox/manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN")
        invalid = ("DIGEST_INVALID", "MANIFEST_INVALID", "TAG_INVALID")
        self.refused(f"{REGISTRY}/busybox/manifests/sha256:abc", 400, invalid)
        self.refused(f"{REGISTRY}/busybox/referrers/sha256:abc", 400, "DIGEST_INVALID")

    def test_names(self) -> None:
        codes: tuple[str, ...] = ("NAME_INVALID", "NAME_UNKNOWN")
        for name in ("Busybox", "-busybox", "busy_-box", "a//b", "a/", "a" * 300):
            self.refused(f"{REGISTRY}/{name}/manifests/1", (400, 404), codes)
        # What no name has in it may be refused before it is taken for a name.
        for target in ("ä/manifests/1", "a%20b/manifests/1", "busybox/manifests/a%2fb"):
            self.refused(f"{REGISTRY}/{target}", (400, 404), (*codes, "UNSUPPORTED"))
        for tag in ("-1", ".1", "a" * 129):
            codes = ("MANIFEST_INVALID", "TAG_INVALID", "NAME_INVALID", "MANIFEST_UNKNOWN")
            self.refused(f"{REGISTRY}/busybox/manifests/{tag}", (400, 404), codes)
        self.refused(f"{REGISTRY}/busybox/manifests/absent", 404, "MANIFEST_UNKNOWN")
        self.refused(f"{REGISTRY}/absent/manifests/1", 404, ("NAME_UNKNOWN", "MANIFEST_UNKNOWN"))

    def test_paths_that_climb(self) -> None:
        for target in (
            f"{REGISTRY}/../../../etc/passwd",
            f"{REGISTRY}/a/../busybox/manifests/1",
            f"{REGISTRY}/%2e%2e/busybox/manifests/1",
            f"{REGISTRY}/busybox/manifests/..",
            f"{REGISTRY}/busybox/blobs/../manifests/1",
            f"{REGISTRY}/busybox/blobs/sha256:..%2f..%2fetc%2fpasswd",
            "/v2/../v2/",
        ):
            reply = raw.request(self.address, "GET", target)
            self.assertIn(reply.status, (400, 404), target)
            json.loads(reply.body)

    def test_unknown_registries_are_told_which_there_are(self) -> None:
        for target in (
            "/v2/evil.example/app/manifests/1",
            "/v2/app/manifests/1?ns=evil.example",
            "/v2/app/manifests/1?ns=contoso.azurecr.io.evil.example",
            "/v2/xcontoso.azurecr.io/app/manifests/1",
            "/v2/app/manifests/1?ns=127.0.0.1:1",
        ):
            message = self.refused(target, 404, "NAME_UNKNOWN")
            self.assertIn("contoso.azurecr.io", message)
            self.assertIn("docker.io", message)
        self.assertEqual(self.lab.azure.log(), [])

    def test_writes_are_unsupported(self) -> None:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            for path in (
                "busybox/blobs/uploads/",
                "busybox/manifests/1",
                f"busybox/blobs/{ABSENT}",
            ):
                self.refused(f"{REGISTRY}/{path}", 405, "UNSUPPORTED", method, Content_Length="0")
        self.assertEqual(self.lab.azure.log(), [])

    def test_unsatisfiable_ranges(self) -> None:
        (layer,) = self.lab.image("contoso/busybox:1")["layers"]
        target = f"{REGISTRY}/busybox/blobs/{layer['digest']}"
        for state in ("miss", "hit"):
            for wanted in (f"bytes={layer['size']}-", "bytes=99999999999-", "bytes=-0"):
                with self.subTest(range=wanted, state=state):
                    reply = raw.request(self.address, "GET", target, Range=wanted)
                    self.assertEqual(reply.status, 416)
                    expected = f"bytes */{layer['size']}"
                    self.assertEqual(reply.headers["content-range"], expected)
            # Ranges that make no sense are no ranges.
            for wanted in ("bytes=500-0", "bytes=a-b", "lines=1-2", "bytes=", "bytes=-"):
                reply = raw.request(self.address, "GET", target, Range=wanted)
                self.assertIn(reply.status, (200, 416), wanted)
            self.assertEqual(raw.request(self.address, "GET", target).status, 200)

    def test_a_head_of_one_mebibyte(self) -> None:
        reply = raw.request(self.address, "GET", "/v2/", X_Large="x" * MIB)
        self.assertIn(reply.status, (400, 431))
        self.assertTrue(json.loads(reply.body)["errors"][0]["message"])
        self.assertIn(reply.ended, ("fin", "rst"))
        reply = raw.request(self.address, "GET", "/v2/" + "x" * MIB)
        self.assertIn(reply.status, (400, 414, 431))
        # Eight kibibytes are a client's right.
        reply = raw.request(self.address, "GET", "/v2/", X_Fair="x" * 7000)
        self.assertEqual(reply.status, 200)

    def test_what_is_not_http(self) -> None:
        for sent in (
            b"hello\r\n\r\n",
            b"GET /v2/\r\n\r\n",
            b"GET /v2/ HTTP/9.9\r\nHost: x\r\n\r\n",
            b"GET v2 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            b"GET /v2/ HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
            b"GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: x\r\n\r\n",
        ):
            with self.subTest(sent=sent):
                reply = raw.exchange(self.address, sent, timeout=5)
                self.assertEqual(reply.status, 400)
                self.assertEqual(reply.ended, "fin")

    def test_unknown_paths(self) -> None:
        for target in ("/", "/v1/_ping", "/v2/_catalog", "/v2/contoso.azurecr.io/", "/v3/"):
            reply = raw.request(self.address, "GET", target)
            self.assertIn(reply.status, (400, 404), target)
            json.loads(reply.body)

    def test_the_daemon_is_as_ready_as_before(self) -> None:
        for sent in (b"\x00" * 4096, b"GET /v2/ HTTP/1.1\r\n", b"\r\n\r\n\r\n"):
            raw.exchange(self.address, sent + b"\r\n\r\n", timeout=5)
        self.assertEqual(self.staithed.get("/readyz").status, 200)
        self.staithed.process.must_run()


if __name__ == "__main__":
    unittest.main()
