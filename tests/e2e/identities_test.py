#!/usr/bin/python3
"""A real client pulls by each kind of identity that Azure knows, as strict as Azure is."""

from __future__ import annotations

import base64
import json
import unittest
from pathlib import Path

from identity_case import (
    APP,
    CLUSTER,
    SUBJECT,
    IdentityTest,
    key_and_certificate,
    new_secret,
    service_principal,
)
from lab import needs_root
from standin.acr_auth import NULL_GUID
from standin.settings import (
    FEDERATION_AUDIENCE,
    OTHER_TENANT,
    SYSTEM_IDENTITY,
    TENANT,
    USER_IDENTITY,
)
from standin.tokens import federation_issuer

SYSTEM, USER = SYSTEM_IDENTITY["client_id"], USER_IDENTITY["client_id"]
TRUST = {"issuer": CLUSTER, "subject": SUBJECT, "audience": FEDERATION_AUDIENCE}
ARC_TOKENS = "/var/opt/azcmagent/tokens"


class ManagedIdentity(IdentityTest):
    def managed(self, **more: str) -> None:
        self.use({"kind": "managed-identity", **more})
        self.staithed.start()
        self.assert_pulls()
        self.assert_refused()

    def test_system_assigned(self) -> None:
        self.managed()
        self.assertEqual(self.identities("exchange"), [SYSTEM])

    def test_user_assigned_by_client_id(self) -> None:
        self.managed(client_id=USER)
        self.assertEqual(self.identities("exchange"), [USER])

    def test_user_assigned_by_object_id(self) -> None:
        self.managed(object_id=USER_IDENTITY["object_id"])
        self.assertEqual(self.identities("exchange"), [USER])

    def test_user_assigned_by_resource_id(self) -> None:
        self.managed(resource_id=USER_IDENTITY["msi_res_id"])
        self.assertEqual(self.identities("exchange"), [USER])

    @needs_root
    def test_containerd_pulls_by_it(self) -> None:
        self.use({"kind": "managed-identity", "client_id": USER})
        self.staithed.start()
        containerd = self.lab.containerd()
        containerd.mirror("contoso.azurecr.io", self.staithed.url)
        found = containerd.pull("contoso.azurecr.io/busybox:1")
        self.assertEqual(found, self.lab.digest("contoso/busybox:1"))
        self.assertEqual(self.identities("exchange"), [USER])
        self.assert_refused()


