"""Find every flipped bit of a prepared color space, and rebuild the shards it lies in; say so, one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

from sbformat.errors import (
    BuildError,
    FormatError,
    ManifestError,
    SchemaVersionError,
    ShardError,
    SourceError,
    SplitbrainError,
)
from sbformat.layout import spelled
from sbformat.manifest import COPY_NAME, MANIFEST_NAME, Manifest, ShardRecord, open_manifest
from sbformat.schema import COLORSPACES
from sbformat.shard import open_shard
from sbformat.words import counted
from sbprep.config import BuildConfig
from sbprep.journal import Key, journal_paths
from sbprep.pipeline import run_plan
from sbprep.plan import make_plan
from sbprep.progress import Report
from sbprep.report import ProgressPrinter, show_damage
from sbprep.seal import write_file


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
    mend_manifest(manifest.root)
    if all(place.path.name in (MANIFEST_NAME, COPY_NAME) for place in damage):
        return 0
    plan = make_plan(config_from_manifest(manifest, workers))
    keys = {key for place in damage for key in place.keys}
    return run_plan(plan, report, redo={manifest.colorspace: keys}).made  # any build restores listing and rejects


def without_manifest(root: Path, colorspace: str | None = None) -> list[Path]:
    """Return the folders of finished sets under `root` (one, or one in it a color space) that lost their manifest."""
    names = [colorspace] if colorspace else COLORSPACES
    return [
        folder
        for folder in (root, *(root / name for name in names))
        if (folder / COPY_NAME).is_file() and not (folder / MANIFEST_NAME).exists() and not journal_paths(folder)
    ]


def mend_manifest(folder: Path) -> list[Path]:
    """Write ``manifest.json`` and its copy anew, each where it is damaged, from the other; where both are whole nothing.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    ManifestError
        Both are damaged, or the copy is not there.
    SchemaVersionError
        Both are of another schema version.
    BuildError
        The folder cannot be written.
    """
    path, copy = folder / MANIFEST_NAME, folder / COPY_NAME
    content = _whole(path) or _whole(copy)
    if content is None:
        if _is_of_another_schema(path) and _is_of_another_schema(copy):
            Manifest.read(path)  # says so; nothing is damaged
        raise ManifestError(_lost_text(path, copy))
    wrong = [one for one in (copy, path) if not one.is_file() or one.read_bytes() != content]
    for one in wrong:
        write_file(one, content)
    return wrong


def _whole(path: Path) -> bytes | None:
    """Return a manifest as sbprep spells it; None where it is not there or its values are not what was written."""
    try:
        Manifest.read(path)
        return spelled(path.read_bytes())
    except (FormatError, OSError):
        return None


def _is_of_another_schema(path: Path) -> bool:
    try:
        Manifest.read(path)
    except SchemaVersionError:
        return True
    except FormatError:
        pass
    return False


def _lost_text(path: Path, copy: Path) -> str:
    shards = sum(1 for _ in path.parent.glob("*/shard-*.h5"))
    return (
        f"{path} is {'damaged' if path.exists() else 'missing'}, and its copy {copy.name} is {'damaged too' if copy.is_file() else 'not there'}; nothing was "
        f"changed. The {shards} shard files beside it may be sound, but cannot be read without it: bring {path.name} "
        f"back from a backup. Without one, the command that built this set makes all of them anew from the images with "
        f"--overwrite, which discards these shards first"
    )


def config_from_manifest(manifest: Manifest, workers: int = -1) -> BuildConfig:
    """Return the options that `manifest` was built with."""
    recipe, root = manifest.recipe, manifest.root.absolute()  # "." has neither a name nor a parent
    if root.name != manifest.colorspace:
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
        out=root.parent,
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
    path, copy = manifest.root / MANIFEST_NAME, manifest.root / COPY_NAME
    content = path.read_bytes()
    whole = spelled(content)
    if whole != content:
        yield Damage(path=path, what="spelled otherwise than sbprep writes it, with the same values", keys=())
    if copy.is_file() and copy.read_bytes() != whole:  # sets of older versions have none
        yield Damage(path=copy, what=f"differs from {MANIFEST_NAME}, which is sound", keys=())


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


# -------------------------------------------------------------------------------------- what `sbprep verify` does and says


def restore_lost_manifests(root: Path, colorspace: str | None, repairing: bool) -> int:
    """Name each finished set under `root` that lost its manifest, and mend it if `repairing`; return how many are left."""
    left = 0
    for folder in without_manifest(root, colorspace):
        click.echo(
            f"DAMAGED {folder / MANIFEST_NAME}: missing. Restore it from its copy: sbprep verify {folder} --repair"
        )
        left += not _manifest_mended(folder, repairing)
    return left


def check(root: Path, colorspace: str | None, workers: int, repairing: bool) -> int:
    """Look at one color space, mend it if `repairing`, and return how many damaged places are left.

    Raises
    ------
    ManifestError
        There is none, or its manifest cannot be read at all.
    """
    manifest = _readable_manifest(root, colorspace, repairing)
    if manifest is None:
        return 1
    damage = show_damage(manifest, find_damage(manifest, workers), repairing)
    if repairing:
        damage = _mended(manifest, damage, workers)
    return len(damage)


def _readable_manifest(root: Path, colorspace: str | None, repairing: bool) -> Manifest | None:
    folder = root if (root / MANIFEST_NAME).is_file() else root / (colorspace or "")
    try:
        return open_manifest(root, colorspace)
    except FormatError as error:
        if not (folder / MANIFEST_NAME).is_file() or isinstance(error.__cause__, OSError):
            raise
        click.echo(f"DAMAGED {error}")
    return open_manifest(root, colorspace) if _manifest_mended(folder, repairing) else None


def _manifest_mended(folder: Path, repairing: bool) -> bool:
    try:
        for path in mend_manifest(folder) if repairing else ():
            click.echo(f"{path}: restored")
    except SplitbrainError as error:
        click.echo(f"Error: not mended: {error}", err=True)
        return False
    return repairing


def _mended(manifest: Manifest, damage: list[Damage], workers: int) -> list[Damage]:
    """Mend a set and return what is damaged still; one that is sound may lack the copy of its manifest."""
    try:
        if not damage:
            mend_manifest(manifest.root)
            return damage
        with ProgressPrinter() as progress:
            made = repair(manifest, damage, workers, progress)
    except SplitbrainError as error:
        click.echo(f"Error: not mended: {error}", err=True)
        return damage or [Damage(path=manifest.root, what="the copy of its manifest cannot be written", keys=())]
    damage = list(find_damage(manifest, workers))
    click.echo(f"{manifest.root}: {counted(made, 'shard')} made again, {counted(len(damage), 'place')} still damaged")
    return damage
