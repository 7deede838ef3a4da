"""A registry in the manner of Docker Hub: anonymous tokens from another host, and a pull limit."""

from __future__ import annotations

import time

from . import dataplane, grants
from .dataplane import API_VERSION, Route, error
from .origin import Origin
from .settings import Settings
from .storage import Ports, Storage
from .tokens import HUB_ISSUER, Mint, Refused
from .wire import Request, Response, json_response

SERVICE = "registry.docker.io"
ORIGIN_PREFIX = "hub"


class Hub:
    def __init__(
        self, settings: Settings, mint: Mint, origin: Origin, storage: Storage, ports: Ports
    ) -> None:
        self._settings = settings
        self._mint = mint
        self._origin = origin
        self._storage = storage
        self._ports = ports

    def registry(self, request: Request) -> Response:
        request.log.registry = "hub"
        if request.path in ("/v2/", "/v2"):
            refused = self._refused(request, None)
            return refused or json_response(200, {}, [API_VERSION])
        where = dataplane.route(request.path)
        if isinstance(where, Response):
            return where
        request.log.repository = where.repository
        request.log.reference = where.rest
        if where.kind == "blobs":
            request.log.digest = where.rest
        refused = self._refused(request, where)
        if refused:
            return refused

        def redirect(asked: Request, digest: str) -> str | None:
            head = asked.method == "HEAD"
            settings = self._settings
            if not (settings.hub_head_redirects if head else settings.hub_blob_redirects):
                return None
            return self._storage.link(self._ports()["storage"], "registry-v2", digest)

        inside = f"{ORIGIN_PREFIX}/{where.repository}"
        response = dataplane.serve(request, where, self._origin, inside, redirect)
        if where.kind == "manifests":
            # HEAD is not counted, but tells the numbers as well.
            response.headers += [
                ("ratelimit-limit", "100;w=21600"),
                ("ratelimit-remaining", "99;w=21600"),
                ("docker-ratelimit-source", "127.0.0.1"),
            ]
        return response

    def token(self, request: Request) -> Response:
        """auth.docker.io: GET only, anonymous, and generous with tokens that grant nothing."""
        if request.path != "/token":
            return Response(404)
        if request.method != "GET":
            return json_response(405, {"details": "method not allowed"})
        if request.header("authorization") is not None:
            request.log.refusal = "incorrect username or password"
            return json_response(401, {"details": "incorrect username or password"})
        services = [value for key, value in request.query if key == "service"]
        if services != [SERVICE]:
            request.log.refusal = "wrong service"
            return json_response(400, {"details": "service is wrong or missing"})
        try:
            scopes = grants.parse([value for key, value in request.query if key == "scope"])
        except grants.BadScope as why:
            request.log.refusal = str(why)
            return json_response(400, {"details": str(why)})
        access = grants.grant(
            scopes, lambda name: "/" in name and not self._settings.is_denied("hub", name)
        )
        request.log.scope = " ".join(scope.text() for scope in scopes)
        request.log.granted = grants.as_text(access)
        lifetime = self._settings.hub_lifetime
        token = self._mint.access(HUB_ISSUER, SERVICE, "", access, lifetime).text
        return json_response(
            200,
            {
                "token": token,
                "access_token": token,
                "expires_in": int(lifetime),
                "issued_at": time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime()),
            },
        )

    def _refused(self, request: Request, where: Route | None) -> Response | None:
        """None when the request may go on."""
        failure = ""
        scheme, _, value = (request.header("authorization") or "").partition(" ")
        if scheme.lower() == "bearer":
            try:
                claims = self._mint.check("access", value.strip(), HUB_ISSUER, [SERVICE])
                if not where or grants.permits(claims["access"], where.repository, ("pull",)):
                    return None
                failure = "insufficient_scope"
            except Refused as why:
                request.log.refusal = str(why)
                failure = "invalid_token"
        port = self._ports()["auth"]
        text = f'Bearer realm="https://auth.localhost:{port}/token",service="{SERVICE}"'
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
