#!/usr/bin/python3
"""Who may pull what from ACR by a pair, under which names it answers, and the other registries."""

from __future__ import annotations

import json
import time
import unittest
from urllib.parse import urlencode, urlsplit

from azure_case import BLOB, DIGEST, MANIFEST, AzureTest, basic, claims_of, login_server
from standin.client import Reply
from standin.settings import SERVICE_PRINCIPAL

NULL_GUID = "00000000-0000-0000-0000-000000000000"
APP, SECRET = SERVICE_PRINCIPAL["client_id"], SERVICE_PRINCIPAL["secret"]
ADMIN = {"username": "contoso", "password": "one+1", "password2": "two/2"}


class PairCase(AzureTest):
    def pair(self, user: str, secret: str, scope="repository:app:pull", url: str = "") -> Reply:
        query = urlencode({"service": login_server(url or self.acr), "scope": scope}, doseq=True)
        headers = {"Authorization": basic(user, secret)}
        return self.ask("GET", f"{url or self.acr}/oauth2/token?{query}", headers)

    def access(self, reply: Reply) -> list[tuple[str, list[str]]]:
        self.assertEqual(reply.status, 200, reply.body)
        granted = claims_of(reply.json()["access_token"])["access"]
        return [(item["name"], item["actions"]) for item in granted]

    def message(self, reply: Reply) -> str:
        return reply.json()["errors"][0]["message"]


class FixedSecrets(PairCase):
    def test_admin_user_has_two_passwords(self) -> None:
        self.assertEqual(self.pair("contoso", "one+1").status, 401)
        self.control.set(admin_users={"contoso": ADMIN})
        for password in (ADMIN["password"], ADMIN["password2"]):
            self.assertEqual(self.access(self.pair("contoso", password)), [("app", ["pull"])])
        self.assertEqual(self.pair("contoso", "three").status, 401)
        self.assertEqual(self.pair("contoso", "one+1", url=self.fabrikam).status, 401)

    def test_a_service_principal_needs_a_role(self) -> None:
        self.assertEqual(self.access(self.pair(APP, SECRET)), [("app", ["pull"])])
        self.control.set(identities_without_role=[APP])
        self.assertEqual(self.pair(APP, SECRET).status, 401)

    def test_basic_at_the_registry_itself(self) -> None:
        self.control.set(admin_users={"contoso": ADMIN}, denied=["contoso/secret"])
        for user, secret in (("contoso", ADMIN["password2"]), (APP, SECRET)):
            header = basic(user, secret)
            self.assertEqual(self.get("/v2/", Authorization=header).status, 200)
            self.assertEqual(self.get("/v2/app/manifests/1", Authorization=header).body, MANIFEST)
            self.assertEqual(self.get("/v2/secret/manifests/1", Authorization=header).status, 401)
        for header in (basic("contoso", "wrong"), basic(APP, "wrong"), "Basic ???"):
            reply = self.get("/v2/", Authorization=header)
            self.assertEqual(reply.status, 401)
            expected = 'Basic realm="Azure Container Registry"'
            self.assertEqual(reply.headers["Www-Authenticate"], expected)

    def test_a_jwt_is_no_password_but_of_the_null_guid(self) -> None:
        refresh, entra = self.refresh_token(), self.entra_token()
        self.assertEqual(self.pair(NULL_GUID, refresh).status, 200)
        self.assertEqual(self.pair(NULL_GUID, entra).status, 401)
        for user, secret in (("someone", refresh), ("someone", entra), (APP, entra)):
            reply = self.pair(user, secret)
            self.assertEqual((reply.status, self.message(reply)), (401, "client id must be guid"))