class OtherHosts(IdentityTest):
    """Wherever there is no IMDS: the platform says by variables where to ask."""

    def setUp(self) -> None:
        super().setUp()
        self.azure.set(down=["imds"])

    def hosted(self, variables: dict[str, str], role: str, **more: str) -> None:
        self.use({"kind": "managed-identity", **more})
        self.staithed.environment = variables
        self.staithed.start()
        self.assert_pulls()
        self.assert_refused()
        asked = {e["role"] for e in self.azure.log(kind="identity")}
        self.assertEqual(asked, {role})

    def app_service(self) -> dict[str, str]:
        header = self.azure.settings()["app_service_header"]
        return {"IDENTITY_ENDPOINT": self.addresses["app_service"], "IDENTITY_HEADER": header}

    def test_app_service_by_its_variables(self) -> None:
        self.hosted(self.app_service(), "app-service")

    def test_app_service_by_name_and_with_a_selector(self) -> None:
        for selector, value in (
            ("client_id", USER),
            ("object_id", USER_IDENTITY["object_id"]),
            ("resource_id", USER_IDENTITY["msi_res_id"]),
        ):
            with self.subTest(selector=selector):
                self.azure.reset_log()
                # One with an empty cache, so that it has to ask.
                self.staithed = self.lab.another_staithed(selector)
                source = {"source": "app-service", selector: value}
                self.hosted(self.app_service(), "app-service", **source)
                self.assertEqual(self.identities("exchange"), [USER])

    def test_machine_learning(self) -> None:
        secret = self.azure.settings()["machine_learning_secret"]
        variables = {"MSI_ENDPOINT": self.addresses["machine_learning"], "MSI_SECRET": secret}
        self.hosted(variables, "machine-learning", client_id=USER)
        self.assertEqual(self.identities("exchange"), [USER])

    def test_cloud_shell(self) -> None:
        self.hosted({"MSI_ENDPOINT": self.addresses["cloud_shell"]}, "cloud-shell")

    def test_service_fabric(self) -> None:
        fabric = self.addresses["service_fabric"]
        variables = {
            "IDENTITY_ENDPOINT": fabric["endpoint"],
            "IDENTITY_HEADER": self.azure.settings()["service_fabric_header"],
            "IDENTITY_SERVER_THUMBPRINT": fabric["thumbprint"],
        }
        self.hosted(variables, "service-fabric")

    @needs_root
    def test_azure_arc(self) -> None:
        tokens = self.lab.directory / "arc"
        tokens.mkdir()
        self.azure.set(arc_token_directory=str(tokens), arc_directory_named=ARC_TOKENS)
        self.staithed.in_place_of[ARC_TOKENS] = tokens
        variables = {
            "IDENTITY_ENDPOINT": f"{self.addresses['arc']}/metadata/identity/oauth2/token",
            "IMDS_ENDPOINT": self.addresses["arc"],
        }
        self.hosted(variables, "arc")
        self.assertEqual([e["status"] for e in self.azure.log(role="arc")], [401, 200])
        self.assertEqual(list(tokens.iterdir()), [])

    @needs_root
    def test_an_arc_agent_that_ignores_the_selector_is_not_believed(self) -> None:
        tokens = self.lab.directory / "arc"
        tokens.mkdir()
        self.azure.set(arc_token_directory=str(tokens), arc_directory_named=ARC_TOKENS)
        self.staithed.in_place_of[ARC_TOKENS] = tokens
        self.use({"kind": "managed-identity", "source": "arc", "client_id": USER})
        self.staithed.environment = {"IDENTITY_ENDPOINT": self.addresses["arc"]
                                     + "/metadata/identity/oauth2/token"}  # fmt: skip
        self.staithed.start()
        reply = self.staithed.get("/v2/contoso.azurecr.io/busybox/manifests/1")
        self.assertNotEqual(reply.status, 200)
        self.assertEqual(self.azure.stats()["exchanges"], 0)


@needs_root
class ServicePrincipal(IdentityTest):
    def test_secret(self) -> None:
        secret = new_secret()
        self.principal(secret=secret)
        self.trust_entra()
        self.use(service_principal(client_secret_file=self.file("secret", secret + "\n")))
        self.staithed.start()
        self.assert_pulls()
        self.assert_refused()
        self.assert_only_at(secret, ("entra", "entra"))

    def test_certificate(self) -> None:
        key, certificate = key_and_certificate()
        self.principal(certificates=[certificate])
        self.trust_entra()
        file = self.file("principal.pem", key + certificate)
        self.use(service_principal(certificate_file=file))
        self.staithed.start()
        self.assert_pulls()
        self.assert_refused()
        (entry,) = self.azure.log(role="entra")
        self.assertEqual(entry["extra"], {"proof": "certificate"})
        # A new token takes a new assertion: the old one's jti is spent.
        self.renew()
        self.assert_refused()
        first, *later = self.azure.log(role="entra")
        self.assertEqual([entry["status"] for entry in later], [200])
        self.assertNotEqual(first["secrets"], later[0]["secrets"])

    def test_a_wrong_secret_is_told_with_the_number_that_entra_gives(self) -> None:
        key, certificate = key_and_certificate()
        self.principal(certificates=[key_and_certificate()[1]])
        self.trust_entra()
        file = self.file("principal.pem", key + certificate)
        self.use(service_principal(certificate_file=file))
        self.staithed.start()
        reply = self.staithed.get("/v2/contoso.azurecr.io/busybox/manifests/1")
        self.assertEqual(reply.status, 403)
        self.assertIn("AADSTS700027", reply.json()["errors"][0]["message"])


