"""From journals to a manifest: check that every shard is there, add up, write; merge partitions."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbformat.absent import PARTITION
from sbformat.errors import BuildError, ManifestError, ShardError, SourceError
from sbformat.manifest import (
    MANIFEST_NAME,
    REJECTS_NAME,
    SOURCES_NAME,
    Manifest,
    ShardRecord,
    SplitManifest,
    write_atomically,
)
from sbformat.schema import COLORSPACES, SPLITS, Colorspace, TargetSpec
from sbprep.discard import clear_journals
from sbprep.disk import write_failure
from sbprep.journal import Key, ShardResult, all_locked, journal_paths, read_journal
from sbprep.rejects import none_usable, rejects_text
from sbprep.request import check_same


def seal(root: Path, header: dict[str, Any], results: Iterable[ShardResult]) -> Manifest:
    """Write the manifest of a complete folder and remove its journals.

    Raises
    ------
    ManifestError
        A shard is missing from the journals, or two of them disagree.
    ShardError
        A journaled shard file is missing.
    BuildError
        No image of a split survived.
    """
    results = list(results)
    _check_whole(root, header, {result.key for result in results})
    splits = {
        name: _seal_split(root, name, header, [result for result in results if result.split == name])
        for name in SPLITS
        if name in header["sources"]
    }
    recipe = dict(header["recipe"])
    manifest = Manifest(
        root=root,
        colorspace=header["colorspace"],
        image_size=recipe.pop("image_size"),
        target=TargetSpec.from_json(recipe.pop("target")),
        label_names=tuple(header["label_names"]),
        recipe=recipe,
        provenance=header["provenance"],
        splits=splits,
    )
    write_manifest(manifest)
    clear_journals(root)
    return manifest


def write_manifest(manifest: Manifest) -> None:
    """Write ``manifest.json``; BuildError where that fails."""
    try:
        manifest.write()
    except OSError as error:
        raise write_failure(manifest.root / MANIFEST_NAME, error) from error


def write_file(path: Path, content: bytes) -> None:
    """Make `path` hold `content`, whole and durable; BuildError where that fails."""
    try:
        write_atomically(path, content)
    except OSError as error:
        raise write_failure(path, error) from error


def is_there(root: Path, split: str, record: ShardRecord) -> bool:
    """Tell whether the file of a recorded shard is there, and of the right size."""
    if record.count == 0:
        return True
    try:
        return (root / split / record.name).stat().st_size == record.bytes
    except OSError:
        return False


def merge(out: Path, colorspaces: Iterable[Colorspace] = COLORSPACES) -> list[Manifest]:
    """Join the partitions of every color space under `out` that has no manifest yet.

    Returns
    -------
    list of Manifest
        The color spaces joined; empty where all that `out` holds is complete already.

    Raises
    ------
    ManifestError
        Nothing to merge, partitions of different builds, shards missing, or a damaged manifest.
    """
    if not out.is_dir():
        raise ManifestError(f"{out}: no such folder. Check the path; it is the --out of the partitions")
    waiting = [name for name in colorspaces if (out / name).is_dir() and journal_paths(out / name)]
    if not waiting and not any((out / name / MANIFEST_NAME).is_file() for name in colorspaces):
        raise ManifestError(
            f"{out}: nothing to merge, no partition was built there. Check the path; it is the --out of "
            f"sbprep build --partition 1/n … n/n"
        )
    for name in colorspaces:
        if not waiting and (out / name / MANIFEST_NAME).is_file():
            Manifest.read(out / name)  # "already merged" is said of a whole manifest only
    return [_merge_folder(out / name) for name in waiting]


def _merge_folder(root: Path) -> Manifest:
    with all_locked(root):
        if (root / MANIFEST_NAME).is_file():  # killed between the last two steps, or while mending
            clear_journals(root)
            return Manifest.read(root)
        return seal(root, *_read_journals(root))


def _read_journals(root: Path) -> tuple[dict[str, Any], list[ShardResult]]:
    headers: list[dict[str, Any]] = []
    results: list[ShardResult] = []
    for path in journal_paths(root):
        header, found = read_journal(path)
        if header is not None:
            _check_same_build(header, headers, path)
            headers.append(header)
            results += found
    if not headers:
        raise ManifestError(f"{root}: its journals are empty. Run sbprep build --partition 1/n … n/n first")
    return headers[0], results


def _check_same_build(header: dict[str, Any], headers: list[dict[str, Any]], path: Path) -> None:
    try:
        check_same(header, headers[0] if headers else header, path)
    except (ManifestError, SourceError) as error:
        raise ManifestError(f"{path}: not a partition of the same build as the journals before it: {error}") from error


def _check_whole(root: Path, header: dict[str, Any], found: set[Key]) -> None:
    """Raise where shards are missing, by the names of the partitions that make them."""
    size = header["recipe"]["images_per_shard"]
    keys = [(name, number) for name, one in header["sources"].items() for number in range(-(-one["listed"] // size))]
    missing = [position for position, key in enumerate(keys) if key not in found]
    if not missing:
        return
    counts = {int(match[2]) for path in journal_paths(root) if (match := PARTITION.fullmatch(path.name))}
    if not counts:
        raise ManifestError(
            f"{root}: {len(missing)} of {len(keys)} shards are missing, its build is not finished. Run its command again"
        )
    # Shard k belongs to partition k modulo n. Where partitions of several n were made, those are named of which fewest lack.
    lacking = {n: sorted({position % n + 1 for position in missing}) for n in sorted(counts, reverse=True)}
    n, parts = min(lacking.items(), key=lambda each: len(each[1]))
    shown = ", ".join(f"{i}/{n}" for i in parts[:8]) + (", …" if len(parts) > 8 else "")
    raise ManifestError(
        f"{root}: {len(missing)} of {len(keys)} shards are missing, those of {len(parts)} "
        f"partition{'s' if len(parts) > 1 else ''}: {shown}. Run sbprep build --partition with each, then merge again"
    )


def _seal_split(root: Path, name: str, header: dict[str, Any], results: list[ShardResult]) -> SplitManifest:
    source = dict(header["sources"][name])
    listed, label_kind, listing = source.pop("listed"), source.pop("label_kind"), source.pop("listing")
    source.pop("dates")
    records = merge_shards([(result.number, result.record) for result in results], f"{root} split {name}")
    for record in records:
        if not is_there(root, name, record):
            raise ShardError(f"{root / name / record.name}: missing or cut, the journal lists it. Run the build again")
    results = sorted({result.number: result for result in results}.values(), key=lambda result: result.number)
    rejects = [entry for result in results for entry in result.rejects]
    content = rejects_text(rejects)
    write_file(root / name / REJECTS_NAME, content)
    rejected = Counter(entry["code"] for entry in rejects)
    if rejected.total() == listed:
        raise BuildError(
            f"{none_usable(name, listed, rejected, _entry_text(rejects[0]))}. All are listed in "
            f"{root / name / REJECTS_NAME}. Mend the images, or leave this split out, and build again with --overwrite"
        )
    return SplitManifest(
        source=source,
        listed=listed,
        rejected=dict(sorted(rejected.items())),
        label_kind=label_kind,
        files={SOURCES_NAME: listing, REJECTS_NAME: hashlib.sha256(content).hexdigest()},
        statistics=_statistics([result.statistics for result in results], header),
        shards=records,
    )


def _entry_text(entry: dict[str, Any]) -> str:
    return f"{entry['path']}: {entry['detail']}"


def _statistics(parts: list[dict[str, Any]], header: dict[str, Any]) -> dict[str, Any]:
    target = TargetSpec.from_json(header["recipe"]["target"])
    images = sum(part["images"] for part in parts)
    sums = np.array([part["sums"] for part in parts], np.int64).sum(axis=0)
    mean, std = statistics_from_sums(sums[:, 0], sums[:, 1], images * header["recipe"]["image_size"] ** 2)
    totals = {
        "target_single": [0] * target.single_classes,
        "target_dual": [0] * target.dual_classes,
        "label": [0] * len(header["label_names"]),
    }
    for part in parts:
        for name, counts in part["counts"].items():
            for value, count in counts:
                totals[name][value] += count
    return {
        "mean": mean,
        "std": std,
        "constant_images": sum(part["constant_images"] for part in parts),
        "constant_channels": np.sum([part["constant_channels"] for part in parts], axis=0).tolist(),
        "target_single_counts": totals["target_single"],
        "target_dual_counts": totals["target_dual"],
        "label_counts": totals["label"] if any(totals["label"]) else [],
    }


def merge_shards(shards: Sequence[tuple[int, ShardRecord]], where: str) -> tuple[ShardRecord, ...]:
    """Order the records of one split by shard number.

    Raises
    ------
    ManifestError
        Two records of one shard disagree.
    """
    by_number: dict[int, ShardRecord] = {}
    for number, record in shards:
        if by_number.setdefault(number, record) != record:
            raise ManifestError(
                f"{where}: shard {number} was built twice with different content. Were the sources changed in between? "
                f"Remove the folder and build again"
            )
    return tuple(by_number[number] for number in sorted(by_number))


def statistics_from_sums(
    sums: NDArray[np.int64], square_sums: NDArray[np.int64], pixels: int
) -> tuple[list[float], list[float]]:
    """Return (mean, std) of each channel in stored units 0…255, from exact integer sums over `pixels` values each."""
    mean = [int(total) / pixels for total in sums]
    variance = [
        (int(squares) * pixels - int(total) ** 2) / pixels**2 for total, squares in zip(sums, square_sums, strict=True)
    ]
    return mean, [value**0.5 for value in variance]
