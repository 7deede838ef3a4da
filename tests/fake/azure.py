#!/usr/bin/python3
"""Plays Azure on ports of 127.0.0.1: the hosts of managed identity, Entra, ACR and its storage.

Beside them stand registries in the manner of Docker Hub, GHCR, ECR and Google's.

    azure.py --dir DIR --origin http://127.0.0.1:PORT --origin-root DIR

It follows the protocol reference strictly: what Azure refuses is refused here. When it is ready
it prints one line of JSON with its addresses; it ends by SIGTERM, SIGINT or the end of stdin
(with --stdin), so that it cannot outlive the test that started it. Images come from a
docker-registry, where the registry `contoso` keeps its repositories below `contoso/`, and the
others that are not ACR below `hub/`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from pathlib import Path

from standin import hosted, others, tls
from standin.acr import Acr
from standin.arc import Arc
from standin.assertions import Issuer
from standin.control import Control
from standin.entra import Entra
from standin.faults import Barriers, Faults
from standin.hosted import Hosted
from standin.imds import Imds
from standin.origin import Origin
from standin.others import Others, Registry
from standin.platform import Platform
from standin.recorder import Recorder
from standin.settings import CLOUDS, Settings
from standin.storage import Storage
from standin.tokens import Mint
from standin.vault import Vault
from standin.wire import Port

ROLES = (
    "imds", "arc", "app-service", "machine-learning", "cloud-shell", "service-fabric",
    "entra", "proxy", "acr", "storage", "hub", "auth", "other", "control",
)  # fmt: skip
PLAIN = ("imds", "arc", "app-service", "machine-learning", "cloud-shell", "control")


class Azure:
    """All roles of one process, and what they share."""

    def __init__(self, directory: Path, origin: Origin, numbers: dict[str, int]) -> None:
        self._directory = directory
        self.ca_file = tls.make_authority(directory)
        self.proxy_ca_file = tls.make_authority(directory / "proxy", [tls.PROXY_NAME])
        self.thumbprint = tls.make_self_signed(directory / "fabric")
        contexts = {
            "proxy": tls.server_context(directory / "proxy", tls.PROXY_NAME),
            "service-fabric": tls.server_context(directory / "fabric"),
        }
        context = tls.server_context(directory)
        self.settings = Settings()
        self.recorder = Recorder()
        self.faults = Faults()
        self.barriers = Barriers()
        self._vault = Vault()
        issuer = Issuer(self._vault)
        mint = Mint(self._vault)
        storage = Storage(self.settings, mint, origin)
        platform = Platform(self.settings, mint)
        hosts = Hosted(self.settings, platform)
        entra = Entra(self.settings, mint, issuer)
        # Ports are chosen when they are opened, below; roles ask for them when they need them.
        self.ports: dict[str, Port] = {}
        acr = Acr(self.settings, mint, origin, storage, self.numbers)
        hub, ghcr, gar, ecr = (
            Registry(manner, self.settings, mint, origin, storage, self.numbers)
            for manner in (others.HUB, others.GHCR, others.GAR, others.ECR)
        )
        control = Control(
            self.settings,
            mint,
            self.recorder,
            self.faults,
            self.barriers,
            issuer,
            secrets=self.secrets,
            on_change=self._open_and_close,
            on_revoke=platform.forget,
        )
        handlers = {
            "imds": Imds(platform, self.recorder).handle,
            "arc": Arc(self.settings, platform, self._vault).handle,
            "app-service": hosts.app_service,
            "machine-learning": hosts.machine_learning,
            "cloud-shell": hosts.cloud_shell,
            "service-fabric": hosts.service_fabric,
            "entra": entra.handle,
            "proxy": entra.proxied,
            "acr": acr.handle,
            "storage": storage.handle,
            "hub": hub.registry,
            "auth": hub.token,
            "other": Others([ghcr, gar, ecr]).handle,
            "control": control.handle,
        }
        for role in ROLES:
            self.ports[role] = Port(
                role,
                handlers[role],
                None if role == "control" else self.recorder,
                self.faults,
                self.barriers,
                None if role in PLAIN else contexts.get(role, context),
                numbers.get(role, 0),
            )

    def secrets(self) -> list[dict[str, str]]:
        """What was issued, what is held, and the keys of all certificates."""
        held = [*self.settings.secrets()]
        held += [("private key", text) for text in tls.private_keys(self._directory)]
        return self._vault.all() + [{"kind": kind, "text": text} for kind, text in held]

    def numbers(self) -> dict[str, int]:
        return {role: port.number for role, port in self.ports.items()}

    def addresses(self) -> dict[str, object]:
        port = self.numbers()
        return {
            "ca_file": str(self.ca_file),
            "imds": f"http://127.0.0.1:{port['imds']}",
            "arc": f"http://127.0.0.1:{port['arc']}",
            "app_service": f"http://127.0.0.1:{port['app-service']}{hosted.APP_SERVICE_PATH}",
            "machine_learning": f"http://127.0.0.1:{port['machine-learning']}"
            + hosted.MACHINE_LEARNING_PATH,
            "cloud_shell": f"http://127.0.0.1:{port['cloud-shell']}{hosted.CLOUD_SHELL_PATH}",
            "service_fabric": {
                "endpoint": f"https://localhost:{port['service-fabric']}"
                + hosted.SERVICE_FABRIC_PATH,
                "thumbprint": self.thumbprint,
            },
            "entra": f"https://login.localhost:{port['entra']}",
            "authorities": {
                cloud: f"https://{names[1]}:{port['entra']}" for cloud, names in CLOUDS.items()
            },
            "token_proxy": {
                "url": f"https://127.0.0.1:{port['proxy']}",
                "sni_name": tls.PROXY_NAME,
                "ca_file": str(self.proxy_ca_file),
            },
            "acr": {
                name: f"https://{name}.azurecr.localhost:{port['acr']}"
                for name in self.settings.registries
            },
            "storage": f"https://{self.settings.blob_host}:{port['storage']}",
            "hub": f"https://hub.localhost:{port['hub']}",
            "auth": f"https://auth.localhost:{port['auth']}",
            **{
                name: f"https://{name}.localhost:{port['other']}" for name in ("ghcr", "ecr", "gar")
            },
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
        parser.add_argument(f"--{role}-port", dest=role, type=int, default=0, metavar="N")
    options = parser.parse_args()
    numbers = {role: getattr(options, role) for role in ROLES}
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
