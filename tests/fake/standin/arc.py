"""The agent of an Azure Arc server: a challenge that names a file only the right people can read.

The file is written anew for every challenge, and its contents are good for one request.
"""

from __future__ import annotations

import os
import secrets
import threading
import uuid
from pathlib import Path

from .imds import answer
from .platform import Platform
from .settings import Settings
from .vault import Vault
from .wire import Request, Response, json_response

PATH = "/metadata/identity/oauth2/token"
VERSIONS = ("2019-11-01", "2020-06-01")
SELECTORS = ("client_id", "object_id", "msi_res_id")


class Arc:
    def __init__(self, settings: Settings, platform: Platform, vault: Vault) -> None:
        self._settings = settings
        self._platform = platform
        self._vault = vault
        self._lock = threading.Lock()
        self._keys: dict[str, Path] = {}

    def handle(self, request: Request) -> Response:
        if not self._settings.arc_token_directory or request.path != PATH:
            return self._refuse(request, 404, "not_found", "The requested resource is not here")
        if request.header("metadata") != "true":
            text = "Required metadata header not specified"
            return self._refuse(request, 400, "invalid_request", text)
        if request.method != "GET":
            return self._refuse(request, 405, "invalid_request", "Method not allowed")
        query = dict(request.query)
        if len(query) != len(request.query):
            return self._refuse(request, 400, "invalid_request", "Duplicate query variable")
        if query.get("api-version") not in VERSIONS:
            text = f"The api-version is missing or invalid; there are {', '.join(VERSIONS)}"
            return self._refuse(request, 400, "invalid_request", text)
        if not self._platform.knows(query.get("resource", "")):
            return self._refuse(request, 400, "invalid_resource", "The resource is not known")
        unknown = set(query) - {"api-version", "resource", *SELECTORS}
        selected = [name for name in SELECTORS if name in query]
        if unknown or len(selected) > 1:
            text = "Unknown query variables, or more than one selector"
            return self._refuse(request, 400, "invalid_request", text)

        authorization = request.header("authorization")
        if authorization is None:
            return self._challenge(request)
        scheme, _, key = authorization.partition(" ")
        if scheme != "Basic" or not self._use(key):
            return self._refuse(request, 401, "unauthorized", "The key is wrong or used already")
        return self._token(request, query, selected[0] if selected else "")

    def _challenge(self, request: Request) -> Response:
        name = f"{uuid.uuid4()}.key"
        path = Path(self._settings.arc_token_directory) / name
        named = Path(self._settings.arc_directory_named or path.parent) / name
        key = self._vault.add("Arc key", secrets.token_urlsafe(48))
        with self._lock:
            # Written whole before it is named: the client reads it at once.
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "w") as file:
                file.write(key)
            self._keys[key] = path
        request.log.refusal = "challenge"
        body = {"error": "unauthorized_client", "error_description": "Missing Basic Authorization"}
        return json_response(401, body, [("WWW-Authenticate", f"Basic realm={named}")])

    def _use(self, key: str) -> bool:
        with self._lock:
            path = self._keys.pop(key, None)
        if path is None:
            return False
        path.unlink(missing_ok=True)
        return True

    def _token(self, request: Request, query: dict[str, str], selector: str) -> Response:
        chosen = {}
        if selector and self._settings.arc_agent_knows_selectors:
            identity = self._platform.find(selector, query[selector])
            chosen = {selector: query[selector]}
        else:
            # An agent that does not know selectors is silent about it.
            identity = self._platform.system()
        if identity is None:
            return self._refuse(request, 400, "invalid_request", "Identity not found")
        request.log.identity = identity["client_id"]
        token = self._platform.token(identity, query["resource"])
        return json_response(200, answer(token, query["resource"]) | chosen)

    def _refuse(self, request: Request, status: int, error: str, text: str) -> Response:
        request.log.refusal = text
        return json_response(status, {"error": error, "error_description": text})
