"""Makes a PNG of a screen smaller: at most 256 colours, which is what text and boxes need.

A browser writes three or four bytes for each point. Here the most frequent colours are kept, each
other one becomes the nearest of these, and a point is one byte.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def with_few_colours(file: Path) -> None:
    """Rewrites the file, of 8 bits for each of red, green, blue and perhaps alpha, which it drops."""
    width, height, rows = _read(file.read_bytes())
    points = [[tuple(row[i : i + 3]) for i in range(0, len(row), len(row) // width)] for row in rows]
    counts = Counter(colour for row in points for colour in row)
    palette = [colour for colour, _ in counts.most_common(256)]
    index = {
        colour: min(range(len(palette)), key=lambda i: _distance(palette[i], colour))
        for colour in counts
    }
    lines = b"".join(b"\0" + bytes(index[colour] for colour in row) for row in points)
    file.write_bytes(
        _SIGNATURE
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + _chunk(b"PLTE", b"".join(map(bytes, palette)))
        + _chunk(b"IDAT", zlib.compress(lines, 9))
        + _chunk(b"IEND", b"")
    )


def _distance(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += length + 12


def _read(data: bytes) -> tuple[int, int, list[bytearray]]:
    """Width, height and the rows as they are without filters (PNG 1.2, section 6)."""
    chunks = list(_chunks(data))
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if depth != 8 or kind not in (2, 6) or interlaced:
        raise ValueError("not a picture as a browser makes it")
    step = 3 if kind == 2 else 4
    packed = zlib.decompress(b"".join(content for name, content in chunks if name == b"IDAT"))
    length = width * step
    above = bytearray(length)
    rows = []
    for at in range(0, len(packed), length + 1):
        row = bytearray(packed[at + 1 : at + 1 + length])
        _unfilter(packed[at], row, above, step)
        rows.append(row)
        above = row
    return width, height, rows


def _unfilter(kind: int, row: bytearray, above: bytearray, step: int) -> None:
    if kind == 0:
        return
    for i, value in enumerate(row):
        left = row[i - step] if i >= step else 0
        corner = above[i - step] if i >= step else 0
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = above[i]
        elif kind == 3:
            guess = (left + above[i]) // 2
        else:
            guess = _nearest(left, above[i], corner)
        row[i] = (value + guess) & 255


def _nearest(left: int, up: int, corner: int) -> int:
    """Paeth's: whichever of them is next to left + up - corner."""
    sum_ = left + up - corner
    return min((left, up, corner), key=lambda value: abs(sum_ - value))
