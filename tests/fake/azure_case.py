"""A test with a stand-in of its own, in this process, over one blob and one manifest."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import tempfile
import unittest
from pathlib import Path
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).resolve().parent))

from azure import Azure  # noqa: E402
from standin.assertions import ASSERTION_TYPE, decode  # noqa: E402
from standin.client import ControlClient, Reply, ask  # noqa: E402
from standin.faults import Barriers, Faults  # noqa: E402
from standin.origin import Origin  # noqa: E402
from standin.settings import ACR_AUDIENCE, SERVICE_PRINCIPAL, TENANT  # noqa: E402
from standin.wire import Port, Response  # noqa: E402

BLOB = b"0123456789" * 1000
DIGEST = "sha256:" + hashlib.sha256(BLOB).hexdigest()
MANIFEST = b'{ "schemaVersion" : 2 }\n'
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


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
            return Response(
                200, [], json.dumps({"name": "contoso/app", "tags": ["2", "1"]}).encode()
            )
        return Response(200, [("Content-Type", MANIFEST_TYPE)], MANIFEST)

    def ask(self, method: str, url: str, headers=None, body=None) -> Reply:
        return ask(method, url, headers, body, self.azure.ca_file)

    def entra(self, tenant: str = TENANT, url: str | None = None, **form) -> Reply:
        """client_credentials at the token endpoint; the secret is left out with an assertion."""
        sent = {
            "grant_type": "client_credentials",
            "client_id": SERVICE_PRINCIPAL["client_id"],
            "scope": ACR_AUDIENCE + "/.default",
            **form,
        }
        if "client_assertion" in form:
            sent.setdefault("client_assertion_type", ASSERTION_TYPE)
        else:
            sent.setdefault("client_secret", SERVICE_PRINCIPAL["secret"])
        sent = {name: value for name, value in sent.items() if value is not None}
        base = url or self.addresses["entra"]
        return self.ask("POST", f"{base}/{tenant}/oauth2/v2.0/token", body=sent)

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
            "service": login_server(registry),
            "access_token": token,
            **form,
        }
        return self.ask("POST", f"{registry}/oauth2/exchange", body=form)

    def refresh_token(self) -> str:
        return self.exchange(self.entra_token()).json()["refresh_token"]

    def token(self, refresh: str, scope: object = "repository:app:pull", **form) -> Reply:
        form = {
            "grant_type": "refresh_token",
            "service": login_server(self.acr),
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


def basic(user: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


def claims_of(token: str) -> dict:
    return json.loads(decode(token.split(".")[1]))


def login_server(url: str) -> str:
    return url.removeprefix("https://").partition(":")[0]
