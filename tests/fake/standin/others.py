"""Registries that are not ACR: in the manner of Docker Hub, GHCR, Amazon ECR and Google's.

They differ in where the token server is, who may ask it, and what an answer looks like; ECR has
no tokens at all and takes Basic. Their repositories are the origin's below `hub/`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from . import dataplane, grants
from .acr_auth import basic_pair
from .dataplane import API_VERSION, Route, error
from .origin import Origin
from .settings import Settings
from .storage import Ports, Storage
from .tokens import Mint, Refused
from .wire import Request, Response, json_response

ORIGIN_PREFIX = "hub"


@dataclass(frozen=True)
class Manner:
    """How one of them behaves. `role` is the port it stands on, and `token_role` its realm's."""

    name: str
    role: str
    service: str
    token_path: str = ""  # none: Basic at the registry itself
    token_role: str = ""
    token_host: str = ""
    answer: tuple[str, ...] = ()  # the keys of a token answer
    opaque: bool = False  # whether a token's text says nothing
    wrong_pair: tuple[int, str] = (401, "UNAUTHORIZED")
    # What anonymity gets where it does not reach; None: a token that grants nothing.
    no_pair: tuple[int, str] | None = None
    counted: bool = False  # pull limits are told in headers

    @property
    def host(self) -> str:
        return f"{self.name}.localhost"


HUB = Manner(
    name="hub",
    role="hub",
    service="registry.docker.io",
    token_path="/token",
    token_role="auth",
    token_host="auth.localhost",
    answer=("token", "access_token", "expires_in", "issued_at"),
    counted=True,
)
GHCR = Manner(
    name="ghcr",
    role="other",
    service="ghcr.localhost",
    token_path="/token",
    token_role="other",
    token_host="ghcr.localhost",
    answer=("token",),
    opaque=True,
    wrong_pair=(403, "DENIED"),
    no_pair=(401, "UNAUTHORIZED"),
)
GAR = Manner(
    name="gar",
    role="other",
    service="gar.localhost",
    token_path="/v2/token",
    token_role="other",
    token_host="gar.localhost",
    answer=("expires_in", "issued_at", "token"),
    opaque=True,
    no_pair=(403, "DENIED"),
)
ECR = Manner(name="ecr", role="other", service="ecr.amazonaws.com")

EXPIRED = (
    "Your Authorization Token has expired. Please run 'aws ecr get-login --no-include-email' "
    "to fetch a new one."
)


class Others:
    """Those that share one port: the host as dialled says which is meant."""

    def __init__(self, registries: list[Registry]) -> None:
        self._registries = {registry.manner.host: registry for registry in registries}

    def handle(self, request: Request) -> Response:
        found = self._registries.get(request.host().partition(":")[0])
        if found is None:
            request.log.refusal = "no such registry"
            return error(404, "NAME_UNKNOWN", f"there is no registry {request.host()}")
        if request.path == found.manner.token_path:
            return found.token(request)
        return found.registry(request)


