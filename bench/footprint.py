#!/usr/bin/python3
"""How much of the machine does the daemon take: disk, memory, threads, descriptors?

    ./dev bench footprint [--clients 64] [--quick]

Starts staithed over an empty cache with two registries that sign in with a managed identity (the
Azure stand-in of the tests), pulls an image, lets many clients pull at once, and waits until the
daemon rests. Resident memory is the kernel's: anonymous is the process's own; file pages are of
the program and its libraries, are shared with who else runs them, and can be taken back any time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/e2e"))

from lab import Lab
from staithed import Staithed, binary

PROGRAMS = ["staithed", "staithe", "docker-credential-staithe", "staithe-credential-provider"]
REGISTRY = "contoso.azurecr.io"
MIB = 1024


def figures(pid: int) -> dict[str, int]:
    """KiB by the kernel's names, threads, open descriptors."""
    text = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines())
    found = {
        name: int(fields[name].split()[0])
        for name in ("VmRSS", "RssAnon", "RssFile", "VmHWM", "Threads")
    }
    found["Descriptors"] = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return found


def row(name: str, found: dict[str, int], peak: bool = False) -> None:
    resident = found["VmHWM"] if peak else found["VmRSS"]
    print(
        f"| {name:34} | {resident / MIB:5.1f} | {found['RssAnon'] / MIB:5.1f} "
        f"| {found['RssFile'] / MIB:5.1f} | {found['Threads']:7} | {found['Descriptors']:11} |",
        flush=True,
    )


def pull(lab: Lab, staithed: Staithed, image: str) -> None:
    repository, tag = image.split(":")
    base = f"/v2/{REGISTRY}/{repository.removeprefix('contoso/')}"
    if staithed.get(f"{base}/manifests/{tag}").status != 200:
        raise RuntimeError(f"{image}: no manifest")
    for layer in lab.image(image)["layers"]:
        reply = staithed.get(f"{base}/blobs/{layer['digest']}")
        if reply.status != 200 or len(reply.body) != layer["size"]:
            raise RuntimeError(f"{image}: a layer is missing")


def pull_by_many(lab: Lab, staithed: Staithed, image: str, clients: int) -> None:
    failures: list[BaseException] = []

    def one() -> None:
        try:
            pull(lab, staithed, image)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=one) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def binaries() -> None:
    print("| program | MiB, stripped | libraries, all |\n|---|---:|---:|")
    with tempfile.TemporaryDirectory() as directory:
        for name in PROGRAMS:
            stripped = Path(directory) / name
            subprocess.run(["strip", "-o", stripped, binary(name)], check=True)
            listed = subprocess.run(
                ["ldd", binary(name)], check=True, capture_output=True, text=True
            ).stdout
            libraries = sum("=>" in line for line in listed.splitlines())
            print(f"| `{name}` | {stripped.stat().st_size / 1024 / MIB:.1f} | {libraries} |")


def memory(clients: int, rest_seconds: float) -> None:
    print("\n| after | RSS MiB | own | files | threads | descriptors |\n|---|---:|---:|---:|---:|---:|")
    # Each client pulls this, so that much is sent, and little of it fits a socket.
    size = "16MiB"
    lab = Lab(noise=[(f"contoso/footprint:{size}", 16 * 1024 * 1024)])
    try:
        staithed = lab.staithed.configured({"log": {"level": "info"}}).start()
        pid = staithed.process.pid
        row("the start", figures(pid))
        pull(lab, staithed, "contoso/busybox:1")
        staithed.wait_until_stored()
        row("a first pull (TLS, token)", figures(pid))
        pull_by_many(lab, staithed, f"contoso/footprint:{size}", clients)
        row(f"{clients} clients, cold: the peak", figures(pid), peak=True)
        pull_by_many(lab, staithed, f"contoso/footprint:{size}", clients)
        row(f"{clients} clients, again: the peak", figures(pid), peak=True)
        staithed.wait_until_stored()
        row("these have gone", figures(pid))
        if rest_seconds:
            time.sleep(rest_seconds)
            row(f"{rest_seconds:.0f} s in which nobody asked", figures(pid))
    finally:
        lab.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=64, help="at once (default 64)")
    parser.add_argument("--rest", type=float, default=130, help="seconds of rest at the end")
    parser.add_argument("--quick", action="store_true", help="only that it works")
    asked = parser.parse_args()
    binaries()
    memory(4 if asked.quick else asked.clients, 0 if asked.quick else asked.rest)


if __name__ == "__main__":
    main()
