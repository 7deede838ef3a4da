"""The daemon under test: its configuration, its start and end, and its two doors."""

from __future__ import annotations

import copy
import http.client
import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from process import Process, in_place_of_others
from registry import free_port  # tests/images
from standin.client import Reply, ask  # tests/fake

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]


def binary(name: str) -> Path:
    directory = os.environ.get("STAITHE_BIN_DIR")
    path = (Path(directory) if directory else REPOSITORY_ROOT / "build/release") / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not built; set STAITHE_BIN_DIR or run ./dev build")
    return path.resolve()


class Staithed:
    """One daemon with a directory of its own. It can be stopped, killed and started again."""

    def __init__(self, directory: Path, azure: dict[str, Any], outlive: bool = False) -> None:
        directory.mkdir()
        self._directory = directory
        self._outlive = outlive
        self._process: Process | None = None
        self.log = directory / "staithed.log"
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"
        self.socket = directory / "control.sock"
        self.cache = directory / "cache"
        self.config_file = directory / "staithe.toml"
        self.environment: dict[str, str] = {}  # over this process's own
        # Files and directories that the daemon sees in the place of others: target -> source.
        # Needs root; nobody else sees them.
        self.in_place_of: dict[str, Path] = {}
        self.config = self._default_config(azure)

    def _default_config(self, azure: dict[str, Any]) -> dict[str, Any]:
        upstream = {"ca_file": azure["ca_file"], "data_hosts": ["store.blob.localhost"]}
        acrs = [
            {"name": f"{name}.azurecr.io", "upstream": [url], "identity": "vm", **upstream}
            for name, url in azure["acr"].items()
        ]
        hub = {"name": "docker.io", "default": True, "upstream": [azure["hub"]], **upstream}
        return {
            "listen": {"registry": [self.address], "control": str(self.socket)},
            "cache": {"directory": str(self.cache)},
            "azure": {"imds_endpoint": azure["imds"], "acr_suffixes": ["azurecr.localhost"]},
            "log": {"level": "debug", "format": "text"},
            "registry": [*acrs, hub],
            "identity": {"vm": {"kind": "managed-identity"}},
        }

    def configured(self, changes: dict[str, Any]) -> Staithed:
        """Merges into the configuration: tables by key, everything else by replacement."""
        _merge(self.config, changes)
        return self

    def registry(self, name: str) -> dict[str, Any]:
        return next(r for r in self.config["registry"] if r["name"] == name)

    def start(self, timeout: float = 30) -> Staithed:
        """Writes the configuration and returns when the daemon says READY=1."""
        self.config_file.write_text(toml(self.config))
        notify = self._directory / "notify.sock"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(notify))
            listener.settimeout(0.2)
            self._process = Process(
                "staithed",
                [
                    *in_place_of_others(self.in_place_of),
                    binary("staithed"),
                    "--config",
                    self.config_file,
                ],
                self.log,
                {**self.environment, "NOTIFY_SOCKET": str(notify)},
                self._outlive,
            )
            deadline = time.monotonic() + timeout
            while time.monotonic() < deadline:
                try:
                    if b"READY=1" in listener.recv(4096).split(b"\n"):
                        return self
                except TimeoutError:
                    self._process.must_run()
        raise TimeoutError(f"staithed did not get ready:\n{self._process.tail(20)}")

    @property
    def process(self) -> Process:
        assert self._process
        return self._process

    def stop(self) -> int:
        return self._process.stop() if self._process else 0

    def kill(self) -> None:
        self.process.kill()

    def get(self, path: str, method: str = "GET", **headers: str) -> Reply:
        """One request at the registry listener; header names are written with underscores."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(method, self.url + path, sent)

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request at the control socket; gives the JSON of its answer."""
        status, answer = self.raw_control(method, path, body)
        if status != 200:
            raise RuntimeError(f"{method} {path}: {status} {answer.decode()}")
        return json.loads(answer)

    def raw_control(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> tuple[int, bytes]:
        """Status and body, whatever they are."""
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(10)
            connection.sock.connect(str(self.socket))
            sent = None if body is None else json.dumps(body)
            headers = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, path, sent, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        return self.control("GET", "/v1/status")

    def wait_until_stored(self, seconds: float = 30) -> None:
        """Until no fill is under way. The last reader has its bytes a little before they are
        durable, so what comes right after it still counts as part of the fill."""
        deadline = time.monotonic() + seconds
        while self.status()["fills"]:
            if time.monotonic() > deadline:
                raise TimeoutError("a fill does not end")
            time.sleep(0.01)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The operator's command against this daemon."""
        line = self.command_line(*words)
        return subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)

    def command_line(self, *words: str) -> list[str]:
        return [str(binary("staithe")), "--socket", str(self.socket), *words]

    # The layout of the cache, which a test may look into because it is documented.

    def blob_files(self) -> dict[str, Path]:
        """digest -> file, of everything that is stored as whole."""
        found = {}
        for path in (self.cache / "blobs/sha256").glob("??/*"):
            found[f"sha256:{path.name}"] = path
        return found

    def manifest_files(self) -> dict[str, Path]:
        """digest -> file; such a file has a line with the media type before the manifest."""
        found = {}
        for path in (self.cache / "manifests/sha256").glob("??/*"):
            found[f"sha256:{path.name}"] = path
        return found

    def partial_files(self) -> list[Path]:
        directory = self.cache / "partial"
        return sorted(directory.iterdir()) if directory.is_dir() else []


def toml(config: dict[str, Any]) -> str:
    """The few forms of TOML that a configuration needs."""
    lines: list[str] = []
    _table(lines, "", config)
    return "\n".join(lines) + "\n"


def _table(lines: list[str], name: str, table: dict[str, Any]) -> None:
    prefix = f"{name}." if name else ""
    plain = {k: v for k, v in table.items() if not _is_table(v)}
    lines += [f"{key} = {_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += ["", f"[{prefix}{key}]"]
            _table(lines, prefix + key, value)
        elif _is_table(value):
            for item in value:
                lines += ["", f"[[{prefix}{key}]]"]
                _table(lines, prefix + key, item)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    )


def _value(value: Any) -> str:
    # JSON's strings, numbers, booleans and arrays of them are TOML's as well.
    return json.dumps(value)


def _merge(into: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)
