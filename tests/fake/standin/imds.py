"""The instance metadata service: plain HTTP, strict about what it is asked, all answers strings."""

from __future__ import annotations

import threading
import time

from .recorder import Recorder
from .settings import ACR_AUDIENCE, ARM_AUDIENCE, FEDERATION_AUDIENCE, Settings
from .tokens import Mint, Token
from .wire import Request, Response, json_response

PATH = "/metadata/identity/oauth2/token"
VERSION = "2018-02-01"
MOST_AT_ONCE = 5
MOST_PER_SECOND = 20
SELECTORS = ("client_id", "object_id", "msi_res_id")
RESOURCES = (ACR_AUDIENCE, ARM_AUDIENCE, ARM_AUDIENCE + "/", FEDERATION_AUDIENCE)


class Imds:
    def __init__(self, settings: Settings, mint: Mint, recorder: Recorder) -> None:
        self._settings = settings
        self._mint = mint
        self._recorder = recorder
        self._lock = threading.Lock()
        self._cache: dict[tuple[str, str], Token] = {}

    def handle(self, request: Request) -> Response:
        # This request itself is in both numbers.
        at_once = self._recorder.imds_at_once()
        if at_once > MOST_AT_ONCE or self._recorder.imds_in_last_second() > MOST_PER_SECOND:
            return self._refuse(request, 429, "too_many_requests", "Too many requests")
        if request.header("x-forwarded-for") is not None:
            return self._refuse(request, 400, "invalid_request", "X-Forwarded-For is not allowed")
        if request.header("metadata") != "true":
            text = "Required metadata header not specified"
            return self._refuse(request, 400, "invalid_request", text)
        if request.path != PATH:
            return self._refuse(request, 404, "not_found", "The requested resource is not here")
        if request.method != "GET":
            return self._refuse(request, 405, "invalid_request", "Method not allowed")

        keys = [key for key, _ in request.query]
        query = dict(request.query)
        if len(keys) != len(query):
            return self._refuse(request, 400, "invalid_request", "Duplicate query variable")
        if "api-version" not in query:
            text = "Required query variable 'api-version' is missing"
            return self._refuse(request, 400, "invalid_request", text)
        if query["api-version"] != VERSION:
            text = f"The api-version is invalid; newest versions: {VERSION}"
            return self._refuse(request, 400, "invalid_request", text)
        if not query.get("resource"):
            text = "Required query variable 'resource' is missing"
            return self._refuse(request, 400, "invalid_request", text)
        unknown = set(keys) - {"api-version", "resource", *SELECTORS}
        if unknown:
            text = f"Unknown query variable {unknown.pop()}"
            return self._refuse(request, 400, "invalid_request", text)
        if query["resource"] not in RESOURCES:
            text = f"AADSTS500011: The resource principal named {query['resource']} was not found"
            return self._refuse(request, 400, "invalid_resource", text)
        selected = [name for name in SELECTORS if name in query]
        if len(selected) > 1:
            text = "Only one of client_id, object_id, msi_res_id may be given"
            return self._refuse(request, 400, "invalid_request", text)

        identity = self._identity(selected[0] if selected else None, query)
        if identity is None:
            return self._refuse(request, 400, "invalid_request", "Identity not found")
        request.log.identity = identity["client_id"]
        token = self._token(identity, query["resource"])
        claims = token.claims
        return json_response(
            200,
            {
                "access_token": token.text,
                "refresh_token": "",
                "expires_in": str(max(0, int(token.remaining()))),
                "expires_on": str(claims["exp"]),
                "not_before": str(claims["nbf"]),
                "resource": query["resource"],
                "token_type": "Bearer",
                "client_id": identity["client_id"],
            },
        )

    def _identity(self, selector: str | None, query: dict[str, str]) -> dict | None:
        identities = self._settings.identities
        if selector:
            wanted = query[selector].lower()
            return next((i for i in identities if i[selector].lower() == wanted), None)
        system = [i for i in identities if i.get("system")]
        if system:
            return system[0]
        return identities[0] if len(identities) == 1 else None

    def _token(self, identity: dict, resource: str) -> Token:
        """The platform's cache: the same token until half its life is over, as a real machine
        gets it, so that less may remain than a full life."""
        key = (identity["client_id"], resource)
        with self._lock:
            cached = self._cache.get(key)
            if cached and self._settings.imds_cache:
                life = cached.claims["exp"] - cached.claims["iat"]
                if time.time() < cached.claims["iat"] + life / 2:
                    return cached
            token = self._mint.entra(
                resource.rstrip("/"),
                identity["client_id"],
                identity["object_id"],
                self._settings.aad_lifetime,
            )
            self._cache[key] = token
            return token

    def forget(self) -> None:
        with self._lock:
            self._cache.clear()

    def _refuse(self, request: Request, status: int, error: str, text: str) -> Response:
        request.log.refusal = text
        return json_response(status, {"error": error, "error_description": text})
