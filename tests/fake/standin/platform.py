"""The machine's managed identities as the platform keeps them: who they are, and their tokens.

IMDS and all the other hosts of managed identity answer from here; they differ in how they are
asked and in how they put it.
"""

from __future__ import annotations

import threading
import time

from .settings import ACR_AUDIENCE, CLOUDS, FEDERATION_AUDIENCE, Settings
from .tokens import Mint, Token


class Platform:
    def __init__(self, settings: Settings, mint: Mint) -> None:
        self._settings = settings
        self._mint = mint
        self._lock = threading.Lock()
        self._cache: dict[tuple[str, str], Token] = {}

    def knows(self, resource: str) -> bool:
        """Whether Entra has this resource; only ARM's name may end in a slash."""
        arm = CLOUDS[self._settings.cloud][2]
        return resource in (ACR_AUDIENCE, arm, arm + "/", FEDERATION_AUDIENCE)

    def find(self, field: str, value: str) -> dict | None:
        """The identity whose `field` is this; ids are compared without regard to case."""
        wanted = value.lower()
        identities = self._settings.identities
        return next((i for i in identities if wanted and i[field].lower() == wanted), None)

    def default(self) -> dict | None:
        """System-assigned if there is one, else the only user-assigned one."""
        identities = self._settings.identities
        return self.system() or (identities[0] if len(identities) == 1 else None)

    def system(self) -> dict | None:
        return next((i for i in self._settings.identities if i.get("system")), None)

    def token(self, identity: dict, resource: str) -> Token:
        """The platform's cache: the same token until half its life is over, as a real machine
        gets it, so that less may remain than a full life."""
        key = (identity["client_id"], resource)
        with self._lock:
            cached = self._cache.get(key)
            if cached and self._settings.imds_cache:
                life = cached.claims["exp"] - cached.claims["iat"]
                if time.time() < cached.claims["iat"] + life / 2:
                    return cached
            token = self._mint.entra(
                resource.rstrip("/"),
                identity["client_id"],
                identity["object_id"],
                self._settings.aad_lifetime,
                self._settings.tenants[0],
                self._settings.cloud,
            )
            self._cache[key] = token
            return token

    def forget(self) -> None:
        with self._lock:
            self._cache.clear()
