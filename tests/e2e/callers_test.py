#!/usr/bin/python3
"""verify_callers: real clients prove their own right before they see what is cached."""

from __future__ import annotations

import base64
import os
import unittest
from pathlib import Path

from clients import ClientFailed
from identity_case import IdentityTest, basic, new_secret
from lab import needs_root

REGISTRY = "contoso.azurecr.io"
IMAGE = f"{REGISTRY}/busybox:1"
TRUTH = "contoso/busybox:1"
CHALLENGE = 'Basic realm="staithe", charset="UTF-8"'


class CallersTest(IdentityTest):
    def setUp(self) -> None:
        super().setUp()
        # In the file of a client, and on a command line, a pair is parted by its first colon.
        self.good = new_secret("pull").replace(":", "").replace(" ", "")
        self.other = new_secret("other").replace(":", "").replace(" ", "")
        self.allow("busybox")
        self.staithed.registry(REGISTRY)["verify_callers"] = True
        # At the level of debug no request is answered beside the main loop.
        self.staithed.configured({"freshness": {"tag_ttl": "1h"}, "log": {"level": "info"}})
        self.staithed.start()
        self.manifest = f"/v2/{REGISTRY}/busybox/manifests/1"
        # The cache has all of it, by the machine's own identity.
        status, _ = self.staithed.raw_control("POST", "/v1/warm", {"images": [IMAGE]})
        self.assertEqual(status, 200)
        self.staithed.wait_until_stored()
        self.assertGreater(self.staithed.status()["cache"]["blobs"], 1)

    def allow(self, repository: str) -> None:
        """Two robots of the registry: `ci` may pull this repository, and `none` another one."""
        self.azure.set(
            scoped_tokens=[
                {"registry": "contoso", "name": "ci", "password1": {"value": self.good},
                 "scopes": {repository: ["content/read"]}},
                {"registry": "contoso", "name": "none", "password1": {"value": self.other},
                 "scopes": {"elsewhere": ["content/read"]}},
            ]
        )  # fmt: skip

    def ask(self, user: str = "", secret: str = "", path: str = ""):
        sent = {"Authorization": basic(user, secret)} if user else {}
        return self.staithed.get(path or self.manifest, **sent)


class Answers(CallersTest):
    def test_only_a_proof_opens_what_is_cached(self) -> None:
        digest = self.lab.image(TRUTH)["layers"][0]["digest"]
        blob = f"/v2/{REGISTRY}/busybox/blobs/{digest}"
        for path in (self.manifest, blob):
            reply = self.ask(path=path)
            self.assertEqual((reply.status, reply.headers["WWW-Authenticate"]), (401, CHALLENGE))
            self.assertEqual(self.ask("ci", "wrong", path).status, 401)
            reply = self.ask("none", self.other, path)
            self.assertEqual((reply.status, reply.headers["WWW-Authenticate"]), (403, None))
        self.azure.reset_log()
        self.assertEqual(self.ask("ci", self.good).status, 200)
        self.assertEqual(self.ask("ci", self.good, blob).status, 200)
        # One token and one question; neither manifest nor blob has come again.
        self.assertEqual(self.azure.stats()["manifest_gets"], 0)
        self.assertEqual(self.azure.stats()["blob_bytes"], 0)
        self.assertEqual(len(self.azure.log(kind="token")), 1)
        self.assertEqual(self.ask().status, 401, "one caller's proof is nobody else's")

    def test_a_credential_that_was_taken_away_is_no_proof(self) -> None:
        self.assertEqual(self.ask("ci", self.good).status, 200)
        self.allow("elsewhere")
        # Within the bound (five minutes: tests/proxy/caller_proofs_test.cc) a proof holds; no
        # restart keeps one.
        self.assertEqual(self.ask("ci", self.good).status, 200)
        self.staithed.stop()
        self.staithed.start()
        self.assertEqual(self.ask("ci", self.good).status, 403)
        self.azure.set(scoped_tokens=[])
        self.staithed.stop()
        self.staithed.start()
        self.assertEqual(self.ask("ci", self.good).status, 401)

    def test_upstream_down_leaves_proofs_and_makes_none(self) -> None:
        self.assertEqual(self.ask("ci", self.good).status, 200)
        self.azure.set(down=["acr"])
        self.assertEqual(self.ask("ci", self.good).status, 200)
        self.assertIn(self.ask("none", self.other).status, (502, 503))
        self.assertIn(self.ask().status, (502, 503))

    def test_others_are_not_asked_and_their_passwords_are_nobodys(self) -> None:
        secret = new_secret("hub")
        self.azure.reset_log()
        path = "/v2/library/busybox/manifests/1"
        reply = self.ask("me", secret, path)
        self.assertEqual((reply.status, reply.headers["WWW-Authenticate"]), (200, None))
        self.assertEqual(self.with_secret(secret), [])


