#!/usr/bin/python3
"""What a page in a local browser can do with the daemon: look at nothing, and change nothing.

A real Chromium opens a page of another site, which tries every way that a page has to ask a port of
this machine; and a page whose name has been rebound, so that to the browser the daemon is the page's
own origin.
"""

from __future__ import annotations

import http.server
import json
import tempfile
import threading
import time
import unittest
from pathlib import Path

from browser import Browser, Page
from node import REGISTRY, Node
from origin import Origin, make_image
from registry import free_port

OTHER = "other.localtest"
REBOUND = "rebound.localtest"

# Each way gives what the page got: nothing at all, if it is as it should be.
ATTACK = """
async function attack(url) {
  const got = {};
  const tried = async (way, work) => {
    try { got[way] = String(await work() ?? ''); } catch { got[way] = ''; }
  };
  const asked = (settings) => async () => (await fetch(url, settings)).text();
  const element = (name, settings) => () => new Promise((resolve) => {
    const made = Object.assign(document.createElement(name), settings);
    made.onload = () => resolve('loaded');
    made.onerror = () => resolve('');
    document.body.append(made);
  });
  const framed = (start) => () => new Promise((resolve) => {
    const frame = Object.assign(document.createElement('iframe'), {name: 'f' + Math.random()});
    frame.onload = () => {
      let text = '';
      try { text = frame.contentDocument.body.innerText; } catch { text = ''; }
      resolve(text);
    };
    start(frame);
  });
  await tried('fetch', asked({}));
  await tried('with credentials', asked({credentials: 'include'}));
  await tried('with a field of its own', asked({headers: {'X-Own': '1'}}));
  await tried('without CORS', asked({mode: 'no-cors'}));
  await tried('POST', asked({method: 'POST', body: 'x'}));
  await tried('POST without CORS', asked({method: 'POST', mode: 'no-cors', body: 'x'}));
  await tried('PUT', asked({method: 'PUT', body: 'x'}));
  await tried('DELETE', asked({method: 'DELETE'}));
  await tried('XMLHttpRequest', () => new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.onloadend = () => resolve(request.responseText);
    request.open('GET', url);
    request.send();
  }));
  await tried('script', element('script', {src: url}));
  await tried('module', element('script', {src: url, type: 'module'}));
  await tried('image', element('img', {src: url}));
  await tried('style sheet', element('link', {rel: 'stylesheet', href: url}));
  await tried('frame', framed((frame) => { frame.src = url; document.body.append(frame); }));
  await tried('form', framed((frame) => {
    document.body.append(frame);
    const form = Object.assign(document.createElement('form'),
                               {method: 'POST', action: url, target: frame.name});
    document.body.append(form);
    form.submit();
  }));
  await tried('WebSocket', () => new Promise((resolve) => {
    const socket = new WebSocket(url.replace('http:', 'ws:'));
    socket.onopen = () => resolve('open');
    socket.onerror = () => resolve('');
  }));
  await tried('EventSource', () => new Promise((resolve) => {
    const source = new EventSource(url);
    const ends = (text) => { source.close(); resolve(text); };
    source.onopen = () => ends('open');
    source.onmessage = (message) => ends(message.data);
    source.onerror = () => ends('');
  }));
  return got;
}
"""
WAYS = 17
# Of these come with a body, so that they are refused before they are requests.
WITH_BODY = 2

_SAME_ORIGIN = """
(async () => {
  const got = [];
  for (const path of %s) {
    for (const method of ['GET', 'POST']) {
      const answer = await fetch(path, {method});
      got.push([answer.status, await answer.text()]);
    }
  }
  return got;
})()
"""


class OtherSite(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = f"<!doctype html><title>other</title><body><script>{ATTACK}</script>".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        pass


class WebPages(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        directory = Path(scratch.name)
        origin = Origin()
        cls.addClassCleanup(origin.close)
        cls.image = origin.add(make_image("app", [1000], seed=1))
        cls.registry, cls.metrics = free_port(), free_port()
        cls.node = Node(directory / "node", origin)
        cls.addClassCleanup(cls.node.stop)
        cls.node.config["listen"]["registry"].append(f"127.0.0.1:{cls.registry}")
        cls.node.configured(
            {
                "listen": {"metrics": f"127.0.0.1:{cls.metrics}", "status_page": True},
                "log": {"format": "json"},
            }
        ).start()
        for _ in range(2):
            cls.node.pull(cls.image)
        cls.paths = {
            cls.registry: [
                f"/v2/{REGISTRY}/app/manifests/{cls.image.digest}",
                f"/v2/{REGISTRY}/app/blobs/{next(iter(cls.image.blobs))}",
            ],
            cls.metrics: ["/metrics", "/"],
        }
        cls.site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), OtherSite)
        threading.Thread(target=cls.site.serve_forever, daemon=True).start()
        cls.addClassCleanup(cls.site.server_close)
        cls.addClassCleanup(cls.site.shutdown)
        cls.browser = Browser(directory / "browser", (OTHER, REBOUND))
        cls.addClassCleanup(cls.browser.close)

    def setUp(self) -> None:
        self.before = len(self.answers())

    def answers(self) -> list[dict]:
        """What the daemon has told of requests at its TCP addresses."""
        lines = [json.loads(line) for line in self.node.log.read_text().splitlines()]
        return [line for line in lines if line["event"] in ("request", "metrics request")]

    def new_answers(self, least: int) -> list[dict]:
        deadline = time.monotonic() + 10
        while len(answers := self.answers()[self.before :]) < least:
            self.assertLess(time.monotonic(), deadline, answers)
            time.sleep(0.05)
        return answers

    def from_another_site(self) -> Page:
        return self.browser.open(f"http://{OTHER}:{self.site.server_address[1]}/")

    def test_another_site_gets_nothing_whatever_it_tries(self) -> None:
        page = self.from_another_site()
        tried = 0
        for name in ("localhost", "127.0.0.1"):
            for port, paths in self.paths.items():
                for path in paths:
                    url = f"http://{name}:{port}{path}"
                    got = page.evaluate(f"attack({json.dumps(url)})")
                    self.assertEqual(len(got), WAYS)
                    self.assertEqual({way: text for way, text in got.items() if text}, {}, url)
                    tried += len(got) - WITH_BODY
        # They came, or their preflights did, and each was refused.
        answers = self.new_answers(tried)
        self.assertEqual([answer for answer in answers if answer["status"] != 403], [])

    def test_a_rebound_name_gets_nothing(self) -> None:
        for port, paths in self.paths.items():
            # To the browser whatever comes from there is this page's own.
            page = self.browser.open(f"http://{REBOUND}:{port}{paths[0]}")
            got = page.evaluate(_SAME_ORIGIN % json.dumps(paths))
            self.assertEqual([status for status, _ in got], [403] * 2 * len(paths))
            for _, text in got:
                self.assertIn("access.hosts", text)
                self.assertNotIn("schemaVersion", text)
                self.assertNotIn("staithe_", text)
        self.assertEqual({answer["status"] for answer in self.new_answers(8)}, {403})

    def test_a_person_may_look(self) -> None:
        page = self.browser.open(f"http://localhost:{self.registry}{self.paths[self.registry][0]}")
        self.assertIn("schemaVersion", page.evaluate("document.body.innerText"))
        page = self.browser.open(f"http://localhost:{self.metrics}/")
        self.assertIn("staithe", page.evaluate("document.title").lower() + page.text("body"))
        page.go("about:blank")  # This page would look again every few seconds.


if __name__ == "__main__":
    unittest.main()
