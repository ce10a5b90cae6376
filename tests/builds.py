"""Small image sets, builds of them, and what they leave on disk."""

import copy
import hashlib
import os
import resource
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sbformat.manifest import COPY_NAME, Manifest
from sbformat.schema import TargetSpec
from sbformat.shard import open_shard
from sbprep.config import BuildConfig
from sbprep.pipeline import Outcome, build
from sbprep.plan import Plan, make_plan

ROOT = Path(__file__).parents[1]
CLASSES = ("cat", "dog", "eel")

#: As command line options, what `small_config` sets.
SMALL_OPTIONS = ("--image-size", "16", "--target-size", "4", "--images-per-shard", "16")


#: The first line of a journal, as `Plan.header` makes it.
HEADER: dict[str, Any] = {
    "colorspace": "lab",
    "recipe": {"seed": 0, "image_size": 96, "target": {"size": 12, "dual": 10}},
    "provenance": {"software": {"opencv": "5.0", "h5py": "3.16"}},
    "sources": {
        "train": {
            "kind": "folder",
            "option": "source",
            "path": "photos",
            "listed": 40,
            "fingerprint": "0123456789abcdef",
            "dates": "fedcba9876",
        }
    },
    "label_names": ["cat", "dog"],
}


def changed(**changes: Any) -> dict[str, Any]:
    """Return the header with one field changed, named like ``recipe__seed``."""
    header = copy.deepcopy(HEADER)
    for name, value in changes.items():
        *outer, last = name.split("__")
        place = header
        for key in outer:
            place = place[key]
        place[last] = value
    return header


def pixels_of(name: str, size: int = 16) -> NDArray[np.uint8]:
    """Noise that depends on `name` alone, uint8 (size, size, 3)."""
    return np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (size, size, 3), np.uint8)


def write_image(path: Path, size: int = 16) -> Path:
    """Write the noise of this file name, in the format that it ends with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels_of(path.name, size)).save(path)
    return path


def write_images(root: Path, count: int, split: str = "train") -> Path:
    """Write ``<split>/<class>/<number>.png``, the classes in turns."""
    for number in range(count):
        write_image(root / split / CLASSES[number % 3] / f"{number:03d}.png")
    return root


def small_config(source: Path | None, out: Path, *colorspaces: str, **options: Any) -> BuildConfig:
    """Images of 16 x 16, targets of 4 x 4, 16 images a shard, one worker, unless `options` say otherwise."""
    paths = {} if source is None else {"source": source}
    settings = {"paths": paths, "image_size": 16, "target": TargetSpec(size=4), "images_per_shard": 16, "workers": 1}
    return BuildConfig(colorspaces=colorspaces or ("rgb",), out=out, **(settings | options))


def small_plan(source: Path | None, out: Path = Path("unused"), **options: Any) -> Plan:
    return make_plan(small_config(source, out, **options))


def small_build(source: Path | None, out: Path, *colorspaces: str, **options: Any) -> Outcome:
    return build(small_config(source, out, *colorspaces, **options))


def small_manifest(source: Path | None, out: Path, **options: Any) -> Manifest:
    """Build rgb, the quickest, and return its manifest."""
    manifest = small_build(source, out, **options).manifests["rgb"]
    assert manifest is not None
    return manifest


def tree(root: Path) -> dict[str, str]:
    """Every file below `root`: relative path -> sha256."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def unfinished(root: Path) -> list[str]:
    """Names below `root` of what no finished build leaves: temporary files, markers, journals."""
    names = sorted(path.name for path in root.rglob("*") if path.name.startswith((".", "journal")))
    return [name for name in names if name != COPY_NAME]


def rows(manifest: Manifest, split: str, dataset: str) -> NDArray[Any]:
    """One dataset of a split, the shards one after the other."""
    parts = []
    for record in manifest.splits[split].shards:
        if record.count:
            with open_shard(manifest, split, record) as shard:
                parts.append(np.array(shard.array(dataset)))
    return np.concatenate(parts)


def sources(manifest: Manifest, split: str) -> list[str]:
    """Lines of ``sources.txt``."""
    return (manifest.root / split / "sources.txt").read_text().splitlines()


def command(*arguments: str | Path) -> list[str]:
    """Return what starts sbprep in a process of its own."""
    return [sys.executable, "-m", "sbprep", *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    """Return the environment in which `command` finds the packages of this tree."""
    return os.environ | {"PYTHONPATH": f"{ROOT / 'preprocess'}:{ROOT / 'train'}"} | changes


def run_sbprep(*arguments: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run sbprep in a process of its own; `changes` go to its environment."""
    return subprocess.run(
        command(*arguments), env=environment(**changes), capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes: what a full disk or a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
