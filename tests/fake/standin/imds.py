"""The instance metadata service: plain HTTP, strict about what it is asked, all answers strings."""

from __future__ import annotations

from .platform import Platform
from .recorder import Recorder
from .tokens import Token
from .wire import Request, Response, json_response

PATH = "/metadata/identity/oauth2/token"
VERSION = "2018-02-01"
MOST_AT_ONCE = 5
MOST_PER_SECOND = 20
SELECTORS = ("client_id", "object_id", "msi_res_id")


def answer(token: Token, resource: str) -> dict[str, str]:
    """A token as IMDS, Arc and Cloud Shell give it: every value is a string."""
    return {
        "access_token": token.text,
        "refresh_token": "",
        "expires_in": str(max(0, int(token.remaining()))),
        "expires_on": str(token.claims["exp"]),
        "not_before": str(token.claims["nbf"]),
        "resource": resource,
        "token_type": "Bearer",
    }


class Imds:
    def __init__(self, platform: Platform, recorder: Recorder) -> None:
        self._platform = platform
        self._recorder = recorder

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
        if not self._platform.knows(query["resource"]):
            text = f"AADSTS500011: The resource principal named {query['resource']} was not found"
            return self._refuse(request, 400, "invalid_resource", text)
        selected = [name for name in SELECTORS if name in query]
        if len(selected) > 1:
            text = "Only one of client_id, object_id, msi_res_id may be given"
            return self._refuse(request, 400, "invalid_request", text)

        if selected:
            identity = self._platform.find(selected[0], query[selected[0]])
        else:
            identity = self._platform.default()
        if identity is None:
            return self._refuse(request, 400, "invalid_request", "Identity not found")
        request.log.identity = identity["client_id"]
        token = self._platform.token(identity, query["resource"])
        return json_response(
            200, answer(token, query["resource"]) | {"client_id": identity["client_id"]}
        )

    def _refuse(self, request: Request, status: int, error: str, text: str) -> Response:
        request.log.refusal = text
        return json_response(status, {"error": error, "error_description": text})
