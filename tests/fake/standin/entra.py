"""The Entra token endpoint: client_credentials, refused as Entra refuses, with AADSTS numbers.

A client proves itself by a secret, by an assertion signed with its certificate's key, or by a
token of an issuer that its federated credentials trust. The same endpoint stands behind the token
proxy of a cluster with identity bindings, which takes only the last.
"""

from __future__ import annotations

import re
import threading
import time
import uuid

from . import assertions, tokens
from .assertions import ASSERTION_TYPE, Assertion, Issuer
from .settings import ACR_AUDIENCE, CLOUDS, FEDERATION_AUDIENCE, Settings
from .tokens import Mint
from .wire import Request, Response, json_response

PATH = re.compile(r"/([^/]+)/oauth2/v2\.0/token")


class _Refused(Exception):
    def __init__(self, status: int, error: str, number: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.error = error
        self.number = number


class Entra:
    def __init__(self, settings: Settings, mint: Mint, issuer: Issuer) -> None:
        self._settings = settings
        self._mint = mint
        self._issuer = issuer
        self._lock = threading.Lock()
        self._seen: set[tuple[str, str]] = set()

    def handle(self, request: Request) -> Response:
        host = request.host().partition(":")[0]
        cloud = next((c for c, names in CLOUDS.items() if names[1] == host), None)
        return self._answered(request, cloud, only_federated=False)

    def proxied(self, request: Request) -> Response:
        """As the token proxy of an AKS cluster with identity bindings hands it on."""
        return self._answered(request, self._settings.cloud, only_federated=True)

    def _answered(self, request: Request, cloud: str | None, only_federated: bool) -> Response:
        found = PATH.fullmatch(request.path)
        if not found or cloud is None:
            return Response(404)
        try:
            return json_response(200, self._token(request, found[1], cloud, only_federated))
        except _Refused as why:
            return self._refuse(request, why)
        except assertions.Refused as why:
            return self._refuse(request, _Refused(401, "invalid_client", why.number, str(why)))

    def _token(self, request: Request, tenant: str, cloud: str, only_federated: bool) -> dict:
        form = self._form(request)
        if tenant not in self._settings.tenants or cloud != self._settings.cloud:
            # As in the wrong cloud: the authority knows nothing of tenants elsewhere.
            raise _Refused(400, "invalid_request", 90002, f"Tenant '{tenant}' not found")
        if form.get("grant_type") != "client_credentials":
            text = "The app requested an unsupported grant type"
            raise _Refused(400, "unsupported_grant_type", 70003, text)
        for name in ("client_id", "scope"):
            if not form.get(name):
                text = f"The request body must contain the following parameter: '{name}'"
                raise _Refused(400, "invalid_request", 900144, text)
        audience = self._audience(form["scope"], cloud)

        client_id = form["client_id"]
        request.log.identity = client_id
        principal = self._settings.principal(client_id, tenant)
        if principal is None:
            text = f"Application with identifier '{client_id}' was not found in the directory"
            raise _Refused(400, "unauthorized_client", 700016, text)
        self._prove(request, form, principal, only_federated)
        lifetime = self._settings.aad_lifetime
        token = self._mint.entra(audience, client_id, client_id, lifetime, tenant, cloud)
        return {
            "token_type": "Bearer",
            "expires_in": int(lifetime),
            "ext_expires_in": int(lifetime),
            "access_token": token.text,
        }

    def _form(self, request: Request) -> dict[str, str]:
        if request.method != "POST":
            raise _Refused(400, "invalid_request", 900561, "The endpoint only accepts POST")
        pairs = request.form()
        if pairs is None:
            raise _Refused(400, "invalid_request", 900144, "The request body must be a form")
        form = dict(pairs)
        if len(form) != len(pairs):
            raise _Refused(400, "invalid_request", 9000411, "A parameter is duplicated")
        return form

    def _audience(self, scope: str, cloud: str) -> str:
        audience, default, rest = scope.partition("/.default")
        if not default or rest:
            text = f"The provided value for scope {scope} is not valid"
            raise _Refused(400, "invalid_scope", 1002012, text)
        audience = audience.rstrip("/")
        if audience not in (ACR_AUDIENCE, CLOUDS[cloud][2], FEDERATION_AUDIENCE):
            text = f"The resource principal named {audience} was not found in the tenant"
            raise _Refused(400, "invalid_resource", 500011, text)
        return audience

    def _prove(self, request, form: dict[str, str], principal: dict, only_federated: bool) -> None:
        """Returns when the client is who it says."""
        if "client_secret" in form and "client_assertion" in form:
            text = "Only one of 'client_secret' and 'client_assertion' may be given"
            raise _Refused(400, "invalid_request", 90023, text)
        if "client_assertion" in form:
            if form.get("client_assertion_type") != ASSERTION_TYPE:
                text = "The value of 'client_assertion_type' is missing or not supported"
                raise _Refused(400, "invalid_request", 90023, text)
            assertion = Assertion.parse(form["client_assertion"])
            own = assertion.claims.get("iss") == principal["client_id"]
            if not own and not {"x5t", "x5t#S256"} & set(assertion.header):
                self._check_federated(form["client_assertion"], assertion, principal)
                request.log.extra["proof"] = "federated"
                return
            if not only_federated:
                self._check_certificate(request, assertion, principal)
                request.log.extra["proof"] = "certificate"
                return
        if only_federated:
            text = "Only assertions of this cluster's service accounts are accepted here"
            raise _Refused(401, "invalid_client", 7000218, text)
        if "client_secret" not in form:
            text = "The request body must contain: 'client_assertion' or 'client_secret'"
            raise _Refused(401, "invalid_client", 7000218, text)
        if "client_assertion_type" in form:
            text = "'client_assertion_type' without 'client_assertion'"
            raise _Refused(400, "invalid_request", 90023, text)
        if form["client_secret"] != principal.get("secret"):
            text = f"Invalid client secret provided for app '{principal['client_id']}'"
            raise _Refused(401, "invalid_client", 7000215, text)
        request.log.extra["proof"] = "secret"

    def _check_certificate(self, request: Request, assertion: Assertion, principal: dict) -> None:
        client_id = principal["client_id"]
        endpoint = f"https://{request.host()}{request.path}"
        registered = principal.get("certificates", [])
        assertions.check_certificate_assertion(assertion, registered, client_id, endpoint)
        used = (client_id, assertion.text_claim("jti"))
        with self._lock:
            if used in self._seen:
                raise assertions.Refused(50027, "JWT token is invalid: its jti was used before")
            self._seen.add(used)

    def _check_federated(self, text: str, assertion: Assertion, principal: dict) -> None:
        """A token of another issuer, which may be used again until it expires."""
        issuer, subject = assertion.text_claim("iss"), assertion.text_claim("sub")
        audience = assertion.claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        what = "No matching federated identity record found for presented assertion"
        trusted = [t for t in principal.get("federated", []) if t["issuer"] == issuer]
        if not trusted:
            raise assertions.Refused(700211, f"{what} issuer '{issuer}'")
        trusted = [t for t in trusted if t["subject"] == subject]
        if not trusted:
            raise assertions.Refused(700213, f"{what} subject '{subject}'")
        if not any(t["audience"] in audiences for t in trusted):
            raise assertions.Refused(700212, f"{what} audience '{audience}'")
        home = self._settings.tenants[0]
        if issuer == tokens.federation_issuer(home):
            # A managed identity stands in for a service account.
            try:
                self._mint.check("entra", text, issuer, [FEDERATION_AUDIENCE])
            except tokens.Refused as why:
                number = 700024 if "expired" in str(why) else 50013
                raise assertions.Refused(number, f"Assertion failed: {why}") from why
        elif not self._issuer.has_signed(assertion):
            raise assertions.Refused(50013, "Assertion failed signature validation")
        assertion.require_in_force()

    def _refuse(self, request: Request, why: _Refused) -> Response:
        request.log.refusal = f"AADSTS{why.number}"
        return json_response(
            why.status,
            {
                "error": why.error,
                "error_description": f"AADSTS{why.number}: {why}.",
                "error_codes": [why.number],
                "timestamp": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()),
                "trace_id": str(uuid.uuid4()),
                "correlation_id": str(uuid.uuid4()),
            },
        )
