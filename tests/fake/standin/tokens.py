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

from .assertions import decode, encode
from .settings import FEDERATION_AUDIENCE, TENANT
from .vault import Vault

ACR_ISSUER = "Azure Container Registry"


def entra_issuer(tenant: str) -> str:
    return f"https://sts.windows.net/{tenant}/"


def federation_issuer(tenant: str) -> str:
    """What stands as issuer in a federated credential that trusts a managed identity."""
    return f"https://login.microsoftonline.com/{tenant}/v2.0"


class Refused(Exception):
    """A token that does not hold; the text says why and goes to the log and the answer."""


@dataclass(frozen=True)
class Token:
    text: str
    claims: dict[str, Any]

    def remaining(self) -> float:
        return self.claims["exp"] - time.time()


class Mint:
    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._issued = 0
        # A token with a smaller number is refused although it has not expired.
        self._revoked_below: dict[str, int] = {}
        # Tokens whose text says nothing, as GHCR's and Google's.
        self._opaque: dict[str, dict[str, Any]] = {}

    def entra(
        self,
        audience: str,
        client_id: str,
        object_id: str,
        lifetime: float,
        tenant: str = TENANT,
        cloud: str = "public",
    ) -> Token:
        federated = audience == FEDERATION_AUDIENCE
        return self._issue(
            "entra",
            lifetime,
            {
                "iss": federation_issuer(tenant) if federated else entra_issuer(tenant),
                "aud": audience,
                "appid": client_id,
                "oid": object_id,
                "sub": object_id,
                "tid": tenant,
                "ver": "2.0" if federated else "1.0",
                "cloud": cloud,
            },
        )

    def refresh(
        self, login_server: str, subject: str, lifetime: float, tenant: str, abac: bool = False
    ) -> Token:
        return self._issue(
            "refresh",
            lifetime,
            {
                **({"aad_identity": subject} if abac else {}),
                "iss": ACR_ISSUER,
                "aud": login_server,
                "sub": subject,
                "version": "1.0",
                "grant_type": "refresh_token",
                "tenant": tenant,
                "permissions": {"actions": ["read"], "notActions": None},
                "roles": [],
            },
        )

    def access(
        self,
        issuer: str,
        audience: str,
        subject: str,
        granted: list[dict],
        lifetime: float,
        opaque: bool = False,
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
            opaque,
        )

    def check(
        self, kind: str, text: str, issuers: str | list[str], audiences: list[str]
    ) -> dict[str, Any]:
        """The claims of a token that is of this kind, whole, in force and meant for us."""
        claims = self._opaque.get(text)
        if claims is None:
            parts = text.split(".")
            if len(parts) != 3:
                raise Refused("not a JWT")
            # As bytes, because a peer may send any character.
            given = parts[2].encode(errors="replace")
            if not hmac.compare_digest(self._sign(f"{parts[0]}.{parts[1]}").encode(), given):
                raise Refused("signature does not hold")
            claims = json.loads(decode(parts[1]))
        if claims["kind"] != kind:
            raise Refused(f"a {claims['kind']} token where a {kind} token belongs")
        if claims["iss"] not in ([issuers] if isinstance(issuers, str) else issuers):
            raise Refused(f"issuer is {claims['iss']}")
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

    def _issue(
        self, kind: str, lifetime: float, claims: dict[str, Any], opaque: bool = False
    ) -> Token:
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
        if opaque:
            text = secrets.token_urlsafe(48)
            with self._lock:
                self._opaque[text] = claims
        else:
            body = encode(b'{"alg":"HS256","typ":"JWT"}')
            body += "." + encode(json.dumps(claims).encode())
            text = f"{body}.{self._sign(body)}"
        self._vault.add(f"{kind} token", text)
        return Token(text, claims)

    def _sign(self, body: str) -> str:
        return encode(hmac.digest(self._key, body.encode(), hashlib.sha256))

    # Signed links of the storage host use the same key, but another text, so that neither can
    # be passed off as the other.
    def sign_link(self, path: str, expires: str) -> str:
        return self._vault.add("link signature", self._link_signature(path, expires))

    def link_holds(self, path: str, expires: str, signature: str) -> bool:
        true = self._link_signature(path, expires).encode()
        return hmac.compare_digest(true, signature.encode(errors="replace"))

    def _link_signature(self, path: str, expires: str) -> str:
        text = f"link\n{path}\n{expires}".encode(errors="replace")
        return base64.b64encode(hmac.digest(self._key, text, hashlib.sha256)).decode()