class Registry:
    def __init__(
        self,
        manner: Manner,
        settings: Settings,
        mint: Mint,
        origin: Origin,
        storage: Storage,
        ports: Ports,
    ) -> None:
        self.manner = manner
        self._settings = settings
        self._mint = mint
        self._origin = origin
        self._storage = storage
        self._ports = ports

    def registry(self, request: Request) -> Response:
        request.log.registry = self.manner.name
        where: Route | None = None
        if request.path not in ("/v2/", "/v2"):
            found = dataplane.route(request.path)
            if isinstance(found, Response):
                return found
            where = found
            request.log.repository = where.repository
            request.log.reference = where.rest
            if where.kind == "blobs":
                request.log.digest = where.rest
        check = self._refused_token if self.manner.token_path else self._refused_pair
        refused = check(request, where)
        if refused:
            return refused
        return self._serve(request, where) if where else json_response(200, {}, [API_VERSION])

    def token(self, request: Request) -> Response:
        """GET only, and, for some, generous with tokens that grant nothing."""
        manner = self.manner
        request.log.registry = manner.name
        if request.path != manner.token_path:
            return Response(404)
        if request.method != "GET":
            return json_response(405, {"details": "method not allowed"})
        user = ""
        authorization = request.header("authorization")
        if authorization is not None:
            pair = basic_pair(authorization)
            if pair is None or self._account(*pair) != "good":
                request.log.refusal = "incorrect username or password"
                return self._refuse(*manner.wrong_pair, "incorrect username or password")
            user = pair[0]
            request.log.identity = user
        services = [value for key, value in request.query if key == "service"]
        if services != [manner.service]:
            request.log.refusal = "wrong service"
            return self._refuse(400, "UNSUPPORTED", "service is wrong or missing")
        try:
            scopes = grants.parse([value for key, value in request.query if key == "scope"])
        except grants.BadScope as why:
            request.log.refusal = str(why)
            return self._refuse(400, "UNSUPPORTED", str(why))
        access = grants.grant(scopes, self._rights(user))
        request.log.scope = " ".join(scope.text() for scope in scopes)
        request.log.granted = grants.as_text(access)
        if not user and manner.no_pair and len(access) < len(scopes):
            request.log.refusal = "not public"
            return self._refuse(*manner.no_pair, "authentication required")
        lifetime = self._settings.hub_lifetime
        token = self._mint.access(
            manner.token_host, manner.service, user, access, lifetime, manner.opaque
        ).text
        whole = {
            "token": token,
            "access_token": token,
            "expires_in": int(lifetime),
            "issued_at": time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime()),
        }
        return json_response(200, {key: whole[key] for key in manner.answer})

    def _serve(self, request: Request, where: Route) -> Response:
        def redirect(asked: Request, digest: str) -> str | None:
            head = asked.method == "HEAD"
            settings = self._settings
            if not (settings.hub_head_redirects if head else settings.hub_blob_redirects):
                return None
            return self._storage.link(self._ports()["storage"], "registry-v2", digest)

        inside = f"{ORIGIN_PREFIX}/{where.repository}"
        response = dataplane.serve(request, where, self._origin, inside, redirect)
        if self.manner.counted and where.kind == "manifests":
            # HEAD is not counted, but tells the numbers as well.
            response.headers += [
                ("ratelimit-limit", "100;w=21600"),
                ("ratelimit-remaining", "99;w=21600"),
                ("docker-ratelimit-source", "127.0.0.1"),
            ]
        return response

    def _rights(self, user: str) -> grants.Rights:
        """Of an account, or of nobody in particular if `user` is empty."""
        name, settings = self.manner.name, self._settings

        def of(repository: str) -> tuple[str, ...]:
            # The Hub's own names have one part only in what people write.
            nameless = name == "hub" and "/" not in repository
            hidden = not user and not settings.is_public(name, repository)
            if nameless or hidden or settings.is_denied(name, repository):
                return ()
            return ("pull",)

        return of

    def _account(self, user: str, secret: str) -> str:
        """good, expired or wrong."""
        for account in self._settings.accounts:
            mine = account["registry"] == self.manner.name and account["user"] in (user, "*")
            if mine and account["secret"] == secret and user:
                ended = account.get("expires", float("inf")) <= time.time()
                return "expired" if ended else "good"
        return "wrong"

    def _refused_pair(self, request: Request, where: Route | None) -> Response | None:
        """None when the request may go on: with Basic at every request."""
        authorization = request.header("authorization")
        pair = basic_pair(authorization) if authorization is not None else None
        state = self._account(*pair) if pair else "wrong"
        if state == "expired":
            request.log.refusal = "expired"
            return Response(403, [("Content-Type", "text/plain; charset=utf-8")], EXPIRED.encode())
        if state == "good" and pair:
            request.log.identity = pair[0]
            if not where or self._rights(pair[0])(where.repository):
                return None
            request.log.refusal = "not allowed"
            return error(403, "DENIED", "User is not authorized to perform: ecr:BatchGetImage")
        request.log.refusal = "no credentials" if authorization is None else "wrong pair"
        challenge = f'Basic realm="https://{request.host()}/",service="{self.manner.service}"'
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Www-Authenticate", challenge)]
        return Response(401, headers, b"Not Authorized\n")

    def _refused_token(self, request: Request, where: Route | None) -> Response | None:
        """None when the request may go on: with a token of this registry's server."""
        manner, failure = self.manner, ""
        scheme, _, value = (request.header("authorization") or "").partition(" ")
        if scheme.lower() == "bearer":
            try:
                token = value.strip()
                issuer = manner.token_host
                claims = self._mint.check("access", token, issuer, [manner.service])
                request.log.identity = claims["sub"]
                if not where or grants.permits(claims["access"], where.repository, ("pull",)):
                    return None
                failure = "insufficient_scope"
            except Refused as why:
                request.log.refusal = str(why)
                failure = "invalid_token"
        port = self._ports()[manner.token_role]
        realm = f"https://{manner.token_host}:{port}{manner.token_path}"
        text = f'Bearer realm="{realm}",service="{manner.service}"'
        detail = None
        if where:
            text += f',scope="repository:{where.repository}:pull"'
            detail = [
                {"Type": "repository", "Class": "", "Name": where.repository, "Action": "pull"}
            ]
        if failure:
            text += f',error="{failure}"'
        request.log.refusal = request.log.refusal or failure or "no credentials"
        headers = [("Www-Authenticate", text)]
        return error(401, "UNAUTHORIZED", "authentication required", detail, headers)

    def _refuse(self, status: int, code: str, text: str) -> Response:
        """As the token server says it: the Hub has a form of its own."""
        if self.manner is HUB:
            return json_response(status, {"details": text})
        return json_response(status, {"errors": [{"code": code, "message": text}]})
