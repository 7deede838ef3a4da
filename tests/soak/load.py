"""The clients of a soak: each a thread that does one thing after the other, as real ones do.

What they do is drawn from the seed: pulls, single requests for manifests and blobs and parts of
them, clients that read slowly or leave, what is not there, what nobody may have, what no client
should send, and the operator's commands. Each request is in the history when it has ended.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from content import MEDIA_TYPE, Content, Repository
from history import Asked, History
from origin import Image
from wire import Address, Wire, digest_matches

ACCEPT = {"Accept": f"{MEDIA_TYPE}, application/vnd.oci.image.index.v1+json"}
# Upstream may be silent, be asked again, ask for a pause, and drip; all of that has its bound.
PATIENCE = 45.0
PATIENCE_WITH_BLOBS = 75.0
ABSENT = "sha256:" + "0" * 64
MOST_PINS = 2


@dataclass(frozen=True)
class Doors:
    registry: list[Address]
    control: Path


# What no client should send; none of it may be accepted.
def _odd_requests() -> list[tuple[str, bytes]]:
    path = "/v2/contoso.azurecr.io/app0/manifests/v0"
    host = "Host: localhost"

    def request(line: str, *headers: str, body: str = "") -> bytes:
        return ("\r\n".join([line, *headers]) + "\r\n\r\n" + body).encode("latin-1")

    get = f"GET {path} HTTP/1.1"
    return [
        ("two lengths", request(get, host, "Content-Length: 0", "Content-Length: 5", body="hello")),
        ("length and chunks", request(get, host, "Content-Length: 5",
                                      "Transfer-Encoding: chunked", body="0\r\n\r\n")),
        ("unknown coding", request(get, host, "Transfer-Encoding: xchunked", body="0\r\n\r\n")),
        ("no host", request(get)),
        ("two hosts", request(get, host, host)),
        ("another host", request(get, "Host: evil.example")),
        ("absolute form", request(get.replace("/v2", "http://evil.example/v2", 1), host)),
        ("cross-site", request(get, host, "Sec-Fetch-Site: cross-site")),
        ("foreign origin", request(get, host, "Origin: https://evil.example")),
        ("climbs", request("GET /v2/../../etc/passwd HTTP/1.1", host)),
        ("NUL", request(f"GET {path}\0 HTTP/1.1", host)),
        ("beyond ASCII", request(f"GET {path}\xff HTTP/1.1", host)),
        ("bad digest", request(f"GET {path.rpartition('/')[0]}/sha256:abc HTTP/1.1", host)),
        ("long head", request(get, host, "X-Long: " + "x" * 40_000)),
        ("many fields", request(get, host, *(f"X-{n}: y" for n in range(12000)))),
        ("a write", request(get.replace("GET", "PUT", 1), host, "Content-Length: 2", body="{}")),
        ("a delete", request(get.replace("GET", "DELETE", 1), host)),
        ("connect", request("CONNECT evil.example:443 HTTP/1.1", "Host: evil.example:443")),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("TLS", bytes.fromhex("16030100c8010000c40303") + bytes(189)),
        ("version", request(f"GET {path} HTTP/3.0", host)),
        ("space before colon", request(get, "Host : localhost")),
        ("half a head", f"{get}\r\nHost: loc".encode()),
        ("silence", b""),
        ("noise", random.Random(0).randbytes(400) + b"\r\n\r\n"),
    ]  # fmt: skip


ODD = _odd_requests()


class Load:
    """`think`: seconds between two things of one client, on average."""

    def __init__(
        self,
        content: Content,
        history: History,
        doors: Doors,
        seed: int,
        clients: int,
        think: float,
    ) -> None:
        self._content = content
        self._history = history
        self._doors = doors
        self._think = think
        self._stopped = False
        self._rushes: list[tuple[Repository, str]] = []
        self._changed = threading.Condition()
        self._pins: list[str] = []
        self._lock = threading.Lock()
        self.problems: list[BaseException] = []
        self._clients = [
            threading.Thread(target=self._run, args=(n, random.Random(f"{seed} {n}")))
            for n in range(clients)
        ]

    def start(self) -> None:
        for client in self._clients:
            client.start()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for client in self._clients:
            client.join()

    def rush(self, repository: Repository, tag: str) -> None:
        """All clients pull this at once, as the nodes of a deployment do."""
        with self._changed:
            self._rushes.append((repository, tag))
            self._changed.notify_all()

    def _run(self, number: int, chance: random.Random) -> None:
        door = self._doors.registry[number % len(self._doors.registry)]
        name = f"client {number}"
        one = _Client(name, self._content, self._history, self._doors, door, chance, self)
        rushes = 0
        try:
            while not self._stopped:
                if rushes < len(self._rushes):
                    one.pull_all(*self._rushes[-1])
                    rushes = len(self._rushes)
                else:
                    one.do_something()
                with self._changed:
                    self._changed.wait_for(
                        lambda seen=rushes: self._stopped or len(self._rushes) > seen,
                        chance.expovariate(1 / self._think),
                    )
        except BaseException as problem:
            self.problems.append(problem)
            raise
        finally:
            one.close()

    # The few pins that there may be are everybody's.

    def pin(self, image: str) -> str | None:
        """One to let go, if there are enough."""
        with self._lock:
            self._pins.append(image)
            return self._pins.pop(0) if len(self._pins) > MOST_PINS else None


class _Client:
    def __init__(
        self,
        name: str,
        content: Content,
        history: History,
        doors: Doors,
        door: Address,
        chance: random.Random,
        load: Load,
    ) -> None:
        self._name = name
        self._content = content
        self._history = history
        self._chance = chance
        self._load = load
        self._door = door
        self._wire = Wire(door)
        self._control = Wire(str(doors.control))
        open_to_all = [r for r in content.repositories.values() if r.name != "secret"]
        self._repositories = open_to_all
        # Few are asked for often.
        self._weights = [1.0 / (place + 1) for place in range(len(open_to_all))]
        self._things: list[tuple[float, Callable[[], None]]] = [
            (30, self.pull),
            (14, self.manifest_by_tag),
            (10, self.manifest_by_digest),
            (10, self.blob),
            (8, self.part_of_a_blob),
            (4, self.head_of_a_blob),
            (4, self.leave_early),
            (1, self.read_slowly),
            (4, self.what_is_not_there),
            (4, self.what_is_secret),
            (3, self.list_tags),
            (3, self.ping),
            (5, self.something_odd),
            (4, self.look),
            (0.8, self.warm),
            (0.8, self.purge),
            (0.5, self.pin),
            (0.1, self.verify),
        ]

    def close(self) -> None:
        self._wire.close()
        self._control.close()

    def do_something(self) -> None:
        weights = [weight for weight, _ in self._things]
        self._chance.choices(self._things, weights)[0][1]()

    # ---- what there is to ask for --------------------------------------------------------------

    def _repository(self) -> Repository:
        return self._chance.choices(self._repositories, self._weights)[0]

    def _tag(self, repository: Repository) -> str:
        return self._chance.choice(sorted(repository.tags) or ["v0"])

    def _blob(self) -> tuple[Repository, str]:
        repository = self._repository()
        image = self._content.some_image(repository)
        return repository, self._chance.choice(list(image.blobs))

    def _asked(
        self, kind: str, repository: str, reference: str, method: str = "GET", note: str = ""
    ) -> Asked:
        patience = PATIENCE_WITH_BLOBS if kind == "blob" else PATIENCE
        return Asked(
            client=self._name,
            kind=kind,
            method=method,
            repository=repository,
            reference=reference,
            begin=time.time(),
            patience=patience,
            note=note,
        )

    # ---- requests ------------------------------------------------------------------------------

    def _manifest(
        self, repository: Repository, reference: str, method: str = "GET"
    ) -> Image | None:
        asked = self._asked("manifest", repository.name, reference, method)
        body = self._wire.ask(asked, repository.path("manifests", reference), ACCEPT)
        if asked.outcome == "whole" and asked.status == 200 and method == "GET":
            asked.right = digest_matches(body, reference if ":" in reference else asked.served)
        self._history.add(asked)
        if asked.outcome != "whole" or asked.status != 200:
            return None
        return repository.images.get(asked.served)

    def _get_blob(
        self,
        repository: Repository,
        digest: str,
        wanted: str = "",
        leave_after: int | None = None,
        pause: Callable[[], float] | None = None,
    ) -> bool:
        asked = self._asked("blob", repository.name, digest)
        asked.range = wanted
        if pause:
            asked.patience = 0.0
        headers = {"Range": wanted} if wanted else {}
        path = repository.path("blobs", digest)
        body = self._wire.ask(asked, path, headers, leave_after=leave_after, pause=pause)
        if asked.outcome == "whole" and asked.status == 200:
            asked.right = digest_matches(body, digest)
        elif asked.outcome == "whole" and asked.status == 206:
            asked.right = body == part(self._content.truth(digest), wanted)
        self._history.add(asked)
        return asked.outcome == "whole" and asked.status == 200

    # ---- the things ----------------------------------------------------------------------------

    def pull(self) -> None:
        """As clients do it: resolve the tag, then the manifest by digest, then what they lack."""
        repository = self._repository()
        tag = self._tag(repository)
        image = self._manifest(repository, tag, self._chance.choice(("HEAD", "GET")))
        if not image or not self._manifest(repository, image.digest):
            return
        for digest in image.blobs:
            if self._chance.random() < 0.6 and not self._get_blob(repository, digest):
                return

    def pull_all(self, repository: Repository, tag: str) -> None:
        """Nothing of it is here yet."""
        image = self._manifest(repository, tag)
        for digest in image.blobs if image else ():
            self._get_blob(repository, digest)

    def manifest_by_tag(self) -> None:
        repository = self._repository()
        self._manifest(repository, self._tag(repository), self._chance.choice(("GET", "HEAD")))

    def manifest_by_digest(self) -> None:
        repository = self._repository()
        self._manifest(repository, self._content.some_image(repository).digest)

    def blob(self) -> None:
        self._get_blob(*self._blob())

    def part_of_a_blob(self) -> None:
        repository, digest = self._blob()
        size = len(self._content.truth(digest))
        first = self._chance.randrange(size)
        last = self._chance.randrange(first, size)
        forms = (f"{first}-{last}", f"{first}-", f"-{size - first}", f"{first}-{first}", "0-0")
        self._get_blob(repository, digest, f"bytes={self._chance.choice(forms)}")

    def head_of_a_blob(self) -> None:
        repository, digest = self._blob()
        asked = self._asked("blob", repository.name, digest, "HEAD")
        self._wire.ask(asked, repository.path("blobs", digest))
        self._history.add(asked)

    def leave_early(self) -> None:
        repository, digest = self._blob()
        size = len(self._content.truth(digest))
        self._get_blob(repository, digest, leave_after=self._chance.randrange(size))

    def read_slowly(self) -> None:
        """Slower than it comes, faster than nobody would wait for; it may be evicted meanwhile."""
        repository, digest = self._blob()
        whole = self._chance.uniform(2, 8)
        pieces = max(1, len(self._content.truth(digest)) // (64 * 1024))
        self._get_blob(repository, digest, pause=lambda: whole / pieces)

    def what_is_not_there(self) -> None:
        repository = self._repository()
        which = self._chance.randrange(4)
        if which == 0:
            tag = f"absent{self._chance.randrange(20)}"
            asked = self._asked("manifest", repository.name, tag, note="an unknown tag")
            path = repository.path("manifests", tag)
        elif which == 1:
            asked = self._asked("blob", repository.name, ABSENT, note="an unknown digest")
            path = repository.path("blobs", ABSENT)
        elif which == 2:
            asked = self._asked("manifest", "absent", "v0", note="an unknown repository")
            path = f"/v2/{repository.registry}/absent/manifests/v0"
        else:
            asked = self._asked("manifest", "x", "v0", note="an unknown registry")
            path = "/v2/registry.example/x/manifests/v0"
        self._wire.ask(asked, path, ACCEPT)
        self._history.add(asked)

    def what_is_secret(self) -> None:
        """By tag, and by digests that the cache may have, because another repository shows them."""
        secret = self._content.repositories["secret"]
        image = self._content.some_image(secret)
        if self._chance.random() < 0.3:
            self._manifest(secret, self._tag(secret))
        elif self._chance.random() < 0.4:
            self._manifest(secret, image.digest)
        else:
            self._get_blob(secret, self._chance.choice(list(image.blobs)))

    def list_tags(self) -> None:
        repository = self._repository()
        asked = self._asked("tags", repository.name, "list")
        body = self._wire.ask(asked, repository.path("tags", "list"))
        if asked.outcome == "whole" and asked.status == 200:
            asked.right = isinstance(json.loads(body)["tags"], list)
        self._history.add(asked)

    def ping(self) -> None:
        asked = self._asked("ping", "", self._chance.choice(("/v2/", "/healthz")))
        self._wire.ask(asked, asked.reference)
        self._history.add(asked)

    def something_odd(self) -> None:
        note, text = self._chance.choice(ODD)
        asked = self._asked("odd", "", "", text[:8].partition(b" ")[0].decode("latin-1"), note)
        wire = Wire(self._door)
        wire.send(asked, text)
        wire.close()
        self._history.add(asked)

    # ---- the operator --------------------------------------------------------------------------

    def _command(
        self, method: str, path: str, body: object = None, leave_after: int | None = None
    ) -> None:
        asked = self._asked("control", "", path, method)
        asked.patience = PATIENCE_WITH_BLOBS
        sent = b"" if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if sent else {}
        answer = self._control.ask(asked, path, headers, sent, leave_after)
        if asked.outcome == "whole" and path.startswith("/v1/status"):
            asked.right = "cache" in json.loads(answer)
        self._history.add(asked)

    def _image_name(self) -> str:
        repository = self._repository()
        return repository.image_name(self._tag(repository))

    def look(self) -> None:
        paths = ("/v1/status", "/v1/registries", "/v1/fills", "/v1/blobs", "/v1/images", "/metrics")
        path = self._chance.choice((*paths, f"/v1/explain?image={self._image_name()}"))
        self._command("GET", path)

    def warm(self) -> None:
        self._command("POST", "/v1/warm", {"images": [self._image_name(), self._image_name()]})

    def purge(self) -> None:
        self._command("POST", "/v1/purge", {"image": self._image_name()})

    def pin(self) -> None:
        image = self._image_name()
        if "/large:" in image:  # It would leave too little for all else.
            return
        let_go = self._load.pin(image)
        self._command("POST", "/v1/pin", {"image": image})
        if let_go:
            self._command("POST", "/v1/unpin", {"image": let_go})

    def verify(self) -> None:
        self._command("POST", "/v1/verify", leave_after=self._chance.choice((200, None)))


def part(content: bytes, wanted: str) -> bytes:
    """What `bytes=...` with one range asks for, of content that has it."""
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    if not first:
        return content[-int(last) :]
    return content[int(first) : int(last) + 1 if last else len(content)]