class ScopedTokens(PairCase):
    def setUp(self) -> None:
        super().setUp()
        self.entry = {
            "registry": "contoso",
            "name": "ci",
            "password1": {"value": "first"},
            "password2": {"value": "second", "expires": time.time() + 3600},
            "scopes": {"app": ["content/read"], "team-a/*": ["content/read", "metadata/read"],
                       "tools*": ["metadata/read"]},
        }  # fmt: skip
        self.control.set(scoped_tokens=[self.entry])

    def test_either_password_gives_what_the_scope_map_gives(self) -> None:
        scopes = [f"repository:{name}:pull,metadata_read"
                  for name in ("app", "team-a/web", "team-a", "tools", "tools/x", "b")]  # fmt: skip
        expected = [
            ("app", ["pull"]),
            ("team-a/web", ["pull", "metadata_read"]),
            ("tools", ["metadata_read"]),
            ("tools/x", ["metadata_read"]),
        ]
        for password in ("first", "second"):
            self.assertEqual(self.access(self.pair("ci", password, scopes)), expected)
        self.assertEqual(self.access(self.pair("ci", "first", "repository:*:*")), [])
        self.assertEqual(self.access(self.pair("ci", "first", "registry:catalog:*")), [])

    def test_refuses_wrong_and_expired_passwords(self) -> None:
        self.assertEqual(self.pair("ci", "third").status, 401)
        self.assertEqual(self.pair("ci", "first", url=self.fabrikam).status, 401)
        self.entry["password2"]["expires"] = time.time() - 1
        self.control.set(scoped_tokens=[self.entry])
        reply = self.pair("ci", "second")
        self.assertEqual((reply.status, self.message(reply)),
                         (401, "password2 of the token has expired"))  # fmt: skip
        self.assertEqual(self.pair("ci", "first").status, 200)
        self.assertEqual(self.get("/v2/", Authorization=basic("ci", "first")).status, 401)

    def test_a_wildcard_in_the_middle_is_no_scope_map(self) -> None:
        for scopes in ({"a/*/b": ["content/read"]}, {"app": ["content/eat"]}):
            with self.assertRaises(RuntimeError):
                self.control.set(scoped_tokens=[{**self.entry, "scopes": scopes}])


class Wildcards(PairCase):
    def test_all_repositories_but_in_abac_mode(self) -> None:
        everything = self.token(self.refresh_token(), "repository:*:*")
        self.assertEqual(self.access(everything), [("*", ["pull", "metadata_read"])])
        token = everything.json()["access_token"]
        self.assertEqual(self.get("/v2/app/manifests/1", token).status, 200)
        self.control.set(denied=["contoso/app"])
        self.assertEqual(self.get("/v2/app/manifests/1", token).status, 401)
        self.control.set(denied=[], abac=["contoso"])
        refresh = self.refresh_token()
        self.assertIn("aad_identity", claims_of(refresh))
        self.assertEqual(self.access(self.token(refresh, "repository:*:*")), [])
        self.assertEqual(self.access(self.token(refresh)), [("app", ["pull"])])


class Names(PairCase):
    def named(self, host: str) -> str:
        return f"https://{host}:{self.addresses['ports']['acr']}"

    def post(self, url: str, service: str, refresh: str) -> int:
        form = {"grant_type": "refresh_token", "service": service, "refresh_token": refresh,
                "scope": "repository:app:pull"}  # fmt: skip
        return self.ask("POST", f"{url}/oauth2/token", body=form).status

    def test_a_regional_name_is_the_same_registry(self) -> None:
        regional = self.named("contoso.westeurope.geo.azurecr.localhost")
        challenge = self.ask("GET", f"{regional}/v2/").headers["Www-Authenticate"]
        own = login_server(regional)
        self.assertEqual(challenge, f'Bearer realm="{regional}/oauth2/token",service="{own}"')
        refresh = self.refresh_token()
        self.assertEqual(self.post(regional, own, refresh), 200)
        self.assertEqual(self.post(regional, "contoso.azurecr.localhost", refresh), 400)
        headers = {"Authorization": f"Bearer {self.access_token()}"}
        reply = self.ask("GET", f"{regional}/v2/app/manifests/1", headers)
        self.assertEqual(reply.body, MANIFEST)
        elsewhere = self.named("fabrikam.westeurope.geo.azurecr.localhost")
        self.assertEqual(self.post(elsewhere, login_server(elsewhere), refresh), 401)
        self.control.set(regional_service_is_global=True)
        self.assertEqual(self.post(regional, "contoso.azurecr.localhost", refresh), 200)

    def test_a_domain_name_label_is_part_of_every_name(self) -> None:
        self.control.set(domain_labels={"contoso": "abc123"})
        self.assertEqual(self.get("/v2/").status, 404)
        url = self.named("contoso-abc123.azurecr.localhost")
        reply = self.exchange(self.entra_token(), url)
        self.assertEqual(reply.status, 200)
        regional = self.named("contoso-abc123.westeurope.geo.azurecr.localhost")
        refresh = reply.json()["refresh_token"]
        for name in (url, regional):
            self.assertEqual(self.post(name, login_server(name), refresh), 200)

    def test_the_same_name_in_another_cloud_is_another_registry(self) -> None:
        url = self.named("contoso.azurecr.cn.localhost")
        self.assertEqual(self.post(url, login_server(url), self.refresh_token()), 401)

    def test_what_is_no_registry_is_not_served(self) -> None:
        for host in ("northwind.azurecr.localhost", "contoso.westeurope.data.azurecr.localhost",
                     "contoso-x-y.azurecr.localhost"):  # fmt: skip
            self.assertEqual(self.ask("GET", self.named(host) + "/v2/").status, 404, host)