@needs_root
class WorkloadIdentity(IdentityTest):
    def setUp(self) -> None:
        super().setUp()
        self.principal(federated=[TRUST])
        self.token = self.file("token", self.azure.service_account_token(CLUSTER, SUBJECT))

    def test_by_settings_and_the_file_is_read_anew(self) -> None:
        self.trust_entra()
        self.use({"kind": "workload-identity", "tenant_id": TENANT, "client_id": APP,
                  "token_file": self.token})  # fmt: skip
        self.staithed.start()
        self.assert_pulls()
        rotated = self.azure.service_account_token(CLUSTER, SUBJECT)
        self.file("token", rotated)
        self.renew()
        self.assert_only_at(rotated, ("entra", "entra"))
        self.assert_refused()

    def test_by_the_variables_of_the_webhook(self) -> None:
        self.trust_entra()
        del self.staithed.config["azure"]["authority"]
        self.use({"kind": "workload-identity"})
        self.staithed.environment = {
            "AZURE_CLIENT_ID": APP,
            "AZURE_TENANT_ID": TENANT,
            "AZURE_FEDERATED_TOKEN_FILE": self.token,
            "AZURE_AUTHORITY_HOST": self.addresses["entra"] + "/",
        }
        self.staithed.start()
        self.assert_pulls()
        self.assert_refused()
        self.assert_only_at(Path(self.token).read_text(), ("entra", "entra"))

    def test_through_the_token_proxy_of_identity_bindings(self) -> None:
        proxy = self.addresses["token_proxy"]
        self.use({"kind": "workload-identity", "tenant_id": TENANT, "client_id": APP,
                  "token_file": self.token})  # fmt: skip
        self.staithed.environment = {
            "AZURE_KUBERNETES_TOKEN_PROXY": proxy["url"],
            "AZURE_KUBERNETES_SNI_NAME": proxy["sni_name"],
            "AZURE_KUBERNETES_CA_FILE": proxy["ca_file"],
        }
        self.staithed.start()
        self.assert_pulls()
        self.assert_refused()
        self.assert_only_at(Path(self.token).read_text(), ("proxy", "entra"))

    def test_a_managed_identity_stands_for_an_application_of_another_tenant(self) -> None:
        trust = {**TRUST, "issuer": federation_issuer(TENANT),
                 "subject": SYSTEM_IDENTITY["object_id"]}  # fmt: skip
        self.azure.set(
            tenants=[TENANT, OTHER_TENANT],
            registry_tenants={"contoso": OTHER_TENANT},
            service_principals=[
                {"client_id": APP, "federated": [trust], "tenants": [OTHER_TENANT]}
            ],
        )
        self.trust_entra()
        self.use({"kind": "workload-identity", "tenant_id": OTHER_TENANT, "client_id": APP,
                  "federated_identity": "vm"})  # fmt: skip
        self.staithed.config["identity"]["vm"] = {"kind": "managed-identity"}
        self.staithed.start()
        self.assert_pulls()
        self.assert_refused()
        self.assertEqual(self.identities("exchange"), [APP])


class FixedSecrets(IdentityTest):
    def basic(self, user: str, *passwords: str) -> None:
        names = ("password_file", "password2_file")
        files = {name: self.file(name, text) for name, text in zip(names, passwords, strict=False)}
        self.use({"kind": "basic", "username": user, **files})
        self.staithed.start()

    def scoped(self, password: str, scopes: dict[str, list[str]]) -> None:
        entry = {"registry": "contoso", "name": "ci", "password2": {"value": password}}
        self.azure.set(scoped_tokens=[{**entry, "scopes": scopes}])

    def test_admin_user(self) -> None:
        password = new_secret()
        self.azure.set(admin_users={"contoso": {"username": "contoso", "password": password}})
        self.basic("contoso", password + "\n")
        self.assert_pulls()
        self.assert_refused()
        self.assert_only_at(password, ("acr", "token"))

    def test_a_scoped_token_whose_first_password_is_wrong(self) -> None:
        wrong, right = new_secret(), new_secret()
        self.scoped(right, {"busybox": ["content/read"], "debian": ["content/read"]})
        self.basic("ci", wrong, right)
        self.assert_pulls()
        self.assert_pulls("contoso.azurecr.io/debian:1", "contoso/debian:1")
        # The wrong one was tried, and not again and again.
        self.assertLessEqual(len(self.with_secret(wrong)), 2)
        self.assert_only_at(right, ("acr", "token"))

    def test_two_wrong_passwords_end_it(self) -> None:
        passwords = new_secret(), new_secret()
        self.scoped(new_secret(), {"busybox": ["content/read"]})
        self.basic("ci", *passwords)
        for _ in range(3):
            reply = self.staithed.get("/v2/contoso.azurecr.io/busybox/manifests/1")
            self.assertEqual(reply.status, 403)
        for password in passwords:
            self.assertLessEqual(len(self.with_secret(password)), 3)

    def test_what_the_scope_map_does_not_hold_is_denied(self) -> None:
        password = new_secret()
        self.scoped(password, {"busybox": ["content/read"]})
        self.basic("ci", password)
        reply = self.staithed.get("/v2/contoso.azurecr.io/debian/manifests/1")
        self.assertEqual(reply.status, 403)
        self.assert_pulls()

    def test_another_identity_below_a_prefix(self) -> None:
        password = new_secret()
        self.scoped(password, {"team-a/*": ["content/read"]})
        below = {"prefix": "team-a/", "identity": "team-a"}
        self.staithed.registry("contoso.azurecr.io")["identity_for"] = [below]
        self.staithed.config["identity"]["team-a"] = {
            "kind": "basic", "username": "ci", "password_file": self.file("pw", password),
        }  # fmt: skip
        self.staithed.start()
        self.assert_pulls()
        self.assert_pulls("contoso.azurecr.io/team-a/private:1", "contoso/team-a/private:1")
        self.assert_refused()
        found = {(e["scope"].split(":")[1], e["identity"]) for e in self.azure.log(kind="token")}
        self.assertEqual(found, {("busybox", SYSTEM), ("team-a/private", "ci")})


