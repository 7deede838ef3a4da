#!/usr/bin/python3
"""What the stand-in refuses.

The daemon's tests are worth as much as this: a stand-in that forgives proves nothing.
"""

from __future__ import annotations

import threading
import unittest
from urllib.parse import urlencode

from azure_case import (
    BLOB,
    DIGEST,
    MANIFEST,
    MANIFEST_TYPE,
    AzureTest,
    basic,
    claims_of,
    login_server,
)
from standin.client import Reply
from standin.settings import (
    ACR_AUDIENCE,
    ARM_AUDIENCE,
    SERVICE_PRINCIPAL,
    SYSTEM_IDENTITY,
    USER_IDENTITY,
)

NULL_GUID = "00000000-0000-0000-0000-000000000000"


class Imds(AzureTest):
    def test_answers_strings_only(self) -> None:
        reply = self.imds()
        self.assertEqual(reply.status, 200)
        self.assertTrue(all(isinstance(value, str) for value in reply.json().values()))
        self.assertEqual(reply.json()["client_id"], SYSTEM_IDENTITY["client_id"])

    def test_refuses_what_the_real_one_refuses(self) -> None:
        for expected, reply in (
            (400, self.imds(headers={})),
            (400, self.imds(headers={"Metadata": "True"})),
            (400, self.imds(headers={"Metadata": "true", "X-Forwarded-For": "10.0.0.1"})),
            (405, self.imds(method="POST")),
            (404, self.imds(path="/metadata/identity/oauth2/token/")),
            (400, self.imds(resource=None)),
            (400, self.imds(resource="https://contoso.azurecr.io")),
            (400, self.imds(**{"api-version": "2017-01-01"})),
            (400, self.imds(**{"api-version": None})),
            (400, self.imds(resource=[ACR_AUDIENCE, ACR_AUDIENCE])),
            (400, self.imds(client_id="x", object_id="y")),
        ):
            self.assertEqual(reply.status, expected, reply.body)

    def test_an_identity_that_is_not_assigned_is_not_found(self) -> None:
        reply = self.imds(client_id="99999999-0000-4000-8000-000000000009")
        self.assertEqual(reply.status, 400)
        self.assertEqual(reply.json()["error"], "invalid_request")
        self.assertEqual(reply.json()["error_description"], "Identity not found")

    def test_selectors_choose_the_user_assigned_identity(self) -> None:
        for selector in ("client_id", "object_id", "msi_res_id"):
            reply = self.imds(**{selector: USER_IDENTITY[selector].upper()})
            self.assertEqual(reply.json()["client_id"], USER_IDENTITY["client_id"], selector)

    def test_two_user_identities_without_a_selector_are_an_error(self) -> None:
        other = {**USER_IDENTITY, "client_id": "44444444-0000-4000-8000-000000000004"}
        self.control.set(identities=[dict(USER_IDENTITY), other])
        self.assertEqual(self.imds().status, 400)

    def test_more_than_five_at_once_are_throttled_and_counted(self) -> None:
        self.control.faults({"role": "imds", "times": 5, "action": {"hold": "imds"}})
        threads = [threading.Thread(target=self.imds) for _ in range(5)]
        for thread in threads:
            thread.start()
        self.control.wait_until_held("imds", 5)
        self.assertEqual(self.imds().status, 429)
        self.control.release("imds")
        for thread in threads:
            thread.join()
        self.assertEqual(self.imds().status, 200)
        self.assertEqual(self.control.stats()["imds_max_concurrent"], 6)


