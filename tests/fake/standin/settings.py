"""What a test may change while the stand-in runs, every knob once, with the value of real Azure.

An unknown key is refused, because a misspelt knob would make a test prove nothing.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import threading
from dataclasses import dataclass, field
from typing import Any

ACR_AUDIENCE = "https://containerregistry.azure.net"
ARM_AUDIENCE = "https://management.azure.com"
FEDERATION_AUDIENCE = "api://AzureADTokenExchange"

TENANT = "72f988bf-0000-4000-8000-2d7cd011db47"

SYSTEM_IDENTITY = {
    "client_id": "11111111-0000-4000-8000-000000000001",
    "object_id": "11111111-0000-4000-8000-0000000000aa",
    "msi_res_id": "",
    "system": True,
}
USER_IDENTITY = {
    "client_id": "22222222-0000-4000-8000-000000000002",
    "object_id": "22222222-0000-4000-8000-0000000000bb",
    "msi_res_id": "/subscriptions/s/resourceGroups/g/providers"
    "/Microsoft.ManagedIdentity/userAssignedIdentities/puller",
    "system": False,
}
SERVICE_PRINCIPAL = {
    "client_id": "33333333-0000-4000-8000-000000000003",
    "secret": "s3cret~of+the/principal=",
}


@dataclass
class Settings:
    # Lifetimes of what is issued from now on, in seconds.
    aad_lifetime: float = 3599
    refresh_lifetime: float = 10800
    access_lifetime: float = 4500
    hub_lifetime: float = 300
    link_lifetime: float = 1200

    # Who exists, and who has no AcrPull (the exchange refuses them with 401).
    tenants: list = field(default_factory=lambda: [TENANT])
    identities: list = field(default_factory=lambda: [dict(SYSTEM_IDENTITY), dict(USER_IDENTITY)])
    service_principals: list = field(default_factory=lambda: [dict(SERVICE_PRINCIPAL)])
    identities_without_role: list = field(default_factory=list)
    # login server's first label -> {"username", "password"}: the admin user, off by default.
    admin_users: dict = field(default_factory=dict)

    # Which registries there are, and what they allow.
    registries: list = field(default_factory=lambda: ["contoso", "fabrikam"])
    anonymous: list = field(default_factory=list)  # registries with anonymous pull
    denied: list = field(default_factory=list)  # "registry/repository" patterns without rights
    arm_audience_accepted: bool = True
    imds_cache: bool = True  # the platform serves a managed identity's token from a cache

    # How blobs leave.
    blob_host: str = "store.blob.localhost"
    acr_head_redirects: bool = False  # HEAD of a blob: false answers 200, true 307
    hub_blob_redirects: bool = True  # GET of a Hub blob: 307 to storage, or 200
    hub_head_redirects: bool = False

    # Ports that refuse connections for now, by role.
    down: list = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def change(self, values: dict[str, Any]) -> None:
        """Sets all the given keys, or none when one is unknown or of another type."""
        names = {f.name for f in dataclasses.fields(self)}
        with self._lock:
            for key, value in values.items():
                if key not in names:
                    raise ValueError(f"unknown setting {key}; there are {', '.join(sorted(names))}")
                old = getattr(self, key)
                numbers = isinstance(old, (int, float)) and not isinstance(old, bool)
                kind: Any = (int, float) if numbers else type(old)
                if not isinstance(value, kind) or (numbers and isinstance(value, bool)):
                    raise ValueError(f"setting {key} must be a {type(old).__name__}")
            for key, value in values.items():
                setattr(self, key, value)

    def as_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def is_denied(self, registry: str, repository: str) -> bool:
        name = f"{registry}/{repository}"
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.denied)
