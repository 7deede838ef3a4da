#!/usr/bin/python3
"""Tokens of 20 seconds and 90 seconds of pulls: nobody sees a 401, nobody waits for a renewal.

In the second half everything that gives out tokens answers two seconds late. A pull that waited
for one would be two seconds slower than any pull before.
"""

from __future__ import annotations

import time
import unittest
from dataclasses import dataclass

from lab import LabTest

LIFETIME = 20
SECONDS = 90
LATE = 2.0
# The requests of one pull go out this often; a client in a loop, not a benchmark.
PACE = 0.05
IMAGES = ("busybox:1", "multi:1")
ACCEPT = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)


@dataclass
class Pull:
    at: float
    seconds: float
    statuses: tuple[int, ...]


class Renewal(LabTest):
    def test_pulls_never_see_a_401_and_never_wait(self) -> None:
        self.lab.azure.set(
            aad_lifetime=LIFETIME, refresh_lifetime=LIFETIME, access_lifetime=LIFETIME
        )
        self.lab.staithed.start()
        begin = time.monotonic()
        delayed = False
        pulls: list[Pull] = []
        while (now := time.monotonic() - begin) < SECONDS:
            if not delayed and now >= SECONDS / 2:
                self._delay_tokens()
                delayed = True
            for image in IMAGES:
                pulls.append(self._pull(image, begin))
            time.sleep(PACE)

        self.assertEqual({status for pull in pulls for status in pull.statuses}, {200})
        self._nothing_expired_was_sent(begin)
        self._tokens_were_renewed_ahead()
        slowest = {
            late: max(p.seconds for p in pulls if p.at > 5 and (p.at >= SECONDS / 2) == late)
            for late in (False, True)
        }
        # Half of the delay is far from both: a pull takes milliseconds, a wait two seconds.
        self.assertLess(slowest[False], LATE / 2)
        self.assertLess(slowest[True], LATE / 2)

    def _pull(self, image: str, begin: float) -> Pull:
        """By tag, so that each pull needs a token: the tag is checked upstream every time."""
        repository, _, tag = image.partition(":")
        target = f"/v2/contoso.azurecr.io/{repository}/manifests/{tag}"
        started = time.monotonic()
        head = self.lab.staithed.get(target, "HEAD", Accept=ACCEPT)
        got = self.lab.staithed.get(target, "GET", Accept=ACCEPT)
        ended = time.monotonic()
        return Pull(started - begin, ended - started, (head.status, got.status))

    def _delay_tokens(self) -> None:
        late = {"delay": LATE}
        self.lab.azure.faults(
            {"role": "imds", "action": late},
            {"role": "acr", "path": "^/oauth2/", "action": late},
        )

    def _nothing_expired_was_sent(self, begin: float) -> None:
        data = [e for e in self.lab.azure.log(role="acr") if e["path"].startswith("/v2/")]
        refused = [e for e in data if e["status"] == 401]
        self.assertEqual([e for e in refused if e["authorization"] == "bearer"], [])
        first = data[0]["time"]
        # Challenges are asked for without credentials, and only when a registry is new.
        self.assertEqual([e for e in refused if e["time"] > first + 5], [])

    def _tokens_were_renewed_ahead(self) -> None:
        for path, least in (("/oauth2/exchange", 4), ("/oauth2/token", 4 * len(IMAGES))):
            granted = self.lab.azure.log(role="acr", path=path, status=200)
            self.assertGreaterEqual(len(granted), least, path)
        for image in IMAGES:
            scope = f"repository:{image.partition(':')[0]}:pull"
            times = [e["time"] for e in self.lab.azure.log(scope=scope, status=200)]
            gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
            self.assertLess(max(gaps), LIFETIME, scope)
            # Ahead, but not all the time: the token endpoint has a budget as well.
            self.assertGreater(min(gaps), LIFETIME / 10, scope)


if __name__ == "__main__":
    unittest.main()