class Entra(AzureTest):
    def test_a_secret_gives_a_token_that_the_exchange_takes(self) -> None:
        reply = self.entra()
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.json()["expires_in"], 3599)
        self.assertEqual(self.exchange(reply.json()["access_token"]).status, 200)

    def test_refuses_with_numbers(self) -> None:
        for status, number, reply in (
            (401, 7000215, self.entra(client_secret="wrong")),
            (400, 700016, self.entra(client_id="nobody")),
            (400, 90002, self.entra(tenant="elsewhere")),
            (400, 1002012, self.entra(scope=ACR_AUDIENCE)),
            (400, 500011, self.entra(scope="https://contoso.azurecr.io/.default")),
            (400, 70003, self.entra(grant_type="password")),
        ):
            self.assertEqual(reply.status, status, reply.body)
            self.assertEqual(reply.json()["error_codes"], [number])


class Authorization(AzureTest):
    def test_the_whole_chain(self) -> None:
        reply = self.get("/v2/app/manifests/1", self.access_token())
        self.assertEqual((reply.status, reply.body), (200, MANIFEST))
        self.assertEqual(reply.headers["Content-Type"], MANIFEST_TYPE)
        stats = self.control.stats()
        self.assertEqual(stats["imds_requests"], 1)
        self.assertEqual(stats["exchanges"], 1)
        self.assertEqual(stats["tokens"], {"contoso repository:app:pull": 1})

    def test_exchange_is_post_only_and_404_otherwise(self) -> None:
        self.assertEqual(self.get("/oauth2/exchange").status, 404)

    def test_exchange_refuses(self) -> None:
        token = self.entra_token()
        arm = self.entra_token(resource=ARM_AUDIENCE + "/")
        self.assertEqual(self.exchange(arm).status, 200)
        self.control.set(
            arm_audience_accepted=False, identities_without_role=[USER_IDENTITY["client_id"]]
        )
        for expected, reply in (
            (401, self.exchange(arm)),
            (401, self.exchange(token + "x")),
            (401, self.exchange(self.refresh_token())),
            (401, self.exchange(self.entra_token(client_id=USER_IDENTITY["client_id"]))),
            (401, self.exchange(token, tenant="another")),
            (400, self.exchange(token, service="contoso.azurecr.io")),
            (400, self.exchange(token, grant_type="refresh_token")),
        ):
            self.assertEqual(reply.status, expected, reply.body)
            self.assertIn("code", reply.json()["errors"][0])

    def test_token_answer_has_no_expires_in(self) -> None:
        reply = self.token(self.refresh_token())
        self.assertEqual(list(reply.json()), ["access_token"])
        claims = claims_of(reply.json()["access_token"])
        self.assertEqual(claims["exp"] - claims["iat"], 4500)
        self.assertEqual(
            claims["access"], [{"type": "repository", "name": "app", "actions": ["pull"]}]
        )

    def test_token_refuses(self) -> None:
        refresh = self.refresh_token()
        for expected, reply in (
            (401, self.token(self.entra_token())),
            (401, self.token("rubbish")),
            (400, self.token(refresh, scope="")),
            (400, self.token(refresh, scope="app")),
            (400, self.token(refresh, service="fabrikam.azurecr.localhost")),
            (400, self.token(refresh, grant_type="client_credentials")),
        ):
            self.assertEqual(reply.status, expected, reply.body)

    def test_a_refresh_token_belongs_to_one_registry(self) -> None:
        form = {
            "grant_type": "refresh_token",
            "service": login_server(self.fabrikam),
            "scope": "repository:app:pull",
            "refresh_token": self.refresh_token(),
        }
        reply = self.ask("POST", f"{self.fabrikam}/oauth2/token", body=form)
        self.assertEqual(reply.status, 401)

    def test_basic_at_the_token_endpoint(self) -> None:
        query = urlencode({"service": login_server(self.acr), "scope": "repository:app:pull"})
        url = f"/oauth2/token?{query}"
        refresh = self.refresh_token()
        pairs = (
            (200, NULL_GUID, refresh),
            (401, NULL_GUID, self.entra_token()),
            (401, "someone", refresh),
            (200, SERVICE_PRINCIPAL["client_id"], SERVICE_PRINCIPAL["secret"]),
        )
        for expected, user, secret in pairs:
            self.assertEqual(self.get(url, Authorization=basic(user, secret)).status, expected)

    def test_anonymous_only_where_it_is_on(self) -> None:
        query = urlencode({"service": login_server(self.acr), "scope": "repository:app:pull"})
        self.assertEqual(self.get(f"/oauth2/token?{query}").status, 401)
        self.control.set(anonymous=["contoso"])
        token = self.get(f"/oauth2/token?{query}").json()["access_token"]
        self.assertEqual(self.get("/v2/app/manifests/1", token).status, 200)

    def test_scopes_in_one_field_and_in_several(self) -> None:
        both = ["repository:app:pull", "repository:b:pull,push"]
        for scope in (both, " ".join(both)):
            granted = claims_of(self.access_token(scope))["access"]
            self.assertEqual([(a["name"], a["actions"]) for a in granted],
                             [("app", ["pull"]), ("b", ["pull"])])  # fmt: skip

    def test_a_denied_repository_is_granted_nothing_with_200(self) -> None:
        self.control.set(denied=["contoso/app"])
        token = self.access_token()
        self.assertEqual(claims_of(token)["access"], [])
        reply = self.get("/v2/app/manifests/1", token)
        self.assertEqual(reply.status, 401)
        self.assertIn('error="insufficient_scope"', reply.headers["Www-Authenticate"])


