#!/usr/bin/python3
"""What the stand-in refuses, and that its faults and barriers do what they say.

The daemon's tests are worth as much as this: a stand-in that forgives proves nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).resolve().parent))

from azure import Azure  # noqa: E402
from standin.client import ControlClient, Reply, ask  # noqa: E402
from standin.faults import Barriers, Faults  # noqa: E402
from standin.origin import Origin  # noqa: E402
from standin.settings import (  # noqa: E402
    ACR_AUDIENCE,
    ARM_AUDIENCE,
    SERVICE_PRINCIPAL,
    SYSTEM_IDENTITY,
    TENANT,
    USER_IDENTITY,
)
from standin.wire import Port, Response  # noqa: E402

BLOB = b"0123456789" * 1000
DIGEST = "sha256:" + hashlib.sha256(BLOB).hexdigest()
MANIFEST = b'{ "schemaVersion" : 2 }\n'
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
NULL_GUID = "00000000-0000-0000-0000-000000000000"


class AzureTest(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        root = Path(scratch.name) / "registry"
        self._store_blob(root, "contoso/app")
        self._store_blob(root, "hub/library/app")
        registry = Port("origin", self._origin, None, Faults(), Barriers())
        self.addCleanup(registry.close)
        origin = Origin(f"http://127.0.0.1:{registry.number}", root)
        self.azure = Azure(Path(scratch.name) / "tls", origin, {})
        self.addCleanup(self.azure.stop)
        found = self.azure.addresses()
        self.acr: str = found["acr"]["contoso"]
        self.fabrikam: str = found["acr"]["fabrikam"]
        self.addresses = found
        self.control = ControlClient(found["control"])

    def _store_blob(self, root: Path, repository: str) -> None:
        hexed = DIGEST.removeprefix("sha256:")
        base = root / "docker/registry/v2"
        link = base / "repositories" / repository / "_layers/sha256" / hexed / "link"
        data = base / "blobs/sha256" / hexed[:2] / hexed / "data"
        for path, content in ((link, DIGEST.encode()), (data, BLOB)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _origin(self, request) -> Response:
        if request.path.endswith("/tags/list"):
            return Response(200, [], json.dumps({"name": "contoso/app", "tags": ["1"]}).encode())
        return Response(200, [("Content-Type", MANIFEST_TYPE)], MANIFEST)

    def ask(self, method: str, url: str, headers=None, body=None) -> Reply:
        return ask(method, url, headers, body, self.azure.ca_file)

    def imds(self, headers=None, method="GET", path="/metadata/identity/oauth2/token", **query):
        query.setdefault("api-version", "2018-02-01")
        query.setdefault("resource", ACR_AUDIENCE)
        text = urlencode({k: v for k, v in query.items() if v is not None}, doseq=True)
        headers = {"Metadata": "true"} if headers is None else headers
        return self.ask(method, f"{self.addresses['imds']}{path}?{text}", headers)

    def entra_token(self, **query) -> str:
        return self.imds(**query).json()["access_token"]

    def exchange(self, token: str, registry: str | None = None, **form) -> Reply:
        registry = registry or self.acr
        form = {
            "grant_type": "access_token",
            "service": _login_server(registry),
            "access_token": token,
            **form,
        }
        return self.ask("POST", f"{registry}/oauth2/exchange", body=form)

    def refresh_token(self) -> str:
        return self.exchange(self.entra_token()).json()["refresh_token"]

    def token(self, refresh: str, scope: object = "repository:app:pull", **form) -> Reply:
        form = {
            "grant_type": "refresh_token",
            "service": _login_server(self.acr),
            "scope": scope,
            "refresh_token": refresh,
            **form,
        }
        return self.ask("POST", f"{self.acr}/oauth2/token", body=form)

    def access_token(self, scope: object = "repository:app:pull") -> str:
        return self.token(self.refresh_token(), scope).json()["access_token"]

    def get(self, path: str, token: str | None = None, method="GET", **headers) -> Reply:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return self.ask(method, self.acr + path, headers)

    def link(self) -> str:
        return self.get(f"/v2/app/blobs/{DIGEST}", self.access_token()).headers["Location"]


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
    def post(self, tenant: str = TENANT, **form) -> Reply:
        form = {
            "grant_type": "client_credentials",
            "client_id": SERVICE_PRINCIPAL["client_id"],
            "client_secret": SERVICE_PRINCIPAL["secret"],
            "scope": ACR_AUDIENCE + "/.default",
            **form,
        }
        return self.ask("POST", f"{self.addresses['entra']}/{tenant}/oauth2/v2.0/token", body=form)

    def test_a_secret_gives_a_token_that_the_exchange_takes(self) -> None:
        reply = self.post()
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.json()["expires_in"], 3599)
        self.assertEqual(self.exchange(reply.json()["access_token"]).status, 200)

    def test_refuses_with_numbers(self) -> None:
        for status, number, reply in (
            (401, 7000215, self.post(client_secret="wrong")),
            (400, 700016, self.post(client_id="nobody")),
            (400, 90002, self.post(tenant="elsewhere")),
            (400, 1002012, self.post(scope=ACR_AUDIENCE)),
            (400, 500011, self.post(scope="https://contoso.azurecr.io/.default")),
            (400, 70003, self.post(grant_type="password")),
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
        claims = _claims(reply.json()["access_token"])
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
            "service": _login_server(self.fabrikam),
            "scope": "repository:app:pull",
            "refresh_token": self.refresh_token(),
        }
        reply = self.ask("POST", f"{self.fabrikam}/oauth2/token", body=form)
        self.assertEqual(reply.status, 401)

    def test_basic_at_the_token_endpoint(self) -> None:
        query = urlencode({"service": _login_server(self.acr), "scope": "repository:app:pull"})
        url = f"/oauth2/token?{query}"
        refresh = self.refresh_token()
        pairs = (
            (200, NULL_GUID, refresh),
            (401, NULL_GUID, self.entra_token()),
            (401, "someone", refresh),
            (200, SERVICE_PRINCIPAL["client_id"], SERVICE_PRINCIPAL["secret"]),
        )
        for expected, user, secret in pairs:
            self.assertEqual(self.get(url, Authorization=_basic(user, secret)).status, expected)

    def test_anonymous_only_where_it_is_on(self) -> None:
        query = urlencode({"service": _login_server(self.acr), "scope": "repository:app:pull"})
        self.assertEqual(self.get(f"/oauth2/token?{query}").status, 401)
        self.control.set(anonymous=["contoso"])
        token = self.get(f"/oauth2/token?{query}").json()["access_token"]
        self.assertEqual(self.get("/v2/app/manifests/1", token).status, 200)

    def test_scopes_in_one_field_and_in_several(self) -> None:
        both = ["repository:app:pull", "repository:b:pull,push"]
        for scope in (both, " ".join(both)):
            granted = _claims(self.access_token(scope))["access"]
            self.assertEqual([(a["name"], a["actions"]) for a in granted],
                             [("app", ["pull"]), ("b", ["pull"])])  # fmt: skip

    def test_a_denied_repository_is_granted_nothing_with_200(self) -> None:
        self.control.set(denied=["contoso/app"])
        token = self.access_token()
        self.assertEqual(_claims(token)["access"], [])
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
        reply = self.get("/v2/", Authorization=_basic(NULL_GUID, "wrong"))
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
        self.assertEqual(reply.json(), {"name": "app", "tags": ["1"]})

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
        self.assertEqual(_claims(answer["token"])["access"], [])


class FaultRules(AzureTest):
    def test_an_unknown_key_is_refused(self) -> None:
        with self.assertRaisesRegex(RuntimeError, "unknown"):
            self.control.set(acess_lifetime=3)
        with self.assertRaisesRegex(RuntimeError, "unknown"):
            self.control.faults({"action": {"dealy": 3}})

    def test_skip_and_times(self) -> None:
        self.control.faults(
            {"role": "acr", "path": "^/v2/$", "skip": 1, "times": 2,
             "action": {"status": 503, "headers": {"Retry-After": "1"}, "body": "busy"}}
        )  # fmt: skip
        seen = [self.get("/v2/").status for _ in range(4)]
        self.assertEqual(seen, [401, 503, 503, 401])
        self.assertEqual(self.control.struck(), [2])

    def test_flip_changes_one_byte(self) -> None:
        self.control.faults({"role": "storage", "action": {"flip": 5000}})
        body = self.ask("GET", self.link()).body
        changed = [i for i, (a, b) in enumerate(zip(body, BLOB, strict=True)) if a != b]
        self.assertEqual(changed, [5000])

    def test_shorten_and_lengthen_are_consistent_lies(self) -> None:
        for action, length in (({"shorten": 7}, len(BLOB) - 7), ({"lengthen": 7}, len(BLOB) + 7)):
            self.control.faults({"role": "storage", "action": action})
            reply = self.ask("GET", self.link())
            self.assertEqual(reply.headers["Content-Length"], str(length))
            self.assertEqual(len(reply.body), length)

    def test_redirect(self) -> None:
        where = "https://evil.localhost/"
        self.control.faults({"role": "acr", "path": "blobs", "action": {"redirect": where}})
        self.assertEqual(self.link(), where)

    def test_close_is_a_fin_and_reset_is_a_rst(self) -> None:
        """On the plain port, where the socket shows it without TLS between."""
        for action, expected in (
            ({"close": 4}, "fin"),
            ({"reset": 4}, "rst"),
            ({"reset": -1}, "rst"),
        ):
            self.control.faults({"role": "imds", "action": action})
            port = self.addresses["ports"]["imds"]
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nMetadata: true\r\n\r\n")
                self.assertEqual(_how_it_ended(client), expected, action)

    def test_a_barrier_holds_in_the_middle_of_a_body(self) -> None:
        link = self.link()
        self.control.faults({"role": "storage", "action": {"hold": "half", "after": 5000}})
        replies: list[Reply] = []
        getter = threading.Thread(target=lambda: replies.append(self.ask("GET", link)))
        getter.start()
        self.control.wait_until_held("half")
        (entry,) = self.control.log(role="storage")
        self.assertEqual((entry["done"], entry["bytes_sent"]), (False, 5000))
        self.control.release("half")
        getter.join()
        self.assertEqual(replies[0].body, BLOB)

    def test_a_role_can_be_down_and_come_back_on_its_port(self) -> None:
        self.control.set(down=["acr"])
        with self.assertRaises(ConnectionRefusedError):
            self.get("/v2/")
        self.control.set(down=[])
        self.assertEqual(self.get("/v2/").status, 401)


class Log(AzureTest):
    def test_no_secret_is_recorded(self) -> None:
        token = self.access_token()
        link = self.get(f"/v2/app/blobs/{DIGEST}", token).headers["Location"]
        self.ask("GET", link)
        self.ask("GET", link, {"Authorization": f"Bearer {token}"})
        text = json.dumps(self.control.log())
        self.assertNotIn(token, text)
        self.assertNotIn(link.partition("sig=")[2].partition("&")[0], text)
        entries = self.control.log(role="storage")
        self.assertEqual([e["authorization"] for e in entries], ["none", "bearer"])
        self.assertIn("sig", entries[0]["query_keys"])


def _login_server(url: str) -> str:
    return url.removeprefix("https://").partition(":")[0]


def _basic(user: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


def _claims(token: str) -> dict:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def _how_it_ended(client: socket.socket) -> str:
    try:
        while client.recv(4096):
            pass
        return "fin"
    except ConnectionResetError:
        return "rst"


if __name__ == "__main__":
    unittest.main()
