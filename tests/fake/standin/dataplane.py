"""/v2/ as a registry serves it once a request is authorised: the part ACR and the Hub share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from .origin import DIGEST, REFERENCE, REPOSITORY, Origin
from .wire import FileSlice, Request, Response, json_response

API_VERSION = ("Docker-Distribution-Api-Version", "registry/2.0")
_ROUTE = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<rest>[^/]+)")


def error(status: int, code: str, message: str, detail: object = None, headers=None) -> Response:
    body = {"errors": [{"code": code, "message": message, "detail": detail}]}
    return json_response(status, body, [API_VERSION, *(headers or [])])


@dataclass
class Route:
    repository: str
    kind: str
    rest: str


def route(path: str) -> Route | Response:
    found = _ROUTE.fullmatch(path)
    if not found:
        return error(404, "NOT_FOUND", "404 page not found")
    name, kind, rest = found["name"], found["kind"], found["rest"]
    if not REPOSITORY.fullmatch(name):
        return error(400, "NAME_INVALID", "invalid repository name")
    if kind in ("blobs", "referrers") and not DIGEST.fullmatch(rest):
        return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
    if kind == "manifests" and not REFERENCE.fullmatch(rest):
        return error(400, "MANIFEST_INVALID", "invalid reference")
    if kind == "tags" and rest != "list":
        return error(404, "NOT_FOUND", "404 page not found")
    return Route(name, kind, rest)


# Decides where a blob is: a Location for 307, or None when the registry sends it itself.
Redirect = Callable[[Request, str], str | None]


def serve(
    request: Request, where: Route, origin: Origin, inside: str, redirect: Redirect
) -> Response:
    """`inside` is the repository's name at the origin."""
    if request.method not in ("GET", "HEAD"):
        return error(405, "UNSUPPORTED", "The operation is unsupported.")
    if where.kind == "blobs":
        return _blob(request, where, origin, inside, redirect)
    if where.kind == "referrers":
        return _referrers(where)
    if where.kind == "tags":
        return _tags(request, where, origin, inside)
    path = f"/v2/{inside}/manifests/{where.rest}"
    answer = origin.ask(request.method, path, request.header("accept"))
    length = answer.length if request.method == "HEAD" else None
    return Response(answer.status, [API_VERSION, *answer.headers], answer.body, length)


def _tags(request: Request, where: Route, origin: Origin, inside: str) -> Response:
    """The list in pages, sorted, as ACR gives it; the registry behind knows no pages."""
    answer = origin.ask("GET", f"/v2/{inside}/tags/list", None)
    if answer.status != 200:
        return Response(answer.status, [API_VERSION, *answer.headers], answer.body)
    query = dict(request.query)
    tags = [t for t in sorted(json.loads(answer.body)["tags"] or []) if t > query.get("last", "")]
    headers = [API_VERSION]
    if query.get("n", "").isdecimal():
        page = tags[: int(query["n"])]
        if len(page) < len(tags) and page:
            following = urlencode({"last": page[-1], "n": query["n"], "orderby": ""})
            target = f"/v2/{where.repository}/tags/list?{following}"
            headers.append(("Link", f'<{target}>; rel="next"'))
        tags = page
    return json_response(200, {"name": where.repository, "tags": tags}, headers)


def _blob(request, where: Route, origin: Origin, inside: str, redirect: Redirect) -> Response:
    path = origin.blob(inside, where.rest)
    if path is None:
        request.log.refusal = "blob unknown"
        message = "blob unknown to registry"
        return error(404, "BLOB_UNKNOWN", message, {"digest": where.rest})
    location = redirect(request, where.rest)
    if location:
        return Response(
            307,
            [
                API_VERSION,
                ("Content-Type", "application/octet-stream"),
                ("Docker-Content-Digest", where.rest),
                ("Location", location),
            ],
        )
    headers = [
        API_VERSION,
        ("Content-Type", "application/octet-stream"),
        ("Docker-Content-Digest", where.rest),
        ("Etag", f'"{where.rest}"'),
    ]
    return ranged(request, FileSlice(path, 0, path.stat().st_size), headers)


def _referrers(where: Route) -> Response:
    # The registry behind has no such list; ACR has, and answers with an empty index.
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [],
    }
    kind = ("Content-Type", "application/vnd.oci.image.index.v1+json")
    return Response(200, [API_VERSION, kind], json.dumps(index).encode())


_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def ranged(request: Request, whole: FileSlice, headers: list[tuple[str, str]]) -> Response:
    """A file or the one range of it that was asked for; forms other than a-b and a- are ignored,
    which HTTP allows and storage hosts do."""
    headers = [*headers, ("Accept-Ranges", "bytes")]
    tags = [value for name, value in headers if name.lower() == "etag"]
    wanted = _RANGE.fullmatch(request.header("range") or "")
    condition = request.header("if-range")
    if not wanted or (condition is not None and condition not in tags):
        return Response(200, headers, whole)
    first = int(wanted[1])
    last = min(int(wanted[2]) if wanted[2] else whole.length - 1, whole.length - 1)
    if first >= whole.length:
        headers.append(("Content-Range", f"bytes */{whole.length}"))
        return Response(416, headers)
    if last < first:
        return Response(200, headers, whole)
    headers.append(("Content-Range", f"bytes {first}-{last}/{whole.length}"))
    return Response(206, headers, FileSlice(whole.path, first, last - first + 1))
