#!/usr/bin/python3
"""The docker CLI with docker-credential-staithe, straight at the registry: no mirror, no login."""

from __future__ import annotations

import json
import stat
import subprocess
import unittest
from pathlib import Path

from clients import PATH, ClientFailed
from identity_case import IdentityTest, new_secret
from lab import needs_root
from staithed import binary

NULL_GUID = "00000000-0000-0000-0000-000000000000"


@needs_root
class DockerCliWithTheHelper(IdentityTest):
    def setUp(self) -> None:
        super().setUp()
        # In image names the registry has the stand-in's own host and port.
        self.managed = self.addresses["acr"]["contoso"].removeprefix("https://")
        self.other = self.addresses["ghcr"].removeprefix("https://")
        self.staithed.config["registry"].append(
            {"name": self.managed, "identity": "vm", "ca_file": self.addresses["ca_file"],
             "data_hosts": ["store.blob.localhost"]}
        )  # fmt: skip
        self.staithed.start()
        self.dockerd = self.lab.dockerd(mirrors=[], straight=[self.managed, self.other])
        config = self.dockerd.client_directory / "config.json"
        config.write_text(json.dumps({"credsStore": "staithe"}))
        self.state = self.lab.directory / "state"
        self.env = {
            "STAITHE_SOCKET": str(self.staithed.socket),
            "STATE_DIRECTORY": str(self.state),
            "PATH": f"{binary('docker-credential-staithe').parent}:{PATH}",
        }

    def docker(self, *words: str, stdin: str = "") -> str:
        return self.dockerd.docker(*words, env=self.env, stdin=stdin)

    def helper(self, action: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binary("docker-credential-staithe"), action],
            input=stdin, env=self.env, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    def listed(self) -> dict[str, str]:
        done = self.helper("list")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_a_managed_registry_is_pulled_from_without_any_login(self) -> None:
        reference = f"{self.managed}/busybox:1"
        self.docker("pull", "--quiet", reference)
        names = json.loads(self.docker("image", "inspect", "-f", "{{json .RepoDigests}}", reference))
        self.assertIn(self.lab.digest("contoso/busybox:1"), names[0])
        stats = self.azure.stats()
        self.assertEqual(stats["imds_requests"], 1)
        self.assertEqual(stats["exchanges"], 1)
        self.assertEqual(stats["storage_with_authorization"], 0)
        # dockerd itself went to the token server, as the null GUID with what the helper gave.
        self.assertEqual(self.listed().get(f"https://{self.managed}"), NULL_GUID)

        # A login, and a logout, change nothing and fail nothing.
        self.assertIn("Login Succeeded", self.docker("login", self.managed))
        self.docker("logout", self.managed)
        self.docker("pull", "--quiet", f"{self.managed}/multi:1")
        self.assertEqual(self.azure.stats()["exchanges"], 1)
        self.assertFalse(list(self.state.rglob("*.json")), "a managed token was stored")

    def test_another_registry_is_logged_into_and_out_of(self) -> None:
        secret = new_secret("ghp_")
        self.azure.set(
            accounts=[{"registry": "ghcr", "user": "me", "secret": secret}], public=[]
        )
        reference = f"{self.other}/library/busybox:1"
        with self.assertRaises(ClientFailed):
            self.docker("pull", "--quiet", reference)
        said = self.docker("login", self.other, "-u", "me", "--password-stdin", stdin=secret)
        self.assertIn("Login Succeeded", said)
        self.assertEqual(self.listed().get(self.other) or self.listed().get(f"https://{self.other}"), "me")
        self.docker("pull", "--quiet", reference)
        for path in [self.state, *self.state.rglob("*")]:
            mode = stat.S_IMODE(path.stat().st_mode)
            self.assertEqual(mode & 0o077, 0, f"{path} is open to others")
        config = (self.dockerd.client_directory / "config.json").read_text()
        self.assertNotIn(secret, config)

        self.docker("logout", self.other)
        self.assertNotIn("me", self.listed().values())
        done = self.helper("get", self.other)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout.strip(), "credentials not found in native keychain")

    def test_with_the_daemon_away_other_registries_are_not_worse_off(self) -> None:
        self.staithed.stop()
        done = self.helper("get", "registry.example")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout.strip(), "credentials not found in native keychain")
        done = self.helper("get", "contoso.azurecr.io")
        self.assertEqual(done.returncode, 1)
        self.assertNotEqual(done.stdout.strip(), "credentials not found in native keychain")
        self.assertEqual(self.helper("list").returncode, 0)
        self.assertTrue(Path(self.env["STAITHE_SOCKET"]).parent.is_dir())


if __name__ == "__main__":
    unittest.main()
