#!/usr/bin/python3
"""Images as the operator sees them: ls, pin, churn, unpin, purge, with the real command."""

from __future__ import annotations

import json
import unittest
from typing import Any

from lab import MIB, LabTest

# Ten images of 8 MiB go through a cache of 32 MiB.
CHURN = [(f"contoso/churn{n}:1", 8 * MIB) for n in range(10)]
KEPT = "contoso/kept:1"
GONE = "contoso/gone:1"


def named(image: str) -> str:
    """As the cache calls it: the origin's first component is the registry's name."""
    registry, _, rest = image.partition("/")
    return f"{registry}.azurecr.io/{rest}"


class Images(LabTest):
    noise = [(KEPT, 8 * MIB), (GONE, 8 * MIB), *CHURN]

    def setUp(self) -> None:
        super().setUp()
        self.staithed = self.lab.staithed
        self.staithed.configured({"cache": {"max_size": "32MiB", "min_free": "0"}}).start()
        self.skopeo = self.lab.skopeo()

    def pull(self, image: str) -> None:
        reference = f"{self.staithed.address}/{named(image)}"
        self.assertEqual(self.skopeo.pull(reference), self.lab.digest(image))
        self.skopeo.forget()
        self.staithed.wait_until_stored()

    def staithe(self, *words: str, status: int = 0) -> str:
        done = self.staithed.command(*words)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout + done.stderr

    def images(self) -> dict[str, dict[str, Any]]:
        listed = json.loads(self.staithe("ls", "--json"))["images"]
        return {image["name"]: image for image in listed}

    def churn(self) -> None:
        for image, _ in CHURN:
            self.pull(image)

    def cached(self, image: str) -> bool:
        found = self.images().get(named(image))
        return bool(found and found["complete"])

    def test_a_pinned_image_stays_and_others_go(self) -> None:
        self.pull(KEPT)
        self.pull(GONE)
        self.assertEqual(set(self.images()), {named(KEPT), named(GONE)})
        self.assertTrue(self.cached(KEPT) and self.cached(GONE))
        table = self.staithe("ls")
        self.assertIn(named(KEPT), table)
        self.assertIn(self.lab.digest(KEPT)[:19], table)
        blobs = json.loads(self.staithe("ls", "--blobs", "--json"))["blobs"]
        layer = self.lab.image(KEPT)["layers"][0]["digest"]
        (found,) = [blob for blob in blobs if blob["digest"] == layer]
        self.assertEqual(found["bytes"], 8 * MIB)
        self.assertEqual(found["repositories"], [named(KEPT).removesuffix(":1")])
        self.assertEqual(
            {blob["digest"] for blob in blobs},
            set(self.staithed.blob_files()) | set(self.staithed.manifest_files()),
        )

        self.assertIn("is pinned: 8.0 MiB", self.staithe("pin", named(KEPT)))
        self.assertIn("1 pinned", self.staithe("status"))
        self.churn()
        self.assertTrue(self.cached(KEPT))
        self.assertFalse(self.cached(GONE))

        # The pin outlives a kill, from the first moment on.
        self.staithed.kill()
        self.staithed.start()
        self.churn()
        self.assertTrue(self.cached(KEPT))
        fetched = self.staithed.status()["traffic"]["bytes_fetched"]
        self.pull(KEPT)
        self.assertEqual(self.staithed.status()["traffic"]["bytes_fetched"], fetched)

        refused = self.staithe("purge", named(KEPT), status=1)
        self.assertIn(f"staithe unpin {named(KEPT)}", refused)
        self.staithe("purge", "--all")
        self.assertEqual(set(self.images()), {named(KEPT)})
        self.assertIn("not pinned any more", self.staithe("unpin", named(KEPT)))
        self.churn()
        self.assertFalse(self.cached(KEPT))

    def test_a_purged_image_is_gone_and_can_be_pulled_again(self) -> None:
        self.pull(KEPT)
        self.pull(GONE)
        self.assertIn("removed 1 tag, ", self.staithe("purge", named(GONE)))
        self.assertEqual(set(self.images()), {named(KEPT)})
        layer = self.lab.image(GONE)["layers"][0]["digest"]
        self.assertNotIn(layer, self.staithed.blob_files())
        self.assertIn("is not in the cache", self.staithe("purge", named(GONE), status=1))
        self.staithed.kill()
        self.staithed.start()
        self.assertEqual(set(self.images()), {named(KEPT)})
        self.pull(GONE)
        self.assertTrue(self.cached(GONE))
        self.staithe("purge", "--older-than", "1h")
        self.assertEqual(set(self.images()), {named(KEPT), named(GONE)})
        self.staithe("purge", "--all")
        self.assertEqual(self.images(), {})
        self.assertEqual(self.staithed.blob_files(), {})
        self.assertEqual(self.staithed.manifest_files(), {})

    def test_a_pin_of_an_image_to_come_holds_from_its_pull_on(self) -> None:
        self.assertIn("not cached yet", self.staithe("pin", named(KEPT)))
        self.assertFalse(self.images()[named(KEPT)]["complete"])
        self.pull(KEPT)
        self.churn()
        self.assertTrue(self.cached(KEPT))

    def test_mistakes_are_told(self) -> None:
        self.staithe("pin", "UPPER/case", status=2)
        self.staithe("purge", status=2)
        self.assertIn("nobody.example", self.staithe("pin", "nobody.example/app", status=1))
        self.assertIn("not pinned", self.staithe("unpin", named(KEPT), status=1))
        self.staithed.stop()
        self.staithe("ls", status=3)


if __name__ == "__main__":
    unittest.main()
