#!/usr/bin/python3
"""Faults strike as ordered, barriers hold, and the log keeps no secret."""

from __future__ import annotations

import json
import socket
import threading
import time
import unittest

from azure_case import BLOB, DIGEST, AzureTest, basic
from standin.client import Reply


class FaultRules(AzureTest):
    def test_an_unknown_key_is_refused(self) -> None:
        with self.assertRaisesRegex(RuntimeError, "unknown"):
            self.control.set(acess_lifetime=3)
        with self.assertRaisesRegex(RuntimeError, "unknown"):
            self.control.faults({"action": {"dealy": 3}})

    def test_skip_and_times(self) -> None:
        self.control.faults(
            {"role": "acr", "path": "^/v2/$", "skip": 1, "times": 2,
             "action": {"status": 503, "headers": {"Retry-After": "1"}, "body": "busy"}}
        )  # fmt: skip
        seen = [self.get("/v2/").status for _ in range(4)]
        self.assertEqual(seen, [401, 503, 503, 401])
        self.assertEqual(self.control.struck(), [2])

    def test_a_rule_that_lasts_strikes_all_until_its_time_is_over(self) -> None:
        self.control.faults({"role": "acr", "lasts": 0.5, "action": {"status": 429}})
        first = time.monotonic()
        while self.get("/v2/").status == 429:
            self.assertLess(time.monotonic() - first, 10)
        self.assertGreaterEqual(time.monotonic() - first, 0.5)
        self.assertGreater(self.control.struck()[0], 1)

    def test_flip_changes_one_byte(self) -> None:
        self.control.faults({"role": "storage", "action": {"flip": 5000}})
        body = self.ask("GET", self.link()).body
        changed = [i for i, (a, b) in enumerate(zip(body, BLOB, strict=True)) if a != b]
        self.assertEqual(changed, [5000])

    def test_shorten_and_lengthen_are_consistent_lies(self) -> None:
        for action, length in (({"shorten": 7}, len(BLOB) - 7), ({"lengthen": 7}, len(BLOB) + 7)):
            self.control.faults({"role": "storage", "action": action})
            reply = self.ask("GET", self.link())
            self.assertEqual(reply.headers["Content-Length"], str(length))
            self.assertEqual(len(reply.body), length)

    def test_redirect(self) -> None:
        where = "https://evil.localhost/"
        self.control.faults({"role": "acr", "path": "blobs", "action": {"redirect": where}})
        self.assertEqual(self.link(), where)

    def test_echo_quotes_what_the_request_proves_itself_by(self) -> None:
        self.control.faults({"role": "acr", "action": {"status": 403, "echo": True}})
        reply = self.get("/v2/", Authorization=basic("me", "my password"))
        self.assertEqual(reply.status, 403)
        self.assertIn(b"me:my password", reply.body)
        self.assertIn(b"the refresh token", self.token("the refresh token").body)

    def test_close_is_a_fin_and_reset_is_a_rst(self) -> None:
        """On the plain port, where the socket shows it without TLS between."""
        for action, expected in (
            ({"close": 4}, "fin"),
            ({"reset": 4}, "rst"),
            ({"reset": -1}, "rst"),
        ):
            self.control.faults({"role": "imds", "action": action})
            port = self.addresses["ports"]["imds"]
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nMetadata: true\r\n\r\n")
                self.assertEqual(_how_it_ended(client), expected, action)

    def test_a_barrier_holds_in_the_middle_of_a_body(self) -> None:
        link = self.link()
        self.control.faults({"role": "storage", "action": {"hold": "half", "after": 5000}})
        replies: list[Reply] = []
        getter = threading.Thread(target=lambda: replies.append(self.ask("GET", link)))
        getter.start()
        self.control.wait_until_held("half")
        (entry,) = self.control.log(role="storage")
        self.assertEqual((entry["done"], entry["bytes_sent"]), (False, 5000))
        self.control.release("half")
        getter.join()
        self.assertEqual(replies[0].body, BLOB)

    def test_a_barrier_before_a_byte_holds_the_range_that_has_it(self) -> None:
        link = self.link()
        rule = {"role": "storage", "action": {"hold": "before", "at": 5000}}
        self.control.faults(rule)
        for span in ("bytes=0-4999", "bytes=5001-5999"):
            self.assertEqual(self.ask("GET", link, {"Range": span}).status, 206, span)
        self.control.wait_for_requests(2, role="storage", done=True)
        getter = threading.Thread(target=lambda: self.ask("GET", link, {"Range": "bytes=5000-5999"}))
        getter.start()
        self.control.wait_until_held("before")
        self.assertEqual(self.control.log(role="storage")[-1]["bytes_sent"], 0)
        self.control.release("before")
        getter.join()

    def test_a_role_can_be_down_and_come_back_on_its_port(self) -> None:
        self.control.set(down=["acr"])
        with self.assertRaises(ConnectionRefusedError):
            self.get("/v2/")
        self.control.set(down=[])
        self.assertEqual(self.get("/v2/").status, 401)


class Log(AzureTest):
    def test_no_secret_is_recorded(self) -> None:
        token = self.access_token()
        link = self.get(f"/v2/app/blobs/{DIGEST}", token).headers["Location"]
        self.ask("GET", link)
        self.ask("GET", link, {"Authorization": f"Bearer {token}"})
        text = json.dumps(self.control.log())
        self.assertNotIn(token, text)
        self.assertNotIn(link.partition("sig=")[2].partition("&")[0], text)
        entries = self.control.log(role="storage")
        self.assertEqual([e["authorization"] for e in entries], ["none", "bearer"])
        self.assertIn("sig", entries[0]["query_keys"])


def _how_it_ended(client: socket.socket) -> str:
    try:
        while client.recv(4096):
            pass
        return "fin"
    except ConnectionResetError:
        return "rst"


if __name__ == "__main__":
    unittest.main()
