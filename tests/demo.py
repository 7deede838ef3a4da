#!/usr/bin/python3
"""The demo: real clients pull real images through staithed, cold and warm, and a table says so.

    demo.py [--keep]

A docker-registry filled with images of local bytes stands for the registry, a stand-in for Azure
in front of it (metadata service, token exchange, storage host). Nothing leaves this machine. It
ends by itself and leaves nothing running; with --keep it leaves everything up to play with.

Cold is cold because each client pulls its own version of every image, and the versions share no
bytes: the second client finds nothing in a cache that the first has filled. So one daemon serves
the whole demo, and its log can prove that one identity request was enough.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "e2e"))

from clients import Containerd, Skopeo  # noqa: E402
from lab import Lab  # noqa: E402

REGISTRY = "contoso.azurecr.io"
IMAGES = ("busybox", "debian", "big", "multi")
WHAT = {
    "busybox": "docker schema 2",
    "debian": "root file system",
    "big": "one layer of 512 MiB",
    "multi": "index, amd64 + arm64",
}


@dataclass
class Pull:
    seconds: float
    blob_bytes: int  # from upstream, during this pull
    other_bytes: int
    digest: str

    def upstream_bytes(self) -> int:
        return self.blob_bytes + self.other_bytes


@dataclass
class Row:
    client: str
    image: str
    tag: str
    expected: str
    cold: Pull
    warm: Pull

    def equal(self) -> bool:
        return self.cold.digest == self.warm.digest == self.expected


class Screen:
    """Colour only where a person looks."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty()

    def heading(self, text: str) -> None:
        print(f"\n{self.paint('1', text)}")

    def step(self, what: str, detail: str) -> None:
        print(f"  {what:<12} {self.paint('2', detail)}", flush=True)

    def proof(self, holds: bool, text: str) -> bool:
        mark = self.paint("32", "yes") if holds else self.paint("31", "NO ")
        print(f"  {mark}  {text}")
        return holds

    def paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text


def pull(lab: Lab, action: Callable[[], Any], digest_of: Callable[[Any], str]) -> Pull:
    """Times the pull alone; that its result is looked at comes after."""
    before = lab.azure.stats()
    started = time.monotonic()
    result = action()
    seconds = time.monotonic() - started
    after = lab.azure.stats()
    difference = {key: after[key] - before[key] for key in ("blob_bytes", "manifest_bytes")}
    blob_bytes, manifest_bytes = difference["blob_bytes"], difference["manifest_bytes"]
    return Pull(seconds, blob_bytes, manifest_bytes, digest_of(result))


def pull_with_skopeo(lab: Lab, screen: Screen, skopeo: Skopeo) -> list[Row]:
    rows = []
    for image in IMAGES:
        screen.step("skopeo", f"{REGISTRY}/{image}:1  cold, warm")
        reference = f"{lab.staithed.address}/{REGISTRY}/{image}:1"
        pulls = []
        for _ in range(2):
            pulls.append(pull(lab, lambda: skopeo.copy(reference), skopeo.checked))
            skopeo.forget()
        rows.append(Row("skopeo", image, "1", lab.digest(f"contoso/{image}:1"), *pulls))
    return rows


def pull_with_containerd(lab: Lab, screen: Screen, containerd: Containerd) -> list[Row]:
    rows = []
    for image in IMAGES:
        screen.step("containerd", f"{REGISTRY}/{image}:2  cold, warm")
        reference = f"{REGISTRY}/{image}:2"
        pulls = []
        for _ in range(2):
            pulls.append(pull(lab, lambda: containerd.fetch(reference), containerd.digest))
            containerd.forget(reference)
        rows.append(Row("containerd", image, "2", lab.digest(f"contoso/{image}:2"), *pulls))
    return rows


def print_table(screen: Screen, rows: list[Row]) -> None:
    head = ["client", "image", "", "cold", "warm", "upstream cold", "upstream warm", "digests"]
    cells = [
        [
            row.client,
            f"{row.image}:{row.tag}",
            WHAT[row.image],
            f"{row.cold.seconds:.2f} s",
            f"{row.warm.seconds:.2f} s",
            size(row.cold.upstream_bytes()),
            size(row.warm.upstream_bytes()),
            "equal" if row.equal() else "DIFFERENT",
        ]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [head, *cells]) for i in range(len(head))]
    left = {0, 1, 2, 7}

    def line(values: list[str]) -> str:
        padded = [
            value.ljust(width) if i in left else value.rjust(width)
            for i, (value, width) in enumerate(zip(values, widths, strict=True))
        ]
        return "  " + "  ".join(padded).rstrip()

    print(screen.paint("1", line(head)))
    print("  " + "─" * (sum(widths) + 2 * (len(widths) - 1)))
    client = rows[0].client
    for row, values in zip(rows, cells, strict=True):
        if row.client != client:
            print()
            client = row.client
        print(line(values))


