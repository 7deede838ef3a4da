#!/usr/bin/python3
"""A person's own sign-in, and what else is handed out: by the real commands, to real clients."""

from __future__ import annotations

import base64
import json
import subprocess
import unittest

from identity_case import APP, CLUSTER, SUBJECT, IdentityTest
from lab import needs_root
from staithed import binary
from standin.settings import TENANT

REGISTRY = "contoso.azurecr.io"
NULL_GUID = "00000000-0000-0000-0000-000000000000"


class Commands(IdentityTest):
    def command(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        line = self.staithed.command_line(*words)
        return subprocess.run(
            line, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )

    def said(self, *words: str, stdin: str = "") -> str:
        done = self.command(*words, stdin=stdin)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def registry_status(self) -> dict:
        found = [r for r in self.staithed.status()["registries"] if r["name"] == REGISTRY]
        return found[-1]

    def nobody(self) -> None:
        """No identity is configured: what is pulled is pulled by the sign-in."""
        self.staithed.config["identity"] = {}
        for known in self.staithed.config["registry"]:
            known.pop("identity", None)
        self.staithed.start()


class SignIn(Commands):
    def test_with_a_refresh_token_and_out_again(self) -> None:
        token = self.refresh_token()
        self.nobody()
        exchanges = self.azure.stats()["exchanges"]
        denied = self.staithed.get(f"/v2/{REGISTRY}/busybox/manifests/1")
        self.assertIn(denied.status, (401, 403, 404))
        # As az prints it.
        given = json.dumps({"accessToken": token, "loginServer": REGISTRY})
        self.assertIn("signed in", self.said("login", REGISTRY, "--token-stdin", stdin=given))
        self.assert_pulls()
        self.assertEqual(self.azure.stats()["exchanges"], exchanges, "it was exchanged once more")
        status = self.registry_status()
        self.assertEqual(status["identity"], "(sign-in)")
        self.assertTrue(any("sign-in" in c["what"] for c in status["credentials"]), status)
        self.assertNotIn(token, json.dumps(self.staithed.status()))
        self.said("logout", REGISTRY)
        denied = self.staithed.get(f"/v2/{REGISTRY}/debian/manifests/1")
        self.assertIn(denied.status, (401, 403, 404))

    def test_with_an_entra_token(self) -> None:
        token = self.entra_token()
        self.nobody()
        self.said("login", REGISTRY, "--token-stdin", stdin=token + "\n")
        self.assert_pulls()
        self.assertEqual(self.azure.stats()["exchanges"], 1)

    def test_what_is_no_token_of_this_registry_is_refused_in_a_sentence(self) -> None:
        other = self.refresh_token("fabrikam")
        self.nobody()
        for given in (other, "password", "e30.e30.e30"):
            done = self.command("login", REGISTRY, "--token-stdin", stdin=given)
            self.assertEqual(done.returncode, 1, done.stdout)
            self.assertTrue(done.stderr.startswith("staithe: "), done.stderr)
            self.assertNotIn(given, done.stderr)
        self.assertNotEqual(self.registry_status()["identity"], "(sign-in)")


class HandedOut(Commands):
    def test_a_token_and_a_pull_secret_that_work(self) -> None:
        self.staithed.start()
        answer = json.loads(self.said("token", REGISTRY))
        self.assertEqual(set(answer), {"accessToken", "loginServer"})
        self.assertEqual(answer["loginServer"], REGISTRY)
        secret = json.loads(self.said("pull-secret", REGISTRY, "--json"))
        self.assertEqual(secret["type"], "kubernetes.io/dockerconfigjson")
        config = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
        entry = config["auths"][REGISTRY]
        self.assertEqual(entry["username"], NULL_GUID)
        self.assertEqual(entry["password"], answer["accessToken"])
        # Another daemon pulls with nothing but this secret.
        file = self.file("config.json", json.dumps(config))
        other = self.lab.another_staithed("other")
        other.config["identity"] = {"mine": {"kind": "docker-config", "file": file}}
        for known in other.config["registry"]:
            known.pop("identity", None)
        other.registry(REGISTRY)["identity"] = "mine"
        other.start()
        self.assertEqual(other.get(f"/v2/{REGISTRY}/busybox/manifests/1").status, 200)
        self.assertEqual(self.azure.stats()["exchanges"], 1)

    def test_renew_makes_one_more_exchange(self) -> None:
        self.staithed.start()
        self.assert_pulls()
        self.said("renew", REGISTRY)
        self.assertEqual(self.azure.stats()["exchanges"], 2)


@needs_root
class KubeletWithAServiceAccount(Commands):
    def provide(self, token: str | None) -> dict:
        request = {
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "kind": "CredentialProviderRequest",
            "image": f"{REGISTRY}/busybox:1",
        }
        if token:
            request["serviceAccountToken"] = token
            request["serviceAccountAnnotations"] = {
                "kubernetes.azure.com/acr-client-id": APP,
                "kubernetes.azure.com/acr-tenant-id": TENANT,
            }
        done = subprocess.run(
            [binary("staithe-credential-provider")],
            input=json.dumps(request), env={"STAITHE_SOCKET": str(self.staithed.socket)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_the_pods_own_right_is_used(self) -> None:
        trust = {"issuer": CLUSTER, "subject": SUBJECT, "audience": "api://AzureADTokenExchange"}
        self.principal(federated=[trust])
        self.trust_entra()
        self.staithed.start()
        token = self.azure.service_account_token(CLUSTER, SUBJECT)
        answer = self.provide(token)
        self.assertEqual(answer["auth"][REGISTRY]["username"], NULL_GUID)
        hours, minutes = answer["cacheDuration"].split("h")[0], answer["cacheDuration"]
        self.assertLess(int(hours) if "h" in minutes else 0, 3)
        self.assertEqual(self.identities("exchange"), [APP])
        self.assertEqual(self.azure.stats()["imds_requests"], 0)
        # The node's own identity is another matter.
        self.assertIn(REGISTRY, self.provide(None)["auth"])
        self.assertEqual(self.azure.stats()["imds_requests"], 1)


if __name__ == "__main__":
    unittest.main()
