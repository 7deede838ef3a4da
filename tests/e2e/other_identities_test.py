#!/usr/bin/python3
"""A real client pulls from registries that are not ACR, by a password, a file or a helper."""

from __future__ import annotations

import base64
import json
import os
import time
import unittest
from typing import Any

from identity_case import IdentityTest, asked_of_helper, helper_script, new_secret

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
GHCR = "ghcr.io"
GAR = "europe-docker.pkg.dev"
IMAGE = "library/busybox:1"
TRUTH = "hub/library/busybox:1"


class OtherRegistry(IdentityTest):
    def account(self, registry: str, user: str, secret: str, **more: Any) -> None:
        entry = {"registry": registry, "user": user, "secret": secret, **more}
        self.azure.set(accounts=[entry], public=[])

    def basic(self, user: str, secret: str) -> dict[str, Any]:
        file = self.file("password", secret)
        return {"kind": "basic", "username": user, "password_file": file}

    def assert_pulls_from(self, name: str) -> None:
        self.assert_pulls(f"{name}/{IMAGE}", TRUTH)


class ByPassword(OtherRegistry):
    def test_the_hub_by_an_access_token(self) -> None:
        secret = new_secret("dckr_pat_")
        self.account("hub", "me", secret)
        self.use(self.basic("me", secret), "docker.io")
        self.staithed.registry("docker.io")["token_hosts"] = [self.auth_host]
        self.staithed.start()
        self.assert_pulls_from("docker.io")
        self.assert_refused()
        self.assert_only_at(secret, ("auth", "token"))

    def test_the_hubs_password_goes_to_no_host_that_nobody_has_named(self) -> None:
        secret = new_secret("dckr_pat_")
        self.account("hub", "me", secret)
        self.use(self.basic("me", secret), "docker.io")
        self.staithed.start()
        reply = self.staithed.get("/v2/docker.io/library/busybox/manifests/1")
        self.assertNotEqual(reply.status, 200)
        self.assert_only_at(secret)

    def test_ghcr_by_an_access_token(self) -> None:
        secret = new_secret("ghp_")
        self.account("ghcr", "*", secret)
        self.other_registry(GHCR, self.addresses["ghcr"])
        self.use(self.basic("me", secret), GHCR)
        self.staithed.start()
        self.assert_pulls_from(GHCR)
        self.assert_refused()
        self.assert_only_at(secret, ("other", "token"))

    def test_ghcr_by_nobody_where_it_is_public(self) -> None:
        self.azure.set(public=["ghcr/library/busybox"])
        self.other_registry(GHCR, self.addresses["ghcr"])
        self.staithed.start()
        self.assert_pulls_from(GHCR)
        self.assert_refused()
        reply = self.staithed.get(f"/v2/{GHCR}/library/multi/manifests/1")
        self.assertIn(reply.status, (401, 403, 404))
        self.assertIsNone(reply.headers["WWW-Authenticate"])

    def test_google_by_a_key(self) -> None:
        key = json.dumps({"type": "service_account", "private_key": new_secret()})
        self.account("gar", "_json_key", key)
        self.users.append("_json_key")
        self.other_registry(GAR, self.addresses["gar"])
        self.use(self.basic("_json_key", key), GAR)
        self.staithed.start()
        self.assert_pulls_from(GAR)
        self.assert_refused()
        self.assert_only_at(key, ("other", "token"))

    def test_ecr_by_a_password_that_ends(self) -> None:
        secret = new_secret()
        self.account("ecr", "AWS", secret)
        self.other_registry(ECR, self.addresses["ecr"])
        self.use(self.basic("AWS", secret), ECR)
        self.staithed.start()
        self.assert_pulls_from(ECR)
        # Basic goes with every request to the registry, and with none to storage.
        self.assertLessEqual({e["role"] for e in self.with_secret(secret)}, {"other"})
        self.account("ecr", "AWS", secret, expires=time.time() - 1)
        reply = self.staithed.get(f"/v2/{ECR}/library/multi/manifests/1")
        self.assertEqual(reply.status, 403)

    def test_an_account_that_is_wrong_does_not_fall_back_to_nobody(self) -> None:
        self.account("ghcr", "*", new_secret("ghp_"))
        self.azure.set(public=["ghcr/*"])
        self.other_registry(GHCR, self.addresses["ghcr"])
        self.use(self.basic("me", new_secret("ghp_")), GHCR)
        self.staithed.start()
        reply = self.staithed.get(f"/v2/{GHCR}/library/busybox/manifests/1")
        self.assertEqual(reply.status, 403)


