"""Messages that parsers may read in different ways: a corpus, made by rules, the same every time.

Each begins with what may be a request, and may be followed by more than a head. Most are wrong in
one place; every class has some that are right, so that it is seen where the border runs.

    /usr/bin/python3 tests/e2e/smuggling.py         how many there are of each class
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Variants = Iterator[tuple[str, bytes]]
_SEED = 20260
_MUTATED = 300
_CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Message:
    kind: str  # the class
    what: str  # which of it
    bytes: bytes


class Corpus:
    """`host` and `target`: of a request that is answered with 200, from memory."""

    def __init__(self, host: str, target: str) -> None:
        self._host = host.encode()
        self._target = target.encode()

    def messages(self) -> list[Message]:
        """All of them, no two alike."""
        found: dict[bytes, Message] = {}
        for kind, variants in self._classes().items():
            for what, text in variants():
                found.setdefault(text, Message(kind, what, text))
        return list(found.values())

    def _classes(self) -> dict[str, Callable[[], Variants]]:
        return {
            "as clients send them": self._usual,
            "methods": self._methods,
            "a byte in the path": self._path_bytes,
            "a byte in the query": self._query_bytes,
            "escapes": self._escapes,
            "forms of the target": self._forms,
            "versions": self._versions,
            "the request line": self._request_lines,
            "Host": self._hosts,
            "a byte in a field's name": self._name_bytes,
            "a byte in a field's value": self._value_bytes,
            "lines of fields": self._field_lines,
            "ends of lines": self._line_ends,
            "Content-Length": self._lengths,
            "Transfer-Encoding": self._codings,
            "chunks and trailers": self._chunks,
            "names that look like framing": self._look_alikes,
            "Connection": self._connections,
            "other fields that decide": self._deciding,
            "repeated fields": self._repeated,
            "how much of it": self._sizes,
            "other protocols": self._protocols,
            "mutations": self._mutations,
        }

    def _head(
        self,
        fields: bytes = b"",
        method: bytes = b"GET",
        target: bytes | None = None,
        version: bytes = b"HTTP/1.1",
        host: bytes | None = None,
    ) -> bytes:
        first = b" ".join([method, self._target if target is None else target, version])
        named = b"Host: " + self._host + b"\r\n" if host is None else host
        return first + b"\r\n" + named + fields + b"\r\n"

    # ---- the classes ---------------------------------------------------------------------------

    def _usual(self) -> Variants:
        clients = {
            "curl": b"User-Agent: curl/7.88.1\r\nAccept: */*\r\n",
            "containerd": b"User-Agent: containerd/1.6.20\r\nAccept: a/b, */*\r\n"
            b"Accept-Encoding: gzip\r\n",
            "dockerd": b"User-Agent: docker/20.10 go/1.19\r\nAccept: a/b\r\nAccept: c/d\r\n"
            b"Authorization: Basic eDp5\r\nConnection: close\r\n",
            "podman": b"User-Agent: containers/5.24.1\r\nDocker-Distribution-Api-Version: "
            b"registry/2.0\r\nAuthorization: Bearer a.b.c\r\n",
            "ab": b"User-Agent: ApacheBench/2.3\r\nAccept: */*\r\nConnection: Keep-Alive\r\n",
            "a browser": b"Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-CH-UA: \"x\"\r\n"
            b"Accept-Language: en\r\nCookie: a=b\r\nCache-Control: no-cache\r\n",
            "a resumed pull": b"Range: bytes=1-\r\nIf-Range: \"x\"\r\n",
            "a revalidation": b"If-None-Match: \"a\", W/\"b\"\r\n",
            "a traced one": b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
            b"\r\ntracestate: a=b\r\n",
            "one behind a proxy": b"Via: 1.1 x\r\nForwarded: for=192.0.2.1\r\n"
            b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Host: evil.example\r\n",
        }
        for name, fields in clients.items():
            for method in (b"GET", b"HEAD"):
                yield f"{name}, {method.decode()}", self._head(fields, method)
            yield f"{name}, HTTP/1.0", self._head(fields, version=b"HTTP/1.0")
            yield f"{name}, two", self._head(fields) * 2

    def _methods(self) -> Variants:
        names = (
            "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT PRI PROPFIND MKCOL LOCK SEARCH "
            "QUERY M-SEARCH PURGE SOURCE get Get GETX XGET G GE FOO F00 X-Y A!B"
        ).split()
        for name in names:
            for version in (b"HTTP/1.1", b"HTTP/1.0"):
                yield f"{name}, {version.decode()}", self._head(
                    method=name.encode(), version=version
                )
            yield f"{name}, an empty body", self._head(b"Content-Length: 0\r\n", name.encode())
            yield f"{name}, a body", self._head(b"Content-Length: 5\r\n", name.encode()) + b"hello"
        for sign in b'\x00\x01\t\x0b\x7f\x80\xff()<>@,;:\\"/[]?={}|':
            yield f"{sign:#x} in it", self._head(method=b"GE" + bytes([sign]) + b"T")

    def _path_bytes(self) -> Variants:
        for byte in range(256):
            sign = bytes([byte])
            if not sign.isalnum():
                yield f"{byte:#04x}", self._head(target=b"/v2/a" + sign + b"b/tags/list")

    def _query_bytes(self) -> Variants:
        for byte in range(256):
            sign = bytes([byte])
            if not sign.isalnum():
                yield f"{byte:#04x}", self._head(target=self._target + b"?x=" + sign)

    def _escapes(self) -> Variants:
        escapes = (
            "%00 %01 %09 %0a %0d %0D%0A %1f %20 %22 %23 %25 %26 %2e %2e%2e %2f %2F %3a %3f %40 %41 "
            "%5c %61 %7e %7f %80 %c0%ae %c3%a4 %ff % %% %2 %2g %g2 %zz %u002e %25%32%65 %252e %+1"
        ).split()
        for escape in escapes:
            text = escape.encode()
            yield f"{escape} in the path", self._head(target=b"/v2/a" + text + b"/tags/list")
            yield f"{escape} as a segment", self._head(target=b"/v2/" + text + b"/tags/list")
            yield f"{escape} at the end", self._head(target=b"/v2/" + text)
            yield f"{escape} in the query", self._head(target=self._target + b"?ns=" + text)

    def _forms(self) -> Variants:
        targets = [
            b"*", b"/*", b"", b"v2/", b"v2", b".", b"..", b"?", b"#", b"//", b"///", b"//v2/",
            b"//localhost/v2/", b"//evil.example/v2/", b"/v2//", b"/v2//a/tags/list", b"/.", b"/..",
            b"/./v2/", b"/../v2/", b"/v2/.", b"/v2/..", b"/v2/./", b"/v2/../", b"/v2/../v2/",
            b"/v2/a/../b/tags/list", b"/v2/...", b"/v2/.a/tags/list", b"/v2/?/../", b"/v2/;/../",
            b"/v2/..;/v2/", b"/v2/?", b"/v2/??", b"/v2/#", b"/v2/?#", b"/\\v2\\", b"\\v2\\", b"/v2/ ",
            b"http://localhost/v2/", b"http://localhost", b"HTTP://LOCALHOST/v2/", b"http:/v2/",
            b"http:///v2/", b"http://evil.example/v2/", b"http://a@localhost/v2/", b"http:v2",
            b"https://localhost/v2/", b"ftp://localhost/v2/", b"file:///etc/passwd", b"data:,a",
            b"localhost", b"localhost:5050", b"evil.example:443", b"[::1]:5050", b"@localhost/v2/",
            b"javascript:alert(1)", b"http://localhost:5050@evil.example/v2/",
        ]  # fmt: skip
        for target in targets:
            for method in (b"GET", b"HEAD", b"OPTIONS", b"CONNECT"):
                what = f"{method.decode()} {target.decode()}"
                yield what, self._head(method=method, target=target)

    def _versions(self) -> Variants:
        versions = (
            "HTTP/1.1 HTTP/1.0 HTTP/0.9 HTTP/1.2 HTTP/1.9 HTTP/2.0 HTTP/2 HTTP/3.0 HTTP/1 HTTP/1. "
            "HTTP/.1 HTTP/11 HTTP/1.10 HTTP/1.01 HTTP/01.1 HTTP/1,1 HTTP/1.1a HTTP/a.b HTTP/-1.1 "
            "HTTP/+1.1 HTTP/1.1/1.0 HTTP//1.1 HTTP HTTP/ /1.1 1.1 http/1.1 Http/1.1 HTTPS/1.1 "
            "XHTTP/1.1 HTCPCP/1.0 RTSP/1.0 SIP/2.0 ICY HTTP/9.9 HTTP/10.1 HTTP/4294967297.1"
        ).split()
        for version in versions:
            yield version, self._head(version=version.encode())
        for byte in (0x00, 0x0B, 0x0C, 0x80, 0xA0):
            yield f"and {byte:#x}", self._head(version=b"HTTP/1.1" + bytes([byte]))
        yield "none", b"GET " + self._target + b"\r\n\r\n"
        yield "none, fields", b"GET " + self._target + b"\r\nHost: " + self._host + b"\r\n\r\n"

    def _request_lines(self) -> Variants:
        target, rest = self._target, b"\r\nHost: " + self._host + b"\r\n\r\n"
        for name, gap in {
            "none": b"", "two": b"  ", "a tab": b"\t", "a space, a tab": b" \t", "0x0b": b"\x0b",
            "0x0c": b"\x0c", "CR": b"\r", "LF": b"\n", "NUL": b"\x00", "0xa0": b"\xa0", "CR LF": b"\r\n",
        }.items():  # fmt: skip
            yield f"first gap: {name}", b"GET" + gap + target + b" HTTP/1.1" + rest
            yield f"second gap: {name}", b"GET " + target + gap + b"HTTP/1.1" + rest
            yield f"before it: {name}", gap + b"GET " + target + b" HTTP/1.1" + rest
            yield f"after it: {name}", b"GET " + target + b" HTTP/1.1" + gap + rest
        yield "a fourth word", b"GET " + target + b" HTTP/1.1 x" + rest
        yield "two targets", b"GET " + target + b" /v2/ HTTP/1.1" + rest
        yield "empty lines before it", b"\r\n\r\nGET " + target + b" HTTP/1.1" + rest
        yield "a request line twice", b"GET " + target + b" HTTP/1.1\r\n" + self._head()
        yield "a field before it", b"Host: localhost\r\n" + self._head()

    def _hosts(self) -> Variants:
        port = self._host.rpartition(b":")[2]
        values = [
            self._host, b"localhost", b"LOCALHOST", b"localhost:" + port, b"127.0.0.1", b"[::1]:" + port,
            b"localhost:0", b"localhost:", b":" + port, b":", b"", b" ", b"localhost:99999",
            b"localhost:+1", b"localhost:5050:5050", b"localhost: 5050", b"localhost :5050",
            b"localhost:5050a", b"localhost.", b"localhost..", b"..", b".", b".localhost",
            b"evil.example", b"evil.example:" + port, b"localhost.evil.example", b"my_host", b"a-b",
            b"localhost,evil.example", b"localhost evil.example", b"localhost\tevil.example",
            b"evil@localhost", b"localhost@evil.example", b"localhost/", b"localhost/v2/",
            b"localhost?", b"localhost#", b"localhost\\", b"http://localhost", b"//localhost",
            b"%6cocalhost", b"localhost%00", b"localhost\x00", b"localhost\x7f", b"l\xc3\xb6calhost",
            b"\xef\xbd\x8cocalhost", b"xn--lcalhost-90a", b"::1", b"[::1", b"::1]", b"[]", b"[::1]a",
            b"[::1]:", b"[fe80::1%25eth0]", b"[v1.a]", b"[localhost]", b"[127.0.0.1]", b"127.1",
            b"0x7f000001", b"2130706433", b"'localhost'", b'"localhost"', b"*", b"(localhost)",
        ]  # fmt: skip
        for value in values:
            for version in (b"HTTP/1.1", b"HTTP/1.0"):
                yield f"{value!r}, {version.decode()}", self._head(
                    host=b"Host: " + value + b"\r\n", version=version
                )
        good = b"Host: " + self._host + b"\r\n"
        for name, fields in {
            "none": b"",
            "twice": good * 2,
            "twice, another": good + b"Host: evil.example\r\n",
            "twice, another first": b"Host: evil.example\r\n" + good,
            "twice, in another case": good + b"hOST: evil.example\r\n",
            "twice, one empty": good + b"Host:\r\n",
            "twice, an empty one first": b"Host:\r\n" + good,
            "three times": good * 3,
            "with a space before the colon": b"Host : " + self._host + b"\r\n",
            "two of which one has a space": good + b"Host : evil.example\r\n",
            "folded": b"Host:\r\n " + self._host + b"\r\n",
            "folded with another": good + b" evil.example\r\n",
            "without a space": b"Host:" + self._host + b"\r\n",
            "with spaces around": b"Host:  \t" + self._host + b" \t \r\n",
            "X-Host beside it": good + b"X-Host: evil.example\r\nX-Forwarded-Host: a\r\n",
            "last": b"A: b\r\nC: d\r\n" + good,
        }.items():
            for version in (b"HTTP/1.1", b"HTTP/1.0"):
                yield f"{name}, {version.decode()}", self._head(host=fields, version=version)
        for named in (b"http://localhost/v2/", b"http://evil.example/v2/"):
            for fields in (b"", good, good + b"Host: evil.example\r\n"):
                yield f"{fields!r} and {named!r}", self._head(target=named, host=fields)

    def _name_bytes(self) -> Variants:
        for byte in range(256):
            sign = bytes([byte])
            if not sign.isalnum():
                yield f"{byte:#04x}", self._head(b"X" + sign + b"Y: 1\r\n")

    def _value_bytes(self) -> Variants:
        for byte in range(256):
            sign = bytes([byte])
            if not sign.isalnum():
                yield f"{byte:#04x}", self._head(b"X: a" + sign + b"b\r\n")

    def _field_lines(self) -> Variants:
        for name, lines in {
            "a space before the colon": b"X : a\r\n",
            "a tab before the colon": b"X\t: a\r\n",
            "a space before the name": b" X: a\r\n",
            "no colon": b"X a\r\n",
            "no colon, one word": b"X\r\n",
            "no name": b": a\r\n",
            "nothing but a colon": b":\r\n",
            "two colons": b"X:: a\r\n",
            "no value": b"X:\r\n",
            "a value of spaces": b"X:   \t  \r\n",
            "no space after the colon": b"X:a\r\n",
            "folded by a space": b"X: a\r\n b\r\n",
            "folded by a tab": b"X: a\r\n\tb\r\n",
            "folded, nothing in it": b"X: a\r\n \r\n",
            "folded framing": b"X: a\r\n Content-Length: 5\r\n",
            "folded colon": b"X\r\n : a\r\n",
            "folded length": b"Content-Length:\r\n 5\r\n",
            "quoted CR LF": b'X: "a\r\nContent-Length: 5"\r\n',
            "a request line among them": b"GET /v2/ HTTP/1.1\r\n",
            "a colon in the value": b"X: a: b\r\n",
            "NUL": b"X: a\x00Content-Length: 5\r\n",
            "CR": b"X: a\rContent-Length: 5\r\n",
            "LF": b"X: a\nContent-Length: 5\r\n",
            "CR CR LF": b"X: a\r\r\nY: b\r\n",
            "LF CR": b"X: a\n\rY: b\r\n",
            "an empty line with a space": b"X: a\r\n \r\nContent-Length: 5\r\n",
            "0x85 as a line's end": b"X: a\x85Y: b\r\n",
            "U+2028 as a line's end": b"X: a\xe2\x80\xa8Y: b\r\n",
        }.items():
            yield name, self._head(lines)
            yield f"{name}, before Host", self._head(b"", host=lines + b"Host: localhost\r\n")
            yield f"{name}, last", self._head(b"A: b\r\n" + lines)

    def _line_ends(self) -> Variants:
        lines = [b"GET " + self._target + b" HTTP/1.1", b"Host: " + self._host, b"X: a", b""]
        for at in range(len(lines)):
            for name, end in {
                "LF": b"\n", "CR": b"\r", "CR CR LF": b"\r\r\n", "LF CR": b"\n\r", "LF LF": b"\n\n",
                "CR LF LF": b"\r\n\n", "space CR LF": b" \r\n", "NUL CR LF": b"\x00\r\n",
                "CR NUL LF": b"\r\x00\n", "none": b"", "0x0b": b"\x0b", "0x85": b"\x85",
            }.items():  # fmt: skip
                ends = [end if i == at else b"\r\n" for i in range(len(lines))]
                text = b"".join(line + line_end for line, line_end in zip(lines, ends, strict=True))
                yield f"{name} after line {at + 1}", text
        yield "all LF", b"\n".join(lines) + b"\n"
        yield "all CR", b"\r".join(lines) + b"\r"

    def _lengths(self) -> Variants:
        values = (
            "0|5|00|05|+0|+5|-0|-1|-5|5.0|0.0|5e0|0x5|0X5|05h|five|5 |5 5|5,5|0,0|5, 5|5,6|5;5|5;a=b|"
            '"5"|\'5\'|5\t|\t5|,5|5,|,|0b1|0o5|5_0|1_0|４|44|4294967296|4294967301|9223372036854775807|'
            "9223372036854775808|18446744073709551615|18446744073709551616|18446744073709551621|"
            "99999999999999999999999999999999|1e1|inf|nan|null|%35|٥"
        ).split("|")
        for value in values:
            for method in (b"GET", b"POST"):
                field = b"Content-Length: " + value.encode() + b"\r\n"
                what = f"{value!r}, {method.decode()}"
                yield f"{what}, a body", self._head(field, method) + b"hello"
                yield f"{what}, none", self._head(field, method)
        for name, fields in {
            "empty": b"Content-Length:\r\n",
            "empty and another": b"Content-Length:\r\nContent-Length: 5\r\n",
            "twice alike": b"Content-Length: 5\r\n" * 2,
            "twice none": b"Content-Length: 0\r\n" * 2,
            "0 and 5": b"Content-Length: 0\r\nContent-Length: 5\r\n",
            "5 and 0": b"Content-Length: 5\r\nContent-Length: 0\r\n",
            "in two cases": b"content-length: 0\r\nCONTENT-LENGTH: 5\r\n",
            "in capitals": b"CONTENT-LENGTH: 0\r\n",
            "a space before the colon": b"Content-Length : 5\r\n",
            "a tab before the colon": b"Content-Length\t: 5\r\n",
            "NUL after it": b"Content-Length: 5\x00\r\n",
            "0x0b before it": b"Content-Length: \x0b5\r\n",
            "CR in it": b"Content-Length: 0\r5\r\n",
            "a body as long as what follows": b"Content-Length: 64\r\n",
        }.items():
            for method in (b"GET", b"HEAD", b"POST"):
                yield f"{name}, {method.decode()}", self._head(fields, method) + b"hello"

    def _codings(self) -> Variants:
        values = (
            "chunked|Chunked|CHUNKED|identity|gzip|gzip, chunked|chunked, gzip|chunked, chunked|"
            "chunked, identity|identity, chunked|,chunked|chunked,|, chunked|chunked;a=b|chunked ;a|"
            'xchunked|chunkedx|x-chunked|chunk|"chunked"|\'chunked\'|chunked chunked|ch unked|\tchunked|'
            "chunked\t|chunked\x00|\x0bchunked|chunked\x0b|chunked\xa0|cow|deflate|compress|br|trailers|"
            "|,|*|chunked/1|chunked:|chunked, cow|cow, chunked|[chunked]|chunkeđ|\x80chunked"
        ).split("|")
        for value in values:
            field = b"Transfer-Encoding: " + value.encode("latin-1", "replace") + b"\r\n"
            yield f"{value!r}", self._head(field) + _CHUNKS
            yield f"{value!r}, HTTP/1.0", self._head(field, version=b"HTTP/1.0") + _CHUNKS
            yield f"{value!r}, POST", self._head(field, b"POST") + _CHUNKS
            yield f"{value!r} and a length", self._head(field + b"Content-Length: 5\r\n") + _CHUNKS
            yield f"a length and {value!r}", self._head(b"Content-Length: 0\r\n" + field) + _CHUNKS

    def _chunks(self) -> Variants:
        coded = b"Transfer-Encoding: chunked\r\n"
        for name, body in {
            "none": b"0\r\n\r\n",
            "an extension": b"5;a=b\r\nhello\r\n0\r\n\r\n",
            "a long extension": b"5;" + b"a" * 20000 + b"\r\nhello\r\n0\r\n\r\n",
            "an extension with LF": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            "a quoted extension with CR LF": b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n',
            "0x before the size": b"0x5\r\nhello\r\n0\r\n\r\n",
            "+ before the size": b"+5\r\nhello\r\n0\r\n\r\n",
            "a space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
            "a space after the size": b"5 \r\nhello\r\n0\r\n\r\n",
            "noughts before the size": b"0" * 40 + b"5\r\nhello\r\n0\r\n\r\n",
            "a size beyond 64 bits": b"1" + b"0" * 15 + b"5\r\nhello\r\n0\r\n\r\n",
            "a size of -1": b"-1\r\nhello\r\n0\r\n\r\n",
            "no size": b"\r\nhello\r\n0\r\n\r\n",
            "LF after the size": b"5\nhello\r\n0\r\n\r\n",
            "LF after the data": b"5\r\nhello\n0\r\n\r\n",
            "nothing after the data": b"5\r\nhello0\r\n\r\n",
            "more data than the size": b"5\r\nhello!\r\n0\r\n\r\n",
            "LF at the end": b"5\r\nhello\r\n0\n\n",
            "a trailer": b"5\r\nhello\r\n0\r\nX: a\r\n\r\n",
            "a trailer of framing": b"0\r\nContent-Length: 5\r\nHost: evil.example\r\n\r\n",
            "many trailers": b"0\r\n" + b"X: a\r\n" * 200 + b"\r\n",
            "a folded trailer": b"0\r\nX: a\r\n b\r\n\r\n",
            "00 at the end": b"5\r\nhello\r\n00\r\n\r\n",
        }.items():
            yield f"{name}, GET", self._head(coded) + body
            yield f"{name}, POST", self._head(coded, b"POST") + body
        for fields in (b"Trailer: X\r\n", b"TE: trailers\r\n", b"TE: chunked\r\n",
                       b"Trailer: Content-Length\r\nTE: trailers\r\nConnection: TE\r\n"):  # fmt: skip
            yield f"{fields!r} alone", self._head(fields)
            yield f"{fields!r} with chunks", self._head(coded + fields) + _CHUNKS

    def _look_alikes(self) -> Variants:
        for known, value in ((b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked"),
                             (b"Host", b"evil.example"), (b"Connection", b"close")):  # fmt: skip
            for name in (
                known.replace(b"-", b"_"), known.replace(b"-", b""), known.replace(b"-", b" "),
                known.replace(b"-", b"--"), known.replace(b"-", b"."), b"X-" + known, known + b"-X",
                known + b"s", known[:-1], known + b"\x00", known + b"\x0b", b"\x0b" + known,
                known + b"\xa0", b"\xef\xbb\xbf" + known, known.lower(), known.upper(), known + b"\x00",
                known.replace(b"e", b"\xd0\xb5"), known.replace(b"-", b"\xe2\x80\x90"), b'"' + known + b'"',
                known + b"%20", b"%43" + known[1:], b"HTTP_" + known, b":" + known, known + b" x",
            ):  # fmt: skip
                field = name + b": " + value + b"\r\n"
                yield f"{name!r}", self._head(field) + (b"hello" if value == b"5" else b"")

    def _connections(self) -> Variants:
        values = (
            "close|Close|CLOSE|keep-alive|Keep-Alive|keep-alive, close|close, keep-alive|close,|,close|"
            ",|closed|xclose|close x|close;a=b|clo se|\"close\"|upgrade|Upgrade, close|TE|te, close|"
            "x-disclose|keep-alive, x-disclose|keepalive|keep-alive;timeout=5|Host|Content-Length, Host|"
            "close\x00|\x0bclose|close\xa0|close\tkeep-alive|keep-alive keep-alive|HTTP2-Settings"
        ).split("|")
        for value in values:
            field = b"Connection: " + value.encode("latin-1") + b"\r\n"
            yield f"{value!r}", self._head(field)
            yield f"{value!r}, HTTP/1.0", self._head(field, version=b"HTTP/1.0")
        for fields in (
            b"Connection: close\r\nConnection: keep-alive\r\n",
            b"Connection: keep-alive\r\nConnection: close\r\n",
            b"Connection:\r\n", b"connection: close\r\n", b"Proxy-Connection: close\r\n",
            b"Proxy-Connection: keep-alive\r\n", b"Keep-Alive: timeout=5, max=100\r\n",
            b"Connection: keep-alive\r\nProxy-Connection: close\r\n",
        ):  # fmt: skip
            yield f"{fields!r}", self._head(fields)
            yield f"{fields!r}, HTTP/1.0", self._head(fields, version=b"HTTP/1.0")

    def _deciding(self) -> Variants:
        for fields in (
            b"Expect: 100-continue\r\n", b"Expect: 100-Continue\r\n", b"Expect: 200-ok\r\n",
            b"Expect:\r\n", b"Expect: 100-continue, x\r\n", b"Expect: 100-continue\r\nContent-Length: 5\r\n",
            b"Upgrade: h2c\r\n", b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Version: 13\r\n",
            b"Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n", b"HTTP2-Settings: AAMA\r\n",
            b"X-HTTP-Method-Override: DELETE\r\n", b"X-Original-URL: /v2/evil\r\n",
            b"X-Rewrite-URL: /v2/evil\r\n", b"Content-Type: a/b\r\n", b"Content-Encoding: gzip\r\n",
            b"Max-Forwards: 0\r\n", b"Date: x\r\n", b"Range: bytes=0-0\r\n", b"Range: bytes=a\r\n",
        ):  # fmt: skip
            for method in (b"GET", b"POST"):
                body = b"hello" if b"Length: 5" in fields else b""
                yield f"{fields!r}, {method.decode()}", self._head(fields, method) + body
            yield f"{fields!r}, HTTP/1.0", self._head(fields, version=b"HTTP/1.0") + body

    def _repeated(self) -> Variants:
        for field in (
            b"Accept: a/b", b"User-Agent: x", b"Authorization: Basic eDp5", b"Range: bytes=0-0",
            b"If-Range: x", b"If-None-Match: x", b"If-Match: x", b"If-Modified-Since: x",
            b"If-Unmodified-Since: x", b"Date: x", b"Keep-Alive: timeout=5", b"TE: trailers", b"Origin: null", b"Referer: http://localhost/",
            b"Sec-Fetch-Site: none", b"Sec-Fetch-Mode: cors", b"Content-Type: a/b", b"Cookie: a=b",
            b"Expect: 100-continue", b"Upgrade: h2c", b"traceparent: x", b"X: a",
        ):  # fmt: skip
            yield f"{field!r} once", self._head(field + b"\r\n")
            yield f"{field!r} twice", self._head((field + b"\r\n") * 2)
            yield f"{field!r} and another case", self._head(field + b"\r\n" + field.upper() + b"\r\n")

    def _sizes(self) -> Variants:
        for count in (50, 98, 99, 100, 101, 200, 1000):
            yield f"{count} fields and Host", self._head(b"X: a\r\n" * count)
        for size in (1000, 8000, 16000, 31000, 33000, 70000):
            yield f"a value of {size}", self._head(b"X: " + b"a" * size + b"\r\n")
            yield f"a name of {size}", self._head(b"X" * size + b": a\r\n")
        for size in (1000, 8000, 8180, 8192, 8193, 9000, 33000):
            yield f"a target of {size}", self._head(target=b"/" + b"a" * (size - 1))
            yield f"a query of {size}", self._head(target=b"/v2/?" + b"a" * (size - 5))
        whole = self._head()
        for size in range(1, len(whole)):
            if whole[size - 1 : size] in b" /:\r\n":
                yield f"its first {size} bytes", whole[:size]

    def _protocols(self) -> Variants:
        for name, text in {
            "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
            "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(190),
            "SSLv2": bytes.fromhex("802e0100020015000000100100800200800300800400800500800600"),
            "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
            "SMTP": b"EHLO localhost\r\n",
            "FTP": b"USER anonymous\r\n",
            "Redis": b"*1\r\n$4\r\nPING\r\n",
            "memcached": b"stats\r\n",
            "PROXY": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + self._head(),
            "PROXY v2": b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12) + self._head(),
            "FastCGI": b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00",
            "an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "NULs": bytes(4096),
            "0xff": b"\xff" * 64,
            "CR LF": b"\r\n" * 64,
            "spaces": b" " * 64 + b"\r\n\r\n",
            "UTF-16": self._head().decode().encode("utf-16-le"),
            "a byte order mark": b"\xef\xbb\xbf" + self._head(),
        }.items():
            yield name, text

    def _mutations(self) -> Variants:
        chance = random.Random(_SEED)
        bases = [
            self._head(b"Accept: a/b\r\nUser-Agent: x\r\n"),
            self._head(b"Content-Length: 0\r\n", b"POST"),
            self._head(b"Connection: keep-alive\r\nX-Y: z\r\n", b"HEAD", b"/v2/?a=b"),
        ]
        pieces = [
            b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b"\x80", b"/", b"%2e", b"?", b"#", b",",
            b"Host: a\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"X: a\r\n",
            b"Connection: close\r\n", b"HTTP/1.0", b"GET ", b"0", b"_", b"-", b"\r\n\r\n",
        ]  # fmt: skip
        for number in range(_MUTATED):
            text = bytearray(chance.choice(bases))
            for _ in range(chance.randint(1, 3)):
                at = chance.randrange(len(text))
                match chance.randrange(4):
                    case 0:
                        text[at:at] = chance.choice(pieces)
                    case 1:
                        del text[at : at + chance.randint(1, 6)]
                    case 2:
                        text[at] = chance.randrange(256)
                    case _:
                        end = text.find(b"\r\n", at) + 2
                        text[end:end] = chance.choice(pieces)
            yield str(number), bytes(text)


if __name__ == "__main__":
    all_of_them = Corpus("127.0.0.1:5050", "/v2/a/manifests/sha256:" + "0" * 64).messages()
    for kind, count in Counter(message.kind for message in all_of_them).items():
        print(f"{count:5}  {kind}")
    print(f"{len(all_of_them):5}  in all")