class DataPlane(AzureTest):
    def test_challenge_names_the_endpoint_as_dialled(self) -> None:
        reply = self.get("/v2/app/manifests/1")
        self.assertEqual(reply.status, 401)
        self.assertEqual(
            reply.headers["Www-Authenticate"],
            f'Bearer realm="{self.acr}/oauth2/token",service="contoso.azurecr.localhost",'
            'scope="repository:app:pull"',
        )

    def test_wrong_basic_gets_a_challenge_without_the_endpoint(self) -> None:
        reply = self.get("/v2/", Authorization=basic(NULL_GUID, "wrong"))
        self.assertEqual(reply.status, 401)
        self.assertEqual(
            reply.headers["Www-Authenticate"], 'Basic realm="Azure Container Registry"'
        )

    def test_an_expired_or_revoked_token_is_invalid(self) -> None:
        self.control.set(access_lifetime=-1)
        expired = self.access_token()
        self.control.set(access_lifetime=4500)
        revoked = self.access_token()
        self.control.revoke("access")
        for token in (expired, revoked):
            reply = self.get("/v2/app/manifests/1", token)
            self.assertEqual(reply.status, 401)
            self.assertIn('error="invalid_token"', reply.headers["Www-Authenticate"])
        self.assertEqual(self.control.stats()["data_with_expired_token"], 1)

    def test_tags_carry_the_name_that_was_asked_for(self) -> None:
        reply = self.get("/v2/app/tags/list", self.access_token())
        self.assertEqual(reply.json(), {"name": "app", "tags": ["1", "2"]})

    def test_tags_come_in_pages(self) -> None:
        token = self.access_token()
        reply = self.get("/v2/app/tags/list?n=1", token)
        self.assertEqual(reply.json()["tags"], ["1"])
        following = reply.headers["Link"].partition("<")[2].partition(">")[0]
        reply = self.get(following, token)
        self.assertEqual(reply.json()["tags"], ["2"])
        self.assertIsNone(reply.headers["Link"])

    def test_a_blob_is_at_the_storage_host(self) -> None:
        reply = self.get(f"/v2/app/blobs/{DIGEST}", self.access_token())
        self.assertEqual(reply.status, 307)
        stored = self.ask("GET", reply.headers["Location"])
        self.assertEqual((stored.status, stored.body), (200, BLOB))
        self.assertEqual(self.control.stats()["blob_gets"], {DIGEST: 1})

    def test_head_of_a_blob_has_its_length(self) -> None:
        reply = self.get(f"/v2/app/blobs/{DIGEST}", self.access_token(), method="HEAD")
        self.assertEqual((reply.status, reply.headers["Content-Length"]), (200, str(len(BLOB))))
        self.assertEqual(reply.body, b"")

    def test_a_blob_of_another_repository_is_unknown(self) -> None:
        reply = self.get(f"/v2/b/blobs/{DIGEST}", self.access_token("repository:b:pull"))
        self.assertEqual(reply.status, 404)
        self.assertEqual(reply.json()["errors"][0]["code"], "BLOB_UNKNOWN")