class OtherCase(AzureTest):
    def other_token(self, registry: str, path: str, service: str, **headers: str) -> Reply:
        query = urlencode({"service": service, "scope": "repository:library/app:pull"})
        return self.ask("GET", f"{self.addresses[registry]}{path}?{query}", headers)

    def pull(self, registry: str, authorization: str) -> Reply:
        url = f"{self.addresses[registry]}/v2/library/app"
        headers = {"Authorization": authorization} if authorization else {}
        blob = self.ask("GET", f"{url}/blobs/{DIGEST}", headers)
        if blob.status == 307:
            self.assertEqual(self.ask("GET", blob.headers["Location"]).body, BLOB)
        return self.ask("GET", f"{url}/manifests/1", headers)


class OtherRegistries(OtherCase):
    def test_the_hub_takes_an_account(self) -> None:
        self.control.set(
            public=[], accounts=[{"registry": "hub", "user": "me", "secret": "dckr_pat_1"}]
        )
        service = "registry.docker.io"
        anonymous = self.other_token("auth", "/token", service).json()["token"]
        self.assertEqual(claims_of(anonymous)["access"], [])
        self.assertEqual(self.pull("hub", f"Bearer {anonymous}").status, 401)
        reply = self.other_token("auth", "/token", service, Authorization=basic("me", "no"))
        self.assertEqual(reply.status, 401)
        good = basic("me", "dckr_pat_1")
        reply = self.other_token("auth", "/token", service, Authorization=good)
        self.assertEqual(self.pull("hub", f"Bearer {reply.json()['token']}").body, MANIFEST)

    def test_ghcr_takes_any_user_and_shows_what_is_public(self) -> None:
        self.control.set(accounts=[{"registry": "ghcr", "user": "*", "secret": "ghp_1"}])
        service = "ghcr.localhost"
        challenge = self.pull("ghcr", "").headers["Www-Authenticate"]
        self.assertIn(f'realm="{self.addresses["ghcr"]}/token",service="{service}"', challenge)
        self.assertEqual(self.other_token("ghcr", "/token", service).status, 401)
        wrong = basic("me", "ghp_2")
        reply = self.other_token("ghcr", "/token", service, Authorization=wrong)
        self.assertEqual(reply.status, 403)
        for user in ("me", "you"):
            good = basic(user, "ghp_1")
            reply = self.other_token("ghcr", "/token", service, Authorization=good)
            self.assertEqual(list(reply.json()), ["token"])
            self.assertNotIn(".", reply.json()["token"])
            self.assertEqual(self.pull("ghcr", f"Bearer {reply.json()['token']}").body, MANIFEST)
        self.control.set(public=["ghcr/library/*"])
        token = self.other_token("ghcr", "/token", service).json()["token"]
        self.assertEqual(self.pull("ghcr", f"Bearer {token}").body, MANIFEST)
        # A wrong account fails what anonymity would allow.
        reply = self.other_token("ghcr", "/token", service, Authorization=wrong)
        self.assertEqual(reply.status, 403)

    def test_ecr_takes_basic_until_the_password_expires(self) -> None:
        account = {"registry": "ecr", "user": "AWS", "secret": "pw", "expires": time.time() + 900}
        self.control.set(accounts=[account])
        reply = self.pull("ecr", "")
        self.assertEqual(reply.status, 401)
        where = self.addresses["ecr"]
        self.assertEqual(
            reply.headers["Www-Authenticate"],
            f'Basic realm="{where}/",service="ecr.amazonaws.com"',
        )
        self.assertEqual(self.pull("ecr", basic("AWS", "pw")).body, MANIFEST)
        for header in (basic("AWS", "no"), basic("me", "pw"), "Bearer pw"):
            self.assertEqual(self.pull("ecr", header).status, 401)
        self.control.set(accounts=[{**account, "expires": time.time() - 1}])
        reply = self.pull("ecr", basic("AWS", "pw"))
        self.assertEqual(reply.status, 403)
        self.assertTrue(reply.headers["Content-Type"].startswith("text/plain"))
        self.assertTrue(reply.body.startswith(b"Your Authorization Token has expired"))

    def test_google_takes_a_token_or_a_key_as_password(self) -> None:
        key = json.dumps({"type": "service_account", "private_key": "-----BEGIN"})
        self.control.set(
            accounts=[
                {"registry": "gar", "user": "oauth2accesstoken", "secret": "ya29.1",
                 "expires": time.time() - 1},
                {"registry": "gar", "user": "oauth2accesstoken", "secret": "ya29.2"},
                {"registry": "gar", "user": "_json_key", "secret": key},
            ]
        )  # fmt: skip
        service, path = "gar.localhost", "/v2/token"
        self.assertEqual(self.other_token("gar", path, service).status, 403)
        for expected, user, secret in (
            (401, "oauth2accesstoken", "ya29.1"),
            (200, "oauth2accesstoken", "ya29.2"),
            (200, "_json_key", key),
            (401, "_json_key", "ya29.2"),
        ):
            pair = basic(user, secret)
            reply = self.other_token("gar", path, service, Authorization=pair)
            self.assertEqual(reply.status, expected)
            if expected == 200:
                token = reply.json()["token"]
                self.assertEqual(self.pull("gar", f"Bearer {token}").body, MANIFEST)

    def test_a_token_of_one_is_nothing_at_another(self) -> None:
        self.control.set(public=["hub/*", "ghcr/*", "gar/*"])
        token = self.other_token("ghcr", "/token", "ghcr.localhost").json()["token"]
        self.assertEqual(self.pull("gar", f"Bearer {token}").status, 401)
        self.assertEqual(self.pull("hub", f"Bearer {token}").status, 401)
        strange = f"https://localhost:{urlsplit(self.addresses['ghcr']).port}/v2/"
        self.assertEqual(self.ask("GET", strange).status, 404)


