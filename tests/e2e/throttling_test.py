#!/usr/bin/python3
"""The registry says 429: everyone waits as it asks, asks hardly more, and no client sees it."""

from __future__ import annotations

import threading
import time
import unittest
from collections import Counter

from lab import LabTest
from staithed import Staithed

# So many that the requests that are on their way when a storm begins are few beside them.
IMAGES = 80
CLIENTS = 40
NOISE = [(f"contoso/storm:{number}", 16 * 1024) for number in range(IMAGES)]
MOST = 1.1

# What the storm is at, and the requests before it; each lasts a little less than the pause it asks
# for.
STORMS = {
    "the whole registry, at once": {"role": "acr"},
    "the whole registry": {"role": "acr", "skip": 90},
    "its manifests, at once": {"role": "acr", "path": "/manifests/"},
    "its blobs": {"role": "acr", "path": "/blobs/", "skip": 60},
    "its tokens": {"role": "acr", "path": "/oauth2/"},
    "its storage": {"role": "storage", "skip": 60},
}


class Throttling(LabTest):
    noise = NOISE

    def pull_all(self, staithed: Staithed) -> tuple[Counter[int], list[str], float]:
        """Statuses of all answers, what was wrong, and the longest that an answer took."""
        todo = list(range(IMAGES))
        statuses: Counter[int] = Counter()
        problems: list[str] = []
        longest = 0.0
        lock = threading.Lock()
        start = threading.Barrier(CLIENTS)

        def get(path: str) -> bytes:
            nonlocal longest
            began = time.monotonic()
            reply = staithed.get(f"/v2/contoso.azurecr.io/storm/{path}")
            with lock:
                longest = max(longest, time.monotonic() - began)
                statuses[reply.status] += 1
                if reply.status != 200:
                    problems.append(f"{path}: {reply.status} {reply.body[:200]!r}")
            return reply.body

        def work() -> None:
            start.wait()
            while True:
                with lock:
                    if not todo:
                        return
                    number = todo.pop()
                image = self.lab.image(f"contoso/storm:{number}")
                get(f"manifests/{number}")
                for digest in (image["config"], image["layers"][0]["digest"]):
                    body = get(f"blobs/{digest}")
                    if body != self.lab.origin_file(digest).read_bytes():
                        with lock:
                            problems.append(f"{digest} is wrong")

        clients = [threading.Thread(target=work) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        return statuses, problems, longest

    def cold(self, name: str) -> Staithed:
        staithed = self.lab.another_staithed(name)
        self.lab.azure.faults()
        self.lab.azure.reset_log()
        return staithed.start()

    def test_a_storm_of_429_costs_hardly_a_request_and_no_client_sees_it(self) -> None:
        calm = self.cold("calm")
        self.assertEqual(self.pull_all(calm)[1][:3], [])
        calm.stop()
        normal = self.lab.azure.stats()["requests"]
        for number, (name, where) in enumerate(STORMS.items()):
            with self.subTest(storm=name):
                staithed = self.cold(f"storm{number}")
                storm = {"status": 429, "headers": {"Retry-After": "1"}, "body": "slow down"}
                self.lab.azure.faults({**where, "lasts": 0.9, "action": storm})
                statuses, problems, longest = self.pull_all(staithed)
                staithed.stop()
                asked = self.lab.azure.stats()["requests"]
                struck = self.lab.azure.struck()[0]
                print(
                    f"\n429 from {name}: {asked} requests ({normal} without), {struck} of them "
                    f"refused, the longest answer took {longest:.1f} s",
                    end="",
                )
                self.assertGreater(struck, 0)
                self.assertNotIn(429, statuses)
                self.assertEqual(problems[:3], [], f"{len(problems)} did not get theirs")
                self.assertLessEqual(asked, normal * MOST)

    def test_a_throttled_registry_is_told_in_status(self) -> None:
        staithed = self.cold("told")
        self.lab.azure.faults(
            {"role": "acr", "action": {"status": 429, "headers": {"Retry-After": "100"}}}
        )
        reply = staithed.get("/v2/contoso.azurecr.io/storm/manifests/1")
        # Nobody waits for so long; and a 429 would be repeated at once, six times.
        self.assertIn(reply.status, (502, 503, 504))
        registries = {r["name"]: r for r in staithed.status()["registries"]}
        told = registries["contoso.azurecr.io"]
        self.assertEqual(told["state"], "throttled")
        self.assertGreater(told["paused_seconds"], 50)
        before = self.lab.azure.stats()["requests"]
        for number in range(20):
            self.assertIn(
                staithed.get(f"/v2/contoso.azurecr.io/storm/manifests/{number}").status,
                (502, 503, 504),
            )
        self.assertEqual(self.lab.azure.stats()["requests"], before, "asked within the pause")


if __name__ == "__main__":
    unittest.main()
