"""The tokens of the chain: JWTs with the claims of real ones, signed and checked by one key.

The key lives as long as the process, so a token of an earlier run is as worthless as one of
another cloud.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

from .settings import TENANT

ACR_ISSUER = "Azure Container Registry"
ENTRA_ISSUER = f"https://sts.windows.net/{TENANT}/"
HUB_ISSUER = "auth.localhost"


class Refused(Exception):
    """A token that does not hold; the text says why and goes to the log and the answer."""


@dataclass(frozen=True)
class Token:
    text: str
    claims: dict[str, Any]

    def remaining(self) -> float:
        return self.claims["exp"] - time.time()


class Mint:
    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._issued = 0
        # A token with a smaller number is refused although it has not expired.
        self._revoked_below: dict[str, int] = {}

    def entra(self, audience: str, client_id: str, object_id: str, lifetime: float) -> Token:
        return self._issue(
            "entra",
            lifetime,
            {
                "iss": ENTRA_ISSUER,
                "aud": audience,
                "appid": client_id,
                "oid": object_id,
                "sub": object_id,
                "tid": TENANT,
                "ver": "1.0",
            },
        )

    def refresh(self, login_server: str, subject: str, lifetime: float) -> Token:
        return self._issue(
            "refresh",
            lifetime,
            {
                "iss": ACR_ISSUER,
                "aud": login_server,
                "sub": subject,
                "version": "1.0",
                "grant_type": "refresh_token",
                "tenant": TENANT,
                "permissions": {"actions": ["read"], "notActions": None},
                "roles": [],
            },
        )

    def access(
        self, issuer: str, audience: str, subject: str, granted: list[dict], lifetime: float
    ) -> Token:
        return self._issue(
            "access",
            lifetime,
            {
                "iss": issuer,
                "aud": audience,
                "sub": subject,
                "version": "1.0",
                "grant_type": "access_token",
                "access": granted,
                "roles": [],
            },
        )

    def check(self, kind: str, text: str, issuer: str, audiences: list[str]) -> dict[str, Any]:
        """The claims of a token that is of this kind, whole, in force and meant for us."""
        parts = text.split(".")
        if len(parts) != 3:
            raise Refused("not a JWT")
        if not hmac.compare_digest(self._sign(f"{parts[0]}.{parts[1]}"), parts[2]):
            raise Refused("signature does not hold")
        claims = json.loads(_decode(parts[1]))
        if claims["kind"] != kind or claims["iss"] != issuer:
            raise Refused(f"a {claims['kind']} token where a {kind} token belongs")
        if claims["aud"] not in audiences:
            raise Refused(f"audience is {claims['aud']}")
        now = time.time()
        if claims["exp"] <= now:
            raise Refused("expired")
        if claims["nbf"] > now:
            raise Refused("not yet valid")
        if claims["number"] < self._revoked_below.get(kind, 0):
            raise Refused("revoked")
        return claims

    def revoke(self, kind: str) -> None:
        """Refuses every token of this kind that has been issued so far."""
        with self._lock:
            self._revoked_below[kind] = self._issued + 1

    def _issue(self, kind: str, lifetime: float, claims: dict[str, Any]) -> Token:
        with self._lock:
            self._issued += 1
            number = self._issued
        now = time.time()
        claims = {
            **claims,
            "jti": secrets.token_hex(16),
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now + lifetime),
            "kind": kind,
            "number": number,
        }
        body = _encode(b'{"alg":"HS256","typ":"JWT"}') + "." + _encode(json.dumps(claims).encode())
        return Token(f"{body}.{self._sign(body)}", claims)

    def _sign(self, body: str) -> str:
        return _encode(hmac.digest(self._key, body.encode(), hashlib.sha256))

    # Signed links of the storage host use the same key, but another text, so that neither can
    # be passed off as the other.
    def sign_link(self, path: str, expires: str) -> str:
        digest = hmac.digest(self._key, f"link\n{path}\n{expires}".encode(), hashlib.sha256)
        return base64.b64encode(digest).decode()

    def link_holds(self, path: str, expires: str, signature: str) -> bool:
        return hmac.compare_digest(self.sign_link(path, expires), signature)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