class Secrets(OtherCase):
    def test_everything_that_was_issued_or_is_held_is_listed(self) -> None:
        self.control.set(
            admin_users={"contoso": ADMIN},
            accounts=[{"registry": "ecr", "user": "AWS", "secret": "pw-ecr"}],
            scoped_tokens=[{"registry": "contoso", "name": "ci", "scopes": {},
                            "password1": {"value": "pw-scoped"}}],
        )  # fmt: skip
        entra = self.entra_token()
        refresh = self.exchange(entra).json()["refresh_token"]
        access = self.token(refresh).json()["access_token"]
        link = self.get(f"/v2/app/blobs/{DIGEST}", access).headers["Location"]
        signature = dict(pair.split("=", 1) for pair in urlsplit(link).query.split("&"))["sig"]
        service = self.control.service_account_token("https://oidc.example/", "x")
        found = {secret["text"]: secret["kind"] for secret in self.control.secrets()}
        for text in (entra, refresh, access, service, SECRET, *list(ADMIN.values())[1:],
                     "pw-ecr", "pw-scoped"):  # fmt: skip
            self.assertIn(text, found)
        self.assertIn(signature, {_quoted(text) for text in found})
        self.assertEqual(list(found.values()).count("private key"), 5)
        log = json.dumps(self.control.log())
        self.assertEqual([text for text in found if text in log], [])


def _quoted(text: str) -> str:
    return urlencode({"": text})[1:]


if __name__ == "__main__":
    unittest.main()
