#!/usr/bin/python3
"""Plays Azure on ports of 127.0.0.1: IMDS, Entra, ACR, its storage, and a Hub-like registry.

    azure.py --dir DIR --origin http://127.0.0.1:PORT --origin-root DIR

It follows the protocol reference strictly: what Azure refuses is refused here. When it is ready
it prints one line of JSON with its addresses; it ends by SIGTERM, SIGINT or the end of stdin
(with --stdin), so that it cannot outlive the test that started it. Images come from a
docker-registry, where the registry `contoso` keeps its repositories below `contoso/`, and the
Hub below `hub/`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from pathlib import Path

from standin import tls
from standin.acr import Acr
from standin.control import Control
from standin.entra import Entra
from standin.faults import Barriers, Faults
from standin.hub import Hub
from standin.imds import Imds
from standin.origin import Origin
from standin.recorder import Recorder
from standin.settings import Settings
from standin.storage import Storage
from standin.tokens import Mint
from standin.wire import Port

ROLES = ("imds", "entra", "acr", "storage", "hub", "auth", "control")
PLAIN = ("imds", "control")


class Azure:
    """All roles of one process, and what they share."""

    def __init__(self, directory: Path, origin: Origin, numbers: dict[str, int]) -> None:
        self.ca_file = tls.make_authority(directory)
        context = tls.server_context(directory)
        self.settings = Settings()
        self.recorder = Recorder()
        self.faults = Faults()
        self.barriers = Barriers()
        mint = Mint()
        storage = Storage(self.settings, mint, origin)
        imds = Imds(self.settings, mint, self.recorder)
        # Ports are chosen when they are opened, below; roles ask for them when they need them.
        self.ports: dict[str, Port] = {}
        acr = Acr(self.settings, mint, origin, storage, self.numbers)
        hub = Hub(self.settings, mint, origin, storage, self.numbers)
        control = Control(
            self.settings,
            mint,
            self.recorder,
            self.faults,
            self.barriers,
            on_change=self._open_and_close,
            on_revoke=imds.forget,
        )
        handlers = {
            "imds": imds.handle,
            "entra": Entra(self.settings, mint).handle,
            "acr": acr.handle,
            "storage": storage.handle,
            "hub": hub.registry,
            "auth": hub.token,
            "control": control.handle,
        }
        for role in ROLES:
            self.ports[role] = Port(
                role,
                handlers[role],
                None if role == "control" else self.recorder,
                self.faults,
                self.barriers,
                None if role in PLAIN else context,
                numbers.get(role, 0),
            )

    def numbers(self) -> dict[str, int]:
        return {role: port.number for role, port in self.ports.items()}

    def addresses(self) -> dict[str, object]:
        port = self.numbers()
        return {
            "ca_file": str(self.ca_file),
            "imds": f"http://127.0.0.1:{port['imds']}",
            "entra": f"https://login.localhost:{port['entra']}",
            "acr": {
                name: f"https://{name}.azurecr.localhost:{port['acr']}"
                for name in self.settings.registries
            },
            "storage": f"https://{self.settings.blob_host}:{port['storage']}",
            "hub": f"https://hub.localhost:{port['hub']}",
            "auth": f"https://auth.localhost:{port['auth']}",
            "control": f"http://127.0.0.1:{port['control']}",
            "ports": port,
        }

    def stop(self) -> None:
        for port in self.ports.values():
            port.close()
        self.barriers.stop()

    def _open_and_close(self) -> None:
        for role, port in self.ports.items():
            if role in self.settings.down:
                port.close()
            else:
                port.open()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--dir", type=Path, required=True, help="where keys and certificates go")
    parser.add_argument("--origin", required=True, help="the docker-registry, http://host:port")
    parser.add_argument("--origin-root", type=Path, required=True, help="its storage directory")
    parser.add_argument("--stdin", action="store_true", help="end when stdin ends")
    for role in ROLES:
        parser.add_argument(f"--{role}-port", type=int, default=0, metavar="N")
    options = parser.parse_args()
    numbers = {role: getattr(options, f"{role}_port") for role in ROLES}
    azure = Azure(options.dir, Origin(options.origin, options.origin_root), numbers)

    ended = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: ended.set())
    print(json.dumps(azure.addresses()), flush=True)
    if options.stdin:

        def watch_stdin() -> None:
            sys.stdin.read()
            ended.set()

        threading.Thread(target=watch_stdin, daemon=True).start()
    ended.wait()
    azure.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
