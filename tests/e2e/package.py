"""The package under test: made by cpack of the build that is tested, anew when that has changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from clean_root import locked, run
from staithed import REPOSITORY_ROOT, binary

PROGRAMS = ("staithed", "staithe", "docker-credential-staithe", "staithe-credential-provider")
_SOURCES = ("packaging", "systemd", "etc", "docs", "README.md")


def package() -> Path:
    build = binary("staithed").parent
    with locked():
        made = sorted((build / "package").glob("*.deb"))
        if not made or made[0].stat().st_mtime < _newest():
            for old in made:
                old.unlink()
            run("cpack", "-G", "DEB", cwd=build)
            made = sorted((build / "package").glob("*.deb"))
        return made[0]


def _newest() -> float:
    files = [binary(name) for name in PROGRAMS]
    for name in _SOURCES:
        path = REPOSITORY_ROOT / name
        files += [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return max(path.stat().st_mtime for path in files)


def newer(of: Path, directory: Path) -> Path:
    """The same with the next release number, a changed sample configuration and nothing else."""
    tree = directory / "newer"
    run("dpkg-deb", "--raw-extract", of, tree)
    control = tree / "DEBIAN/control"
    version = run("dpkg-deb", "--field", of, "Version").stdout.strip()
    control.write_text(control.read_text().replace(f"Version: {version}", f"Version: {version}.1"))
    sample = tree / "etc/staithe/staithe.toml"
    sample.write_text(sample.read_text() + "\n# A line of the newer version.\n")
    sums = tree / "DEBIAN/md5sums"
    lines = [l for l in sums.read_text().splitlines() if not l.endswith("etc/staithe/staithe.toml")]
    sums.write_text("\n".join(lines) + "\n")
    made = directory / "newer.deb"
    run("dpkg-deb", "--root-owner-group", "--build", "-Zgzip", "-z1", tree, made)
    shutil.rmtree(tree)
    os.chmod(made, 0o644)
    return made
