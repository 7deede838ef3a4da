#!/usr/bin/python3
"""What the token endpoint of the stand-in takes as proof of an application, and what it refuses."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import ssl
import time
import unittest
import uuid
from typing import Any

from azure_case import AzureTest, claims_of
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from standin.assertions import ASSERTION_TYPE, encode
from standin.client import Reply, ask
from standin.settings import (
    ACR_AUDIENCE,
    ARM_AUDIENCE,
    FEDERATION_AUDIENCE,
    OTHER_TENANT,
    SERVICE_PRINCIPAL,
    SYSTEM_IDENTITY,
    TENANT,
)
from standin.tokens import federation_issuer

APP = SERVICE_PRINCIPAL["client_id"]
CLUSTER = "https://oidc.example/cluster/"
SUBJECT = "system:serviceaccount:team:puller"
TRUST = {"issuer": CLUSTER, "subject": SUBJECT, "audience": FEDERATION_AUDIENCE}


class Signer:
    """A key and a certificate of it, as a service principal has them."""

    def __init__(self, days: int = 2) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "puller")])
        begin = datetime.datetime.utcnow() - datetime.timedelta(days=3)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + datetime.timedelta(days=3 + days))
            .sign(self.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.der = self.certificate.public_bytes(serialization.Encoding.DER)

    def sign(self, header: dict, claims: dict) -> str:
        body = encode(json.dumps(header).encode()) + "." + encode(json.dumps(claims).encode())
        scheme: Any = padding.PKCS1v15()
        if header.get("alg") == "PS256":
            scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        return f"{body}.{encode(self.key.sign(body.encode(), scheme, hashes.SHA256()))}"


class RefusalCase(AzureTest):
    def assert_refused(self, reply: Reply, number: int, status: int = 401) -> None:
        self.assertEqual(reply.status, status, reply.body)
        self.assertEqual(reply.json()["error_codes"], [number], reply.body)
        self.assertIn(f"AADSTS{number}:", reply.json()["error_description"])


class Certificate(RefusalCase):
    signer: Signer

    @classmethod
    def setUpClass(cls) -> None:
        cls.signer = Signer()

    def setUp(self) -> None:
        super().setUp()
        self.register(self.signer.pem)

    def register(self, *certificates: str) -> None:
        self.control.set(
            service_principals=[{"client_id": APP, "certificates": list(certificates)}]
        )

    def header(self, **changes: Any) -> dict[str, Any]:
        digest = hashlib.sha256(self.signer.der).digest()
        return _changed({"alg": "PS256", "typ": "JWT", "x5t#S256": encode(digest)}, changes)

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "aud": f"{self.addresses['entra']}/{TENANT}/oauth2/v2.0/token",
            "iss": APP,
            "sub": APP,
            "jti": str(uuid.uuid4()),
            "nbf": now,
            "iat": now,
            "exp": now + 600,
        }
        return _changed(claims, changes)

    def send(self, header: dict | None = None, claims: dict | None = None, **form) -> Reply:
        assertion = self.signer.sign(header or self.header(), claims or self.claims())
        return self.entra(client_assertion=assertion, **form)

    def test_an_assertion_gives_a_token_that_the_exchange_takes(self) -> None:
        reply = self.send()
        self.assertEqual(reply.status, 200, reply.body)
        self.assertEqual(self.exchange(reply.json()["access_token"]).status, 200)
        (entry,) = self.control.log(role="entra")
        self.assertEqual(entry["extra"], {"proof": "certificate"})

    def test_the_older_form_and_der_are_good_too(self) -> None:
        self.register(base64.b64encode(self.signer.der).decode())
        old = encode(hashlib.sha1(self.signer.der).digest())
        for header in (
            {"alg": "RS256", "typ": "JWT", "x5t": old},
            {"alg": "PS256", "typ": "JWT", "x5t": old},
            self.header(alg="RS256"),
        ):
            reply = self.send(header)
            self.assertEqual(reply.status, 200, reply.body)

    def test_an_assertion_is_good_once(self) -> None:
        claims = self.claims()
        self.assertEqual(self.send(claims=claims).status, 200)
        # Another signature over the same jti (PSS is salted) is a replay as well.
        self.assert_refused(self.send(claims=claims), 50027)

    def test_refuses_what_does_not_hold(self) -> None:
        now = int(time.time())
        other = Signer()
        thumbprint = encode(hashlib.sha256(other.der).digest())
        for number, header, claims in (
            (700027, self.header(**{"x5t#S256": thumbprint}), None),
            (700027, self.header(x5t="AAAA"), None),
            (50027, self.header(**{"x5t#S256": None}), None),
            (50027, self.header(alg="none"), None),
            (50027, self.header(alg="HS256"), None),
            (700023, None, self.claims(aud=f"https://login.localhost/{TENANT}/oauth2/v2.0/token")),
            (700023, None, self.claims(aud=FEDERATION_AUDIENCE)),
            (700021, None, self.claims(iss="another")),
            (700021, None, self.claims(sub="another")),
            (50027, None, self.claims(jti=None)),
            (50027, None, self.claims(exp=None)),
            (50027, None, self.claims(nbf="now")),
            (700024, None, self.claims(exp=now - 1)),
            (700024, None, self.claims(nbf=now + 60)),
            (700024, None, self.claims(exp=now + 25 * 3600)),
        ):
            self.assert_refused(self.send(header, claims), number)

    def test_refuses_a_signature_of_another_key_or_scheme(self) -> None:
        forged = Signer().sign(self.header(), self.claims())
        self.assert_refused(self.entra(client_assertion=forged), 700027)
        head, body, signature = self.signer.sign(self.header(alg="RS256"), self.claims()).split(".")
        swapped = encode(json.dumps(self.header(alg="PS256")).encode())
        reply = self.entra(client_assertion=f"{swapped}.{body}.{signature}")
        self.assert_refused(reply, 700027)
        self.assert_refused(self.entra(client_assertion=f"{head}.{body}."), 700027)
        self.assert_refused(self.entra(client_assertion="rubbish"), 50027)

    def test_refuses_an_expired_certificate(self) -> None:
        self.signer = Signer(days=-1)
        self.register(self.signer.pem)
        self.assert_refused(self.send(), 700027)

    def test_refuses_a_form_that_says_two_things(self) -> None:
        self.assert_refused(self.send(client_secret="x"), 90023, 400)
        self.assert_refused(self.send(client_assertion_type="jwt"), 90023, 400)
        self.assert_refused(self.send(scope=[ACR_AUDIENCE + "/.default"] * 2), 9000411, 400)
        self.assert_refused(self.entra(client_assertion_type=ASSERTION_TYPE), 90023, 400)
        self.assert_refused(self.send(tenant=OTHER_TENANT), 90002, 400)
        self.assert_refused(self.send(scope="https://vault.azure.net/.default"), 500011, 400)
        # There is no secret of this principal, so none is right.
        self.assert_refused(self.entra(), 7000215)

    def test_an_entry_that_is_no_certificate_is_refused_by_the_control_port(self) -> None:
        with self.assertRaisesRegex(RuntimeError, "not a certificate"):
            self.register("rubbish")
        with self.assertRaisesRegex(RuntimeError, "unknown certificate"):
            self.control.set(service_principals=[{"client_id": APP, "certificate": ""}])


class Federation(RefusalCase):
    def setUp(self) -> None:
        super().setUp()
        self.control.set(service_principals=[{"client_id": APP, "federated": [TRUST]}])

    def minted(self, **changes: Any) -> str:
        return self.control.service_account_token(
            **{"issuer": CLUSTER, "subject": SUBJECT, **changes}
        )

    def test_a_service_account_token_is_good_until_it_expires(self) -> None:
        token = self.minted()
        for _ in range(2):
            reply = self.entra(client_assertion=token)
            self.assertEqual(reply.status, 200, reply.body)
            self.assertEqual(self.exchange(reply.json()["access_token"]).status, 200)
        self.assertEqual(claims_of(token)["aud"], [FEDERATION_AUDIENCE])

    def test_refuses_what_no_credential_trusts(self) -> None:
        for number, token in (
            (700211, self.minted(issuer=CLUSTER + "2")),
            (700213, self.minted(subject=SUBJECT + "2")),
            (700212, self.minted(audience="https://kubernetes.default.svc")),
            (700024, self.minted(lifetime=-1)),
            (700024, self.minted(lifetime=25 * 3600)),
        ):
            self.assert_refused(self.entra(client_assertion=token), number)

    def test_refuses_what_the_issuer_has_not_signed(self) -> None:
        _, body, signature = self.minted().split(".")
        unsigned = encode(b'{"alg":"none","typ":"JWT"}')
        for token in (
            f"{unsigned}.{body}.",
            f"{unsigned}.{body}.{signature}",
            Signer().sign({"alg": "RS256", "typ": "JWT"}, claims_of(self.minted())),
        ):
            self.assert_refused(self.entra(client_assertion=token), 50013)

    def test_a_managed_identity_of_another_tenant(self) -> None:
        """fabrikam belongs to another tenant, where the application trusts this machine."""
        trust = {**TRUST, "issuer": federation_issuer(TENANT),
                 "subject": SYSTEM_IDENTITY["object_id"]}  # fmt: skip
        self.control.set(
            tenants=[TENANT, OTHER_TENANT],
            registry_tenants={"fabrikam": OTHER_TENANT},
            service_principals=[
                {"client_id": APP, "federated": [trust], "tenants": [OTHER_TENANT]}
            ],
        )
        assertion = self.entra_token(resource=FEDERATION_AUDIENCE)
        self.assert_refused(self.entra(client_assertion=assertion), 700016, 400)
        reply = self.entra(OTHER_TENANT, client_assertion=assertion)
        self.assertEqual(reply.status, 200, reply.body)
        token = reply.json()["access_token"]
        self.assertEqual(self.exchange(token, self.fabrikam).status, 200)
        self.assertEqual(self.exchange(token).status, 401)
        # Without the detour, the machine's identity is nobody there.
        self.assertEqual(self.exchange(self.entra_token(), self.fabrikam).status, 401)
        # A token for another audience, or a broken one, is no assertion.
        self.assert_refused(self.entra(OTHER_TENANT, client_assertion=self.entra_token()), 700211)
        self.assert_refused(self.entra(OTHER_TENANT, client_assertion=assertion + "A"), 50013)


class TokenProxy(RefusalCase):
    """The cluster's token proxy of identity bindings: another host, another CA, a name for SNI."""

    def proxied(self, name: str | None = None, ca_file: str | None = None, **form) -> Reply:
        proxy = self.addresses["token_proxy"]
        port = proxy["url"].rpartition(":")[2]
        sent = {"grant_type": "client_credentials", "client_id": APP,
                "scope": ACR_AUDIENCE + "/.default", **form}  # fmt: skip
        url = f"https://{name or proxy['sni_name']}:{port}/{TENANT}/oauth2/v2.0/token"
        return ask("POST", url, None, sent, ca_file or proxy["ca_file"])

    def test_takes_service_account_tokens_only(self) -> None:
        self.control.set(service_principals=[{**SERVICE_PRINCIPAL, "federated": [TRUST]}])
        token = self.control.service_account_token(CLUSTER, SUBJECT)
        proof = {"client_assertion": token, "client_assertion_type": ASSERTION_TYPE}
        reply = self.proxied(**proof)
        self.assertEqual(reply.status, 200, reply.body)
        self.assertEqual(self.exchange(reply.json()["access_token"]).status, 200)
        reply = self.proxied(client_secret=SERVICE_PRINCIPAL["secret"])
        self.assert_refused(reply, 7000218)
        self.assertEqual(len(self.control.log(role="proxy", kind="entra")), 2)

    def test_has_a_ca_and_a_name_of_its_own(self) -> None:
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.proxied(ca_file=self.addresses["ca_file"])
        with self.assertRaises(ssl.SSLError):
            self.proxied(name="login.localhost")


