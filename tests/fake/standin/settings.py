"""What a test may change while the stand-in runs, every knob once, with the value of real Azure.

An unknown key is refused, because a misspelt knob would make a test prove nothing. That holds
inside the entries of a list as well.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .assertions import certificate_of

ACR_AUDIENCE = "https://containerregistry.azure.net"
ARM_AUDIENCE = "https://management.azure.com"
FEDERATION_AUDIENCE = "api://AzureADTokenExchange"

TENANT = "72f988bf-0000-4000-8000-2d7cd011db47"
OTHER_TENANT = "9a0c6ff2-0000-4000-8000-0d6f2f6c0b11"

# cloud -> ACR suffix, Entra authority, ARM audience. The names of the public cloud have no mark;
# one suffix has three labels before `localhost`, as two of the real ones have.
CLOUDS = {
    "public": ("azurecr.localhost", "login.localhost", ARM_AUDIENCE),
    "usgovernment": (
        "azurecr.us.localhost",
        "login.us.localhost",
        "https://management.usgovcloudapi.net",
    ),
    "china": (
        "azurecr.cn.localhost",
        "login.cn.localhost",
        "https://management.chinacloudapi.cn",
    ),
    "sovereign": ("azurecr.sovcloud-azure.fr.localhost", "login.fr.localhost", ARM_AUDIENCE),
}

SYSTEM_IDENTITY: dict[str, Any] = {
    "client_id": "11111111-0000-4000-8000-000000000001",
    "object_id": "11111111-0000-4000-8000-0000000000aa",
    "msi_res_id": "",
    "system": True,
}
USER_IDENTITY: dict[str, Any] = {
    "client_id": "22222222-0000-4000-8000-000000000002",
    "object_id": "22222222-0000-4000-8000-0000000000bb",
    "msi_res_id": "/subscriptions/55555555-0000-4000-8000-000000000005/resourceGroups/g/providers"
    "/Microsoft.ManagedIdentity/userAssignedIdentities/puller",
    "system": False,
}
SERVICE_PRINCIPAL: dict[str, Any] = {
    "client_id": "33333333-0000-4000-8000-000000000003",
    "secret": "s3cret~of+the/principal=",
}


@dataclass
class Settings:
    # Lifetimes of what is issued from now on, in seconds.
    aad_lifetime: float = 3599
    refresh_lifetime: float = 10800
    access_lifetime: float = 4500
    hub_lifetime: float = 300  # of the tokens of all registries that are not ACR
    link_lifetime: float = 1200

    # Who exists, and who has no AcrPull (the exchange refuses them with 401).
    tenants: list = field(default_factory=lambda: [TENANT])
    identities: list = field(default_factory=lambda: [dict(SYSTEM_IDENTITY), dict(USER_IDENTITY)])
    # `certificates`: PEM texts, or base64 of DER. `federated`: issuer, subject, audience.
    # `tenants`: where the application exists, absent = the first tenant of all.
    service_principals: list = field(default_factory=lambda: [dict(SERVICE_PRINCIPAL)])
    identities_without_role: list = field(default_factory=list)
    # login server's first label -> {"username", "password", "password2"}; off by default.
    admin_users: dict = field(default_factory=dict)
    # Repository-scoped tokens: registry, name, password1 and password2 ({"value", "expires"}),
    # scopes ({"team-a/*": ["content/read"]}).
    scoped_tokens: list = field(default_factory=list)

    # Which registries there are, and what they allow.
    registries: list = field(default_factory=lambda: ["contoso", "fabrikam"])
    # Registries with a Domain Name Label: `{"contoso": "abc123"}` answers at contoso-abc123 only.
    domain_labels: dict = field(default_factory=dict)
    regional_service_is_global: bool = False  # what a regional name says as its `service`
    registry_tenants: dict = field(default_factory=dict)  # absent = the first tenant
    anonymous: list = field(default_factory=list)  # registries with anonymous pull
    denied: list = field(default_factory=list)  # "registry/repository" patterns without rights
    abac: list = field(default_factory=list)  # registries in ABAC mode: no `repository:*:*`
    arm_audience_accepted: bool = True  # the policy azureADAuthenticationAsArmPolicy
    cloud: str = "public"  # the cloud that this machine stands in: who issues its tokens
    imds_cache: bool = True  # the platform serves a managed identity's token from a cache

    # The other hosts of managed identity.
    arc_token_directory: str = ""  # where the agent puts its key files; none: no agent
    arc_directory_named: str = ""  # how a challenge names that directory, if otherwise
    arc_agent_knows_selectors: bool = False  # old agents give the system token, whoever is asked
    app_service_header: str = "9b1deb4d-the-identity-header"  # rotates in a real one
    machine_learning_secret: str = "machine-learning/secret"
    service_fabric_header: str = "service-fabric/identity-header"

    # Registries that are not ACR (hub, ghcr, ecr, gar): registry, user (`*`: any), secret,
    # expires (seconds since 1970, absent = never).
    accounts: list = field(default_factory=list)
    # Who may pull without an account: patterns of "registry/repository".
    public: list = field(default_factory=lambda: ["hub/*"])

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
                if key in _CHECKS:
                    _CHECKS[key](value)
            for key, value in values.items():
                setattr(self, key, value)

    def as_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def is_denied(self, registry: str, repository: str) -> bool:
        name = f"{registry}/{repository}"
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.denied)

    def is_public(self, registry: str, repository: str) -> bool:
        name = f"{registry}/{repository}"
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.public)

    def tenant_of(self, registry: str) -> str:
        return self.registry_tenants.get(registry, self.tenants[0])

    def principal(self, client_id: str, tenant: str) -> dict | None:
        """The application of that id, if it exists in that tenant."""
        for found in self.service_principals:
            if found["client_id"] == client_id:
                return found if tenant in found.get("tenants", self.tenants[:1]) else None
        return None

    def secrets(self) -> list[tuple[str, str]]:
        """Everything here that nobody but its two owners may ever see, with what it is."""
        found = [("service principal secret", p.get("secret")) for p in self.service_principals]
        for user in self.admin_users.values():
            found += [("admin password", user.get(key)) for key in ("password", "password2")]
        for token in self.scoped_tokens:
            pair = (token.get("password1", {}), token.get("password2", {}))
            found += [("scoped token password", one.get("value")) for one in pair]
        found += [("registry account", account["secret"]) for account in self.accounts]
        found += [
            ("App Service header", self.app_service_header),
            ("machine learning secret", self.machine_learning_secret),
            ("Service Fabric header", self.service_fabric_header),
        ]
        return [(kind, text) for kind, text in found if text]


def _keys(value: dict, required: str, optional: str = "") -> None:
    if not isinstance(value, dict):
        raise ValueError("an entry must be an object")
    missing = set(required.split()) - set(value)
    unknown = set(value) - set(required.split()) - set(optional.split())
    if missing or unknown:
        what = f"unknown {', '.join(sorted(unknown))}" if unknown else f"missing {missing.pop()}"
        raise ValueError(f"{what} in an entry of {required} {optional}".rstrip())


def _identities(value: list) -> None:
    for one in value:
        _keys(one, "client_id object_id msi_res_id", "system")


def _principals(value: list) -> None:
    for one in value:
        _keys(one, "client_id", "secret certificates federated tenants")
        for text in one.get("certificates", []):
            certificate_of(text)
        for trust in one.get("federated", []):
            _keys(trust, "issuer subject audience")


def _admins(value: dict) -> None:
    for one in value.values():
        _keys(one, "username password", "password2")


def _scoped(value: list) -> None:
    actions = {"content/read", "content/write", "content/delete", "metadata/read", "metadata/write"}
    for one in value:
        _keys(one, "registry name scopes", "password1 password2")
        for number in ("password1", "password2"):
            if number in one:
                _keys(one[number], "value", "expires")
        for repository, given in one["scopes"].items():
            if "*" in repository[:-1] or (repository[-1:] == "*" and len(repository) == 1):
                raise ValueError(f"{repository}: a wildcard may only stand at the end of a name")
            if set(given) - actions:
                raise ValueError(f"{repository}: there are the actions {', '.join(actions)}")


def _accounts(value: list) -> None:
    for one in value:
        _keys(one, "registry user secret", "expires")


def _cloud(value: str) -> None:
    if value not in CLOUDS:
        raise ValueError(f"there are the clouds {', '.join(CLOUDS)}")


def _tenants(value: list) -> None:
    if not value:
        raise ValueError("a cloud has one tenant at least")


_CHECKS: dict[str, Callable[[Any], None]] = {
    "identities": _identities,
    "service_principals": _principals,
    "admin_users": _admins,
    "scoped_tokens": _scoped,
    "accounts": _accounts,
    "cloud": _cloud,
    "tenants": _tenants,
}
