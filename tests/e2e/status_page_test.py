#!/usr/bin/python3
"""The status page in a real browser: its figures move and are right, and it asks nobody else."""

from __future__ import annotations

import re
import threading
import unittest

from bridge import Bridge
from browser import Browser, Page
from lab import MIB, LabTest

IMAGE = "contoso/warm-one:1"
SIZE = 16 * MIB
REGISTRY = "contoso.azurecr.io"
LONG = "a-registry-with-a-name-that-is-as-long-as-names-of-hosts-may-be.region-one.example.internal"
BUILD = re.compile(rb'data-build="[0-9a-f]{16}"')

# Every text with too little contrast to what is behind it (WCAG 2.1, 1.4.3: 4.5 to 1).
PALE = """
(() => {
  const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const brightness = ([red, green, blue]) => {
    const [r, g, b] = [red, green, blue].map((value) => {
      const part = value / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = numbers(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const pale = [];
  for (const element of document.body.querySelectorAll("*")) {
    const texts = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
    if (element.tagName === "SCRIPT" || !texts.some((node) => node.data.trim())) continue;
    const one = brightness(numbers(getComputedStyle(element).color));
    const other = brightness(behind(element));
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) pale.push(`${contrast.toFixed(2)}: ${element.textContent.slice(0, 60)}`);
  }
  return pale;
})()
"""


