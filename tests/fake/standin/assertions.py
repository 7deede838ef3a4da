"""JWTs that stand for an application at Entra: what they must hold, and an issuer of some.

Only the grammar and the signatures are here; whose assertion counts is Entra's decision.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .vault import Vault

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LONGEST_LIFE = 24 * 3600


class Refused(Exception):
    """An assertion that does not hold, with the number that Entra gives for it."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


@dataclass(frozen=True)
class Assertion:
    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes

    @staticmethod
    def parse(text: str) -> Assertion:
        parts = text.split(".")
        try:
            if len(parts) != 3:
                raise ValueError("three parts are required")
            header, claims = (json.loads(decode(part)) for part in parts[:2])
            if not isinstance(header, dict) or not isinstance(claims, dict):
                raise ValueError("header and claims must be objects")
            signature = decode(parts[2])
        except (ValueError, binascii.Error) as why:
            raise Refused(50027, f"JWT token is invalid or malformed: {why}") from why
        return Assertion(header, claims, f"{parts[0]}.{parts[1]}".encode(), signature)

    def text_claim(self, name: str) -> str:
        value = self.claims.get(name)
        if not isinstance(value, str) or not value:
            raise Refused(50027, f"JWT token is invalid or malformed: '{name}' is missing")
        return value

    def require_in_force(self) -> None:
        """Between nbf and exp, by this clock; the life must not be longer than a day."""
        now = time.time()
        begin, end = self.claims.get("nbf"), self.claims.get("exp")
        numbers = [v for v in (begin, end) if isinstance(v, int) and not isinstance(v, bool)]
        if len(numbers) != 2:
            raise Refused(50027, "JWT token is invalid or malformed: nbf and exp are required")
        if not numbers[0] <= now < numbers[1]:
            text = "Client assertion is not within its valid time range"
            raise Refused(700024, f"{text}: now {int(now)}, nbf {numbers[0]}, exp {numbers[1]}")
        if numbers[1] - numbers[0] > LONGEST_LIFE:
            raise Refused(700024, "Client assertion is valid for longer than a day")

    def is_signed_by(self, key: rsa.RSAPublicKey) -> bool:
        schemes = {
            "RS256": padding.PKCS1v15(),
            "PS256": padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH),
        }
        scheme = schemes.get(self.header.get("alg", ""))
        if scheme is None:
            return False
        try:
            key.verify(self.signature, self.signed, scheme, hashes.SHA256())
            return True
        except InvalidSignature:
            return False

    def names(self, certificate: x509.Certificate) -> bool:
        """Whether every thumbprint in the header is the certificate's, and there is one."""
        der = certificate.public_bytes(serialization.Encoding.DER)
        true = {"x5t#S256": hashlib.sha256(der), "x5t": hashlib.sha1(der)}
        given = {key: self.header[key] for key in true if key in self.header}
        return bool(given) and all(
            value == encode(true[key].digest()) for key, value in given.items()
        )


def check_certificate_assertion(
    assertion: Assertion, certificates: list[str], client_id: str, audience: str
) -> None:
    """All that does not depend on what was asked before; raises Refused."""
    if assertion.header.get("alg") not in ("RS256", "PS256"):
        raise Refused(50027, "JWT token is invalid or malformed: alg must be RS256 or PS256")
    if assertion.header.get("typ", "JWT") != "JWT":
        raise Refused(50027, "JWT token is invalid or malformed: typ must be JWT")
    if not any(key in assertion.header for key in ("x5t", "x5t#S256")):
        raise Refused(50027, "JWT token is invalid or malformed: a thumbprint is missing")
    found = [c for c in map(certificate_of, certificates) if assertion.names(c)]
    if not found:
        raise Refused(
            700027,
            "The certificate with identifier used to sign the client assertion is not registered "
            "on application. [Reason - The key was not found.]",
        )
    # A certificate's dates are UTC without saying so.
    now = datetime.now(UTC).replace(tzinfo=None)
    if found[0].not_valid_before > now:
        raise Refused(700027, "Client assertion failed. [Reason - The key is not yet valid.]")
    if found[0].not_valid_after <= now:
        raise Refused(700027, "Client assertion failed. [Reason - The key used is expired.]")
    key = found[0].public_key()
    if not isinstance(key, rsa.RSAPublicKey) or not assertion.is_signed_by(key):
        raise Refused(700027, "Client assertion failed signature validation")
    if assertion.text_claim("aud") != audience:
        raise Refused(700023, f"Client assertion audience claim does not match {audience}")
    if assertion.text_claim("iss") != client_id or assertion.text_claim("sub") != client_id:
        text = "Client assertion application identifier doesn't match 'client_id' parameter"
        raise Refused(700021, text)
    assertion.require_in_force()
    assertion.text_claim("jti")


def certificate_of(text: str) -> x509.Certificate:
    """A certificate as PEM, or as base64 of its DER form; raises ValueError."""
    try:
        if "-----BEGIN CERTIFICATE-----" in text:
            return x509.load_pem_x509_certificate(text.encode())
        return x509.load_der_x509_certificate(base64.b64decode(text, validate=True))
    except (ValueError, TypeError) as why:
        raise ValueError(f"not a certificate as PEM or base64 of DER: {why}") from why


class Issuer:
    """A cluster's issuer of service account tokens; its key lives as long as the process."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._lock = threading.Lock()
        self._made: rsa.RSAPrivateKey | None = None

    @property
    def _key(self) -> rsa.RSAPrivateKey:
        """Made when it is first needed, because most tests never do."""
        with self._lock:
            if self._made is None:
                self._made = rsa.generate_private_key(65537, 2048)
                self._vault.add("issuer key", _private_text(self._made))
            return self._made

    def token(self, issuer: str, subject: str, audience: str, lifetime: float) -> str:
        now = int(time.time())
        claims = {
            "iss": issuer,
            "sub": subject,
            "aud": [audience],
            "iat": now,
            "nbf": now if lifetime > 0 else now + int(lifetime) - 3600,
            "exp": now + int(lifetime),
            "jti": str(uuid.uuid4()),
        }
        header = {"alg": "RS256", "kid": "stand-in", "typ": "JWT"}
        body = encode(json.dumps(header).encode()) + "." + encode(json.dumps(claims).encode())
        signature = self._key.sign(body.encode(), padding.PKCS1v15(), hashes.SHA256())
        return self._vault.add("service account token", f"{body}.{encode(signature)}")

    def has_signed(self, assertion: Assertion) -> bool:
        return assertion.header.get("alg") == "RS256" and assertion.is_signed_by(
            self._key.public_key()
        )


def _private_text(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """base64url without padding, and nothing else."""
    if not text.isascii() or any(c in text for c in "+/=") or len(text) % 4 == 1:
        raise ValueError("not base64url")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
