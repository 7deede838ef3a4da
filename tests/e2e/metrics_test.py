#!/usr/bin/python3
"""Every metric of the contract moves when what it stands for happens, and promtool takes them all.

One daemon goes through hits, misses, crowds, cuts, throttling, refusals, evictions, damage, an
upstream that is down and a cache that is gone, and is scraped after each.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import ssl
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path

from clients import run
from identity_case import IdentityTest, new_secret
from lab import MIB, needs_root
from metrics_text import Scrape, promtool
from registry import free_port
from staithed import REPOSITORY_ROOT, Staithed, toml
from standin.client import ask

CONTOSO, FABRIKAM, HUB = "contoso.azurecr.io", "fabrikam.azurecr.io", "docker.io"
SIZE = 6 * MIB
IMAGES = [f"contoso/metrics:{number}" for number in range(4)]
# Three of the images and the small ones.
MAX_SIZE = 22 * MIB
# interface.md, section 6.
CONTRACT = """
    staithe_requests_total staithe_request_seconds staithe_bytes_served_total
    staithe_upstream_requests_total staithe_upstream_bytes_total staithe_fills_active
    staithe_fill_readers staithe_fill_resumes_total staithe_cache_bytes staithe_cache_max_bytes
    staithe_cache_blobs staithe_evictions_total staithe_quarantined_total
    staithe_token_expiry_seconds staithe_token_renewals_total staithe_throttled_seconds_total
    staithe_denied_total staithe_build_info