class StatusPage(LabTest):
    noise = [(IMAGE, SIZE)]

    def setUp(self) -> None:
        super().setUp()
        self.staithed = self.lab.staithed
        self.staithed.config["registry"].append({"name": LONG})
        self.staithed.start()
        self.bridge = Bridge(self.staithed.socket, self.as_told)
        self.addCleanup(self.bridge.close)
        self.other_build = False
        self.browser = Browser(self.lab.directory / "browser")
        self.addCleanup(self.browser.close)

    def as_told(self, piece: bytes) -> bytes:
        return BUILD.sub(b'data-build="another-program-"', piece) if self.other_build else piece

    def pull(self) -> threading.Thread:
        layer = self.lab.image(IMAGE)["layers"][0]["digest"]
        path = f"/v2/{REGISTRY}/warm-one/blobs/{layer}"
        client = threading.Thread(target=self.staithed.get, args=(path,))
        client.start()
        self.addCleanup(client.join)
        return client

    def progress(self, page: Page) -> int:
        return int(page.evaluate("document.querySelector('[id^=fill] svg').ariaValueNow"))

    def assert_quiet(self, page: Page) -> None:
        """Nothing went wrong in it, and it has asked nobody but the daemon."""
        self.assertEqual(page.complaints, [])
        asked = {url for url in page.requests if not url.startswith("data:")}
        self.assertEqual(asked, {self.bridge.url})

    def test_a_fill_moves_and_the_figures_are_the_daemons(self) -> None:
        page = self.browser.open(self.bridge.url)
        page.wait_for("document.body.dataset.reach === 'live'")
        self.assertIn("Nothing is being fetched.", page.text("main"))
        self.assertIn("nothing asked for yet", page.text(".figures"))

        # Slow enough that a browser on a busy machine looks while it goes on.
        self.lab.azure.faults({"role": "storage", "action": {"rate": MIB // 2}})
        client = self.pull()
        page.wait_for("document.querySelector('[id^=fill] svg')?.ariaValueNow")
        first = self.progress(page)
        shown = page.text("[id^=fill]")
        self.assertIn(f"{REGISTRY}/warm-one", shown)
        self.assertIn("of 16.0 MiB", shown)
        self.assertIn("1 reader", shown)
        page.wait_for(f"+document.querySelector('[id^=fill] svg').ariaValueNow > {first}")
        page.wait_for("/MiB\\/s, .*s left/.test(document.querySelector('[id^=fill]').innerText)")
        # The bar is as long as it says.
        of_track = page.evaluate(
            "(() => { const svg = document.querySelector('[id^=fill] svg');"
            " return parseFloat(svg.firstChild.getAttribute('width')) - svg.ariaValueNow; })()"
        )
        self.assertLess(abs(of_track), 1)
        self.lab.azure.faults()
        client.join(30)
        self.staithed.wait_until_stored()
        page.wait_for("document.body.innerText.includes('Nothing is being fetched.')")

        self.pull().join(30)
        traffic = self.staithed.status()["traffic"]
        self.assertEqual((traffic["hits"], traffic["misses"]), (1, 1))
        page.wait_for("document.querySelector('.figures').innerText.includes('50.0%')")
        self.assertIn("32.0 MiB\nto clients", page.text(".figures"))
        self.assertIn("16.0 MiB saved", page.text(".figures"))
        rows = page.evaluate("[...document.querySelectorAll('tbody tr')].map(r => r.innerText)")
        self.assertIn("hits\t1\t50.0%", rows)
        self.assertIn("misses\t1\t50.0%", rows)
        tokens = page.evaluate(
            "[...document.querySelectorAll('.tokens li')].map(li => li.innerText.split('\\n'))"
        )
        self.assertEqual([token[0] for token in tokens], ["entra", "refresh", "access"])
        for _, sentence in tokens:
            self.assertRegex(sentence, "^renewed in .*, valid for .*$")
        self.assert_quiet(page)

    def test_it_goes_on_when_the_daemon_comes_back(self) -> None:
        page = self.browser.open(self.bridge.url)
        page.wait_for("document.body.dataset.reach === 'live'")
        before = self.staithed.status()["pid"]
        page.wait_for(f"document.querySelector('.facts').innerText.includes('pid {before}')")
        with page.may_complain():  # Of answers that do not come.
            self.staithed.stop()
            page.wait_for("document.body.dataset.reach === 'lost'")
            self.assertRegex(
                page.text("#reach"), r"^not reachable since \d\d:\d\d:\d\d; these are the last"
            )
            self.assertIn(f"pid {before}", page.text(".facts"))
            self.staithed.start()
            page.wait_for("document.body.dataset.reach === 'live'")
        self.assertEqual(page.text("#reach"), "live, every second")
        self.assertIn(f"pid {self.staithed.process.pid}", page.text(".facts"))

        # Another program has another page; what is open loads it by itself, once.
        page.evaluate("window.old = true")
        self.other_build = True
        page.wait_for("!window.old && document.body?.dataset.reach === 'live'")
        self.assertEqual(page.evaluate("build"), "another-program-")
        self.assert_quiet(page)

    def test_it_asks_only_while_somebody_looks(self) -> None:
        page = self.browser.open(self.bridge.url)
        page.wait_for("document.body.dataset.reach === 'live'")
        page.evaluate("Object.defineProperty(document, 'hidden', { get: () => window.away })")
        page.wait_for("!asking")
        # A look that nobody sees the end of plans no other.
        self.assertTrue(page.evaluate("(window.away = true, look().then(() => !asking))"))
        planned = page.evaluate("next")
        page.evaluate("look()")
        self.assertEqual(page.evaluate("next"), planned)
        page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
        page.wait_for(f"next !== {planned}")
        self.assert_quiet(page)

    def test_it_can_be_read_on_a_phone_in_the_dark_and_aloud(self) -> None:
        # Something of everything: tokens, an error with a long sentence, a fill.
        self.staithed.get("/v2/library/busybox/manifests/1")
        self.lab.azure.faults(
            {"role": "hub", "action": {"status": 429, "headers": {"Retry-After": "30"}}},
            {"role": "storage", "action": {"hold": "half-way", "at": SIZE // 2}},
        )
        self.staithed.get("/v2/library/debian/manifests/1")
        client = self.pull()
        self.lab.azure.wait_until_held("half-way")
        page = self.browser.open(self.bridge.url, width=320, height=640)
        page.wait_for("document.body.dataset.reach === 'live'")
        self.assertIn(LONG, page.text("main"))
        self.assertIn("last error: ", page.text("main"))
        self.assertIn("throttled for ", page.text("main"))
        grounds = set()
        for width in (320, 375, 768, 1280):
            for scheme in ("light", "dark"):
                with self.subTest(width=width, scheme=scheme):
                    page.look_as(width, 640, scheme)
                    self.assertEqual(
                        page.evaluate("document.documentElement.scrollWidth"), width
                    )
                    self.assertEqual(page.evaluate(PALE), [])
                    grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        self.assertEqual(len(grounds), 2)
        self.assert_told(page)
        self.assert_quiet(page)
        self.lab.azure.release("half-way")
        client.join(30)

    def assert_told(self, page: Page) -> None:
        """To who hears it: what is a heading, a table, a progress, and what an image shows."""
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        told: dict[str, list[str]] = {}
        for node in nodes:
            if not node.get("ignored"):
                name = node.get("name", {}).get("value", "")
                told.setdefault(node["role"]["value"], []).append(name)
        self.assertLessEqual({"Fills 1", "Registries", "Cache", "Answers"}, set(told["heading"]))
        self.assertEqual(told["progressbar"], [f"{REGISTRY}/warm-one"])
        self.assertEqual(told["status"], [""])
        self.assertLessEqual({"hits", "misses", "errors"}, set(told["rowheader"]))
        self.assertTrue(any(re.match("entra token, .* old", name) for name in told["image"]))

    def test_without_a_script_it_is_a_whole_page(self) -> None:
        self.pull().join(30)
        self.staithed.wait_until_stored()
        page = self.browser.open(self.bridge.url, script=False)
        self.assertRegex(
            page.text("#reach"), r"^as of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC; load it again"
        )
        self.assertIn("16.0 MiB", page.text(".figures"))
        self.assertIn(REGISTRY, page.text("main"))
        self.assertEqual(page.requests, [self.bridge.url])
        self.assertEqual(page.complaints, [])

    def test_its_policy_lets_nothing_else_in(self) -> None:
        page = self.browser.open(self.bridge.url)
        page.wait_for("document.body.dataset.reach === 'live'")
        elsewhere = self.lab.azure_addresses["imds"] + "/"
        before = self.azure_requests()
        with page.may_complain():
            page.evaluate(
                f"""
                window.refused = {{}};
                document.addEventListener("securitypolicyviolation",
                                          (event) => refused[event.effectiveDirective] = true);
                const add = (name, fields) =>
                  document.body.append(Object.assign(document.createElement(name), fields));
                add("script", {{ textContent: "window.ran = true" }});
                add("p", {{ innerHTML: "<b style='color: red'>x</b>" }});
                add("img", {{ src: "{elsewhere}x.png" }});
                add("iframe", {{ src: "{elsewhere}" }});
                fetch("{elsewhere}").catch(() => 0);
                """
            )
            for what in ("script-src-elem", "style-src-attr", "img-src", "frame-src", "connect-src"):
                page.wait_for(f"refused['{what}']")
            self.assertFalse(page.evaluate("window.ran"))
        self.assertEqual(self.azure_requests(), before)

    def azure_requests(self) -> int:
        return len(self.lab.azure.log(role="imds"))


if __name__ == "__main__":
    unittest.main()
