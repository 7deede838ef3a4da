#!/usr/bin/python3
"""How the hosts of managed identity besides IMDS want to be asked, and what they refuse."""

from __future__ import annotations

import hashlib
import ssl
import stat
import tempfile
import time
import unittest
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from azure_case import AzureTest
from standin.client import Reply, ask
from standin.settings import ACR_AUDIENCE, SYSTEM_IDENTITY, USER_IDENTITY

ABSENT = None


class HostCase(AzureTest):
    def ask_with(self, url: str, headers: dict, method: str = "GET", **query) -> Reply:
        text = urlencode({k: v for k, v in query.items() if v is not ABSENT}, doseq=True)
        return self.ask(method, f"{url}?{text}", headers)

    def assert_status(self, expected: int, reply: Reply) -> None:
        self.assertEqual(reply.status, expected, reply.body)
        if expected != 200:
            self.assertNotIn(b"eyJ", reply.body)

    def assert_works(self, reply: Reply) -> None:
        self.assert_status(200, reply)
        self.assertEqual(self.exchange(reply.json()["access_token"]).status, 200)


class Selectors(AzureTest):
    def test_imds_takes_one_selector_once(self) -> None:
        client_id = USER_IDENTITY["client_id"]
        for refused in (
            {"client_id": [client_id, client_id]},
            {"client_id": client_id, "msi_res_id": USER_IDENTITY["msi_res_id"]},
            {"mi_res_id": USER_IDENTITY["msi_res_id"]},
            {"principal_id": USER_IDENTITY["object_id"]},
            {"msi_res_id": ""},
        ):
            self.assertEqual(self.imds(**refused).status, 400, refused)


class Arc(HostCase):
    def setUp(self) -> None:
        super().setUp()
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = Path(scratch.name)
        self.control.set(arc_token_directory=scratch.name)

    def arc(self, headers: dict | None = None, **query) -> Reply:
        query = {"api-version": "2020-06-01", "resource": ACR_AUDIENCE, **query}
        url = self.addresses["arc"] + "/metadata/identity/oauth2/token"
        return self.ask_with(url, {"Metadata": "true"} if headers is None else headers, **query)

    def key(self) -> str:
        reply = self.arc()
        self.assertEqual(reply.status, 401)
        scheme, _, path = reply.headers["WWW-Authenticate"].partition("=")
        self.assertEqual(scheme, "Basic realm")
        self.assertEqual(Path(path).parent, self.directory)
        self.assertEqual(Path(path).suffix, ".key")
        self.assertEqual(stat.S_IMODE(Path(path).stat().st_mode) & 0o007, 0)
        return Path(path).read_text()

    def with_key(self, key: str, **query) -> Reply:
        return self.arc({"Metadata": "true", "Authorization": f"Basic {key}"}, **query)

    def test_the_contents_of_the_named_file_open_it_once(self) -> None:
        key = self.key()
        reply = self.with_key(key)
        self.assert_works(reply)
        self.assertTrue(all(isinstance(value, str) for value in reply.json().values()))
        self.assertNotIn("client_id", reply.json())
        self.assert_status(401, self.with_key(key))
        self.assertEqual(list(self.directory.iterdir()), [])
        self.assert_works(self.with_key(self.key(), **{"api-version": "2019-11-01"}))

    def test_refuses(self) -> None:
        for status, reply in (
            (400, self.arc({})),
            (400, self.arc(**{"api-version": "2018-02-01"})),
            (400, self.arc(resource="https://contoso.azurecr.io")),
            (400, self.arc(client_id="a", object_id="b")),
            (401, self.with_key("wrong")),
            (401, self.arc({"Metadata": "true", "Authorization": f"Bearer {self.key()}"})),
            (400, self.arc({"Authorization": f"Basic {self.key()}"})),
        ):
            self.assert_status(status, reply)

    def test_an_old_agent_is_silent_about_the_selector(self) -> None:
        client_id = USER_IDENTITY["client_id"]
        self.assert_works(self.with_key(self.key(), client_id=client_id))
        self.assertEqual(self.control.log(role="arc")[-1]["identity"], SYSTEM_IDENTITY["client_id"])
        self.control.set(arc_agent_knows_selectors=True)
        reply = self.with_key(self.key(), client_id=client_id)
        self.assertEqual(reply.json()["client_id"], client_id)
        self.assertEqual(self.control.log(role="arc")[-1]["identity"], client_id)
        self.assert_status(400, self.with_key(self.key(), client_id="nobody"))

    def test_without_an_agent_nothing_is_here(self) -> None:
        self.control.set(arc_token_directory="")
        self.assert_status(404, self.arc())


