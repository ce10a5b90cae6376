"""Find every flipped bit of a prepared color space, and rebuild the shards it lies in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sbformat.errors import BuildError, ShardError, SourceError
from sbformat.manifest import MANIFEST_NAME, Manifest, ShardRecord
from sbformat.shard import open_shard
from sbprep.config import BuildConfig
from sbprep.journal import Key
from sbprep.pipeline import run_plan
from sbprep.plan import make_plan
from sbprep.progress import Report
from sbprep.seal import write_manifest


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One damaged place."""

    path: Path
    what: str
    """Dataset, chunk and images; or what is wrong with the file as a whole."""
    keys: tuple[Key, ...]
    """Shards (split, number) to make again; none where the place is mended without making any."""

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def find_damage(manifest: Manifest, workers: int = 1) -> Iterator[Damage]:
    """Read every byte that `manifest` speaks of and yield what differs.

    Hashing lets go of the interpreter's lock, so threads scale until the disk is the limit.
    """
    yield from _damaged_manifest(manifest)
    for name, split in manifest.splits.items():
        yield from _damaged_listings(manifest, name)
        numbered = [(name, number, shard) for number, shard in enumerate(split.shards) if shard.count]
        with ThreadPoolExecutor(workers) as pool:
            for found in pool.map(lambda item: _damaged_shard(manifest, *item), numbered):
                yield from found


def repair(manifest: Manifest, damage: list[Damage], workers: int = -1, report: Report = lambda progress: None) -> int:
    """Make the damaged shards again from the images and check that they come out as the manifest says.

    Returns
    -------
    int
        Number of shards made.

    Raises
    ------
    SplitbrainError
        The images are gone or have changed, or the software gives other bytes now.
    """
    if any(place.path.name == MANIFEST_NAME for place in damage):
        write_manifest(manifest)
    if all(place.path.name == MANIFEST_NAME for place in damage):
        return 0
    plan = make_plan(config_from_manifest(manifest, workers))
    keys = {key for place in damage for key in place.keys}
    return run_plan(plan, report, redo={manifest.colorspace: keys}).made  # any build restores listing and rejects


def config_from_manifest(manifest: Manifest, workers: int = -1) -> BuildConfig:
    """Return the options that `manifest` was built with."""
    recipe = manifest.recipe
    if manifest.root.name != manifest.colorspace:
        raise BuildError(
            f"{manifest.root}: the folder was renamed. Name it {manifest.colorspace} again, so that a build can write there"
        )
    paths = {
        split.source["option"]: Path(split.source["path"])
        for split in manifest.splits.values()
        if split.source["option"] is not None
    }
    for path in paths.values():
        if not path.exists():
            raise SourceError(
                f"{path}: the images are not there (the path is the one given to sbprep build, seen from where that "
                f"ran). Run this command there too, or bring the images back"
            )
    return BuildConfig(
        colorspaces=(manifest.colorspace,),
        paths=paths,
        dataset=recipe["dataset"],
        out=manifest.root.parent,
        image_size=manifest.image_size,
        resize=recipe["resize"],
        target=manifest.target,
        images_per_shard=recipe["images_per_shard"],
        compression=recipe["compression"],
        seed=recipe["seed"],
        limit=recipe["limit"],
        workers=workers,
    )


def _damaged_manifest(manifest: Manifest) -> Iterator[Damage]:
    # Its digest covers the values. A flipped bit can leave them alone: 1e-05 and 1E-05, \u00e9 and \u00E9.
    path = manifest.root / MANIFEST_NAME
    content = path.read_bytes()
    if (json.dumps(json.loads(content), indent=1) + "\n").encode() != content:
        yield Damage(path=path, what="spelled otherwise than sbprep writes it, with the same values", keys=())


def _damaged_listings(manifest: Manifest, split: str) -> Iterator[Damage]:
    for name, expected in manifest.splits[split].files.items():
        path = manifest.root / split / name
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            yield Damage(path=path, what=f"not readable ({error.strerror})", keys=())
            continue
        if found != expected:
            yield Damage(path=path, what=f"sha256 {found[:16]}…, the manifest says {expected[:16]}…", keys=())


def _damaged_shard(manifest: Manifest, split: str, number: int, record: ShardRecord) -> list[Damage]:
    path = manifest.shard_path(split, record)
    try:
        with open_shard(manifest, split, record) as shard:
            found = shard.damage()
    except ShardError as error:
        found = [str(error).removeprefix(f"{path}: ")]
    return [Damage(path=path, what=what, keys=((split, number),)) for what in found]
