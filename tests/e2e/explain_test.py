#!/usr/bin/python3
"""`staithe explain`: what is known of an image in several states, and nothing that is secret."""

from __future__ import annotations

import json
import threading
import unittest
from typing import Any

from lab import MIB, LabTest
from leaks import Needles

IMAGE = "contoso/explain:16MiB"
MULTI = "contoso/multi:1"
NAME = "contoso.azurecr.io/explain:16MiB"
SIZE = 16 * MIB


class Explain(LabTest):
    noise = [(IMAGE, SIZE)]

    def setUp(self) -> None:
        super().setUp()
        self.staithed = self.lab.staithed
        self.layer = self.lab.image(IMAGE)["layers"][0]["digest"]
        self.target = f"/v2/contoso.azurecr.io/explain/blobs/{self.layer}"

    def explain(self, name: str = NAME, status: int = 0) -> dict[str, Any]:
        done = self.staithed.command("explain", "--json", name)
        self.assertEqual(done.returncode, status, done.stderr)
        return json.loads(done.stdout)

    def text(self, name: str = NAME, status: int = 0) -> str:
        done = self.staithed.command("explain", name)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout

    def part(self, answer: dict[str, Any], digest: str) -> dict[str, Any]:
        (found,) = [part for part in answer["parts"] if part["digest"] == digest]
        return found

    def pull(self, name: str = "contoso.azurecr.io/explain:16MiB") -> None:
        self.lab.skopeo().pull(f"{self.staithed.address}/{name}")
        self.staithed.wait_until_stored()

    def test_before_the_first_pull_it_says_who_would_be_asked_and_asks_nobody(self) -> None:
        self.staithed.start()
        self.lab.azure.reset_log()
        answer = self.explain()
        self.assertEqual(answer["rule"]["name"], "contoso.azurecr.io")
        self.assertEqual(answer["identity"],
                         {"name": "vm", "prefix": None, "kind": "managed-identity"})  # fmt: skip
        self.assertEqual(answer["upstreams"][0]["state"], "idle")
        self.assertIsNone(answer["tag"]["digest"])
        self.assertEqual(answer["next_pull"],
                         {"result": "miss", "asks": ["GET manifests/16MiB"],
                          "bytes_to_fetch": None})  # fmt: skip
        self.assertIn("NEXT PULL  miss  from upstream", self.text())
        self.assertEqual(self.lab.azure.log(), [])

    def test_what_is_cached_is_a_hit_and_looking_is_no_use(self) -> None:
        self.staithed.start()
        self.pull()
        used = self.staithed.control("GET", "/v1/blobs")["blobs"]
        self.lab.azure.reset_log()
        answer = self.explain()
        self.assertEqual(answer["tag"]["digest"], self.lab.digest(IMAGE))
        self.assertEqual(answer["parts"][0]["kind"], "manifest")
        self.assertEqual(self.part(answer, self.layer)["state"], "cached")
        self.assertEqual(self.part(answer, self.layer)["kind"], "layer")
        config = self.lab.image(IMAGE)["config"]
        self.assertEqual(self.part(answer, config)["kind"], "config")
        self.assertEqual(answer["bytes_here"], answer["bytes_needed"])
        self.assertEqual(answer["next_pull"],
                         {"result": "hit", "asks": ["HEAD manifests/16MiB"],
                          "bytes_to_fetch": 0})  # fmt: skip
        text = self.text()
        self.assertIn("asked for at each pull", text)
        self.assertIn("16.0 MiB", text)
        self.assertEqual(self.lab.azure.log(), [])
        # Most recently used first: the order is what it was.
        self.assertEqual(self.staithed.control("GET", "/v1/blobs")["blobs"], used)

    def test_it_says_the_truth_about_the_next_pull(self) -> None:
        self.staithed.configured({"freshness": {"tag_ttl": "1h"}}).start()
        self.pull()
        self.assertEqual(self.explain()["next_pull"]["asks"], [])
        self.assertIn("trusted for", self.text())
        self.lab.azure.reset_log()
        self.pull()
        self.assertEqual([e for e in self.lab.azure.log() if e["path"].startswith("/v2/")], [])

    def test_of_an_index_it_shows_this_machines_platform_and_names_the_others(self) -> None:
        self.staithed.start()
        warmed = self.staithed.command("warm", "contoso.azurecr.io/multi:1")
        self.assertEqual(warmed.returncode, 0, warmed.stderr)
        answer = self.explain("contoso.azurecr.io/multi:1")
        self.assertEqual(answer["parts"][0]["kind"], "index")
        states = {one["digest"]: one["state"] for one in answer["platforms"]}
        children = self.lab.image(MULTI)["children"]
        self.assertEqual(set(states), set(children.values()))
        self.assertEqual(sorted(states.values()), ["cached", "missing"])
        self.assertEqual(answer["next_pull"]["result"], "hit")

    def test_a_blob_on_its_way_and_one_that_was_broken_off(self) -> None:
        self.staithed.start()
        self.staithed.get("/v2/contoso.azurecr.io/explain/manifests/16MiB")
        missing = self.part(self.explain(), self.layer)
        self.assertEqual((missing["state"], missing["total"]), ("missing", SIZE))
        self.lab.azure.faults(
            {"role": "storage", "path": self.layer.removeprefix("sha256:"),
             "action": {"hold": "half-way", "at": SIZE // 2}}
        )  # fmt: skip
        client = threading.Thread(target=self.staithed.get, args=(self.target,))
        client.start()
        self.lab.azure.wait_until_held("half-way")
        coming = self.part(self.explain(), self.layer)
        self.assertEqual(coming["state"], "fetching")
        self.assertEqual((coming["total"], coming["readers"]), (SIZE, 1))
        self.assertIn("fetching ", self.text())
        self.assertEqual(self.explain()["next_pull"]["result"], "partly")
        fills = self.staithed.control("GET", "/v1/fills")["fills"]
        self.assertEqual(set(fills[0]), {"digest", "registry", "repository", "bytes", "total",
                                         "readers", "connections", "bytes_per_second",
                                         "seconds_left"})  # fmt: skip
        self.lab.azure.release("half-way")
        client.join(30)
        self.staithed.wait_until_stored()
        self.assertEqual(self.part(self.explain(), self.layer)["state"], "cached")

    def test_a_pin_and_an_identity_below_a_prefix_are_said(self) -> None:
        self.staithed.registry("contoso.azurecr.io")["identity_for"] = [
            {"prefix": "team-a/", "identity": "other"},
            {"prefix": "team-a/x/", "identity": "vm"},
        ]
        self.staithed.configured({"identity": {"other": {"kind": "managed-identity"}}}).start()
        name = "contoso.azurecr.io/team-a/app:1"
        self.assertEqual(self.staithed.command("pin", name).returncode, 0)
        answer = self.explain(name)
        self.assertTrue(answer["pinned"])
        self.assertEqual(answer["identity"]["prefix"], "team-a/")
        self.assertIn("other (managed-identity), the one for team-a/", self.text(name))

    def test_the_last_error_has_a_remedy(self) -> None:
        self.staithed.start()
        self.lab.azure.faults({"role": "acr", "action": {"close": -1}})
        self.staithed.get("/v2/contoso.azurecr.io/explain/manifests/16MiB")
        answer = self.explain()
        self.assertEqual(answer["upstreams"][0]["state"], "unreachable")
        self.assertIn("curl", answer["upstreams"][0]["remedy"])
        text = self.text()
        self.assertIn("last error: ", text)
        self.assertIn("remedy: ", text)

    def test_a_name_whose_registry_is_not_configured_says_which_are(self) -> None:
        self.staithed.start()
        answer = self.explain("other.example/app:1", status=1)
        self.assertIsNone(answer["rule"])
        self.assertIn("contoso.azurecr.io", answer["configured"])
        self.assertIn("Configured: contoso.azurecr.io", self.text("other.example/app", status=1))

    def test_it_says_how_it_reads_a_short_name(self) -> None:
        self.staithed.start()
        self.assertEqual(self.explain("app:1")["image"], "docker.io/library/app:1")
        self.assertIn('IMAGE  docker.io/library/app:1  (what "app:1" means)', self.text("app:1"))
        self.assertEqual(self.staithed.command("explain", "app:").returncode, 2)
        for query in ("", "?image=", "?image=app%", "?image=app&image=app", "?name=app"):
            status, _ = self.staithed.raw_control("GET", f"/v1/explain{query}")
            self.assertEqual(status, 400, query)

    def test_no_token_is_in_it(self) -> None:
        self.staithed.start()
        self.pull()
        found = self.explain()
        self.assertTrue(found["upstreams"][0]["tokens"])
        self.assertIn("tokens: ", self.text())
        needles = Needles([(one["kind"], one["text"]) for one in self.lab.azure.secrets()])
        places = {"json": json.dumps(found).encode(), "text": self.text().encode()}
        leaks = [str(leak) for name, text in places.items() for leak in needles.search(name, text)]
        self.assertEqual(leaks, [])

    def test_without_a_daemon_it_says_so(self) -> None:
        self.assertEqual(self.staithed.command("explain", NAME).returncode, 3)


if __name__ == "__main__":
    unittest.main()
