"""A private CA and one server certificate for all the names that the stand-in answers to.

Made by the `openssl` command at every start: keys that live only in a test's directory cannot
end in a commit, and the daemon under test proves that it trusts `ca_file` and nothing else.
The token proxy of a cluster and the identity endpoint of Service Fabric have certificates of
their own, below `proxy` and `fabric`, because nobody else's CA is good for them.
"""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from pathlib import Path

from .settings import CLOUDS

REGIONS = ("westeurope", "northeurope")
PROXY_NAME = "aks-binding.ests.localhost"

NAMES = [
    "localhost",
    "hub.localhost",
    "auth.localhost",
    "ghcr.localhost",
    "ecr.localhost",
    "gar.localhost",
    "*.blob.localhost",
]
for _suffix, _authority, _ in CLOUDS.values():
    NAMES += [_authority, f"*.{_suffix}", f"*.data.{_suffix}"]
    NAMES += [f"*.{region}.geo.{_suffix}" for region in REGIONS]
    NAMES += [f"*.{region}.data.{_suffix}" for region in REGIONS]


def make_authority(directory: Path, names: list[str] | None = None) -> Path:
    """Writes ca.pem, server.pem and server.key; returns the path of ca.pem."""
    directory.mkdir(parents=True, exist_ok=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(directory, "req", "-x509", *key, "-days", "2", "-subj", "/CN=Staithe test CA",
             "-addext", "basicConstraints=critical,CA:TRUE",
             "-addext", "keyUsage=critical,keyCertSign,cRLSign",
             "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
    _openssl(directory, "req", *key, "-subj", "/CN=stand-in", "-keyout", "server.key",
             "-out", "server.csr")  # fmt: skip
    listed = ",".join(f"DNS:{name}" for name in names or NAMES) + ",IP:127.0.0.1"
    (directory / "server.ext").write_text(
        f"subjectAltName={listed}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n"
    )
    _openssl(directory, "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
             "-CAcreateserial", "-days", "2", "-extfile", "server.ext", "-out",
             "server.pem")  # fmt: skip
    return directory / "ca.pem"


def make_self_signed(directory: Path) -> str:
    """A certificate that only its thumbprint vouches for; returns that (SHA-1, as hex)."""
    directory.mkdir(parents=True, exist_ok=True)
    _openssl(directory, "req", "-x509", "-newkey", "ec", "-pkeyopt",
             "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
             "/CN=service-fabric", "-keyout", "server.key", "-out", "server.pem")  # fmt: skip
    der = ssl.PEM_cert_to_DER_cert((directory / "server.pem").read_text())
    return hashlib.sha1(der).hexdigest().upper()


def server_context(directory: Path, only_name: str | None = None) -> ssl.SSLContext:
    """With `only_name`, a client that does not ask for just this server gets an alert."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    context.set_alpn_protocols(["http/1.1"])
    if only_name:

        def check(_socket: ssl.SSLObject, name: str | None, _context: ssl.SSLContext):
            return None if name == only_name else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

        context.sni_callback = check  # type: ignore[assignment]
    return context


def private_keys(directory: Path) -> list[str]:
    return [path.read_text() for path in sorted(directory.glob("**/*.key"))]


def _openssl(directory: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], cwd=directory, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
