"""What an upstream may answer other than the truth, each kind with a name.

A kind is what is wrong, and when: always, in the first answer only, or in every answer for the rest
of a blob whose first answer was cut. Where, at the registry or at the storage behind its links, is
for the test to vary. A bend changes an answer to a GET of a blob that would have been right.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rough_origin import Answer, Asked, joined

# Changes the answer; the last argument is the content of another blob.
Lie = Callable[[Answer, random.Random, bytes], None]


@dataclass(frozen=True)
class What:
    name: str
    lie: Lie
    # Nothing but the digest of the whole tells: a part that leaves before may be wrong.
    hidden: bool = False
    # What a client must not notice: the truth in an odd form.
    harmless: bool = False
    # An answer that ends too early: what came of it is right, and the rest can be asked for.
    broken: bool = False
    # Only of an answer to a Range.
    ranges: bool = False
    # Only the registry itself says such a thing.
    home: bool = False


@dataclass(frozen=True)
class Kind:
    what: What
    when: str  # always | first | rest

    @property
    def name(self) -> str:
        when = {"always": "always", "first": "in the first answer", "rest": "after a cut"}
        return f"{self.what.name}, {when[self.when]}"


def all_kinds() -> list[Kind]:
    return [Kind(what, when) for what in _all() for when in _whens(what)]


def _whens(what: What) -> tuple[str, ...]:
    if what.ranges:
        return ("rest",)
    if what.broken:
        return ("always", "first", "rest")
    return ("always", "rest")


def _all() -> Iterator[What]:
    yield from _bytes()
    yield from _lengths()
    yield from _ends()
    yield from _ranges()
    yield from _statuses()
    yield from _heads()
    yield from _redirects()


# ---- bytes -----------------------------------------------------------------------------------


def _flip(share: float) -> Lie:
    def lie(answer: Answer, *_: object) -> None:
        body = bytearray(joined(answer.body))
        if body:
            body[min(len(body) - 1, int(share * len(body)))] ^= 0x55
        answer.body = [bytes(body)]

    return lie


def _remade(make: Callable[[bytes, bytes], bytes]) -> Lie:
    """Another body of the same length, right in every header."""

    def lie(answer: Answer, _: random.Random, other: bytes) -> None:
        body = joined(answer.body)
        made = make(body, other)
        answer.body = [(made + bytes(len(body)))[: len(body)]]

    return lie


def _replaced(status: int, kind: str, body: bytes) -> Lie:
    def lie(answer: Answer, *_: object) -> None:
        answer.status, answer.body = status, [body]
        answer.headers = {"Content-Type": kind}

    return lie


def _coded(coding: str, real: bool) -> Lie:
    def lie(answer: Answer, *_: object) -> None:
        answer.headers["Content-Encoding"] = coding
        if real:
            answer.body = [gzip.compress(joined(answer.body), 1)]

    return lie


def _bytes() -> Iterator[What]:
    for name, share in (("first", 0.0), ("middle", 0.5), ("last", 1.0)):
        yield What(f"the {name} byte is another", _flip(share), hidden=True)
    yield What("all is zeros", _remade(lambda body, _: b""), hidden=True)
    yield What(
        "a page of zeros", _remade(lambda b, _: b[:4096] + bytes(4096) + b[8192:]), hidden=True
    )
    yield What("it is another blob", _remade(lambda b, other: other[: len(b)]), hidden=True)
    yield What(
        "its end is another blob's",
        _remade(lambda b, other: b[: len(b) // 2] + other[len(b) // 2 : len(b)]),
        hidden=True,
    )
    yield What("all is a byte late", _remade(lambda b, _: b"\0" + b), hidden=True)
    yield What("a byte is missing", _remade(lambda b, _: b[:9] + b[10:]), hidden=True)
    yield What(
        "its halves are exchanged",
        _remade(lambda b, _: b[len(b) // 2 :] + b[: len(b) // 2]),
        hidden=True,
    )
    yield What(
        "a half comes twice", _remade(lambda b, _: b[: len(b) // 2] * 2 + b[-1:]), hidden=True
    )
    page = b"<!doctype html><title>Sign in</title><p>Sign in to the network first."
    yield What("a page of a portal", _replaced(200, "text/html", page), hidden=True)
    yield What("an error as a 200", _replaced(200, "application/json", b"{}"), hidden=True)
    yield What("nothing at all as a 200", _replaced(200, "text/plain", b""), hidden=True)
    yield What("it is packed with gzip", _coded("gzip", True), hidden=True)
    for coding in ("gzip", "deflate", "br", "zstd", "aes128gcm"):
        yield What(f"it says {coding} and is not", _coded(coding, False), hidden=True)


# ---- lengths ---------------------------------------------------------------------------------


def _length(text: Callable[[int], str | list[str]]) -> Lie:
    def lie(answer: Answer, *_: object) -> None:
        answer.headers["Content-Length"] = text(sum(map(len, answer.body)))

    return lie


def _resized(change: Callable[[bytes], bytes]) -> Lie:
    def lie(answer: Answer, *_: object) -> None:
        answer.body = [change(joined(answer.body))]

    return lie


def _chunked(last: bytes) -> Lie:
    def lie(answer: Answer, *_: object) -> None:
        answer.chunked = True
        answer.last_chunk = last
        if not last.startswith(b"0\r\n"):
            answer.cut = sum(map(len, answer.body))

    return lie


def _lengths() -> Iterator[What]:
    lengths: dict[str, Callable[[int], str | list[str]]] = {
        "one too many": lambda n: str(n + 1),
        "one too few": lambda n: str(n - 1),
        "none": lambda n: "0",
        "of 2^63": lambda n: str(2**63),
        "of 2^64 more": lambda n: str(n + 2**64),
        "below zero": lambda n: f"-{n}",
        "with a plus": lambda n: f"+{n}",
        "in hex": lambda n: hex(n),
        "in words": lambda n: "many",
        "empty": lambda n: "",
        "two that differ": lambda n: [str(n), str(n - 1)],
        "two in one that differ": lambda n: f"{n}, {n + 1}",
    }
    for name, text in lengths.items():
        yield What(f"a length {name}", _length(text), hidden=True)
    yield What("the last byte left out", _resized(lambda b: b[:-1]), hidden=True)
    yield What("a byte more", _resized(lambda b: b + b"\0"), hidden=True)
    yield What("all of it twice", _resized(lambda b: b + b), hidden=True)
    yield What("the first half only", _resized(lambda b: b[: len(b) // 2]), hidden=True)
    yield What("chunks, and no length", _chunked(b"0\r\n\r\n"), harmless=True)
    yield What("chunks without the last", _chunked(b""), hidden=True)

    def odd_chunks(size: bytes) -> Lie:
        def lie(answer: Answer, *_: object) -> None:
            head = f"HTTP/1.1 {answer.status} Status\r\nTransfer-Encoding: chunked\r\n"
            if "Content-Range" in answer.headers:
                head += f"Content-Range: {answer.headers['Content-Range']}\r\n"
            answer.raw = head.encode() + b"\r\n" + size + b"\r\n" + joined(answer.body)[:9999]

        return lie

    for name, size in (("no number", b"zzz"), ("too large", b"f" * 20), ("negative", b"-5")):
        yield What(f"a chunk's size is {name}", odd_chunks(size), hidden=True)


# ---- ends ------------------------------------------------------------------------------------


def _cut(share: float, how: str, drip: float = 0) -> Lie:
    def lie(answer: Answer, *_: object) -> None:
        size = sum(map(len, answer.body))
        answer.cut = int(share * (size - 1)) if share >= 0 else -1
        answer.how = how
        answer.drip = drip

    return lie


def _ends() -> Iterator[What]:
    places = {"before the head": -1.0, "after the head": 0.0, "half-way": 0.5, "at the end": 1.0}
    hows = {"fin": "an end", "rst": "a reset", "silence": "silence"}
    for where, share in places.items():
        for how, name in hows.items():
            # Before there is an answer it is not a body that breaks off.
            yield What(f"{name} {where}", _cut(share, how), broken=share >= 0)
    yield What("a byte now and then", _cut(0.5, "fin", 0.3), broken=True)


# ---- ranges ----------------------------------------------------------------------------------


def _content_range(text: Callable[[int, int, int], str | None]) -> Lie:
    def lie(answer: Answer, *_: object) -> None:
        made = text(answer.begin, answer.end - 1, len(answer.content))
        if made is None:
            answer.headers.pop("Content-Range", None)
        else:
            answer.headers["Content-Range"] = made

    return lie


def _whole(answer: Answer, *_: object) -> None:
    answer.status, answer.body, answer.begin = 200, [answer.content], 0
    answer.headers.pop("Content-Range", None)


def _part_as_whole(answer: Answer, *_: object) -> None:
    answer.status = 200
    answer.headers.pop("Content-Range", None)


def _moved(by: int) -> Lie:
    """The bytes of another range, and its Content-Range with them."""

    def lie(answer: Answer, *_: object) -> None:
        size = len(answer.content)
        begin = max(0, min(size - 1, answer.begin + by))
        end = max(begin + 1, min(size, answer.end + by))
        answer.body, answer.begin = [answer.content[begin:end]], begin
        answer.headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"

    return lie


def _other_offset(answer: Answer, *_: object) -> None:
    size = answer.end - answer.begin
    answer.body = [answer.content[:size]]


def _shorter(most: Callable[[int], int]) -> Lie:
    """A right answer to a part of the range, which HTTP allows; `most` of so many bytes."""

    def lie(answer: Answer, *_: object) -> None:
        size = answer.end - answer.begin
        end = answer.begin + max(1, min(size, most(size)))
        answer.body = [answer.content[answer.begin : end]]
        answer.headers["Content-Range"] = f"bytes {answer.begin}-{end - 1}/{len(answer.content)}"

    return lie


def _multipart(answer: Answer, *_: object) -> None:
    part = answer.headers.get("Content-Range", "bytes 0-0/1")
    head = f"--b\r\nContent-Type: application/octet-stream\r\nContent-Range: {part}\r\n\r\n"
    answer.headers = {"Content-Type": "multipart/byteranges; boundary=b"}
    answer.body = [head.encode(), *answer.body, b"\r\n--b--\r\n"]


def _headers(**values: str) -> Lie:
    def lie(answer: Answer, *_: object) -> None:
        for name, value in values.items():
            name = name.replace("_", "-")
            if value:
                answer.headers[name] = value
            else:
                answer.headers.pop(name, None)

    return lie


def _other_version(answer: Answer, chance: random.Random, other: bytes) -> None:
    """The blob is another one by now, which its validators say."""
    answer.headers["ETag"] = f'"{chance.random()}"'
    answer.headers["Last-Modified"] = "Sun, 02 Nov 2025 00:00:00 GMT"
    size = answer.end - answer.begin
    answer.body = [(other + bytes(size))[:size]]


def _ranges() -> Iterator[What]:
    texts: dict[str, Callable[[int, int, int], str | None]] = {
        "none": lambda b, e, n: None,
        "empty": lambda b, e, n: "",
        "a byte early": lambda b, e, n: f"bytes {max(0, b - 1)}-{e - 1}/{n}",
        "a byte late": lambda b, e, n: f"bytes {b + 1}-{e + 1}/{n}",
        "at the beginning": lambda b, e, n: f"bytes 0-{e - b}/{n}",
        "a byte short": lambda b, e, n: f"bytes {b}-{e - 1}/{n}",
        "a byte long": lambda b, e, n: f"bytes {b}-{e + 1}/{n}",
        "turned round": lambda b, e, n: f"bytes {e}-{b}/{n}",
        "of a larger blob": lambda b, e, n: f"bytes {b}-{e}/{n + 1}",
        "of a smaller blob": lambda b, e, n: f"bytes {b}-{e}/{e}",
        "of an empty blob": lambda b, e, n: f"bytes {b}-{e}/0",
        "not satisfied": lambda b, e, n: f"bytes */{n}",
        "in items": lambda b, e, n: f"items {b}-{e}/{n}",
        "in words": lambda b, e, n: "bytes some-more/all",
        "of 2^64": lambda b, e, n: f"bytes {b + 2**64}-{e + 2**64}/{n}",
        "below zero": lambda b, e, n: f"bytes -{b}-{e}/{n}",
        "twice": lambda b, e, n: f"bytes {b}-{e}/{n}, bytes {b}-{e}/{n}",
    }
    for name, text in texts.items():
        yield What(f"a Content-Range: {name}", _content_range(text), ranges=True)
    unknown = _content_range(lambda b, e, n: f"bytes {b}-{e}/*")
    yield What("a Content-Range of unknown length", unknown, ranges=True, harmless=True)
    yield What("the whole to a range", _whole, ranges=True, harmless=True)
    yield What("the part as the whole", _part_as_whole, ranges=True)
    yield What("a range further on", _moved(4096), ranges=True)
    yield What("a range further back", _moved(-4096), ranges=True)
    at_most = _shorter(lambda size: 512 * 1024)
    yield What("512 KiB of the range at a time", at_most, ranges=True, harmless=True)
    yield What("half of each range", _shorter(lambda size: size // 2), ranges=True)
    yield What("a byte of each range", _shorter(lambda size: 1), ranges=True)
    yield What("the beginning in its place", _other_offset, ranges=True, hidden=True)
    yield What("several parts", _multipart, ranges=True)
    # With bytes that are not the blob's, which only its digest says for sure.
    yield What("another version", _other_version, ranges=True, hidden=True)
    yield What("another ETag", _headers(ETag='"other"'), ranges=True, hidden=True)
    yield What("a weak ETag", _headers(ETag='W/"other"'), ranges=True, hidden=True)
    yield What("no validator", _headers(ETag="", Last_Modified=""), harmless=True)
    yield What("another digest said", _headers(Docker_Content_Digest="sha256:" + 64 * "0"))
    yield What("a digest of words", _headers(Docker_Content_Digest="sha256:me"))


# ---- statuses --------------------------------------------------------------------------------


def _status(status: int, body: bytes = b"", **headers: str) -> Lie:
    def lie(answer: Answer, *_: object) -> None:
        answer.status, answer.body = status, [body]
        answer.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    return lie


def _statuses() -> Iterator[What]:
    for status in (
        201, 202, 203, 204, 205, 207, 226, 300, 304, 305, 400, 402, 403, 404, 405, 406, 407, 408,
        409, 410, 411, 412, 413, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 431, 451,
        500, 501, 502, 503, 504, 505, 507, 508, 511, 599, 600, 999,
    ):  # fmt: skip
        yield What(f"status {status}", _status(status, b"" if status in (204, 304) else b"why"))
    yield What("206 to no range", _status(206, b"a part"))
    yield What("401 without a challenge", _status(401))
    realm = 'Bearer realm="http://169.254.169.254/token",service="s",scope="repository:a:pull"'
    yield What("401 that sends to another realm", _status(401, WWW_Authenticate=realm))
    yield What("401 that asks for Basic", _status(401, WWW_Authenticate='Basic realm="r"'))
    for name, value in {
        "in a second": "1", "at once": "0", "without a time": "", "below zero": "-3",
        "in words": "soon", "at a date that is over": "Sat, 01 Nov 2025 00:00:00 GMT",
    }.items():  # fmt: skip
        headers = {"Retry_After": value} if value else {}
        yield What(f"429, again {name}", _status(429, b"slow down", **headers))
        yield What(f"503, again {name}", _status(503, b"slow down", **headers))


# ---- heads -----------------------------------------------------------------------------------


def _raw(text: bytes, how: str = "fin") -> Lie:
    def lie(answer: Answer, *_: object) -> None:
        answer.raw, answer.how = text, how

    return lie


def _heads() -> Iterator[What]:
    ok = b"HTTP/1.1 200 OK\r\n"
    for name, text in {
        "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
        "a body without a head": bytes(range(256)) * 40,
        "HTTP/2": b"\0\0\x12\4\0\0\0\0\0" + bytes(18),
        "TLS": b"\x15\3\1\0\2\2\x28",
        "half a status line": b"HTTP/1.1 20",
        "half a head": ok + b"Content-Type: application/oct",
        "status 0": b"HTTP/1.1 000 \r\n\r\n",
        "status of words": b"HTTP/1.1 fine OK\r\n\r\n",
        "HTTP/3.7": b"HTTP/3.7 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "a line without a colon": ok + b"no colon\r\nContent-Length: 2\r\n\r\nok",
        "a NUL in the head": ok + b"X: a\0b\r\nContent-Length: 2\r\n\r\nok",
        "a head of a megabyte": ok + b"X: " + b"y" * 1048576 + b"\r\nContent-Length: 2\r\n\r\nok",
        "50,000 headers": ok + b"X: y\r\n" * 50_000 + b"Content-Length: 2\r\n\r\nok",
        "1,000 times 100 Continue": b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        "101 to another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: me\r\nConnection: Upgrade"
        b"\r\n\r\nhello",
    }.items():
        yield What(name, _raw(text), hidden=True)


# ---- redirects -------------------------------------------------------------------------------


def _redirect(location: str | None, status: int = 307) -> Lie:
    def lie(answer: Answer, *_: object) -> None:
        answer.status, answer.body = status, []
        answer.headers = {} if location is None else {"Location": location}

    return lie


def _redirects() -> Iterator[What]:
    for name, location in {
        "nowhere": None,
        "an empty place": "",
        "a host that is not known": "http://evil.test/blob",
        "the metadata service": "http://169.254.169.254/metadata/identity/oauth2/token",
        "the metadata service in another spelling": "http://[::ffff:a9fe:a9fe]/metadata",
        "another port of this machine": "http://127.0.0.1:1/blob",
        "a file": "file:///etc/passwd",
        "a gopher": "gopher://localhost/x",
        "a name with a user": "http://user:word@evil.test/blob",
        "a host without a scheme": "//evil.test/blob",
        "itself": "?again",
        "a script": "javascript:alert(1)",
        "a line break": "http://localhost/\tX: y",
        "64 KiB of path": "/v2/" + "x" * 65536,
        "no port": "http://localhost:/blob",
        "a port too large": "http://localhost:99999/blob",
    }.items():
        yield What(f"it sends to {name}", _redirect(location), home=True)
    for status in (300, 301, 302, 303, 308):
        lie = _redirect("http://evil.test/", status)
        yield What(f"a {status} to nowhere known", lie, home=True)


def tells(kind: Kind, asked: Asked, answer: Answer, number: int) -> bool:
    """Whether the lie is told in this answer, being the `number`th (from 0) of its blob."""
    if kind.what.ranges and answer.status != 206:
        return False
    if kind.when == "first":
        return number == 0
    return kind.when == "always" or number > 0