""".split()
# What is the same for as long as the process lives.
CONSTANT = {"staithe_build_info", "process_start_time_seconds"}
STRANGER = 54323


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


@needs_root
class Metrics(IdentityTest):
    noise = [(name, SIZE) for name in IMAGES]

    def setUp(self) -> None:
        super().setUp()
        self.address = f"127.0.0.1:{free_port()}"
        self.lab.directory.chmod(0o755)
        self.tls_port = free_port()
        certificate, key = self.lab.directory / "tls.crt", self.lab.directory / "tls.pem"
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate])  # fmt: skip
        key.write_text(key.read_text() + certificate.read_text())
        self.staithed.configured(
            {
                "listen": {
                    "metrics": self.address,
                    "tls": [f"127.0.0.1:{self.tls_port}"],
                    "tls_file": str(key),
                },
                "cache": {"max_size": MAX_SIZE, "min_free": 0},
                "limits": {"connections_per_user": 30, "upstream_stall": "2s"},
            }
        )
        self.scrapes: list[Scrape] = []

    def scrape(self) -> Scrape:
        status, text = self.staithed.raw_control("GET", "/metrics")
        self.assertEqual(status, 200)
        found = Scrape(text.decode())
        if self.scrapes:
            for key, before in self.scrapes[-1].counters().items():
                self.assertGreaterEqual(found.samples[key], before, f"{key} has fallen")
        self.scrapes.append(found)
        return found

    def grew(self, name: str, **labels: str) -> float:
        """How much since the scrape before this one; takes one."""
        before = self.scrapes[-1].sum(name, **labels)
        return self.scrape().sum(name, **labels) - before

    def requests(self, result: str, **labels: str) -> float:
        return self.grew("staithe_requests_total", result=result, **labels)

    def get(self, path: str, registry: str = CONTOSO, **headers: str) -> int:
        return self.staithed.get(f"/v2/{registry}/{path}", **headers).status

    def layer(self, image: str) -> str:
        return self.lab.image(image)["layers"][0]["digest"]

    def test_every_metric_of_the_contract_moves(self) -> None:
        self.staithed.start()
        self.scrape()
        self._hits_and_misses()
        self._a_crowd_on_one_transfer()
        self._a_transfer_that_breaks()
        self._room()
        self._damage()
        self._those_who_may_not()
        self._tls()
        self._tokens()
        self._upstream_down()
        self._throttling()
        self._reload()
        self._the_cache_is_gone()
        self._all_have_moved()
        self._promtool_takes_them()
        self._nothing_but_the_configuration_is_in_a_label()

    def _hits_and_misses(self) -> None:
        digest = self.lab.digest(IMAGES[0])
        path = f"metrics/manifests/{digest}"
        self.assertEqual(self.get(path), 200)
        self.assertEqual(self.requests("miss", registry=CONTOSO, kind="manifest"), 1)
        for _ in range(20):
            self.assertEqual(self.get(path), 200)
        self.assertEqual(self.requests("hit", registry=CONTOSO, kind="manifest"), 20)
        self.assertGreater(self.scrapes[-1].sum("staithe_upstream_requests_total", code="200"), 0)
        self.assertEqual(self.get("metrics/tags/list"), 200)
        self.assertEqual(self.requests("pass", kind="tags"), 1)
        self.assertEqual(self.get("metrics/manifests/none"), 404)
        self.assertEqual(self.requests("not_found", registry=CONTOSO), 1)
        self.assertEqual(self.get("app/manifests/1", "nobody.example"), 404)
        self.assertEqual(self.requests("refused", registry="(none)"), 1)
        self.assertEqual(self.staithed.get("/v2/").status, 200)
        self.assertEqual(self.requests("local", kind="other"), 1)
        scrape = self.scrapes[-1]
        self.assertEqual(
            scrape.sum("staithe_request_seconds_count"), scrape.sum("staithe_requests_total")
        )

    def _a_crowd_on_one_transfer(self) -> None:
        layer = self.layer(IMAGES[0])
        # In each of the transfer's connections, however many it takes.
        self.lab.azure.faults({"role": "storage", "action": {"hold": "crowd", "after": 100_000}})
        statuses: list[int] = []
        path = f"metrics/blobs/{layer}"
        clients = [
            threading.Thread(target=lambda: statuses.append(self.get(path))) for _ in range(3)
        ]
        for client in clients:
            client.start()
        wait_for(
            lambda: self.scrape().sum("staithe_fill_readers") == 3, "three readers of one transfer"
        )
        self.assertEqual(self.scrapes[-1].sum("staithe_fills_active"), 1)
        # One that leaves.
        with socket.create_connection(("127.0.0.1", self.staithed.port)) as leaver:
            leaver.sendall(f"GET /v2/{CONTOSO}/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            leaver.recv(100)
        self.lab.azure.faults()
        self.lab.azure.release("crowd")
        for client in clients:
            client.join()
        self.assertEqual(statuses, [200] * 3)
        self.staithed.wait_until_stored()
        scrape = self.scrape()
        self.assertEqual(scrape.sum("staithe_fills_active"), 0)
        self.assertEqual(scrape.sum("staithe_requests_total", result="miss", kind="blob"), 1)
        self.assertGreaterEqual(
            scrape.sum("staithe_requests_total", result="collapsed", kind="blob"), 2
        )
        wait_for(
            lambda: self.scrape().sum("staithe_requests_total", result="gone") == 1, "one has left"
        )
        self.assertEqual(
            self.scrapes[-1].sum("staithe_bytes_served_total", source="shared") // SIZE, 2
        )
        self.assertGreaterEqual(
            self.scrapes[-1].sum("staithe_bytes_served_total", source="upstream"), SIZE
        )
        self.assertGreaterEqual(
            self.scrapes[-1].sum("staithe_upstream_bytes_total", registry=CONTOSO), SIZE
        )
        self.assertEqual(self.get(path), 200)
        self.assertEqual(self.grew("staithe_bytes_served_total", source="cache"), SIZE)

    def _a_transfer_that_breaks(self) -> None:
        cut = {"role": "storage", "times": 2, "action": {"close": 300_000}}
        self.lab.azure.faults(cut)
        self.assertEqual(self.get(f"metrics/blobs/{self.layer(IMAGES[1])}"), 200)
        self.staithed.wait_until_stored()
        self.lab.azure.faults()
        self.assertGreater(self.grew("staithe_fill_resumes_total"), 0)

    def _room(self) -> None:
        for image in IMAGES[2:]:
            self.assertEqual(self.get(f"metrics/blobs/{self.layer(image)}"), 200)
            self.staithed.wait_until_stored()
        self.assertGreater(self.grew("staithe_evictions_total", reason="max_size"), 0)
        self.assertLessEqual(self.scrapes[-1].sum("staithe_cache_bytes"), MAX_SIZE)
        self.assertGreater(self.scrapes[-1].sum("staithe_cache_blobs"), 0)

    def _damage(self) -> None:
        file = self.staithed.blob_files()[self.layer(IMAGES[3])]
        with open(file, "r+b") as blob:
            blob.seek(1000)
            blob.write(b"other bytes")
        self.assertEqual(self.staithed.command("verify").returncode, 1)
        self.assertEqual(self.grew("staithe_quarantined_total"), 1)

    def _those_who_may_not(self) -> None:
        path = f"/v2/{CONTOSO}/metrics/manifests/0"
        self.assertEqual(self.staithed.get(path, Host="evil.example").status, 403)
        self.assertEqual(self.grew("staithe_denied_total", reason="host"), 1)
        self.assertEqual(self.staithed.get(path, Sec_Fetch_Site="cross-site").status, 403)
        self.assertEqual(self.grew("staithe_denied_total", reason="web_page"), 1)
        self._configure({"access": {"users": ["root"]}})
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setuid(STRANGER)
            code = 1
            try:
                code = 0 if self.staithed.get(path).status == 403 else 1
            finally:
                os._exit(code)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        self.assertEqual(self.grew("staithe_denied_total", reason="user"), 1)
        self._configure({"access": {"users": []}})
        crowd = [socket.create_connection(("127.0.0.1", self.staithed.port)) for _ in range(35)]
        wait_for(
            lambda: self.scrape().sum("staithe_connections_refused_total", reason="user") >= 5,
            "five connections too many",
        )
        self.assertEqual(self.scrapes[-1].sum("staithe_connections"), 30)
        for connection in crowd:
            connection.close()
        wait_for(lambda: self.scrape().sum("staithe_connections") == 0, "they are gone")

    def _tokens(self) -> None:
        for kind in ("entra", "refresh", "access"):
            left = list(self.scrapes[-1].values("staithe_token_expiry_seconds", kind=kind))
            self.assertEqual(len(left), 1, kind)
            self.assertGreater(left[0], 60)
        before = self.scrapes[-1]
        done = {"registry": CONTOSO, "kind": "refresh", "result": "ok"}
        self.renew(CONTOSO)
        self.assertGreater(self.grew("staithe_token_renewals_total", **done), 0)
        self.assertEqual(before.sum("staithe_token_renewals_total", result="error"), 0)
        self.lab.azure.faults({"role": "acr", "path": "/oauth2/", "action": {"status": 403}})
        self.assertGreaterEqual(self.get("busybox/manifests/1", FABRIKAM), 400)
        self.lab.azure.faults()
        self.assertGreater(
            self.grew(
                "staithe_token_renewals_total", registry=FABRIKAM, kind="refresh", result="error"
            ),
            0,
        )
        self.assertGreater(self.scrapes[-1].sum("staithe_requests_total", result="error"), 0)

    def _upstream_down(self) -> None:
        self.assertEqual(self.get("busybox/manifests/1"), 200)
        for digest in [self.lab.image("contoso/busybox:1")["config"]] + [
            layer["digest"] for layer in self.lab.image("contoso/busybox:1")["layers"]
        ]:
            self.assertEqual(self.get(f"busybox/blobs/{digest}"), 200)
        self.staithed.wait_until_stored()
        self.scrape()
        self.lab.azure.set(down=["acr"])
        self.assertEqual(self.get("busybox/manifests/1"), 200)
        self.assertEqual(self.requests("stale", registry=CONTOSO, kind="manifest"), 1)
        self.assertGreater(self.scrapes[-1].sum("staithe_upstream_requests_total", code="none"), 0)
        self.assertGreaterEqual(
            self.scrapes[-1].sum("staithe_upstream_state", registry=CONTOSO, state="unreachable"), 1
        )
        self.lab.azure.set(down=[])

    def _throttling(self) -> None:
        self.assertEqual(self.get("library/busybox/manifests/1", HUB), 200)
        self.scrape()
        slow = {"status": 429, "headers": {"Retry-After": "30"}}
        self.lab.azure.faults({"role": "hub", "action": slow})
        self.assertGreaterEqual(self.get("library/busybox/manifests/2", HUB), 500)
        self.assertGreaterEqual(self.grew("staithe_throttled_seconds_total", registry=HUB), 30)
        self.assertGreater(self.scrapes[-1].sum("staithe_upstream_requests_total", code="429"), 0)
        self.assertGreater(
            self.scrapes[-1].sum("staithe_upstream_paused_seconds", registry=HUB), 20
        )
        self.assertEqual(
            self.scrapes[-1].sum("staithe_upstream_state", registry=HUB, state="throttled"), 1
        )
        self.lab.azure.faults()

    def _reload(self) -> None:
        """Counters go on, also of a registry that is taken away; and a secret's end is told."""
        hub = self.staithed.registry(HUB)
        secret = self.file("hub.password", new_secret())
        soon = datetime.datetime.now(datetime.timezone.utc).date() + datetime.timedelta(days=9)
        self.staithed.config["registry"].remove(hub)
        self.staithed.registry(FABRIKAM)["identity"] = "robot"
        robot = f"""
[identity.robot]
kind = "basic"
username = "robot"
password_file = "{secret}"
secret_expires = {soon}
"""
        self._configure({"cache": {"max_size": MAX_SIZE - MIB}}, robot)
        self.scrape()
        self.assertEqual(list(self.scrapes[-1].values("staithe_upstream_state", registry=HUB)), [])
        self.assertGreater(self.scrapes[-1].sum("staithe_requests_total", registry=HUB), 0)
        self.get("busybox/manifests/1", FABRIKAM)
        left = list(self.scrape().values("staithe_credential_expiry_seconds", registry=FABRIKAM))
        self.assertEqual(len(left), 1)
        self.assertLess(abs(left[0] - 9 * 86400), 2 * 86400)

    def _tls(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for hello, result in ((b"", "ok"), (b"GET / HTTP/1.1\r\n\r\n", "error")):
            with socket.create_connection(("127.0.0.1", self.tls_port), timeout=20) as plain:
                if hello:
                    plain.sendall(hello)
                else:
                    context.wrap_socket(plain).close()
                name = "staithe_tls_handshakes_total"
                wait_for(lambda: self.grew(name, result=result) == 1, f"{name} {result}")

    def _the_cache_is_gone(self) -> None:
        self.staithed.cache.rename(self.staithed.cache.with_name("elsewhere"))
        wait_for(
            lambda: self.scrape().sum("staithe_cache_mode", mode="pass-through") == 1,
            "a cache directory that is gone is noticed",
        )
        self.assertEqual(self.get(f"metrics/blobs/{self.layer(IMAGES[0])}"), 200)
        self.assertGreater(self.requests("pass", kind="blob"), 0)
        log = self.staithed.log.read_text()
        self.assertEqual(log.count("cache mode changed"), 1)
        self.assertIn("token renewed", log)
        self.assertIn("upstream pauses", log)

    def _all_have_moved(self) -> None:
        first, last = self.scrapes[0], self.scrapes[-1]
        self.assertLessEqual(set(CONTRACT), set(last.types))
        moved = {
            last.family(name)
            for scrape in self.scrapes[1:]
            for (name, labels), value in scrape.samples.items()
            if first.samples.get((name, labels), 0) != value
        }
        still = set(last.types) - moved - CONSTANT
        # It has a test of its own.
        self.assertEqual(still - {"staithe_log_dropped_total"}, set())
        self.assertEqual(last.sum("staithe_build_info"), 1)

    def _promtool_takes_them(self) -> None:
        done = promtool("check", "metrics", text=self.scrapes[-1].text)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def _nothing_but_the_configuration_is_in_a_label(self) -> None:
        last = self.scrapes[-1]
        names = {value for _, labels in last.samples for key, value in labels if key == "registry"}
        self.assertEqual(names, {CONTOSO, FABRIKAM, HUB, "(none)"})
        for word in ("busybox", "metrics/", "nobody.example", "evil", "sha256", "Bearer"):
            self.assertNotIn(word, last.text)

    def _configure(self, changes: dict, more: str = "") -> None:
        """By SIGHUP; `more`: a table that the tests' TOML has no form for."""
        self.staithed.configured(changes)
        self.staithed.config_file.write_text(toml(self.staithed.config) + more)
        count = self.staithed.log.read_text().count("configuration reloaded")
        self.staithed.process.signal(signal.SIGHUP)
        wait_for(
            lambda: self.staithed.log.read_text().count("configuration reloaded") > count,
            "a reload",
        )


class MetricsAddress(IdentityTest):
    def test_it_serves_the_metrics_and_no_more(self) -> None:
        address = f"127.0.0.1:{free_port()}"
        self.staithed.configured({"listen": {"metrics": address}}).start()
        for path, status in {
            "/metrics": 200, "/healthz": 200, "/readyz": 200, "/": 404, "/v1/status": 404,
            "/v1/credentials": 404, f"/v2/{CONTOSO}/busybox/manifests/1": 404,
        }.items():  # fmt: skip
            self.assertEqual(ask("GET", f"http://{address}{path}").status, status, path)
        self.assertEqual(ask("POST", f"http://{address}/v1/reload").status, 405)
        reply = ask("GET", f"http://{address}/metrics")
        self.assertEqual(reply.headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
        self.assertEqual(ask("HEAD", f"http://{address}/metrics").body, b"")
        self.assertIn(f"serving metrics address={address}", self.staithed.log.read_text())

    def test_an_address_that_is_taken_is_said_with_the_key(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            self.staithed.configured({"listen": {"metrics": address}})
            with self.assertRaises(RuntimeError):
                self.staithed.start()
        log = self.staithed.log.read_text()
        self.assertIn(f"cannot listen on {address}: Address already in use", log)
        self.assertIn("listen.metrics", log)

    def test_lines_that_the_log_loses_are_counted(self) -> None:
        """The log goes to a pipe that nobody reads."""
        staithed = self.lab.another_staithed("lost")
        pipe = staithed.log.with_name("pipe")
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDWR)
        staithed.log = pipe
        try:
            staithed.configured({"log": {"level": "trace"}}).start()
            self.assertEqual(self._dropped(staithed), 0)
            for _ in range(20):
                for _ in range(500):
                    staithed.get("/v2/")
                if self._dropped(staithed) > 0:
                    break
            self.assertGreater(self._dropped(staithed), 0)
            self.assertGreater(staithed.status()["log"]["dropped"], 0)
        finally:
            staithed.kill()
            os.close(reader)

    def _dropped(self, staithed: Staithed) -> float:
        _, text = staithed.raw_control("GET", "/metrics")
        return Scrape(text.decode()).sum("staithe_log_dropped_total")


class Files(unittest.TestCase):
    """What etc/ gives operators."""

    def test_promtool_takes_the_rules_and_each_fires_when_it_should(self) -> None:
        rules = REPOSITORY_ROOT / "etc/prometheus/staithe.rules.yml"
        tests = REPOSITORY_ROOT / "tests/prometheus/rules_test.yml"
        done = promtool("check", "rules", str(rules))
        self.assertEqual(done.returncode, 0, done.stderr)
        done = promtool("test", "rules", str(tests))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        text = tests.read_text()
        alerts = [
            line.split(": ")[1] for line in rules.read_text().splitlines() if "- alert: " in line
        ]
        self.assertGreater(len(alerts), 10)
        for alert in alerts:
            self.assertIn(f'ALERTS{{alertname="{alert}", alertstate="firing"}}', text)
            self.assertIn(f"alertname: {alert}, exp_alerts: []", text)

    def test_promtool_takes_every_expression_of_the_dashboard(self) -> None:
        board = json.loads((REPOSITORY_ROOT / "etc/grafana/staithe.json").read_text())
        expressions = [
            target["expr"] for panel in board["panels"] for target in panel.get("targets", [])
        ]
        self.assertGreater(len(expressions), 30)
        ids = [panel["id"] for panel in board["panels"]]
        self.assertEqual(len(set(ids)), len(ids))
        rules = []
        for number, expression in enumerate(expressions):
            for variable, value in (("$__rate_interval", "5m"), ("$instance", ".*"),
                                    ("$registry", ".*")):  # fmt: skip
                expression = expression.replace(variable, value)
            self.assertNotIn("$", expression)
            rules.append({"record": f"panel:{number}", "expr": expression})
        # JSON is YAML, too.
        directory = self.enterContext(tempfile.TemporaryDirectory())
        file = Path(directory) / "panels.yml"
        file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
        done = promtool("check", "rules", str(file))
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()
