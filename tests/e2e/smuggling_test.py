#!/usr/bin/python3
"""No message is accepted that another parser would read differently.

The corpus of smuggling.py goes to the real daemon over TCP, each message on a connection of its own
with a good request right behind it, and to five other parsers (readers.py). What the daemon accepts
all of them have to read alike: the same method, target and Host, no body, and the next message at
the same byte. What it refuses may mean whatever it does to them.

    smuggling_test.py --report      the same, and what they make of what the daemon refuses
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import unittest
from collections import Counter
from pathlib import Path

import readers
from node import REGISTRY, Node
from origin import Origin, make_image
from readers import Reading, converse
from registry import free_port
from smuggling import Corpus, Message

# Stands in every answer to what was taken for a request, and in no refusal of what was not.
_ACCEPTED = b"\r\nDocker-Distribution-Api-Version: registry/2.0\r\n"
_NEXT_TARGET = "/v2/?the-next-one"
_LEAST = 500
_PULLS = 2


class Smuggling(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = Path(scratch.name)
        origin = Origin()
        self.addCleanup(origin.close)
        image = origin.add(make_image("app", [1000], seed=1))
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.target = f"/v2/{REGISTRY}/app/manifests/{image.digest}"
        self.node = Node(self.directory / "node", origin)
        self.addCleanup(self.node.stop)
        self.node.config["listen"]["registry"].append(self.host)
        self.image = image
        self.messages = Corpus(self.host, self.target).messages()
        self.next = f"GET {_NEXT_TARGET} HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n\r\n"

    def start(self, level: str) -> None:
        self.node.configured({"log": {"level": level, "format": "json"}}).start()
        # From then on it is answered from memory.
        for _ in range(_PULLS):
            self.node.pull(self.image)

    def accepted(self) -> list[int]:
        """Of each message and what follows it, how many requests the daemon has taken."""
        return [
            converse(self.port, message.bytes + self.next.encode()).count(_ACCEPTED)
            for message in self.messages
        ]

    def read_by_the_daemon(self, counts: list[int]) -> list[list[tuple[str, str]]]:
        """Of each, method and target of what it has taken, by its log."""
        before = _PULLS * (1 + len(self.image.blobs))
        deadline = time.monotonic() + 20
        while True:
            lines = [json.loads(line) for line in self.node.log.read_text().splitlines()]
            told = [(line["method"], line["target"]) for line in lines if is_request(line)]
            if len(told) >= before + sum(counts):
                break
            self.assertLess(time.monotonic(), deadline, "the log does not tell of all requests")
            time.sleep(0.05)
        told = told[before:]
        self.assertEqual(len(told), sum(counts))
        readings = []
        for count in counts:
            readings.append(told[:count])
            del told[:count]
        return readings

    def test_what_is_accepted_means_the_same_to_all(self) -> None:
        self.assertGreaterEqual(len(self.messages), _LEAST)
        # With what is answered from memory answered so.
        self.start("info")
        counts = self.accepted()
        self.node.stop()
        # With every request in the log, and so none of them.
        self.node.log.unlink()
        self.start("debug")
        self.assertEqual(self.accepted(), counts)
        by_the_daemon = self.read_by_the_daemon(counts)
        malformed = self.malformed()
        self.node.stop()

        others = readers.all_readers(self.directory / "readers")
        for reader in others:
            self.addCleanup(reader.close)
        differing: Counter[str] = Counter()
        refused_readings: Counter[str] = Counter()
        for message, count, ours in zip(self.messages, counts, by_the_daemon, strict=True):
            if count > 0:
                self.check(message, ours, others, differing)
            elif REPORT:
                self.compare(message, others, refused_readings)
        refused = counts.count(0)
        print(
            f"{len(self.messages)} messages: {len(counts) - refused} accepted, {refused} refused "
            f"({malformed} of them told so); accepted and read differently: "
            f"{dict(differing) or 'none'}"
        )
        for what, number in refused_readings.items():
            print(f"  of what was refused, {number} {what}")
        self.assertEqual(differing.total(), 0)
        # The corpus has both sorts.
        self.assertGreater(len(counts) - refused, 100)
        self.assertGreater(refused, _LEAST)

    def check(self, message, ours, others, differing) -> None:
        # What comes after the last of them the daemon has refused, or not looked at.
        wanted = [(method.encode(), target.encode()) for method, target in ours]
        hosts = set()
        for reader in others:
            there = reader.read(message.bytes + self.next.encode())[: len(wanted)]
            hosts.add(tuple(reading.host for reading in there))
            alike = len(there) == len(wanted) and all(map(is_same, there, wanted))
            if not alike or any(reading.body_bytes for reading in there):
                differing[reader.name] += 1
                print(f"{message.kind}: {message.what}\n  {message.bytes[:300]!r}\n"
                      f"  the daemon: {str(ours)[:500]}\n"
                      f"  {reader.name}: {str(there)[:500]}")  # fmt: skip
        # Not all of them tell of each.
        for told in zip(*hosts, strict=False):
            if len(set(told) - {None}) > 1:
                differing["Host"] += 1
                print(f"{message.kind}: {message.what}\n  {message.bytes[:300]!r}\n  {told}")

    def compare(self, message: Message, others: list, found: Counter[str]) -> None:
        all_of_them = []
        for reader in others:
            there = reader.read(message.bytes + self.next.encode())
            all_of_them.append(tuple((r.method, r.target) for r in there))
            if there and not is_next(there[0]):
                found[f"are accepted by {reader.name}"] += 1
        if len(set(all_of_them)) > 1:
            found["are read differently by the others among themselves"] += 1

    def malformed(self) -> int:
        text = self.node.raw_control("GET", "/metrics")[1].decode()
        wanted = 'staithe_denied_total{reason="malformed"}'
        (line,) = (line for line in text.splitlines() if line.startswith(wanted))
        return int(float(line.split()[1]))


def is_request(line: dict) -> bool:
    return line.get("event") == "request"


def is_same(reading: Reading, told: tuple[bytes, bytes]) -> bool:
    """The log cuts what is long, and says so."""
    method, target = told
    is_cut = len(target) > 1000 and target.endswith(b"...")
    same = reading.target.startswith(target[:-3]) if is_cut else reading.target == target
    return reading.method == method and same


def is_next(reading: Reading) -> bool:
    return reading.target == _NEXT_TARGET.encode()


REPORT = "--report" in sys.argv

if __name__ == "__main__":
    unittest.main(argv=[word for word in sys.argv if word != "--report"])
