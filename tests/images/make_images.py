#!/usr/bin/python3
"""Makes the images of demo and tests from local bytes, once, into a docker-registry's directory.

    make_images.py DIR [--noise contoso/crowd:256MiB ...]

DIR/registry is the storage directory of a docker-registry that has them all; DIR/images.json
names them. What is there already is not made again. Prints the references and their digests.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import layers  # noqa: E402
from registry import DOCKER, OCI, Manifest, Registry, running  # noqa: E402

# Raise it when a recipe below changes, so that what older ones have made is made anew.
RECIPES = 3
MIB = 1024 * 1024
BIG = 512 * MIB


def ensure(directory: Path, noise: list[tuple[str, int]] | None = None) -> dict[str, dict]:
    """The images of all recipes, and one noise image for each (`repository:tag`, size).

    Gives reference -> {"digest", "media_type", "layers": [{"digest", "size"}], ...}. A lock on
    the directory lets tests that run at the same time share the work instead of doing it twice.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = _read(directory)
        missing = [name for name in RECIPE if name not in made]
        wanted_noise = [(r, size) for r, size in noise or [] if r not in made]
        if missing or wanted_noise:
            with tempfile.TemporaryDirectory(dir=directory) as scratch_name:
                scratch = Path(scratch_name)
                root = directory / "registry"
                with running(root, scratch) as url:
                    registry = Registry(url)
                    for name in missing:
                        print(f"making {name}", file=sys.stderr, flush=True)
                        made.update(RECIPE[name](registry, scratch))
                        _write(directory, made)
                    for reference, size in wanted_noise:
                        made.update(_noise(registry, scratch, reference, size))
                        _write(directory, made)
        return made


# Every image comes in two versions that share no bytes: a client that takes the second finds
# nothing of it in a cache that the first has warmed.
VERSIONS = ("1", "2")


def _busybox(registry: Registry, scratch: Path) -> dict:
    found: dict = {}
    for version in VERSIONS:
        layer = layers.busybox(scratch, f"busybox {version}")
        manifest = registry.push_image("contoso/busybox", version, [layer], DOCKER)
        found |= _described(f"contoso/busybox:{version}", manifest)
    # The same layer below another repository and at another registry: who may have the one
    # has not thereby a right to the other.
    layer = layers.busybox(scratch, "busybox 1")
    for repository in ("contoso/team-a/private", "hub/library/busybox"):
        manifest = registry.push_image(repository, "1", [layer], OCI)
        found |= _described(f"{repository}:1", manifest)
    return found


def _fabrikam(registry: Registry, scratch: Path) -> dict:
    # Another registry's image of the same name, with other bytes.
    layer = layers.busybox(scratch, "fabrikam")
    manifest = registry.push_image("fabrikam/busybox", "1", [layer], OCI)
    return _described("fabrikam/busybox:1", manifest)


def _debian(registry: Registry, scratch: Path) -> dict:
    made, how = layers.debian(scratch, list(VERSIONS))
    found: dict = {}
    for version, layer in zip(VERSIONS, made, strict=True):
        manifest = registry.push_image("contoso/debian", version, [layer], OCI)
        found |= _described(f"contoso/debian:{version}", manifest, made_by=how)
    return found


def _big(registry: Registry, scratch: Path) -> dict:
    found: dict = {}
    for version in VERSIONS:
        found |= _noise(registry, scratch, f"contoso/big:{version}", BIG)
    return found


def _multi(registry: Registry, scratch: Path) -> dict:
    found: dict = {}
    for repository, family in (("contoso/multi", OCI), ("hub/library/multi", DOCKER)):
        for version in VERSIONS:
            children = []
            for architecture in ("amd64", "arm64"):
                mark = f"{repository} {version} {architecture}"
                own = layers.text(scratch, "etc/architecture", mark + "\n")
                # The busybox of this machine is of one architecture; the other is bytes only.
                stack = [own] if architecture == "arm64" else [layers.busybox(scratch, mark), own]
                children.append(registry.push_image(repository, None, stack, family, architecture))
            index = registry.push_index(repository, version, children, family)
            digests = {c.platform["architecture"]: c.digest for c in children if c.platform}
            blobs = [layer for child in children for layer in json.loads(child.body)["layers"]]
            found |= _described(f"{repository}:{version}", index, children=digests, blobs=blobs)
    return found


def _noise(registry: Registry, scratch: Path, reference: str, size: int) -> dict:
    repository, _, tag = reference.partition(":")
    layer = layers.noise(scratch, "noise", size, seed=reference)
    manifest = registry.push_image(repository, tag, [layer], OCI)
    layer.path.unlink()
    return _described(reference, manifest)


# The reference by which a recipe's work is recognised as done.
RECIPE = {
    "contoso/busybox:1": _busybox,
    "fabrikam/busybox:1": _fabrikam,
    "contoso/debian:1": _debian,
    "contoso/big:1": _big,
    "contoso/multi:1": _multi,
}


def _described(reference: str, manifest: Manifest, blobs=None, **more) -> dict:
    value = json.loads(manifest.body)
    parts = blobs if blobs is not None else value["layers"]
    return {
        reference: {
            "digest": manifest.digest,
            "media_type": manifest.media_type,
            "size": len(manifest.body),
            "config": value.get("config", {}).get("digest"),
            "layers": [{"digest": part["digest"], "size": part["size"]} for part in parts],
            **more,
        }
    }


def _read(directory: Path) -> dict[str, dict]:
    path = directory / "images.json"
    if not path.is_file():
        return {}
    value = json.loads(path.read_text())
    if value["recipes"] == RECIPES:
        return value["images"]
    path.unlink()
    shutil.rmtree(directory / "registry")
    return {}


def _write(directory: Path, images: dict[str, dict]) -> None:
    path = directory / "images.json"
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"recipes": RECIPES, "images": images}, indent=1))
    new.rename(path)


def _size(text: str) -> int:
    for unit, factor in (("KiB", 1024), ("MiB", MIB), ("GiB", 1024 * MIB)):
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * factor
    return int(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument(
        "--noise",
        nargs="*",
        default=[],
        metavar="REPOSITORY:SIZE",
        help="also an image of this many random bytes, e.g. contoso/crowd:256MiB",
    )
    options = parser.parse_args()
    noise = [(reference, _size(reference.partition(":")[2])) for reference in options.noise]
    images = ensure(options.directory, noise)
    print(json.dumps(images, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
