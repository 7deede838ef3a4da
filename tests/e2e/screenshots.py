#!/usr/bin/python3
"""Makes the pictures of docs/ again: the status page, on a desk and on a phone, and the terminal.

    screenshots.py [DIRECTORY]         default: docs/

Everything in them is real: a daemon in front of the stand-in for Azure, real pulls, Chromium. Only
the machine's name and the daemon's directory are those of an installed one, in namespaces of this
program's own, so it needs root; and tokens live for minutes.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import html
import http.client
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

from bridge import Bridge
from browser import Browser
from lab import MIB, Lab
from png import with_few_colours
from process import Process
from staithed import REPOSITORY_ROOT, Staithed

HOST = "node17"
ADDRESS = "127.0.0.1:5050"
REGISTRY = "contoso.azurecr.io"
# What is on its way in the pictures: repository -> bytes per second of each connection.
FILLS = {"web": 3 * MIB, "reports": 2 * MIB}
NOISE = [("contoso/web:1", 96 * MIB), ("contoso/reports:1", 192 * MIB), ("contoso/agent:1", 32 * MIB)]
IMAGES = (
    f"{REGISTRY}/busybox",
    "docker.io/library/busybox",
    f"{REGISTRY}/debian",
    f"{REGISTRY}/multi",
)
COLUMNS, ROWS = 104, 42
_CLONE_NEWUTS = 0x04000000

# The colours of a terminal, for the sequences that daemon/terminal.cc writes.
_COLOURS = {"1": "heading", "2": "faint", "31": "bad", "32": "good", "33": "caution"}
_TERMINAL = """<!doctype html><meta charset="utf-8"><title>terminal</title><style>
  body { margin: 0; padding: 16px; background: #14181c; color: #d5dadd; width: max-content; }
  pre { margin: 0; font: 14px/1.3 "DejaVu Sans Mono", monospace; }
  .heading { font-weight: bold; color: #fff; }
  .faint { color: #8a959d; }
  .good { color: #67c98c; }
  .caution { color: #e3b04b; }
  .bad { color: #ff7b72; }
</style><pre>%s</pre>"""


def be_called(name: str) -> None:
    """This process and what it starts, and nobody else."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUTS) != 0:
        raise OSError(ctypes.get_errno(), "a namespace of its own needs root")
    socket.sethostname(name)


def start(lab: Lab) -> Staithed:
    staithed = lab.staithed
    cache = lab.directory / "cache"
    cache.mkdir()
    staithed.in_place_of = {"/var/cache/staithe": cache}
    staithed.address, staithed.url = ADDRESS, f"http://{ADDRESS}"
    staithed.config["registry"] += [{"name": "ghcr.io"}, {"name": "mcr.microsoft.com"}]
    return staithed.configured(
        {
            "listen": {"registry": [ADDRESS]},
            "cache": {"directory": "/var/cache/staithe", "max_size": "20GiB", "min_free": 0},
        }
    ).start()


def pull_for_a_minute(lab: Lab) -> None:
    """First one image, then more of them, again and again: tokens get an age meanwhile."""
    skopeo = lab.skopeo()
    begun = time.monotonic()
    while (age := time.monotonic() - begun) < 60:
        for image in IMAGES[: 2 + int(age / 20)]:
            skopeo.copy(f"{ADDRESS}/{image}:1")
        skopeo.forget()
        time.sleep(3)
    lab.staithed.wait_until_stored()


def pull(staithed: Staithed, path: str) -> None:
    """Until it ends, or the pictures are taken."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        staithed.get(path)


def begin_transfers(lab: Lab) -> None:
    """Pulls that take as long as the pictures, and a hub that has had enough."""
    layers = {name: lab.image(f"contoso/{name}:1")["layers"][0]["digest"] for name in FILLS}
    slow = [
        {"role": "storage", "path": layers[name].removeprefix("sha256:"), "action": {"rate": rate}}
        for name, rate in FILLS.items()
    ]
    throttled = {"status": 429, "headers": {"Retry-After": "90"}}
    lab.azure.faults(*slow, {"role": "hub", "action": throttled})
    for name, readers in (("web", 3), ("reports", 1)):
        path = f"/v2/{REGISTRY}/{name}/blobs/{layers[name]}"
        for _ in range(readers):
            threading.Thread(target=pull, args=(lab.staithed, path), daemon=True).start()
    lab.staithed.get("/v2/docker.io/library/debian/manifests/1")


def watch(staithed: Staithed, wanted: re.Pattern[str]) -> str:
    """`staithe status --watch` on a terminal: the first picture with `wanted` in it, as drawn."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    child = subprocess.Popen(
        staithed.command_line("status", "--watch"),
        stdin=its,
        stdout=its,
        env={"TERM": "xterm-256color", "LANG": "C.UTF-8"},
    )
    os.close(its)
    seen = ""
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 1)[0]:
                seen += os.read(ours, 65536).decode()
            # From the first row to what clears the rest.
            for picture in re.findall(r"\x1b\[H((?:(?!\x1b\[H).)*?)\x1b\[J", seen, re.DOTALL):
                if wanted.search(picture):
                    return picture
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(10)
        os.close(ours)
    raise TimeoutError(f"the terminal never showed {wanted.pattern}:\n{seen[-4000:]}")


def as_html(picture: str) -> str:
    text = html.escape(picture.replace("\r", "").replace("\x1b[K", ""))
    text = re.sub(r"\x1b\[0m", "</span>", text)
    text = re.sub(r"\x1b\[(\d+)m", lambda m: f'<span class="{_COLOURS[m[1]]}">', text)
    return _TERMINAL % text.rstrip("\n")


def take(lab: Lab, browser: Browser, target: Path) -> None:
    bridge = Bridge(lab.staithed.socket)
    shown = "document.querySelectorAll('[id^=fill]').length >= 2"
    moving = "[...document.querySelectorAll('[id^=fill]')].every((f) => /left/.test(f.innerText))"
    try:
        desk = browser.open(bridge.url, width=1120, height=800, scale=1.25)
        phone = browser.open(bridge.url, width=390, height=844, scale=2, scheme="dark")
        for page, name in ((desk, "status-page"), (phone, "status-page-phone")):
            page.wait_for(f"document.body.dataset.reach === 'live' && {shown} && {moving}")
            page.screenshot(target / f"{name}.png", whole=page is desk)
        picture = watch(lab.staithed, re.compile(r"FILLS.*s left.*s left", re.DOTALL))
        file = lab.directory / "terminal.html"
        file.write_text(as_html(picture))
        terminal = browser.open(file.as_uri(), scale=1.25)
        width, height = terminal.evaluate("[document.body.offsetWidth, document.body.offsetHeight]")
        terminal.look_as(width, height, scale=1.25)
        terminal.screenshot(target / "status-watch.png", whole=False)
    finally:
        bridge.close()


def main() -> int:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY_ROOT / "docs"
    be_called(HOST)
    lab = Lab(NOISE)
    try:
        # Shorter lives than Azure gives, so that a minute of them shows.
        lab.azure.set(aad_lifetime=900, refresh_lifetime=600, access_lifetime=300)
        start(lab)
        pull_for_a_minute(lab)
        begin_transfers(lab)
        line = lab.staithed.command_line("warm", f"{REGISTRY}/agent:1")
        warm = Process("warm", line, lab.directory / "warm.log")
        with Browser(lab.directory / "browser") as browser:
            take(lab, browser, target)
        warm.stop()
    finally:
        lab.close()
    for name in ("status-page", "status-page-phone", "status-watch"):
        file = target / f"{name}.png"
        with_few_colours(file)
        print(f"{file}: {file.stat().st_size // 1024} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
