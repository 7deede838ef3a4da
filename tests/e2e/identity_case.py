"""A test that pulls by one identity of many, and looks at what the cloud has seen of it."""

from __future__ import annotations

import base64
import datetime
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from lab import LabTest
from standin.acr_auth import NULL_GUID
from standin.client import Reply, ask
from standin.settings import ACR_AUDIENCE, SERVICE_PRINCIPAL, TENANT
from standin.vault import fingerprint

APP = SERVICE_PRINCIPAL["client_id"]
CLUSTER = "https://oidc.example/cluster/"
SUBJECT = "system:serviceaccount:team:puller"
SYSTEM_TRUST = "/etc/ssl/certs/ca-certificates.crt"

# What a client meets on the way that refuses nothing but tells it how to ask.
_ORDINARY = {"acr: no credentials", "hub: no credentials", "other: no credentials",
             "arc: challenge"}  # fmt: skip


class IdentityTest(LabTest):
    def setUp(self) -> None:
        super().setUp()
        self.azure = self.lab.azure
        self.addresses = self.lab.azure_addresses
        self.staithed = self.lab.staithed
        # The Hub's token server, which is not where the Hub is.
        self.auth_host = self.addresses["auth"].removeprefix("https://")
        # Under which names this test's secrets may come as Basic.
        self.users = [NULL_GUID, APP, "contoso", "ci", "AWS", "me"]
        # Where a test keeps what an operator would: secrets in files.
        self.files = self.lab.directory / "files"
        self.files.mkdir(mode=0o700)

    def file(self, name: str, content: str) -> str:
        path = self.files / name
        path.write_text(content)
        path.chmod(0o600)
        return str(path)

    def trust_entra(self) -> None:
        """Entra is a host of the public web, so the daemon believes what the system believes."""
        self.staithed.in_place_of[SYSTEM_TRUST] = Path(self.addresses["ca_file"])
        self.staithed.configured({"azure": {"authority": self.addresses["entra"]}})

    def use(self, identity: dict[str, Any], registry: str = "contoso.azurecr.io") -> None:
        """This registry gets a new identity, and the machine's own is not configured at all."""
        self.staithed.config["identity"] = {"mine": identity}
        for known in self.staithed.config["registry"]:
            known.pop("identity", None)
        self.staithed.registry(registry)["identity"] = "mine"

    def other_registry(self, name: str, upstream: str, **more: Any) -> None:
        """A registry that is not ACR, below a name of the public web."""
        self.staithed.config["registry"].append(
            {"name": name, "upstream": [upstream], "ca_file": self.addresses["ca_file"],
             "data_hosts": ["store.blob.localhost"], **more}
        )  # fmt: skip

    def renew(self, registry: str = "") -> None:
        """What is held is fetched anew, and that has worked."""
        answer = self.staithed.control("POST", "/v1/renew", {"registry": registry})
        self.assertTrue(answer["renewed"])
        for one in answer["renewed"]:
            self.assertTrue(one["ok"], one)

    def principal(self, **entry: Any) -> None:
        """The one application there is, in the cloud's only tenant."""
        self.azure.set(service_principals=[{"client_id": APP, **entry}])

    def assert_pulls(
        self, image: str = "contoso.azurecr.io/busybox:1", truth: str = "contoso/busybox:1"
    ) -> None:
        """A real client pulls the true bytes, and storage sees no credential."""
        reference = f"{self.staithed.address}/{image}"
        self.assertEqual(self.lab.skopeo().pull(reference), self.lab.digest(truth))
        self.assertEqual(self.azure.stats()["storage_with_authorization"], 0)

    def assert_refused(self, *expected: str) -> None:
        """What the stand-in has refused besides what every client meets, and how often."""
        refusals = self.azure.stats()["refusals"]
        found = [what for what in refusals for _ in range(refusals[what])]
        self.assertEqual(sorted(r for r in found if r not in _ORDINARY), sorted(expected))

    def assert_only_at(self, secret: str, *places: tuple[str, str]) -> None:
        """`places`: role and kind of every request that may carry it; each has to occur."""
        self.assertEqual({(e["role"], e["kind"]) for e in self.with_secret(secret)}, set(places))

    def with_secret(self, secret: str) -> list[dict[str, Any]]:
        """The requests that carried it, alone or in an Authorization header."""
        pairs = {basic(user, secret) for user in self.users}
        marks = {fingerprint(text) for text in (secret, f"Bearer {secret}", *pairs)}
        return [e for e in self.azure.log() if marks & set(e["secrets"].values())]

    def identities(self, kind: str) -> list[str]:
        """Who was behind the requests of that kind that were granted."""
        found = [e["identity"] for e in self.azure.log(kind=kind) if e["status"] == 200]
        return sorted(set(found))

    # What an operator has got from Azure by other means.

    def entra_token(self) -> str:
        url = f"{self.addresses['imds']}/metadata/identity/oauth2/token"
        query = f"api-version=2018-02-01&resource={ACR_AUDIENCE}"
        return self._ask("GET", f"{url}?{query}", {"Metadata": "true"}).json()["access_token"]

    def refresh_token(self, registry: str = "contoso") -> str:
        form = {
            "grant_type": "access_token",
            "service": f"{registry}.azurecr.localhost",
            "access_token": self.entra_token(),
        }
        url = f"{self.addresses['acr'][registry]}/oauth2/exchange"
        return self._ask("POST", url, body=form).json()["refresh_token"]

    def _ask(self, method: str, url: str, headers=None, body=None) -> Reply:
        reply = ask(method, url, headers, body, self.addresses["ca_file"])
        self.assertEqual(reply.status, 200, reply.body)
        return reply


def basic(user: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


def service_principal(**how: str) -> dict[str, str]:
    return {"kind": "service-principal", "tenant_id": TENANT, "client_id": APP, **how}


def key_and_certificate() -> tuple[str, str]:
    """As PEM, for an application."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "puller")])
    now = datetime.datetime.utcnow()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=90))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()


def new_secret(mark: str = "pw") -> str:
    """With characters that have to be encoded wherever they go."""
    return f"{mark}~{secrets.token_urlsafe(18)}+/= %:"


def helper_script(answers: Path, asked: Path) -> str:
    """A docker-credential program that gives what a file holds, and notes who asks for what."""
    return f"""#!/usr/bin/python3
import pathlib, sys
asked = sys.stdin.read().strip()
with open({str(asked)!r}, "a") as notes:
    notes.write(" ".join(sys.argv[1:]) + " " + asked + "\\n")
    notes.write(repr(open("/proc/self/environ").read()) + "\\n")
print(pathlib.Path({str(answers)!r}).read_text())
"""


def asked_of_helper(notes: Path) -> Sequence[str]:
    return notes.read_text().splitlines()[::2] if notes.exists() else []
