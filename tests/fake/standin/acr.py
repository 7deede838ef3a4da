"""An ACR login server: the challenge, and the data plane behind its Bearer tokens.

Which registry answers is decided by the first label of the host as dialled, so one port plays
any number of them. At the origin the registry's name stands before the repository.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid

from . import dataplane, grants
from .acr_auth import NULL_GUID, AcrAuth
from .dataplane import API_VERSION, Route, error
from .origin import Origin
from .settings import Settings
from .storage import Ports, Storage
from .tokens import ACR_ISSUER, Mint, Refused
from .wire import Request, Response, json_response

HOST = re.compile(
    r"(?P<name>[a-z0-9-]+)(?:\.[a-z0-9]+\.geo)?\.azurecr\.localhost(?::\d+)?", re.ASCII
)


class Acr:
    def __init__(
        self, settings: Settings, mint: Mint, origin: Origin, storage: Storage, ports: Ports
    ) -> None:
        self._settings = settings
        self._mint = mint
        self._origin = origin
        self._storage = storage
        self._ports = ports
        self._auth = AcrAuth(settings, mint)

    def handle(self, request: Request) -> Response:
        host = request.host()
        found = HOST.fullmatch(host)
        if not found or found["name"] not in self._settings.registries:
            # A name that does not resolve in Azure; here the request has come already.
            request.log.refusal = "no such registry"
            return error(404, "NAME_UNKNOWN", f"there is no registry {host}")
        registry = found["name"]
        login_server = host.partition(":")[0]
        request.log.registry = registry
        response = self._dispatch(request, registry, login_server)
        response.headers.append(("X-Ms-Correlation-Request-Id", str(uuid.uuid4())))
        return response

    def _dispatch(self, request: Request, registry: str, login_server: str) -> Response:
        if request.path == "/oauth2/exchange":
            return self._auth.exchange(request, registry, login_server)
        if request.path == "/oauth2/token":
            return self._auth.token(request, registry, login_server)
        if request.path in ("/v2/", "/v2"):
            access = self._access(request, registry, login_server, None)
            if isinstance(access, Response):
                return access
            return json_response(200, {}, [API_VERSION])
        where = dataplane.route(request.path)
        if isinstance(where, Response):
            return where
        request.log.repository = where.repository
        request.log.reference = where.rest
        if where.kind == "blobs":
            request.log.digest = where.rest
        access = self._access(request, registry, login_server, where)
        if isinstance(access, Response):
            return access
        inside = f"{registry}/{where.repository}"

        def redirect(asked: Request, digest: str) -> str | None:
            if asked.method == "HEAD" and not self._settings.acr_head_redirects:
                return None
            return self._storage.link(self._ports()["storage"], f"{registry}-container", digest)

        return dataplane.serve(request, where, self._origin, inside, redirect)

    def _access(
        self, request: Request, registry: str, login_server: str, where: Route | None
    ) -> list[dict] | Response:
        """What the request's credentials allow, or the answer that refuses it."""
        authorization = request.header("authorization")
        if authorization is None:
            return self._challenge(request, login_server, where, "")
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "basic":
            return self._basic(request, registry, login_server, value, where)
        if scheme.lower() != "bearer":
            return self._challenge(request, login_server, where, "")
        try:
            claims = self._mint.check("access", value.strip(), ACR_ISSUER, [login_server])
        except Refused as why:
            request.log.refusal = str(why)
            return self._challenge(request, login_server, where, "invalid_token")
        return self._allowed(request, login_server, where, claims)

    def _allowed(
        self, request: Request, login_server: str, where: Route | None, claims: dict
    ) -> list[dict] | Response:
        request.log.identity = claims["sub"]
        actions = ("pull", "metadata_read") if where and where.kind == "tags" else ("pull",)
        if where and not grants.permits(claims["access"], where.repository, actions):
            request.log.refusal = "insufficient_scope"
            return self._challenge(request, login_server, where, "insufficient_scope")
        return claims["access"]

    def _basic(self, request: Request, registry: str, login_server: str, value: str, where):
        try:
            user, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user = secret = ""
        if user == NULL_GUID:
            try:
                claims = self._mint.check("access", secret, ACR_ISSUER, [login_server])
                return self._allowed(request, login_server, where, claims)
            except Refused as why:
                request.log.refusal = str(why)
        elif self._auth.is_fixed_credential(registry, user, secret):
            request.log.identity = user
            return []
        else:
            request.log.refusal = "wrong user or password"
        # This challenge does not name the token endpoint; a client that sent Basic unasked
        # has lost its way, as with the real one.
        return error(
            401,
            "UNAUTHORIZED",
            "authentication required, visit https://aka.ms/acr/authorization for more information.",
            headers=[("Www-Authenticate", 'Basic realm="Azure Container Registry"')],
        )

    def _challenge(
        self, request: Request, login_server: str, where: Route | None, failure: str
    ) -> Response:
        text = f'Bearer realm="https://{request.host()}/oauth2/token",service="{login_server}"'
        detail = None
        if where:
            action = "metadata_read" if where.kind == "tags" else "pull"
            text += f',scope="repository:{where.repository}:{action}"'
            detail = [{"Type": "repository", "Name": where.repository, "Action": action}]
        if failure:
            text += f',error="{failure}"'
        request.log.refusal = request.log.refusal or failure or "no credentials"
        return error(
            401,
            "UNAUTHORIZED",
            "authentication required, visit https://aka.ms/acr/authorization for more information.",
            detail,
            [("Www-Authenticate", text)],
        )