class Storage(AzureTest):
    def test_any_authorization_is_refused(self) -> None:
        for value in ("Bearer x", "Basic eDp5", "x"):
            reply = self.ask("GET", self.link(), {"Authorization": value})
            self.assertEqual(reply.status, 400)
            self.assertIn(b"<Code>InvalidAuthenticationInfo</Code>", reply.body)
        self.assertEqual(self.control.stats()["storage_with_authorization"], 3)

    def test_the_signature_covers_path_and_expiry(self) -> None:
        link = self.link()
        other = "0" * 64
        hexed = DIGEST.removeprefix("sha256:")
        for broken in (
            link.partition("?")[0],
            link.replace("se=20", "se=30"),
            link.replace("sig=", "sig=A"),
            link.replace(f"/{hexed[:2]}/{hexed}/", f"/{other[:2]}/{other}/"),
        ):
            self.assertEqual(self.ask("GET", broken).status, 403, broken)

    def test_an_expired_link_is_refused(self) -> None:
        self.control.set(link_lifetime=-2)
        self.assertEqual(self.ask("GET", self.link()).status, 403)

    def test_ranges(self) -> None:
        link, size = self.link(), len(BLOB)
        for wanted, status, content, body in (
            ("bytes=10-19", 206, f"bytes 10-19/{size}", BLOB[10:20]),
            (f"bytes={size - 5}-", 206, f"bytes {size - 5}-{size - 1}/{size}", BLOB[-5:]),
            (f"bytes=9-{size * 2}", 206, f"bytes 9-{size - 1}/{size}", BLOB[9:]),
            (f"bytes={size}-", 416, f"bytes */{size}", b""),
            ("bytes=0-1,4-5", 200, None, BLOB),
        ):
            reply = self.ask("GET", link, {"Range": wanted})
            self.assertEqual(
                (reply.status, reply.headers["Content-Range"], reply.body),
                (status, content, body),
                wanted,
            )


class HubRegistry(AzureTest):
    def token(self, **query) -> Reply:
        text = urlencode({"service": "registry.docker.io", **query}, doseq=True)
        return self.ask("GET", f"{self.addresses['auth']}/token?{text}")

    def test_anonymous_tokens_come_from_another_host(self) -> None:
        hub = self.addresses["hub"]
        reply = self.ask("GET", f"{hub}/v2/library/app/manifests/1")
        self.assertIn(f'realm="{self.addresses["auth"]}/token"', reply.headers["Www-Authenticate"])
        answer = self.token(scope="repository:library/app:pull").json()
        self.assertEqual(answer["expires_in"], 300)
        headers = {"Authorization": f"Bearer {answer['token']}"}
        reply = self.ask("GET", f"{hub}/v2/library/app/manifests/1", headers)
        self.assertEqual(reply.body, MANIFEST)
        self.assertEqual(reply.headers["ratelimit-limit"], "100;w=21600")
        blob = f"{hub}/v2/library/app/blobs/{DIGEST}"
        self.assertEqual(self.ask("GET", blob, headers).status, 307)
        self.control.set(hub_blob_redirects=False)
        self.assertEqual(self.ask("GET", blob, headers).body, BLOB)

    def test_a_name_without_a_slash_is_granted_nothing(self) -> None:
        answer = self.token(scope="repository:app:pull").json()
        self.assertEqual(claims_of(answer["token"])["access"], [])


if __name__ == "__main__":
    unittest.main()