@needs_root
class Clients(CallersTest):
    def test_skopeo(self) -> None:
        skopeo = self.lab.skopeo()
        reference = f"{self.staithed.address}/{IMAGE}"
        with self.assertRaises(ClientFailed) as none:
            skopeo.pull(reference)
        self.assertIn("verify_callers", str(none.exception))
        with self.assertRaises(ClientFailed):
            skopeo.pull(reference, "--src-creds", "ci:wrong")
        with self.assertRaises(ClientFailed):
            skopeo.pull(reference, "--src-creds", f"none:{self.other}")
        digest = skopeo.pull(reference, "--src-creds", f"ci:{self.good}")
        self.assertEqual(digest, self.lab.digest(TRUTH))
        self.assert_kept_nowhere()

    def test_podman_through_a_mirror(self) -> None:
        podman = self.lab.podman(REGISTRY, f"{self.staithed.address}/{REGISTRY}")
        with self.assertRaises(ClientFailed):
            podman.pull(IMAGE)
        podman.login(self.staithed.address, "ci", "wrong")
        with self.assertRaises(ClientFailed):
            podman.pull(IMAGE)
        podman.login(self.staithed.address, "ci", self.good)
        self.assertEqual(podman.pull(IMAGE), self.lab.digest(TRUTH))

    def test_containerd_through_a_mirror(self) -> None:
        containerd = self.lab.containerd()
        containerd.mirror(REGISTRY, self.staithed.url)
        with self.assertRaises(ClientFailed):
            containerd.pull(IMAGE)
        for pair in ("ci:wrong", f"none:{self.other}"):
            with self.assertRaises(ClientFailed):
                containerd.pull(IMAGE, "--user", pair)
        digest = containerd.pull(IMAGE, "--user", f"ci:{self.good}")
        self.assertEqual(digest, self.lab.digest(TRUTH))

    def assert_kept_nowhere(self) -> None:
        """Neither in the log nor in the memory of the daemon, by whom it was not even asked for."""
        stray = new_secret("stray")
        pair = base64.b64encode(f"me:{stray}".encode()).decode()
        # Kept by nobody: on a connection that the front threads have, and on one that they give up.
        for path in ("/v2/library/busybox/manifests/1", "/v2/library/busybox/manifests/nothing"):
            self.ask("me", stray, path)
        memory = memory_of(self.staithed.process.pid)
        self.assertIn(b"Docker-Distribution-Api-Version", memory, "this looks at nothing")
        for needle in (stray, pair):
            self.assertNotIn(needle.encode(), memory)
        log = self.staithed.log.read_text()
        for needle in (stray, pair, self.good, self.other):
            self.assertNotIn(needle, log)


def memory_of(pid: int) -> bytes:
    """All that a process has written, as root sees it."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            begin, end = (int(word, 16) for word in span.split("-"))
            if not rights.startswith("rw"):
                continue
            try:
                found.append(os.pread(memory.fileno(), end - begin, begin))
            except OSError:  # secret memory
                continue
    return b"".join(found)


if __name__ == "__main__":
    unittest.main()
