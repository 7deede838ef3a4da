#!/usr/bin/python3
"""The kustomize base: all of it is there, belongs together, and says what the daemon does."""

from __future__ import annotations

import subprocess
import tomllib
import unittest
from pathlib import Path
from typing import Any

import lab  # noqa: F401  where the other folders of tests are found
import yaml
from staithed import REPOSITORY_ROOT, binary

BASE = REPOSITORY_ROOT / "etc/kubernetes/base"
NOBODY = 65532


def load(name: str) -> dict[str, Any]:
    (document,) = yaml.safe_load_all((BASE / name).read_text())
    return document


class Base(unittest.TestCase):
    def setUp(self) -> None:
        self.kustomization = load("kustomization.yaml")
        self.pod = load("daemonset.yaml")["spec"]["template"]["spec"]
        (self.container,) = self.pod["containers"]
        self.config = tomllib.loads((BASE / "staithe.toml").read_text())

    def test_names_every_file_that_is_there_and_no_other(self) -> None:
        named = {"kustomization.yaml", *self.kustomization["resources"]}
        for generator in self.kustomization["configMapGenerator"]:
            named |= set(generator["files"])
        self.assertEqual(named, {path.name for path in BASE.iterdir()})

    def test_has_one_object_of_each_kind_that_names_itself(self) -> None:
        kinds = {}
        for name in self.kustomization["resources"]:
            document = load(name)
            self.assertTrue(document["apiVersion"] and document["metadata"]["name"], name)
            kinds[document["kind"]] = document
        self.assertEqual(set(kinds), {"Namespace", "DaemonSet"})
        self.assertEqual(kinds["Namespace"]["metadata"]["name"], self.kustomization["namespace"])
        spec = kinds["DaemonSet"]["spec"]
        self.assertEqual(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"])

    def test_its_configuration_is_one_that_the_daemon_takes(self) -> None:
        done = subprocess.run(
            [binary("staithed"), "--check", "--config", BASE / "staithe.toml"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_every_volume_is_there_and_used(self) -> None:
        volumes = {volume["name"]: volume for volume in self.pod["volumes"]}
        mounts = self.container["volumeMounts"] + self.pod["initContainers"][0]["volumeMounts"]
        self.assertEqual({mount["name"] for mount in mounts}, set(volumes))
        generated = {generator["name"] for generator in self.kustomization["configMapGenerator"]}
        self.assertIn(volumes["config"]["configMap"]["name"], generated)
        # Where the daemon looks for them without being told.
        places = {mount["name"]: mount["mountPath"] for mount in self.container["volumeMounts"]}
        self.assertEqual(places, {"config": "/etc/staithe", "cache": "/var/cache/staithe",
                                  "run": "/run/staithe"})  # fmt: skip
        # Whatever is written is on a volume, so the rest can be read only.
        made = self.pod["initContainers"][0]["args"]
        for name in ("cache", "run"):
            self.assertIn(places[name], made)

    def test_it_runs_without_rights(self) -> None:
        self.assertTrue(self.pod["securityContext"]["runAsNonRoot"])
        self.assertEqual(self.pod["securityContext"]["runAsUser"], NOBODY)
        self.assertEqual(self.pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault")
        self.assertFalse(self.pod["automountServiceAccountToken"])
        context = self.container["securityContext"]
        self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
        self.assertTrue(context["readOnlyRootFilesystem"])
        self.assertFalse(context["allowPrivilegeEscalation"])
        for one in (self.container, *self.pod["initContainers"]):
            self.assertFalse(one["securityContext"].get("privileged", False))
            self.assertEqual(one["image"], self.container["image"])

    def test_it_is_probed_where_it_listens_and_nobody_else_reaches_it(self) -> None:
        (address,) = self.config["listen"]["registry"]
        host, _, port = address.rpartition(":")
        self.assertEqual(host, "127.0.0.1")
        self.assertTrue(self.pod["hostNetwork"])
        self.assertEqual(self.container["ports"][0]["hostIP"], host)
        self.assertEqual(self.container["ports"][0]["hostPort"], int(port))
        for probe, path in (("startup", "/readyz"), ("readiness", "/readyz"),
                            ("liveness", "/healthz")):  # fmt: skip
            asked = self.container[f"{probe}Probe"]["httpGet"]
            self.assertEqual(asked, {"host": host, "port": int(port), "path": path})

    def test_a_drain_may_end(self) -> None:
        sample = (REPOSITORY_ROOT / "etc/staithe.toml").read_text()
        self.assertIn('#drain_timeout = "30s"', sample)
        self.assertGreater(self.pod["terminationGracePeriodSeconds"], 30 + 15)

    def test_the_image_is_the_recipes(self) -> None:
        recipe = (REPOSITORY_ROOT / "etc/container/Dockerfile").read_text()
        self.assertIn(f"USER {NOBODY}:{NOBODY}\n", recipe)
        for place in ("/var/cache/staithe", "/run/staithe"):
            self.assertIn(f"install -d -o {NOBODY} -g {NOBODY} -m ", recipe)
            self.assertIn(place, recipe)


if __name__ == "__main__":
    unittest.main()
