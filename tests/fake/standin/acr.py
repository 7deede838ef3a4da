"""An ACR login server: the challenge, and the data plane behind its Bearer tokens.

Which registry answers is decided by the first label of the host as dialled, so one port plays
any number of them, in every cloud. At the origin the registry's name stands before the repository.
"""

from __future__ import annotations

import re
import uuid

from . import dataplane, grants
from .acr_auth import NULL_GUID, AcrAuth, LoginServer, basic_pair
from .dataplane import API_VERSION, Route, error
from .origin import Origin
from .settings import CLOUDS, Settings
from .storage import Ports, Storage
from .tokens import ACR_ISSUER, Mint, Refused
from .wire import Request, Response, json_response

SUFFIXES = {names[0]: cloud for cloud, names in CLOUDS.items()}
HOST = re.compile(
    r"(?P<label>[a-z0-9]+(?:-[a-z0-9]+)?)(?P<region>\.[a-z0-9]+\.geo)?"
    rf"\.(?P<suffix>{'|'.join(map(re.escape, SUFFIXES))})(?::\d+)?",
    re.ASCII,
)
VISIT = "authentication required, visit https://aka.ms/acr/authorization for more information."


def login_server(settings: Settings, host: str) -> LoginServer | None:
    """Which registry has this name, in one of the forms that names of registries have."""
    found = HOST.fullmatch(host)
    if not found:
        return None
    for registry in settings.registries:
        mark = settings.domain_labels.get(registry)
        if found["label"] == (f"{registry}-{mark}" if mark else registry):
            break
    else:
        return None
    name = f"{found['label']}.{found['suffix']}"
    regional = f"{found['label']}{found['region'] or ''}.{found['suffix']}"
    service = name if settings.regional_service_is_global else regional
    return LoginServer(registry, SUFFIXES[found["suffix"]], name, service)


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
        server = login_server(self._settings, request.host())
        if server is None:
            # A name that does not resolve in Azure; here the request has come already.
            request.log.refusal = "no such registry"
            return error(404, "NAME_UNKNOWN", f"there is no registry {request.host()}")
        request.log.registry = server.registry
        response = self._dispatch(request, server)
        response.headers.append(("X-Ms-Correlation-Request-Id", str(uuid.uuid4())))
        return response

    def _dispatch(self, request: Request, server: LoginServer) -> Response:
        if request.path == "/oauth2/exchange":
            return self._auth.exchange(request, server)
        if request.path == "/oauth2/token":
            return self._auth.token(request, server)
        if request.path in ("/v2/", "/v2"):
            return self._refused(request, server, None) or json_response(200, {}, [API_VERSION])
        where = dataplane.route(request.path)
        if isinstance(where, Response):
            return where
        request.log.repository = where.repository
        request.log.reference = where.rest
        if where.kind == "blobs":
            request.log.digest = where.rest
        refused = self._refused(request, server, where)
        if refused:
            return refused
        registry = server.registry
        inside = f"{registry}/{where.repository}"

        def redirect(asked: Request, digest: str) -> str | None:
            if asked.method == "HEAD" and not self._settings.acr_head_redirects:
                return None
            return self._storage.link(self._ports()["storage"], f"{registry}-container", digest)

        return dataplane.serve(request, where, self._origin, inside, redirect)

    def _refused(
        self, request: Request, server: LoginServer, where: Route | None
    ) -> Response | None:
        """None when the request's credentials allow it, else the answer that refuses it."""
        authorization = request.header("authorization")
        if authorization is None:
            return self._challenge(request, server, where, "")
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "basic":
            return self._basic(request, server, authorization, where)
        if scheme.lower() != "bearer":
            return self._challenge(request, server, where, "")
        try:
            claims = self._mint.check("access", value.strip(), ACR_ISSUER, [server.name])
        except Refused as why:
            request.log.refusal = str(why)
            return self._challenge(request, server, where, "invalid_token")
        return self._not_granted(request, server, where, claims["sub"], claims["access"])

    def _not_granted(
        self,
        request: Request,
        server: LoginServer,
        where: Route | None,
        subject: str,
        access: list[dict],
    ) -> Response | None:
        request.log.identity = subject
        if not where:
            return None
        actions = _actions(where)
        allowed = grants.permits(access, where.repository, actions)
        # A token for `repository:*` does not open what its owner may not see.
        if any(item["name"] == "*" for item in access):
            rights = self._auth.rights(server.registry, subject)(where.repository)
            allowed = allowed and any(action in rights for action in actions)
        if allowed:
            return None
        request.log.refusal = "insufficient_scope"
        return self._challenge(request, server, where, "insufficient_scope")

    def _basic(
        self, request: Request, server: LoginServer, authorization: str, where: Route | None
    ) -> Response | None:
        user, secret = basic_pair(authorization) or ("", "")
        if user == NULL_GUID:
            try:
                claims = self._mint.check("access", secret, ACR_ISSUER, [server.name])
                return self._not_granted(request, server, where, claims["sub"], claims["access"])
            except Refused as why:
                request.log.refusal = str(why)
        elif self._auth.is_full_account(server.registry, user, secret):
            everywhere = [{"type": "repository", "name": "*", "actions": grants.PULLER_ACTIONS}]
            return self._not_granted(request, server, where, user, everywhere)
        else:
            request.log.refusal = "wrong user or password"
        # This challenge does not name the token endpoint; a client that sent Basic unasked
        # has lost its way, as with the real one.
        headers = [("Www-Authenticate", 'Basic realm="Azure Container Registry"')]
        return error(401, "UNAUTHORIZED", VISIT, headers=headers)

    def _challenge(
        self, request: Request, server: LoginServer, where: Route | None, failure: str
    ) -> Response:
        text = f'Bearer realm="https://{request.host()}/oauth2/token",service="{server.service}"'
        detail = None
        if where:
            action = "metadata_read" if where.kind == "tags" else "pull"
            text += f',scope="repository:{where.repository}:{action}"'
            detail = [{"Type": "repository", "Name": where.repository, "Action": action}]
        if failure:
            text += f',error="{failure}"'
        request.log.refusal = request.log.refusal or failure or "no credentials"
        return error(401, "UNAUTHORIZED", VISIT, detail, [("Www-Authenticate", text)])


def _actions(where: Route) -> tuple[str, ...]:
    return ("pull", "metadata_read") if where.kind == "tags" else ("pull",)
