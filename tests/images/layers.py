"""Layers made of what this machine has: busybox, a Debian root, and bytes that do not compress.

The same input gives the same bytes: times are zero and names are sorted, so that a digest in a
log can be found again in the next run.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1024 * 1024
TAR_HEADER = 512
TAR_END = 1024
MARK = "etc/staithe-image"


@dataclass(frozen=True)
class Layer:
    """A layer as it will be pushed. `diff_id` is the digest of its tar without compression."""

    path: Path
    digest: str
    size: int
    diff_id: str
    compressed: bool


def busybox(directory: Path, mark: str) -> Layer:
    """/bin/busybox with a link for every applet: enough for `docker run`.

    `mark` goes into a file, so that each image has bytes of its own.
    """
    binary = Path("/bin/busybox")
    applets = subprocess.run(
        [binary, "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp"):
            tar.addfile(_entry(name, tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755))
        _add_bytes(tar, "bin/busybox", binary.read_bytes(), 0o755)
        for applet in sorted(set(applets) - {"busybox"}):
            link = _entry(f"bin/{applet}", tarfile.SYMTYPE, 0o777)
            link.linkname = "busybox"
            tar.addfile(link)
        _add_bytes(tar, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n", 0o644)
        _add_bytes(tar, "etc/group", b"root:x:0:\n", 0o644)
        _add_bytes(tar, MARK, f"{mark}\n".encode(), 0o644)
    return _compressed(directory / "busybox.tar.gz", buffer.getvalue())


def text(directory: Path, name: str, content: str) -> Layer:
    """One small file; what tells two otherwise equal images apart."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add_bytes(tar, name, content.encode(), 0o644)
    return _compressed(directory / f"text-{name.replace('/', '-')}.tar.gz", buffer.getvalue())


def debian(directory: Path, marks: list[str]) -> tuple[list[Layer], str]:
    """Root file systems of the running release, one for each mark, and how they came about.

    debootstrap needs a mirror; without one the same files are taken from this machine's own
    essential packages, which is a Debian root as well, though not a pristine one.
    """
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        root = Path(scratch) / "root"
        failure = _debootstrap(root)
        if failure is None:
            how = "debootstrap --variant=minbase"
        else:
            print(f"debootstrap failed ({failure}); taking local package files", file=sys.stderr)
            for mount in ("proc", "sys"):
                # It mounts them for the packages' scripts, and forgets them when it fails.
                subprocess.run(["umount", "-l", root / mount], capture_output=True, check=False)
            shutil.rmtree(root, ignore_errors=True)
            _copy_essential_packages(root)
            how = "files of the local essential packages"
        for leftovers in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / leftovers, ignore_errors=True)
        return [_tar_of(root, directory, mark) for mark in marks], how


def _tar_of(root: Path, directory: Path, mark: str) -> Layer:
    (root / MARK).write_text(mark + "\n")
    tar = directory / "root.tar"
    path = directory / f"debian-{mark}.tar.gz"
    subprocess.run(
        ["tar", "--sort=name", "--mtime=@0", "--numeric-owner", "--exclude=./dev/*",
         "-C", root, "-cf", tar, "."],
        check=True,
    )  # fmt: skip
    diff_id, _ = digest_of(tar)
    with open(path, "wb") as out:
        subprocess.run(["gzip", "-n", "-1", "-c", tar], stdout=out, check=True)
    tar.unlink()
    digest, size = digest_of(path)
    return Layer(path, digest, size, diff_id, compressed=True)