class FilesAndNobody(IdentityTest):
    def test_a_refresh_token_in_a_file(self) -> None:
        token = self.refresh_token()
        self.azure.reset_log()
        self.use({"kind": "token", "token_file": self.file("token", token + "\n")})
        self.staithed.start()
        self.assert_pulls()
        self.assert_refused()
        self.assert_only_at(token, ("acr", "token"))
        self.assertEqual(self.azure.stats()["exchanges"], 0)

    def test_an_entra_token_in_a_file(self) -> None:
        token = self.entra_token()
        self.azure.reset_log()
        self.use({"kind": "token", "token_file": self.file("token", token)})
        self.staithed.start()
        self.assert_pulls()
        self.assert_refused()
        self.assert_only_at(token, ("acr", "exchange"))

    def test_a_refresh_token_of_another_registry_is_refused(self) -> None:
        token = self.refresh_token("fabrikam")
        self.use({"kind": "token", "token_file": self.file("token", token)})
        self.staithed.start()
        reply = self.staithed.get("/v2/contoso.azurecr.io/busybox/manifests/1")
        self.assertNotEqual(reply.status, 200)

    def test_docker_config_with_a_refresh_token_in_either_form(self) -> None:
        token = self.refresh_token()
        self.azure.reset_log()
        pair = base64.b64encode(f"{NULL_GUID}:{token}".encode()).decode()
        for form in ({"auth": pair}, {"identitytoken": token}):
            with self.subTest(form=list(form)):
                self.staithed = self.lab.another_staithed(list(form)[0])
                auths = {"auths": {"contoso.azurecr.io": form}}
                file = self.file("c.json", json.dumps(auths))
                self.use({"kind": "docker-config", "file": file})
                self.staithed.start()
                self.assert_pulls()
                self.assert_refused()
                self.assert_only_at(token, ("acr", "token"))

    def test_docker_config(self) -> None:
        password = new_secret()
        self.azure.set(admin_users={"contoso": {"username": "contoso", "password": password}})
        pair = base64.b64encode(f"contoso:{password}".encode()).decode()
        other = base64.b64encode(b"contoso:nobody-may-send-this").decode()
        auths = {"https://other.azurecr.io": {"auth": other}, "contoso.azurecr.io": {"auth": pair}}
        self.use(
            {"kind": "docker-config", "file": self.file("c.json", json.dumps({"auths": auths}))}
        )
        self.staithed.start()
        self.assert_pulls()
        self.assert_refused()
        self.assert_only_at(password, ("acr", "token"))

    def test_anonymous(self) -> None:
        self.azure.set(anonymous=["contoso"])
        self.use({"kind": "anonymous"})
        self.staithed.start()
        self.assert_pulls()
        self.assert_refused()
        self.assertEqual(self.azure.stats()["requests_by_kind"].get("identity", 0), 0)
        self.assertEqual(self.azure.stats()["exchanges"], 0)
        sent = {e["authorization"] for e in self.azure.log(kind="token")}
        self.assertEqual(sent, {"none"})


if __name__ == "__main__":
    unittest.main()