class Clouds(RefusalCase):
    def test_each_cloud_has_its_own_authority_and_registries(self) -> None:
        arm = "https://management.usgovcloudapi.net"
        public = self.entra_token()
        self.control.set(cloud="usgovernment")
        self.control.revoke("access")  # forgets what the platform had cached
        authority = self.addresses["authorities"]["usgovernment"]
        port = self.addresses["ports"]["acr"]
        registry = f"https://contoso.azurecr.us.localhost:{port}"
        for token in (
            self.entra(url=authority).json()["access_token"],
            self.entra(url=authority, scope=arm + "/.default").json()["access_token"],
            self.entra_token(),
        ):
            self.assertEqual(self.exchange(token, registry).status, 200)
            self.assertEqual(self.exchange(token).status, 401)
        self.assertEqual(self.exchange(public, registry).status, 401)
        self.assert_refused(self.entra(), 90002, 400)
        scope = ARM_AUDIENCE + "/.default"
        self.assert_refused(self.entra(url=authority, scope=scope), 500011, 400)
        three_labels = f"https://contoso.azurecr.sovcloud-azure.fr.localhost:{port}/v2/"
        challenge = self.ask("GET", three_labels).headers["Www-Authenticate"]
        self.assertIn('service="contoso.azurecr.sovcloud-azure.fr.localhost"', challenge)


def _changed(value: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in {**value, **changes}.items() if v is not None}


if __name__ == "__main__":
    unittest.main()
