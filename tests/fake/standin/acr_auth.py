"""ACR's authorization server: /oauth2/exchange and /oauth2/token of one login server."""

from __future__ import annotations

import base64
import binascii
import hmac

from . import grants
from .dataplane import error
from .settings import ACR_AUDIENCE, ARM_AUDIENCE, Settings
from .tokens import ACR_ISSUER, ENTRA_ISSUER, Mint, Refused
from .wire import Request, Response, json_response

NULL_GUID = "00000000-0000-0000-0000-000000000000"
ANONYMOUS = "anonymous"


class AcrAuth:
    def __init__(self, settings: Settings, mint: Mint) -> None:
        self._settings = settings
        self._mint = mint

    def exchange(self, request: Request, registry: str, login_server: str) -> Response:
        if request.method != "POST":
            return self._refuse(request, 404, "NOT_FOUND", "404 page not found")
        form = self._form(request, ())
        if isinstance(form, Response):
            return form
        if form.get("grant_type") != ["access_token"]:
            return self._refuse(request, 400, "BAD_REQUEST", "grant_type must be access_token")
        if form.get("service") != [login_server]:
            return self._refuse(request, 400, "BAD_REQUEST", "service is not this login server")
        if "access_token" not in form:
            return self._refuse(request, 400, "BAD_REQUEST", "access_token is missing")
        audiences = [ACR_AUDIENCE]
        if self._settings.arm_audience_accepted:
            audiences.append(ARM_AUDIENCE)
        try:
            claims = self._mint.check("entra", form["access_token"][0], ENTRA_ISSUER, audiences)
        except Refused as why:
            return self._refuse(request, 401, "UNAUTHORIZED", f"AAD token: {why}")
        if form.get("tenant", [claims["tid"]]) != [claims["tid"]]:
            return self._refuse(request, 401, "UNAUTHORIZED", "tenant is not the token's")
        client_id = claims["appid"]
        request.log.identity = client_id
        if client_id in self._settings.identities_without_role:
            return self._refuse(request, 401, "UNAUTHORIZED", "identity has no role here")
        token = self._mint.refresh(login_server, client_id, self._settings.refresh_lifetime)
        return json_response(200, {"refresh_token": token.text})

    def token(self, request: Request, registry: str, login_server: str) -> Response:
        if request.method == "GET":
            return self._token_get(request, registry, login_server)
        if request.method == "POST":
            return self._token_post(request, registry, login_server)
        return self._refuse(request, 404, "NOT_FOUND", "404 page not found")

    def is_fixed_credential(self, registry: str, user: str, secret: str) -> bool:
        """The admin user or a service principal, whose secrets do not expire in hours."""
        admin = self._settings.admin_users.get(registry)
        if admin and user == admin["username"]:
            return _same(secret, admin["password"])
        for principal in self._settings.service_principals:
            if user == principal["client_id"]:
                return _same(secret, principal["secret"])
        return False

    def _token_post(self, request: Request, registry: str, login_server: str) -> Response:
        form = self._form(request, ("scope",))
        if isinstance(form, Response):
            return form
        if form.get("service") != [login_server]:
            return self._refuse(request, 400, "BAD_REQUEST", "service is not this login server")
        if not any(form.get("scope", [])):
            # Seen of the real one: 400 and nothing else.
            request.log.refusal = "no scope"
            return Response(400)
        grant_type = form.get("grant_type", [""])[0]
        if grant_type == "refresh_token":
            return self._with_refresh_token(
                request, registry, login_server, form.get("refresh_token", [""])[0], form["scope"]
            )
        if grant_type == "password":
            user = form.get("username", [""])[0]
            secret = form.get("password", [""])[0]
            if not user and not secret and not form.get("refresh_token", [""])[0]:
                return self._anonymous(request, registry, login_server, form["scope"])
            return self._with_pair(request, registry, login_server, user, secret, form["scope"])
        return self._refuse(request, 400, "BAD_REQUEST", "unsupported grant_type")

    def _token_get(self, request: Request, registry: str, login_server: str) -> Response:
        query: dict[str, list[str]] = {}
        for key, value in request.query:
            query.setdefault(key, []).append(value)
        if query.get("service") != [login_server]:
            return self._refuse(request, 400, "BAD_REQUEST", "service is not this login server")
        scopes = query.get("scope", [])
        authorization = request.header("authorization")
        if authorization is None:
            return self._anonymous(request, registry, login_server, scopes)
        scheme, _, value = authorization.partition(" ")
        try:
            if scheme.lower() != "basic":
                raise ValueError(scheme)
            user, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
        except (ValueError, binascii.Error):
            return self._refuse(request, 401, "UNAUTHORIZED", "Basic credentials are required")
        return self._with_pair(request, registry, login_server, user, secret, scopes)

    def _with_pair(self, request, registry, login_server, user, secret, scopes) -> Response:
        if user == NULL_GUID:
            return self._with_refresh_token(request, registry, login_server, secret, scopes)
        if self.is_fixed_credential(registry, user, secret):
            return self._issue(request, registry, login_server, user, scopes)
        # What a raw Entra token or a refresh token under another user name comes to as well.
        return self._refuse(request, 401, "UNAUTHORIZED", "wrong user or password")

    def _with_refresh_token(self, request, registry, login_server, text, scopes) -> Response:
        try:
            claims = self._mint.check("refresh", text, ACR_ISSUER, [login_server])
        except Refused as why:
            return self._refuse(request, 401, "UNAUTHORIZED", f"refresh token: {why}")
        return self._issue(request, registry, login_server, claims["sub"], scopes)

    def _anonymous(self, request, registry, login_server, scopes) -> Response:
        if registry not in self._settings.anonymous:
            return self._refuse(request, 401, "UNAUTHORIZED", "anonymous pull is not enabled")
        return self._issue(request, registry, login_server, ANONYMOUS, scopes)

    def _issue(self, request, registry, login_server, subject, fields) -> Response:
        try:
            scopes = grants.parse(fields)
        except grants.BadScope as why:
            return self._refuse(request, 400, "BAD_REQUEST", str(why))
        access = grants.grant(scopes, lambda name: not self._settings.is_denied(registry, name))
        request.log.identity = subject
        request.log.scope = " ".join(scope.text() for scope in scopes)
        request.log.granted = grants.as_text(access)
        lifetime = self._settings.access_lifetime
        token = self._mint.access(ACR_ISSUER, login_server, subject, access, lifetime)
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


def _same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode(), right.encode())
