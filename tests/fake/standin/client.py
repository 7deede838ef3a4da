"""A small HTTP client for tests: one request, one connection, `*.localhost` on loopback."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit


@dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    method: str,
    url: str,
    headers: dict[str, str] | None = None,
    body: bytes | dict | None = None,
    ca_file: Path | str | None = None,
    timeout: float = 60,
    context: ssl.SSLContext | None = None,
) -> Reply:
    """A dict as body becomes a form. Nothing is followed and nothing is added but Host."""
    parts = urlsplit(url)
    assert parts.port
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    connection.sock = socket.create_connection(("127.0.0.1", parts.port), timeout=timeout)
    if parts.scheme == "https":
        context = context or ssl.create_default_context(cafile=str(ca_file))
        connection.sock = context.wrap_socket(connection.sock, server_hostname=parts.hostname)
    sent = dict(headers or {})
    if isinstance(body, dict):
        body = urlencode(body, doseq=True).encode()
        sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
    try:
        target = parts.path + ("?" + parts.query if parts.query else "")
        connection.request(method, target, body, sent)
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())
    finally:
        connection.close()


class ControlClient:
    """The stand-in's control port as methods."""

    def __init__(self, url: str) -> None:
        self._url = url

    def log(self, **fields: Any) -> list[dict[str, Any]]:
        """The requests so far whose fields have these values."""
        found = self._get("/log")
        return [entry for entry in found if all(entry[k] == v for k, v in fields.items())]

    def stats(self) -> dict[str, Any]:
        return self._get("/stats")

    def reset_log(self) -> None:
        self._post("/log/reset")

    def set(self, **values: Any) -> None:
        self._post("/set", json.dumps(values).encode())

    def settings(self) -> dict[str, Any]:
        return self._get("/settings")

    def faults(self, *rules: dict[str, Any]) -> None:
        """Replaces all rules; none takes every fault away."""
        self.set(faults=list(rules))

    def struck(self) -> list[int]:
        return [rule["struck"] for rule in self._get("/faults")]

    def release(self, barrier: str) -> None:
        self._post(f"/release?{urlencode({'name': barrier})}")

    def forget(self, barrier: str) -> None:
        """Lets go who waits there; the name is as new."""
        self._post(f"/barrier/reset?{urlencode({'name': barrier})}")

    def take_log(self) -> list[dict[str, Any]]:
        """The requests that are over, each told once: for runs too long to keep them all."""
        return self._post("/log/take")

    def wait_until_held(self, barrier: str, count: int = 1, timeout: float = 30) -> None:
        """Returns when `count` requests stand at the barrier; raises if they do not come."""
        query = urlencode({"name": barrier, "count": count, "timeout": timeout})
        came = self._get(f"/held?{query}", timeout + 5)["count"]
        if came < count:
            raise TimeoutError(f"{came} of {count} requests came to barrier {barrier}")

    def wait_for_requests(self, count: int = 1, timeout: float = 30, **fields: Any) -> None:
        query = urlencode({"count": count, "timeout": timeout, **fields})
        came = self._get(f"/wait?{query}", timeout + 5)["count"]
        if came < count:
            raise TimeoutError(f"{came} of {count} requests came with {fields}")

    def revoke(self, kind: str) -> None:
        self._post(f"/revoke?{urlencode({'kind': kind})}")

    def service_account_token(
        self,
        issuer: str,
        subject: str,
        audience: str = "api://AzureADTokenExchange",
        lifetime: float = 3600,
    ) -> str:
        """A token of a cluster's issuer, as kubelet writes it to a pod's token file."""
        values = {
            "issuer": issuer, "subject": subject, "audience": audience, "lifetime": lifetime,
        }  # fmt: skip
        return self._post("/service-account-token", json.dumps(values).encode())["token"]

    def secrets(self) -> list[dict[str, str]]:
        """Everything that may be found nowhere: `kind` and `text` of each."""
        return self._get("/secrets")

    def _get(self, path: str, timeout: float = 60) -> Any:
        return self._checked(ask("GET", self._url + path, timeout=timeout))

    def _post(self, path: str, body: bytes = b"") -> Any:
        return self._checked(ask("POST", self._url + path, body=body))

    def _checked(self, reply: Reply) -> Any:
        if reply.status != 200:
            raise RuntimeError(f"the stand-in's control port says {reply.body.decode()}")
        return reply.json()