def print_proofs(lab: Lab, screen: Screen, rows: list[Row]) -> bool:
    """What the stand-in's log says about the whole demo; false if any of it is not so."""
    stats = lab.azure.stats()
    warm_blob_bytes = sum(row.warm.blob_bytes for row in rows)
    tokens = {scope.split(":")[1]: count for scope, count in stats["tokens"].items()}
    # A large blob comes in several ranges, so it is bytes that show whether anything came twice.
    fetched = stats["blob_bytes"]
    needed = sum(lab.origin_file(digest).stat().st_size for digest in stats["blob_gets"])
    listed = ", ".join(f"{name} {count}" for name, count in sorted(tokens.items()))
    identity_requests = stats["imds_requests"]
    proofs = [
        (all(row.equal() for row in rows), "every digest is the origin's"),
        (warm_blob_bytes == 0, f"warm pulls took {warm_blob_bytes} blob bytes from upstream"),
        (
            fetched == needed,
            f"{len(stats['blob_gets'])} blobs of {size(needed)}, {size(fetched)} taken "
            f"from the storage host",
        ),
        (
            stats["storage_with_authorization"] == 0,
            f"{stats['storage_requests']} requests at the storage host, "
            f"{stats['storage_with_authorization']} with an Authorization header",
        ),
        (identity_requests == 1, f"requests to the metadata service: {identity_requests}"),
        (stats["exchanges"] == 1, f"exchanges for an ACR refresh token: {stats['exchanges']}"),
        (
            set(tokens.values()) == {1} and len(tokens) == len(IMAGES),
            f"access tokens by repository: {listed}",
        ),
    ]
    return all([screen.proof(holds, text) for holds, text in proofs])


def size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024 or unit == "MiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def keep(lab: Lab, containerd: Containerd) -> None:
    """Writes the script that stops it all, and says what there is to type meanwhile."""
    stop = lab.directory / "stop"
    processes = [*lab.processes, lab.staithed.process]
    pids = " ".join(str(process.pid) for process in reversed(processes))
    directory = shlex.quote(str(lab.directory))
    # All of them have the directory in their command lines; a number that meanwhile belongs to
    # somebody else has not, and neither has a process that has ended.
    stop.write_text(
        "#!/bin/sh\n"
        "# Stops what the demo has left running, by pid, and removes its directory.\n"
        f"running() {{ grep -qs {directory} /proc/$1/cmdline; }}\n"
        f"for pid in {pids}; do\n"
        "  running $pid && kill $pid\n"
        "  while running $pid; do sleep 0.1; done\n"
        "done\n"
        f"rm -rf {directory}\n"
    )
    stop.chmod(0o755)
    address, socket = lab.staithed.address, lab.staithed.socket
    print(
        f"""
Everything is still up, below {lab.directory}. Try:

  skopeo inspect --raw --tls-verify=false docker://{address}/{REGISTRY}/multi:1
  ctr -a {containerd.socket} images pull --hosts-dir {containerd.hosts} {REGISTRY}/busybox:1
  curl -i http://{address}/v2/{REGISTRY}/busybox/tags/list
  staithe --socket {socket} status --watch
  curl -s {lab.azure_addresses["control"]}/stats        # what the stand-in has seen
  cat {lab.staithed.config_file}
  tail -f {lab.staithed.log}

Stop it with:

  sh {stop}
"""
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Pull images through staithed, cold and warm.")
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end")
    options = parser.parse_args()
    screen = Screen()
    screen.heading("Starting")
    screen.step("images", "from local bytes, made once (the first time takes a minute)")
    lab = Lab(outlive=options.keep)
    kept = False
    try:
        screen.step("registry", f"docker-registry at {lab.origin}")
        acr = lab.azure_addresses["acr"]["contoso"]
        screen.step("azure", f"stand-in for IMDS, ACR and storage, {acr}")
        staithed = lab.staithed.start()
        screen.step("staithed", f"{staithed.url}, managed identity, empty cache")
        skopeo, containerd = lab.skopeo(), lab.containerd()
        containerd.mirror(REGISTRY, staithed.url)

        screen.heading("Pulling")
        rows = pull_with_skopeo(lab, screen, skopeo)
        rows += pull_with_containerd(lab, screen, containerd)

        screen.heading("Pulled")
        print_table(screen, rows)
        note = "each client has its own version of an image; containerd fetches without unpacking"
        print(screen.paint("2", f"\n  {note}"))

        screen.heading("staithe status")
        sys.stdout.flush()
        # On our own terminal, so that it shows itself as it does to an operator.
        done = subprocess.run(staithed.command_line("status"), check=False)

        screen.heading("The stand-in's log of the whole demo")
        good = print_proofs(lab, screen, rows) and done.returncode == 0
        if options.keep:
            keep(lab, containerd)
            kept = True
        return 0 if good else 1
    except Exception:
        lab.keep_logs("demo")
        raise
    finally:
        if not kept:
            lab.close()


if __name__ == "__main__":
    sys.exit(main())
