"""Chromium without a screen, driven by its own protocol over a pair of pipes.

    with Browser(directory) as browser:
        page = browser.open(url)
        page.wait_for("document.title.startsWith('node')")
        page.evaluate("document.body.innerText")

The protocol is Chrome DevTools': JSON messages that end in a null byte, on descriptors 3 and 4
(--remote-debugging-pipe), so that no port is open and nothing but the standard library is needed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PROGRAM = "chromium"
_OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--mute-audio",
)


class BrowserFailed(Exception):
    pass


class Browser:
    """One process with a profile of its own below `directory`. It knows this machine, and `sites`:
    names that lead to it, too."""

    def __init__(self, directory: Path, sites: tuple[str, ...] = ()) -> None:
        directory.mkdir()
        self.log = directory / "chromium.log"
        to_it, self._out = os.pipe()
        self._in, from_it = os.pipe()
        # Its own sandbox needs a user that is not root.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        profile = f"--user-data-dir={directory / 'profile'}"
        known = "".join(f"MAP {site} 127.0.0.1, " for site in sites)
        names = known + "MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"
        # The shell moves the pipes to the numbers that are agreed.
        script = f'exec "$@" 3<&{to_it} 4>&{from_it}'
        command = ["bash", "-c", script, "bash", _PROGRAM, *_OPTIONS, *sandbox, profile]
        command.append(f"--host-resolver-rules={names}")
        with open(self.log, "ab") as log:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(to_it, from_it),
                env={**os.environ, "HOME": str(directory)},
                start_new_session=True,
            )
        os.close(to_it)
        os.close(from_it)
        self._buffer = b""
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._pages: dict[str, Page] = {}

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, url: str, width: int = 1280, height: int = 900, **settings: Any) -> Page:
        """A new tab. Settings as for Page.look_as(); `script`: False switches JavaScript off."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        page = Page(self, attached["sessionId"])
        self._pages[page.session] = page
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        if not settings.pop("script", True):
            page.call("Emulation.setScriptExecutionDisabled", {"value": True})
        page.look_as(width, height, **settings)
        page.go(url)
        return page

    def call(
        self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None
    ) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters or {}}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 30
        while self._number not in self._answers:
            self.receive(deadline)
        answer = self._answers.pop(self._number)
        if "error" in answer:
            raise BrowserFailed(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def receive(self, deadline: float) -> None:
        """Takes at least one message in; raises if none comes in time."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0, deadline - time.monotonic()))
            piece = os.read(self._in, 1 << 20) if ready else b""
            if not piece:
                tail = self.log.read_text(errors="replace")[-2000:]
                raise BrowserFailed(f"chromium {'ended' if ready else 'is silent'}:\n{tail}")
            self._buffer += piece
        *messages, self._buffer = self._buffer.split(b"\0")
        for text in messages:
            message = json.loads(text)
            if "id" in message:
                self._answers[message["id"]] = message
            elif page := self._pages.get(message.get("sessionId", "")):
                page.note(message["method"], message["params"])

    def close(self) -> None:
        os.close(self._out)  # Which it takes as the wish that it ends.
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
        os.close(self._in)


class Page:
    """A tab: what is in it, what it has asked for, and what it has complained about."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self.session = session
        self.requests: list[str] = []  # URLs
        self.complaints: list[str] = []  # of the console: errors, refusals by policy, exceptions
        self._loads = 0

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._browser.call(method, parameters, self.session)

    def note(self, event: str, what: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loads += 1
        elif event == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(what["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(what["args"]))
        elif event == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            entry = what["entry"]
            self.complaints.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")

    def look_as(self, width: int, height: int, scheme: str = "light", scale: float = 1) -> None:
        """How large its window is, in CSS pixels, and what colours the user prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600},
        )
        self.call(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )

    def go(self, url: str) -> None:
        """Returns once it is loaded."""
        before = self._loads
        answer = self.call("Page.navigate", {"url": url})
        if "errorText" in answer:
            raise BrowserFailed(f"{url}: {answer['errorText']}")
        deadline = time.monotonic() + 30
        while self._loads == before:
            self._browser.receive(deadline)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; of a promise, what it comes to."""
        answer = self.call(
            "Runtime.evaluate",
            {"expression": expression, "returnByValue": True, "awaitPromise": True},
        )
        if "exceptionDetails" in answer:
            raise BrowserFailed(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 20) -> Any:
        """Until it is true; gives its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                text = self.evaluate("document.body.innerText")
                raise BrowserFailed(f"this never came true: {expression}\n{text}")
            time.sleep(0.05)
        return value

    def text(self, selector: str) -> str:
        """What a person reads there; empty if there is no such element."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def screenshot(self, file: Path, whole: bool = True) -> None:
        """The whole page, however long, or what the window shows of it."""
        answer = self.call(
            "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole}
        )
        file.write_bytes(base64.b64decode(answer["data"]))

    @contextlib.contextmanager
    def may_complain(self) -> Iterator[None]:
        """What it complains about meanwhile is as it should be."""
        before = len(self.complaints)
        yield
        self.evaluate("0")  # All events up to here have come.
        del self.complaints[before:]