def noise(directory: Path, name: str, size: int, seed: str) -> Layer:
    """A tar of exactly `size` bytes whose one file cannot be compressed.

    The bytes are AES in counter mode over zeros: as fast as the disk, and the same for the same
    seed. It is pushed without compression, so size and digest are those of the tar.
    """
    inside = size - TAR_HEADER - TAR_END
    if inside <= 0 or inside % 512:
        raise ValueError(f"a tar cannot be {size} bytes long")
    header = _entry("noise.bin", tarfile.REGTYPE, 0o644)
    header.size = inside
    path = directory / f"{name}.tar"
    sha = hashlib.sha256()
    with open(path, "wb") as out:
        pieces = [header.tobuf(tarfile.USTAR_FORMAT)]
        for piece in (*pieces, *_keystream(seed, inside), b"\0" * TAR_END):
            sha.update(piece)
            out.write(piece)
    digest = f"sha256:{sha.hexdigest()}"
    return Layer(path, digest, size, digest, compressed=False)


def digest_of(path: Path) -> tuple[str, int]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"sha256:{digest}", path.stat().st_size


def _keystream(seed: str, length: int) -> Iterator[bytes]:
    key = hashlib.sha256(seed.encode()).hexdigest()[:32]
    command = ["openssl", "enc", "-aes-128-ctr", "-K", key, "-iv", "0" * 32, "-in", "/dev/zero"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    ) as maker:
        assert maker.stdout
        while length > 0:
            piece = maker.stdout.read(min(CHUNK, length))
            if not piece:
                raise RuntimeError("openssl ended early")
            yield piece
            length -= len(piece)
        maker.terminate()


def _debootstrap(root: Path) -> str | None:
    """None when it worked, else the last line that it said."""
    codename = ""
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            codename = line.partition("=")[2].strip('"')
    program = shutil.which("debootstrap", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not program or not codename:
        return "not installed, or the release has no codename"
    command = [program, "--variant=minbase", codename, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    said = (done.stdout + done.stderr).strip().splitlines()
    return said[-1] if said else f"exit {done.returncode}"


def _copy_essential_packages(root: Path) -> None:
    packages = _with_dependencies()
    # Names that exist are taken as they are, links as links, so that merged /usr stays merged.
    files = subprocess.run(
        ["dpkg", "-L", *packages], capture_output=True, text=True, check=False
    ).stdout.splitlines()
    present = sorted({f.lstrip("/") for f in files if f.startswith("/") and Path(f).exists()})
    root.mkdir()
    for merged in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / merged).mkdir(parents=True)
        (root / merged).symlink_to(f"usr/{merged}")
    listing = "\0".join(p for p in present if p and p not in ("bin", "sbin", "lib", "lib64"))
    tar = subprocess.run(
        ["tar", "-C", "/", "--no-recursion", "--ignore-failed-read", "--null", "-T", "-",
         "-cf", "-"],
        input=listing.encode(), capture_output=True, check=True,
    )  # fmt: skip
    unpack = ["tar", "-C", str(root), "--keep-directory-symlink", "-xf", "-"]
    subprocess.run(unpack, input=tar.stdout, check=True)


def _with_dependencies() -> list[str]:
    """The installed packages that a minimal system consists of, and what they depend on."""
    wanted = "${Package}\t${Essential}\t${Priority}\t${Pre-Depends}, ${Depends}\n"
    query = ["dpkg-query", "-W", "-f", wanted]
    listed = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    needs: dict[str, set[str]] = {}
    todo = []
    for line in listed.splitlines():
        name, essential, priority, depends = line.split("\t")
        alternatives = depends.replace("|", ",").split(",")
        needs[name] = {a.split()[0].partition(":")[0] for a in alternatives if a.strip()}
        if essential == "yes" or priority == "required":
            todo.append(name)
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name in needs and name not in found:
            found.add(name)
            todo += needs[name]
    return sorted(found)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = mode
    return entry


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = _entry(name, tarfile.REGTYPE, mode)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _compressed(path: Path, tar: bytes) -> Layer:
    path.write_bytes(gzip.compress(tar, mtime=0))
    digest, size = digest_of(path)
    return Layer(path, digest, size, f"sha256:{hashlib.sha256(tar).hexdigest()}", compressed=True)
