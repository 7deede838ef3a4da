#!/usr/bin/python3
"""How addresses that nobody may be led to can be written where a URL has its host.

Every form that some resolver, browser or library has taken for an address, and tricks around the
host. `hosts.jsonl` beside this file holds them all, one ["address", "spelling"] in each line, for
the tests in C++ and Python; running this file writes it again.
"""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

FILE = Path(__file__).with_name("hosts.jsonl")

V4 = ("127.0.0.1", "127.9.9.9", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.4",
      "192.168.7.7", "100.64.1.1", "169.254.7.7", "169.254.169.254", "168.63.129.16", "224.0.0.1",
      "255.255.255.255", "240.0.0.1", "198.51.100.5")  # fmt: skip

OTHERS = {
    "::1": ("[::1]", "[0:0:0:0:0:0:0:1]", "[0000:0000:0000:0000:0000:0000:0000:0001]", "[::0:1]",
            "[0::1]", "[::0.0.0.1]", "[::1%25lo]", "[::1%lo]", "::1", "[::1", "[0:0::1]"),
    "localhost": ("localhost", "LOCALHOST", "LocalHost", "localhost.", "r.localhost", "x.y.LOCALHOST",
                  "%6cocalhost", "\uff4cocalhost"),
    "::": ("[::]", "[0:0:0:0:0:0:0:0]", "[::0.0.0.0]", "[0::]"),
    "fe80::1": ("[fe80::1]", "[FE80::1]", "[fe80::1%25lo]", "[febf::1]"),
    "fd12::4": ("[fd12::4]", "[FD12:0::4]", "[fc00::4]", "[fec0::4]"),
    "fd00:ec2::254": ("[fd00:ec2::254]", "[FD00:0EC2::0254]", "[fd20:ce::254]"),
    "ff02::1": ("[ff02::1]", "[FF05::1]"),
    "2001:db8::1": ("[2001:db8::1]", "[100::1]", "[3fff::1]"),
}  # fmt: skip


def of_v4(address: str) -> list[str]:
    number = int(ipaddress.IPv4Address(address))
    a, b, c, d = ipaddress.IPv4Address(address).packed
    rest, low, high = number & 0xFFFFFF, number & 0xFFFF, number >> 16
    turned = number ^ 0xFFFFFFFF
    return [
        address,
        f"{address}.",
        # As inet_aton reads it: one to four numbers, each decimal, octal or hexadecimal.
        f"{number}", f"0x{number:x}", f"0X{number:X}", f"0{number:o}", f"0x{number:010x}",
        f"000000{number:o}", f"{a}.{rest}", f"{a}.{b}.{low}", f"0x{a:x}.{rest}",
        f"0{a:o}.0x{rest:x}", f"{a}.0{b:o}.0x{low:x}", f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}",
        f"0x{a:02X}.0x{b:02X}.0x{c:02X}.0x{d:02X}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"{a:04o}.{b:04o}.{c:04o}.{d:04o}", f"0x{a:x}.0{b:o}.{c}.{d}", f"{a}.0x{b:x}.0{c:o}.{d}",
        f"0x{a:x}.{rest}.",
        # Inside an IPv6 address: mapped, compatible, translated, NAT64, 6to4, Teredo.
        f"[::ffff:{address}]", f"[::FFFF:{high:x}:{low:x}]", f"[0:0:0:0:0:ffff:{high:x}:{low:x}]",
        f"[0000:0000:0000:0000:0000:FFFF:{high:04X}:{low:04X}]", f"[::{address}]",
        f"[::ffff:0:{high:x}:{low:x}]", f"[64:ff9b::{address}]", f"[64:ff9b::{high:x}:{low:x}]",
        f"[0064:FF9B:0:0:0:0:{high:X}:{low:X}]", f"[2002:{high:x}:{low:x}::1]",
        f"[2001::{turned >> 16:x}:{turned & 0xFFFF:x}]", f"[::ffff:{address}%25lo]",
        f"[::ffff:{high:x}:{low:x}%lo]",
        # What is another host to another parser.
        "".join(f"%{ord(letter):02x}" for letter in address),
        "".join("\u3002" if letter == "." else chr(0xFF10 + int(letter)) for letter in address),
        f"registry-1.docker.io@{address}", f"user:password@{address}", f"{address}%20",
        f"{address}%00.docker.io", f"{address}\\@registry-1.docker.io",
        f"{address}#@registry-1.docker.io", f"[{address}]", f" {address}", f"{address}\t",
    ]  # fmt: skip


def generate() -> list[tuple[str, str]]:
    """Address and spelling; no spelling comes twice."""
    found = {spelling: address for address in V4 for spelling in of_v4(address)}
    found |= {spelling: address for address, written in OTHERS.items() for spelling in written}
    return [(address, spelling) for spelling, address in found.items()]


def lines() -> str:
    return "".join(json.dumps(pair) + "\n" for pair in generate())


if __name__ == "__main__":
    FILE.write_text(lines())
    print(f"{FILE.name}: {len(generate())} spellings")
