"""The storage host that blob redirects lead to: a signed link is the only right there is.

Any Authorization header is refused, as Azure storage does; this is what catches a daemon that
carries a token along.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from urllib.parse import quote

from .dataplane import ranged
from .origin import Origin
from .settings import Settings
from .tokens import Mint
from .wire import FileSlice, Request, Response

# role -> port number; a function, because ports are chosen after the roles are made.
Ports = Callable[[], dict[str, int]]

VERSION = "2019-12-12"
PATH = re.compile(r"/[^/]+/docker/registry/v2/blobs/sha256/([0-9a-f]{2})/(\1[0-9a-f]{62})/data")


class Storage:
    def __init__(self, settings: Settings, mint: Mint, origin: Origin) -> None:
        self._settings = settings
        self._mint = mint
        self._origin = origin

    def link(self, port: int, container: str, digest: str) -> str:
        """A URL that lets anyone read this blob until it expires."""
        hexed = digest.removeprefix("sha256:")
        path = f"/{container}/docker/registry/v2/blobs/sha256/{hexed[:2]}/{hexed}/data"
        ends = time.gmtime(time.time() + self._settings.link_lifetime)
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", ends)
        signature = quote(self._mint.sign_link(path, expires), safe="")
        query = f"se={quote(expires, safe='')}&sig={signature}&sp=r&spr=https&sr=b&sv={VERSION}"
        return f"https://{self._settings.blob_host}:{port}{path}?{query}"

    def handle(self, request: Request) -> Response:
        if request.header("authorization") is not None:
            return self._refuse(
                request,
                400,
                "InvalidAuthenticationInfo",
                "Authentication information is not given in the correct format. "
                "Check the value of Authorization header.",
            )
        found = PATH.fullmatch(request.path)
        query = dict(request.query)
        if not found or len(query) != len(request.query):
            return self._refuse(request, 404, "ResourceNotFound", "There is no such resource.")
        digest = f"sha256:{found[2]}"
        request.log.digest = digest
        if not self._mint.link_holds(request.path, query.get("se", ""), query.get("sig", "")):
            return self._refuse(request, 403, "AuthenticationFailed", "Signature did not match.")
        if query["se"] < time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()):
            text = "Signature not valid in the specified time frame."
            return self._refuse(request, 403, "AuthenticationFailed", text)
        if request.method not in ("GET", "HEAD"):
            text = "This request is not authorized to perform this operation."
            return self._refuse(request, 403, "AuthorizationPermissionMismatch", text)
        path = self._origin.blob_path(digest)
        if not path.is_file():
            return self._refuse(request, 404, "BlobNotFound", "The specified blob does not exist.")
        etag = f'"0x8D{found[2][:13].upper()}"'
        if_match = request.header("if-match")
        if if_match is not None and if_match not in ("*", etag):
            return self._refuse(request, 412, "ConditionNotMet", "The condition is not met.")
        headers = [
            ("Content-Type", "application/octet-stream"),
            ("ETag", etag),
            ("Last-Modified", "Sat, 01 Nov 2025 00:00:00 GMT"),
            *self._common(),
        ]
        whole = FileSlice(path, 0, path.stat().st_size)
        return ranged(request, whole, headers)

    def _common(self) -> list[tuple[str, str]]:
        return [
            ("Server", "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0"),
            ("x-ms-request-id", str(uuid.uuid4())),
            ("x-ms-version", VERSION),
        ]

    def _refuse(self, request: Request, status: int, code: str, text: str) -> Response:
        request.log.refusal = code
        body = (
            '\ufeff<?xml version="1.0" encoding="utf-8"?>'
            f"<Error><Code>{code}</Code><Message>{text}</Message></Error>"
        )
        headers = [("Content-Type", "application/xml"), ("x-ms-error-code", code), *self._common()]
        return Response(status, headers, body.encode())
