"""The Entra token endpoint: client_credentials, refused as Entra refuses, with AADSTS numbers."""

from __future__ import annotations

import re
import time
import uuid

from .settings import ACR_AUDIENCE, ARM_AUDIENCE, FEDERATION_AUDIENCE, Settings
from .tokens import Mint
from .wire import Request, Response, json_response

PATH = re.compile(r"/([^/]+)/oauth2/v2\.0/token")
AUDIENCES = (ACR_AUDIENCE, ARM_AUDIENCE, FEDERATION_AUDIENCE)


class Entra:
    def __init__(self, settings: Settings, mint: Mint) -> None:
        self._settings = settings
        self._mint = mint

    def handle(self, request: Request) -> Response:
        found = PATH.fullmatch(request.path)
        if not found:
            return Response(404)
        if request.method != "POST":
            return self._refuse(request, 400, "invalid_request", 900561, "POST requests only")
        pairs = request.form()
        if pairs is None:
            text = "The request body must be a form"
            return self._refuse(request, 400, "invalid_request", 900144, text)
        form = dict(pairs)
        if len(form) != len(pairs):
            return self._refuse(request, 400, "invalid_request", 9000411, "Duplicate parameter")
        if found[1] not in self._settings.tenants:
            text = f"Tenant '{found[1]}' not found"
            return self._refuse(request, 400, "invalid_request", 90002, text)
        if form.get("grant_type") != "client_credentials":
            text = "The app requested an unsupported grant type"
            return self._refuse(request, 400, "unsupported_grant_type", 70003, text)
        for name in ("client_id", "scope"):
            if not form.get(name):
                text = f"The request body must contain the following parameter: '{name}'"
                return self._refuse(request, 400, "invalid_request", 900144, text)

        audience, default, rest = form["scope"].partition("/.default")
        if not default or rest:
            text = f"The provided value for scope {form['scope']} is not valid"
            return self._refuse(request, 400, "invalid_scope", 1002012, text)
        if audience.rstrip("/") not in AUDIENCES:
            text = f"The resource principal named {audience} was not found in the tenant"
            return self._refuse(request, 400, "invalid_resource", 500011, text)
        return self._credential(request, form, audience.rstrip("/"))

    def _credential(self, request: Request, form: dict[str, str], audience: str) -> Response:
        client_id = form["client_id"]
        request.log.identity = client_id
        principals = {p["client_id"]: p for p in self._settings.service_principals}
        principal = principals.get(client_id)
        if principal is None:
            text = f"Application with identifier '{client_id}' was not found in the directory"
            return self._refuse(request, 400, "unauthorized_client", 700016, text)
        # Certificates and federated assertions (client_assertion) get their check here.
        if "client_secret" not in form:
            text = "The request body must contain: 'client_assertion' or 'client_secret'"
            return self._refuse(request, 401, "invalid_client", 7000218, text)
        if form["client_secret"] != principal["secret"]:
            text = f"Invalid client secret provided for app '{client_id}'"
            return self._refuse(request, 401, "invalid_client", 7000215, text)
        lifetime = self._settings.aad_lifetime
        token = self._mint.entra(audience, client_id, client_id, lifetime)
        return json_response(
            200,
            {
                "token_type": "Bearer",
                "expires_in": int(lifetime),
                "ext_expires_in": int(lifetime),
                "access_token": token.text,
            },
        )

    def _refuse(
        self, request: Request, status: int, error: str, number: int, text: str
    ) -> Response:
        request.log.refusal = f"AADSTS{number}"
        return json_response(
            status,
            {
                "error": error,
                "error_description": f"AADSTS{number}: {text}.",
                "error_codes": [number],
                "timestamp": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()),
                "trace_id": str(uuid.uuid4()),
                "correlation_id": str(uuid.uuid4()),
            },
        )
