"""ACR's authorization server: /oauth2/exchange and /oauth2/token of one login server."""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from dataclasses import dataclass

from . import grants
from .dataplane import error
from .settings import ACR_AUDIENCE, CLOUDS, Settings
from .tokens import ACR_ISSUER, Mint, Refused, entra_issuer
from .wire import Request, Response, json_response

NULL_GUID = "00000000-0000-0000-0000-000000000000"
ANONYMOUS = "anonymous"


@dataclass(frozen=True)
class LoginServer:
    """Which registry was dialled, and by which of its names."""

    registry: str  # its key in the settings, and its folder at the origin
    cloud: str
    name: str  # the global name: what its tokens are for
    service: str  # what its challenge says, and its endpoints want to hear


class AcrAuth:
    def __init__(self, settings: Settings, mint: Mint) -> None:
        self._settings = settings
        self._mint = mint

    def exchange(self, request: Request, server: LoginServer) -> Response:
        if request.method != "POST":
            return self._refuse(request, 404, "NOT_FOUND", "404 page not found")
        form = self._form(request, ())
        if isinstance(form, Response):
            return form
        if form.get("grant_type") != ["access_token"]:
            return self._refuse(request, 400, "BAD_REQUEST", "grant_type must be access_token")
        if form.get("service") != [server.service]:
            return self._refuse(request, 400, "BAD_REQUEST", "service is not this login server")
        if "access_token" not in form:
            return self._refuse(request, 400, "BAD_REQUEST", "access_token is missing")
        audiences = [ACR_AUDIENCE]
        if self._settings.arm_audience_accepted:
            audiences.append(CLOUDS[server.cloud][2])
        tenant = self._settings.tenant_of(server.registry)
        issuers = [entra_issuer(known) for known in self._settings.tenants]
        try:
            claims = self._mint.check("entra", form["access_token"][0], issuers, audiences)
        except Refused as why:
            return self._refuse(request, 401, "UNAUTHORIZED", f"AAD token: {why}")
        if claims["tid"] != tenant or claims["cloud"] != server.cloud:
            text = "AAD token: issued by another tenant or cloud than the registry's"
            return self._refuse(request, 401, "UNAUTHORIZED", text)
        if form.get("tenant", [tenant]) != [tenant]:
            return self._refuse(request, 401, "UNAUTHORIZED", "tenant is not the token's")
        client_id = claims["appid"]
        request.log.identity = client_id
        if client_id in self._settings.identities_without_role:
            return self._refuse(request, 401, "UNAUTHORIZED", "identity has no role here")
        lifetime = self._settings.refresh_lifetime
        abac = server.registry in self._settings.abac
        token = self._mint.refresh(server.name, client_id, lifetime, tenant, abac)
        return json_response(200, {"refresh_token": token.text})

    def token(self, request: Request, server: LoginServer) -> Response:
        if request.method == "GET":
            return self._token_get(request, server)
        if request.method == "POST":
            return self._token_post(request, server)
        return self._refuse(request, 404, "NOT_FOUND", "404 page not found")

    def is_full_account(self, registry: str, user: str, secret: str) -> bool:
        """The admin user or a service principal: who may also send Basic to /v2/."""
        admin = self._settings.admin_users.get(registry)
        if admin and user == admin["username"]:
            passwords = [admin[key] for key in ("password", "password2") if key in admin]
            return any(_same(secret, password) for password in passwords)
        principal = self._settings.principal(user, self._settings.tenant_of(registry))
        if principal is None or user in self._settings.identities_without_role:
            return False
        return "secret" in principal and _same(secret, principal["secret"])

    def _scoped_token(self, registry: str, user: str) -> dict | None:
        for token in self._settings.scoped_tokens:
            if token["registry"] == registry and token["name"] == user:
                return token
        return None

    def rights(self, registry: str, subject: str) -> grants.Rights:
        scoped = self._scoped_token(registry, subject)

        def of(repository: str) -> tuple[str, ...]:
            if self._settings.is_denied(registry, repository):
                return ()
            if scoped:
                return grants.map_rights(scoped["scopes"], repository)
            return grants.PULLER_ACTIONS

        return of

    def _token_post(self, request: Request, server: LoginServer) -> Response:
        form = self._form(request, ("scope",))
        if isinstance(form, Response):
            return form
        if form.get("service") != [server.service]:
            return self._refuse(request, 400, "BAD_REQUEST", "service is not this login server")
        if not any(form.get("scope", [])):
            # Seen of the real one: 400 and nothing else.
            request.log.refusal = "no scope"
            return Response(400)
        grant_type = form.get("grant_type", [""])[0]
        if grant_type == "refresh_token":
            return self._with_refresh_token(
                request, server, form.get("refresh_token", [""])[0], form["scope"]
            )
        if grant_type == "password":
            user = form.get("username", [""])[0]
            secret = form.get("password", [""])[0]
            if not user and not secret and not form.get("refresh_token", [""])[0]:
                return self._anonymous(request, server, form["scope"])
            return self._with_pair(request, server, user, secret, form["scope"])
        return self._refuse(request, 400, "BAD_REQUEST", "unsupported grant_type")

    def _token_get(self, request: Request, server: LoginServer) -> Response:
        query: dict[str, list[str]] = {}
        for key, value in request.query:
            query.setdefault(key, []).append(value)
        if query.get("service") != [server.service]:
            return self._refuse(request, 400, "BAD_REQUEST", "service is not this login server")
        scopes = query.get("scope", [])
        authorization = request.header("authorization")
        if authorization is None:
            return self._anonymous(request, server, scopes)
        pair = basic_pair(authorization)
        if pair is None:
            return self._refuse(request, 401, "UNAUTHORIZED", "Basic credentials are required")
        return self._with_pair(request, server, *pair, scopes)

    def _with_pair(self, request, server: LoginServer, user, secret, scopes) -> Response:
        if user == NULL_GUID:
            return self._with_refresh_token(request, server, secret, scopes)
        if self.is_full_account(server.registry, user, secret):
            return self._issue(request, server, user, scopes)
        scoped = self._scoped_token(server.registry, user)
        if scoped:
            for number in ("password1", "password2"):
                password = scoped.get(number)
                if password and _same(secret, password["value"]):
                    if password.get("expires", float("inf")) <= time.time():
                        text = f"{number} of the token has expired"
                        return self._refuse(request, 401, "UNAUTHORIZED", text)
                    return self._issue(request, server, user, scopes)
        if secret.count(".") == 2 and secret.startswith("eyJ"):
            # What a raw Entra token, or a refresh token under another name, comes to.
            return self._refuse(request, 401, "UNAUTHORIZED", "client id must be guid")
        return self._refuse(request, 401, "UNAUTHORIZED", "wrong user or password")

    def _with_refresh_token(self, request, server: LoginServer, text, scopes) -> Response:
        try:
            claims = self._mint.check("refresh", text, ACR_ISSUER, [server.name])
        except Refused as why:
            return self._refuse(request, 401, "UNAUTHORIZED", f"refresh token: {why}")
        return self._issue(request, server, claims["sub"], scopes)

    def _anonymous(self, request, server: LoginServer, scopes) -> Response:
        if server.registry not in self._settings.anonymous:
            return self._refuse(request, 401, "UNAUTHORIZED", "anonymous pull is not enabled")
        return self._issue(request, server, ANONYMOUS, scopes)

    def _issue(self, request, server: LoginServer, subject: str, fields) -> Response:
        try:
            scopes = grants.parse(fields)
        except grants.BadScope as why:
            return self._refuse(request, 400, "BAD_REQUEST", str(why))
        registry = server.registry
        everywhere = (
            registry not in self._settings.abac
            and subject != ANONYMOUS
            and self._scoped_token(registry, subject) is None
        )
        access = grants.grant(scopes, self.rights(registry, subject), everywhere)
        request.log.identity = subject
        request.log.scope = " ".join(scope.text() for scope in scopes)
        request.log.granted = grants.as_text(access)
        lifetime = self._settings.access_lifetime
        token = self._mint.access(ACR_ISSUER, server.name, subject, access, lifetime)
        # No expires_in: the real one documents none, and the life stands in the token.
        return json_response(200, {"access_token": token.text})

    def _form(self, request: Request, repeatable: tuple[str, ...]):
        pairs = request.form()
        if pairs is None:
            return self._refuse(request, 400, "BAD_REQUEST", "the body must be a form")
        form: dict[str, list[str]] = {}
        for key, value in pairs:
            form.setdefault(key, []).append(value)
        repeated = [k for k, values in form.items() if len(values) > 1 and k not in repeatable]
        if repeated:
            return self._refuse(request, 400, "BAD_REQUEST", f"{repeated[0]} is repeated")
        return form

    def _refuse(self, request: Request, status: int, code: str, message: str) -> Response:
        request.log.refusal = message
        return error(status, code, message)


def basic_pair(authorization: str) -> tuple[str, str] | None:
    """User and secret of an Authorization header; None if it is not well-formed Basic."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, secret) if colon else None


def _same(given: str, true: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), true.encode())