class AppService(HostCase):
    def new(self, value: str | None = "", **query) -> Reply:
        query = {"api-version": "2019-08-01", "resource": ACR_AUDIENCE, **query}
        value = self.azure.settings.app_service_header if value == "" else value
        headers = {"X-IDENTITY-HEADER": value} if value else {}
        return self.ask_with(self.addresses["app_service"], headers, **query)

    def old(self, **query) -> Reply:
        query = {"api-version": "2017-09-01", "resource": ACR_AUDIENCE, **query}
        headers = {"secret": self.azure.settings.app_service_header}
        return self.ask_with(self.addresses["app_service"], headers, **query)

    def test_new_form(self) -> None:
        reply = self.new()
        self.assert_works(reply)
        self.assertIsInstance(reply.json()["expires_on"], str)
        self.assertGreater(int(reply.json()["expires_on"]), time.time() + 3500)
        self.assertNotIn("expires_in", reply.json())
        for selector, value in (
            ("client_id", USER_IDENTITY["client_id"]),
            ("principal_id", USER_IDENTITY["object_id"]),
            ("mi_res_id", USER_IDENTITY["msi_res_id"]),
        ):
            reply = self.new(**{selector: value})
            self.assert_works(reply)
            self.assertEqual(reply.json()["client_id"], USER_IDENTITY["client_id"])

    def test_refuses(self) -> None:
        client_id = USER_IDENTITY["client_id"]
        for status, reply in (
            (400, self.new(None)),
            (401, self.new("wrong")),
            (400, self.new(resource=ABSENT)),
            (400, self.new(**{"api-version": "2018-02-01"})),
            (400, self.new(client_id=[client_id, client_id])),
            (400, self.new(client_id=client_id, principal_id=USER_IDENTITY["object_id"])),
            (400, self.new(object_id=USER_IDENTITY["object_id"])),
            (400, self.new(msi_res_id=USER_IDENTITY["msi_res_id"])),
            (400, self.new(client_id="99999999-0000-4000-8000-000000000009")),
            (400, self.old(client_id=client_id)),
            # Each version has its own header.
            (400, self.new(**{"api-version": "2017-09-01"})),
            (400, self.old(**{"api-version": "2019-08-01"})),
        ):
            self.assert_status(status, reply)

    def test_the_header_rotates(self) -> None:
        before = self.azure.settings.app_service_header
        self.control.set(app_service_header="new")
        self.assert_status(401, self.new(before))
        self.assert_works(self.new("new"))

    def test_old_form_says_the_date_in_words(self) -> None:
        reply = self.old(clientid=USER_IDENTITY["client_id"])
        self.assert_works(reply)
        text = reply.json()["expires_on"]
        ends = time.strptime(text, "%m/%d/%Y %H:%M:%S +00:00")
        self.assertGreater(time.mktime(ends) - time.mktime(time.gmtime()), 3400)
        self.assertEqual(self.control.log()[0]["identity"], USER_IDENTITY["client_id"])


class OtherHosts(HostCase):
    def test_machine_learning(self) -> None:
        url = self.addresses["machine_learning"]
        query = {"api-version": "2017-09-01", "resource": ACR_AUDIENCE}
        secret = {"secret": self.azure.settings.machine_learning_secret}
        reply = self.ask_with(url, secret, clientid=USER_IDENTITY["client_id"], **query)
        self.assert_works(reply)
        self.assertEqual(reply.json()["client_id"], USER_IDENTITY["client_id"])
        self.assert_status(401, self.ask_with(url, {"secret": "wrong"}, **query))
        self.assert_status(400, self.ask_with(url, {}, **query))
        self.assert_status(400, self.ask_with(url, secret, **query, client_id="x"))

    def test_cloud_shell_is_a_post(self) -> None:
        url = self.addresses["cloud_shell"]
        form, header = {"resource": ACR_AUDIENCE}, {"Metadata": "true"}
        self.assert_works(self.ask("POST", url, header, form))
        for refused in (
            self.ask("POST", url, {}, form),
            self.ask("POST", url, header, {**form, "client_id": USER_IDENTITY["client_id"]}),
            self.ask("POST", url, header, {}),
            self.ask_with(url, header, **form),
            self.ask_with(url, header, "POST", **form),
        ):
            self.assert_status(400, refused)

    def test_service_fabric_is_known_by_its_thumbprint(self) -> None:
        fabric = self.addresses["service_fabric"]
        query = {"api-version": "2019-07-01-preview", "resource": ACR_AUDIENCE}
        secret = {"secret": self.azure.settings.service_fabric_header}
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.ask_with(fabric["endpoint"], secret, **query)
        parts = urlsplit(fabric["endpoint"])
        pem = ssl.get_server_certificate(("127.0.0.1", parts.port or 0))
        self.assertEqual(_thumbprint(pem), fabric["thumbprint"])
        pinned = ssl.create_default_context(cadata=pem)
        pinned.check_hostname = False

        def asked(headers: dict, **more) -> Reply:
            url = f"{fabric['endpoint']}?{urlencode(query | more)}"
            return ask("GET", url, headers, context=pinned)

        reply = asked(secret)
        self.assert_works(reply)
        self.assertIsInstance(reply.json()["expires_on"], int)
        self.assert_status(401, asked({"secret": "wrong"}))
        self.assert_status(400, asked({}))
        self.assert_status(400, asked(secret, client_id="x"))


class Requests(HostCase):
    def test_are_counted_by_kind_and_secrets_are_hashed(self) -> None:
        form = {"resource": ACR_AUDIENCE}
        self.ask("POST", self.addresses["cloud_shell"], {"Metadata": "true"}, form)
        self.ask_with(self.addresses["app_service"], {"X-IDENTITY-HEADER": "one"})
        self.ask_with(self.addresses["app_service"], {"X-IDENTITY-HEADER": "one"})
        self.access_token()
        stats = self.control.stats()
        expected = {"identity": 4, "exchange": 1, "token": 1}
        self.assertEqual(stats["requests_by_kind"], expected)
        first, second = self.control.log(role="app-service")
        self.assertEqual(first["secrets"], second["secrets"])
        self.assertEqual(list(first["secrets"]), ["x-identity-header"])
        (entry,) = self.control.log(kind="exchange")
        self.assertEqual(entry["form_keys"], ["grant_type", "service", "access_token"])
        self.assertEqual(list(entry["secrets"]), ["access_token"])


def _thumbprint(pem: str) -> str:
    return hashlib.sha1(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()


if __name__ == "__main__":
    unittest.main()
