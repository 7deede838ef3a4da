"""Managed identity where a program is hosted: App Service, machine learning, Cloud Shell, and
Service Fabric. Each has its own way of asking, and refuses the ways of the others."""

from __future__ import annotations

import hmac
import time

from .imds import answer
from .platform import Platform
from .settings import Settings
from .wire import Request, Response, json_response

APP_SERVICE_PATH = "/msi/token"
MACHINE_LEARNING_PATH = "/MSI/auth"
CLOUD_SHELL_PATH = "/oauth2/token"
SERVICE_FABRIC_PATH = "/metadata/identity/oauth2/token"

# Their names of the selectors -> the field of an identity.
_NEW_SELECTORS = {"client_id": "client_id", "principal_id": "object_id", "mi_res_id": "msi_res_id"}
_OLD_SELECTORS = {"clientid": "client_id"}


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Hosted:
    def __init__(self, settings: Settings, platform: Platform) -> None:
        self._settings = settings
        self._platform = platform

    def app_service(self, request: Request) -> Response:
        return self._answered(request, self._app_service)

    def machine_learning(self, request: Request) -> Response:
        return self._answered(request, self._machine_learning)

    def cloud_shell(self, request: Request) -> Response:
        return self._answered(request, self._cloud_shell)

    def service_fabric(self, request: Request) -> Response:
        return self._answered(request, self._service_fabric)

    def _answered(self, request: Request, ask) -> Response:
        try:
            return json_response(200, ask(request))
        except _Refused as why:
            request.log.refusal = str(why)
            return json_response(why.status, {"statusCode": why.status, "message": str(why)})

    def _app_service(self, request: Request) -> dict:
        query = self._query(request, APP_SERVICE_PATH)
        version = query.get("api-version")
        header = self._settings.app_service_header
        if version == "2019-08-01":
            self._require(request, "x-identity-header", header)
            identity, token = self._token(request, query, _NEW_SELECTORS)
            whole = answer(token, query["resource"])
            names = ("access_token", "expires_on", "not_before", "resource", "token_type")
            return {name: whole[name] for name in names} | {"client_id": identity["client_id"]}
        if version == "2017-09-01":
            self._require(request, "secret", header)
            _, token = self._token(request, query, _OLD_SELECTORS)
            ends = time.strftime("%m/%d/%Y %H:%M:%S +00:00", time.gmtime(token.claims["exp"]))
            return {
                "access_token": token.text,
                "expires_on": ends,
                "resource": query["resource"],
                "token_type": "Bearer",
            }
        raise _Refused(400, "api-version must be 2019-08-01 or 2017-09-01")

    def _machine_learning(self, request: Request) -> dict:
        query = self._query(request, MACHINE_LEARNING_PATH)
        if query.get("api-version") != "2017-09-01":
            raise _Refused(400, "api-version must be 2017-09-01")
        self._require(request, "secret", self._settings.machine_learning_secret)
        identity, token = self._token(request, query, _OLD_SELECTORS)
        return {
            "access_token": token.text,
            "expires_on": str(token.claims["exp"]),
            "resource": query["resource"],
            "token_type": "Bearer",
            "client_id": identity["client_id"],
        }

    def _cloud_shell(self, request: Request) -> dict:
        if request.path != CLOUD_SHELL_PATH:
            raise _Refused(404, "not here")
        if request.method != "POST" or request.query:
            raise _Refused(400, "a POST of a form is required")
        if request.header("metadata") != "true":
            raise _Refused(400, "Required metadata header not specified")
        pairs = request.form()
        if pairs is None or [key for key, _ in pairs] != ["resource"]:
            # The user of the shell is the only identity there is.
            raise _Refused(400, "the form must hold resource and nothing else")
        form = dict(pairs)
        _, token = self._token(request, form, {})
        return answer(token, form["resource"])

    def _service_fabric(self, request: Request) -> dict:
        query = self._query(request, SERVICE_FABRIC_PATH)
        if query.get("api-version") != "2019-07-01-preview":
            raise _Refused(400, "api-version must be 2019-07-01-preview")
        self._require(request, "secret", self._settings.service_fabric_header)
        # Which identity it is stands in the application's manifest, so nothing may select.
        _, token = self._token(request, query, {})
        return {
            "token_type": "Bearer",
            "access_token": token.text,
            "expires_on": token.claims["exp"],
            "resource": query["resource"],
        }

    def _query(self, request: Request, path: str) -> dict[str, str]:
        if request.path != path:
            raise _Refused(404, "not here")
        if request.method != "GET":
            raise _Refused(405, "Method not allowed")
        query = dict(request.query)
        if len(query) != len(request.query):
            raise _Refused(400, "Duplicate query variable")
        return query

    def _require(self, request: Request, name: str, value: str) -> None:
        given = request.header(name)
        if given is None:
            raise _Refused(400, f"header {name} is missing")
        if not hmac.compare_digest(given.encode(), value.encode()):
            raise _Refused(401, f"header {name} is wrong")

    def _token(self, request: Request, query: dict[str, str], selectors: dict[str, str]):
        resource = query.get("resource", "")
        unknown = set(query) - {"api-version", "resource", *selectors}
        if unknown:
            raise _Refused(400, f"unknown parameter {unknown.pop()}")
        if not self._platform.knows(resource):
            raise _Refused(400, "The resource is missing or not known")
        selected = [name for name in selectors if name in query]
        if len(selected) > 1:
            raise _Refused(400, "only one identity may be selected")
        if selected:
            identity = self._platform.find(selectors[selected[0]], query[selected[0]])
        else:
            identity = self._platform.default()
        if identity is None:
            raise _Refused(400, "No managed identity was found for the given parameters")
        request.log.identity = identity["client_id"]
        return identity, self._platform.token(identity, resource)
