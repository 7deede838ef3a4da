"""The door for tests: read the log, change settings, order faults, open barriers.

    GET  /log                             every request so far
    POST /log/reset
    POST /log/take                        those that are over; they are forgotten here
    GET  /stats                           the log in numbers
    GET  /wait?count=N&timeout=S&role=..  until N logged requests have these field values
    GET  /settings        POST /set       {"access_lifetime": 20, ...}; "faults": [...] replaces
    GET  /faults                          which rules have struck how often
    POST /release?name=B                  open a barrier
    POST /barrier/reset?name=B            make the name usable anew
    GET  /held?name=B&count=N&timeout=S   until N requests have come to the barrier
    POST /revoke?kind=access|refresh|entra  refuse what has been issued so far
    POST /service-account-token           {"issuer", "subject", "audience", "lifetime"}: a token
                                          of a cluster, signed by the stand-in's issuer
    GET  /secrets                         every secret that was issued or is held, with its kind
"""

from __future__ import annotations

import json
from collections.abc import Callable

from .assertions import Issuer
from .faults import Barriers, Faults
from .recorder import Recorder
from .settings import Settings
from .tokens import Mint
from .wire import Request, Response, json_response


class Control:
    def __init__(
        self,
        settings: Settings,
        mint: Mint,
        recorder: Recorder,
        faults: Faults,
        barriers: Barriers,
        issuer: Issuer,
        secrets: Callable[[], list[dict[str, str]]],
        on_change: Callable[[], None],
        on_revoke: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._mint = mint
        self._recorder = recorder
        self._faults = faults
        self._barriers = barriers
        self._issuer = issuer
        self._secrets = secrets
        self._on_change = on_change
        self._on_revoke = on_revoke

    def handle(self, request: Request) -> Response:
        try:
            return json_response(200, self._do(request))
        except KeyError as missing:
            return json_response(400, {"error": f"missing {missing}"})
        except (ValueError, TypeError) as why:
            return json_response(400, {"error": str(why)})

    def _do(self, request: Request) -> object:
        query = dict(request.query)
        match (request.method, request.path):
            case ("GET", "/log"):
                return self._recorder.log()
            case ("POST", "/log/reset"):
                self._recorder.reset()
            case ("POST", "/log/take"):
                return self._recorder.take()
            case ("GET", "/stats"):
                return self._recorder.stats()
            case ("GET", "/wait"):
                count = int(query.pop("count", "1"))
                timeout = float(query.pop("timeout", "30"))
                return {"count": self._recorder.wait_for(query, count, timeout)}
            case ("GET", "/settings"):
                return self._settings.as_json()
            case ("POST", "/set"):
                values = json.loads(request.body)
                faults = values.pop("faults", None)
                self._settings.change(values)
                if faults is not None:
                    self._faults.replace(faults)
                self._on_change()
            case ("GET", "/faults"):
                return self._faults.as_json()
            case ("POST", "/release"):
                self._barriers.release(query["name"])
            case ("POST", "/barrier/reset"):
                self._barriers.close_again(query["name"])
            case ("GET", "/held"):
                count = int(query.get("count", "1"))
                timeout = float(query.get("timeout", "30"))
                held = self._barriers.wait_until_held(query["name"], count, timeout)
                return {"count": held}
            case ("POST", "/revoke"):
                self._mint.revoke(query["kind"])
                self._on_revoke()
            case ("POST", "/service-account-token"):
                values = json.loads(request.body)
                if set(values) != {"issuer", "subject", "audience", "lifetime"}:
                    raise ValueError("issuer, subject, audience and lifetime are required")
                return {"token": self._issuer.token(**values)}
            case ("GET", "/secrets"):
                return self._secrets()
            case _:
                raise ValueError(f"no such thing: {request.method} {request.path}")
        return {"ok": True}
