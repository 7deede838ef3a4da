"""A private CA and one server certificate for all the names that the stand-in answers to.

Made by the `openssl` command at every start: keys that live only in a test's directory cannot
end in a commit, and the daemon under test proves that it trusts `ca_file` and nothing else.
"""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

NAMES = [
    "localhost",
    "login.localhost",
    "hub.localhost",
    "auth.localhost",
    "*.azurecr.localhost",
    "*.westeurope.geo.azurecr.localhost",
    "*.westeurope.data.azurecr.localhost",
    "*.data.azurecr.localhost",
    "*.blob.localhost",
]


def make_authority(directory: Path) -> Path:
    """Writes ca.pem, server.pem and server.key; returns the path of ca.pem."""
    directory.mkdir(parents=True, exist_ok=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(directory, "req", "-x509", *key, "-days", "2", "-subj", "/CN=Staithe test CA",
             "-addext", "basicConstraints=critical,CA:TRUE",
             "-addext", "keyUsage=critical,keyCertSign,cRLSign",
             "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
    _openssl(directory, "req", *key, "-subj", "/CN=stand-in", "-keyout", "server.key",
             "-out", "server.csr")  # fmt: skip
    names = ",".join(f"DNS:{name}" for name in NAMES) + ",IP:127.0.0.1"
    (directory / "server.ext").write_text(
        f"subjectAltName={names}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n"
    )
    _openssl(directory, "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
             "-CAcreateserial", "-days", "2", "-extfile", "server.ext", "-out",
             "server.pem")  # fmt: skip
    return directory / "ca.pem"


def server_context(directory: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    context.set_alpn_protocols(["http/1.1"])
    return context


def _openssl(directory: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], cwd=directory, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