class ByOthers(OtherRegistry):
    def setUp(self) -> None:
        super().setUp()
        programs = self.lab.directory / "programs"
        programs.mkdir()
        self.answer = self.files / "answer.json"
        self.notes = self.files / "notes"
        program = programs / "docker-credential-xyz"
        program.write_text(helper_script(self.answer, self.notes))
        program.chmod(0o755)
        self.staithed.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
        self.other_registry(ECR, self.addresses["ecr"])

    def answers(self, secret: str) -> None:
        answer = {"ServerURL": f"https://{ECR}", "Username": "AWS", "Secret": secret}
        self.answer.write_text(json.dumps(answer) + "\n")

    def test_a_helper_is_asked_once_and_anew_by_renew(self) -> None:
        first, second = new_secret(), new_secret()
        self.account("ecr", "AWS", first)
        self.answers(first)
        self.use({"kind": "helper", "helper": "xyz"}, ECR)
        self.staithed.start()
        self.assert_pulls_from(ECR)
        (asked,) = asked_of_helper(self.notes)
        self.assertIn(asked, (f"get {ECR}", f"get https://{ECR}"))

        self.azure.set(
            accounts=[
                {"registry": "ecr", "user": "AWS", "secret": first, "expires": time.time() - 1},
                {"registry": "ecr", "user": "AWS", "secret": second},
            ]
        )
        self.answers(second)
        self.renew()
        self.assert_pulls(f"{ECR}/library/multi:1", "hub/library/multi:1")
        self.assertEqual(len(asked_of_helper(self.notes)), 2)
        self.assertLessEqual({e["role"] for e in self.with_secret(second)}, {"other"})

    def test_what_a_helper_says_when_it_has_nothing_is_told(self) -> None:
        self.answer.write_text("credentials not found in native keychain")
        program = self.lab.directory / "programs/docker-credential-xyz"
        program.write_text(program.read_text() + "sys.exit(1)\n")
        self.use({"kind": "helper", "helper": "xyz"}, ECR)
        self.staithed.start()
        reply = self.staithed.get(f"/v2/{ECR}/library/busybox/manifests/1")
        self.assertGreaterEqual(reply.status, 400)
        self.assertIn("docker-credential-xyz", reply.json()["errors"][0]["message"])

    def test_a_docker_config_that_names_a_helper(self) -> None:
        secret = new_secret()
        self.account("ecr", "AWS", secret)
        self.answers(secret)
        config = self.file("config.json", json.dumps({"credHelpers": {ECR: "xyz"}}))
        self.use({"kind": "docker-config", "file": config}, ECR)
        self.staithed.start()
        self.assert_pulls_from(ECR)
        self.assertLessEqual({e["role"] for e in self.with_secret(secret)}, {"other"})

    def test_a_docker_config_with_the_hubs_old_key(self) -> None:
        secret = new_secret("dckr_pat_")
        self.account("hub", "me", secret)
        pair = base64.b64encode(f"me:{secret}".encode()).decode()
        auths = {"auths": {"https://index.docker.io/v1/": {"auth": pair}}}
        config = self.file("config.json", json.dumps(auths))
        self.use({"kind": "docker-config", "file": config}, "docker.io")
        self.staithed.registry("docker.io")["token_hosts"] = [self.auth_host]
        self.staithed.start()
        self.assert_pulls_from("docker.io")
        self.assert_refused()
        self.assert_only_at(secret, ("auth", "token"))


if __name__ == "__main__":
    unittest.main()
