#!/usr/bin/python3
"""500 simultaneous cold requests from every kind of consumer: one request of each kind upstream."""

from __future__ import annotations

import json
import subprocess
import threading
import unittest
from collections import Counter
from typing import Any

from lab import LabTest
from staithed import binary

EACH = 125  # of four kinds
REPOSITORIES = ("busybox", "multi")
REGISTRY = "contoso.azurecr.io"
NULL_GUID = "00000000-0000-0000-0000-000000000000"


class ColdCrowd(LabTest):
    def setUp(self) -> None:
        super().setUp()
        self.staithed = self.lab.staithed.start()
        self.faults: list[str] = []
        self.passwords: set[str] = set()
        self.done: Counter[str] = Counter()
        self.lock = threading.Lock()

    def consumer(self, kind: str, number: int) -> None:
        repository = REPOSITORIES[number % len(REPOSITORIES)]
        try:
            password = getattr(self, kind)(repository)
        except Exception as error:  # Whatever it is, it is the finding.
            with self.lock:
                self.faults.append(f"{kind}: {error!r}")
            return
        with self.lock:
            self.done[kind] += 1
            if password:
                self.passwords.add(password)

    def proxy(self, repository: str) -> None:
        reply = self.staithed.get(f"/v2/{REGISTRY}/{repository}/manifests/1")
        if reply.status != 200:
            raise RuntimeError(f"{reply.status} {reply.body[:300]!r}")

    def docker_helper(self, _: str) -> str:
        answer = json.loads(self.run_client(["docker-credential-staithe", "get"], REGISTRY))
        self.assertEqual(answer["Username"], NULL_GUID)
        return answer["Secret"]

    def kubelet_provider(self, repository: str) -> str:
        request = {
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "kind": "CredentialProviderRequest",
            "image": f"{REGISTRY}/{repository}:1",
        }
        text = self.run_client(["staithe-credential-provider"], json.dumps(request))
        return json.loads(text)["auth"][REGISTRY]["password"]

    def command(self, _: str) -> str:
        return json.loads(self.run_client(["staithe", "token", REGISTRY], ""))["accessToken"]

    def run_client(self, words: list[str], stdin: str) -> str:
        done = subprocess.run(
            [binary(words[0]), *words[1:]],
            input=stdin, env={"STAITHE_SOCKET": str(self.staithed.socket), "PATH": "/usr/bin"},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{words[0]} ended with {done.returncode}: {done.stderr[:300]}")
        return done.stdout

    def test_one_metadata_request_one_exchange_one_token_for_each_scope(self) -> None:
        # Nobody gets an answer before all have asked: the metadata service keeps them waiting.
        self.lab.azure.faults({"role": "imds", "action": {"hold": "cold"}})
        kinds = ("proxy", "docker_helper", "kubelet_provider", "command")
        crowd = [
            threading.Thread(target=self.consumer, args=(kind, number))
            for number in range(EACH)
            for kind in kinds
        ]
        for thread in crowd:
            thread.start()
        self.lab.azure.wait_until_held("cold")
        self.lab.azure.release("cold")
        for thread in crowd:
            thread.join()
        self.assertEqual(self.faults[:3], [], f"{len(self.faults)} of {len(crowd)} failed")
        self.assertEqual(self.done, Counter(dict.fromkeys(kinds, EACH)))
        self.assertEqual(len(self.passwords), 1, "they were given different tokens")
        stats: dict[str, Any] = self.lab.azure.stats()
        self.assertEqual(stats["imds_requests"], 1)
        self.assertEqual(stats["exchanges"], 1)
        self.assertEqual(sum(stats["tokens"].values()), len(REPOSITORIES), stats["tokens"])


if __name__ == "__main__":
    unittest.main()
