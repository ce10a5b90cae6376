"""One color space's folder: a journal of finished shards while it is built, a manifest when it is complete.

data_cache/<colorspace>/journal.jsonl            while building (journal-2-of-3.jsonl for a partition)
data_cache/<colorspace>/manifest.json            complete
data_cache/<colorspace>/<split>/sources.txt      the listing that `source_index` counts in
data_cache/<colorspace>/<split>/rejects.jsonl    images left out, with reasons
data_cache/<colorspace>/<split>/shard-00000.h5
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from sbformat.errors import BuildError, ManifestError, ShardError, SourceError
from sbformat.manifest import (
    MANIFEST_NAME,
    Manifest,
    ShardRecord,
    SplitManifest,
    merge_shards,
    statistics_from_sums,
    write_atomically,
)
from sbformat.schema import COLORSPACES, SPLITS, Colorspace, TargetSpec
from sbprep.journal import Journal, Key, ShardResult, all_locked, check_same, journal_paths, read_journal
from sbprep.plan import Plan
from sbprep.worker import Finished
from sbprep.writer import commit, write_failure

SOURCES_NAME = "sources.txt"
REJECTS_NAME = "rejects.jsonl"

_SHARD = re.compile(r"shard-(\d{5,})\.h5")
#: What `write_atomically`, `ShardWriter` and `InFlight` call their files; anybody else's are left alone.
_UNFINISHED = re.compile(rf"\.(?:{_SHARD.pattern}|sources\.txt|rejects\.jsonl|manifest\.json)\.\d+\.(?:tmp|inflight)")


class Store:
    """The folder of one color space, open for a build.

    Parameters
    ----------
    plan : Plan
    colorspace : Colorspace
    redo : set of (split, shard number)
        Shards to make again although they look sound from outside.

    Raises
    ------
    SplitbrainError
        The folder holds something else, is in use or cannot be written.
    """

    def __init__(self, plan: Plan, colorspace: Colorspace, redo: Iterable[Key] = ()) -> None:
        self.plan, self.colorspace = plan, colorspace
        self.root = plan.root(colorspace)
        self.header = plan.header(colorspace)
        if plan.config.overwrite:
            discard(self.root)
        _make_folders(self.root, plan.splits)
        self.manifest = _complete_manifest(self.root, self.header)
        self._journal: Journal | None = None
        if self.manifest is None or redo or self._lost() or journal_paths(self.root):
            self._journal = self._open_journal()
        self.missing: set[Key] = set(redo) | self._lost()
        _sweep(self.root, self.missing)

    @property
    def results(self) -> dict[Key, ShardResult]:
        """Shards that the journals list."""
        return {} if self._journal is None else self._journal.results

    def close(self) -> None:
        """Let go of the folder; nothing unfinished stays in it."""
        if self._journal is not None:
            _sweep(self.root, self.missing)
            self._journal.close()

    def add(self, finished: Finished) -> None:
        """Commit and journal one shard.

        Raises
        ------
        BuildError
            The disk is full, or a shard of a complete set came out otherwise than its manifest says.
        """
        result = finished.result
        path = self.root / result.split / result.record.name
        if self.manifest is not None and self._recorded()[result.key] != result.record:
            if finished.temporary is not None:
                finished.temporary.unlink()
            raise BuildError(
                f"{path}: made again it differs from what the manifest says. The images or the software have changed "
                f"since ({self.manifest.provenance['software']}). Restore them, or build again with --overwrite"
            )
        if finished.temporary is not None:
            commit(path, finished.temporary)
        assert self._journal is not None, "a store with missing shards has a journal"
        self._journal.add(result)
        self.missing.discard(result.key)

    def finish(self) -> Manifest | None:
        """Seal the folder if every shard of every split is there; None while partitions are missing."""
        if self._journal is not None:
            if self.manifest is not None:
                self._restore_rejects()
                clear_journals(self.root)
            elif self.plan.config.partition is None:
                self.manifest = seal(self.root, self.header, self.results.values())
        return self.manifest

    def _open_journal(self) -> Journal:
        partition = self.plan.config.partition
        if self.manifest is not None:
            # What older journals say is in the manifest, or void. One name for all who mend: one at a time.
            partition = None
            with all_locked(self.root):
                clear_journals(self.root)
        journal = Journal(self.root, self.header, partition)
        try:
            self._write_listings()
        except BaseException:
            journal.close()
            raise
        return journal

    def _recorded(self) -> dict[Key, ShardRecord]:
        if self.manifest is not None:
            return {
                (name, number): record
                for name, split in self.manifest.splits.items()
                for number, record in enumerate(split.shards)
            }
        return {key: result.record for key, result in self.results.items()}

    def _lost(self) -> set[Key]:
        """Own shards that are not recorded, or whose file is missing or has another size."""
        recorded = self._recorded()
        return {
            key
            for key in self.plan.own_keys()
            if key not in recorded or not _is_there(self.root, key[0], recorded[key])
        }

    def _write_listings(self) -> None:
        for split in self.plan.splits:
            path, content = self.root / split / SOURCES_NAME, self.plan.source_listing(split)
            if not path.is_file() or path.read_bytes() != content:
                _write(path, content)

    def _restore_rejects(self) -> None:
        assert self.manifest is not None
        for name, split in self.manifest.splits.items():
            results = [result for (split_name, _), result in self.results.items() if split_name == name]
            if len(results) == len(split.shards):
                _write(self.root / name / REJECTS_NAME, _rejects_text(results))


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


def merge(out: Path, colorspaces: Iterable[Colorspace] = COLORSPACES) -> list[Manifest]:
    """Join the partitions of every color space under `out` that has no manifest yet.

    Raises
    ------
    ManifestError
        Nothing to merge, partitions of different builds, or shards missing.
    """
    waiting = [name for name in colorspaces if (out / name).is_dir() and journal_paths(out / name)]
    if not waiting:
        done = [name for name in colorspaces if (out / name / MANIFEST_NAME).is_file()]
        state = f"{', '.join(done)} complete already" if done else "no journal of a partition there"
        raise ManifestError(f"{out}: nothing to merge ({state}). Run sbprep build --partition 1/n … n/n first")
    return [_merge_folder(out / name) for name in waiting]


def discard(root: Path) -> None:
    """Remove what a build left in a color space's folder, and nothing else.

    The manifest goes first, so that no half is ever visible.

    Raises
    ------
    BuildError
        A build is going on there, or the folder cannot be written.
    """
    try:
        with all_locked(root):
            (root / MANIFEST_NAME).unlink(missing_ok=True)
            clear_journals(root)
            for split in SPLITS:
                _discard_split(root / split)
    except OSError as error:
        raise BuildError(
            f"{root}: what it holds cannot be discarded ({error.strerror}). Choose another --out, or permit writing"
        ) from error


def clear_journals(root: Path) -> None:
    """Remove journals and every left-over of killed processes."""
    _sweep(root, None)
    for path in journal_paths(root):
        path.unlink(missing_ok=True)


def _discard_split(folder: Path) -> None:
    shards = [path for path in folder.glob("shard-*.h5") if _SHARD.fullmatch(path.name)]
    for path in [*shards, folder / SOURCES_NAME, folder / REJECTS_NAME]:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # not there, or it holds files of somebody else
        folder.rmdir()


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


def _seal_split(root: Path, name: str, header: dict[str, Any], results: list[ShardResult]) -> SplitManifest:
    source = dict(header["sources"][name])
    listed, label_kind, listing = source.pop("listed"), source.pop("label_kind"), source.pop("listing")
    source.pop("dates")
    expected = -(-listed // header["recipe"]["images_per_shard"])
    records = merge_shards([(result.number, result.record) for result in results], expected, f"{root} split {name}")
    for record in records:
        if not _is_there(root, name, record):
            raise ShardError(f"{root / name / record.name}: missing or cut, the journal lists it. Run the build again")
    results = sorted({result.number: result for result in results}.values(), key=lambda result: result.number)
    rejected = Counter(entry["code"] for result in results for entry in result.rejects)
    if rejected.total() == listed:
        raise BuildError(
            f"split {name}: none of the {listed:,} images could be used ({_count_text(rejected)}). "
            f"The first: {results[0].rejects[0]['path']}: {results[0].rejects[0]['detail']}"
        )
    rejects = _rejects_text(results)
    _write(root / name / REJECTS_NAME, rejects)
    return SplitManifest(
        source=source,
        listed=listed,
        rejected=dict(sorted(rejected.items())),
        label_kind=label_kind,
        files={SOURCES_NAME: listing, REJECTS_NAME: hashlib.sha256(rejects).hexdigest()},
        statistics=_statistics([result.statistics for result in results], header),
        shards=records,
    )


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


def _complete_manifest(root: Path, header: dict[str, Any]) -> Manifest | None:
    """Return the manifest of a complete folder, None if there is none; raise where it is of another build."""
    if not (root / MANIFEST_NAME).is_file():
        return None
    manifest = Manifest.read(root)
    found = {
        "recipe": {"image_size": manifest.image_size, "target": manifest.target.to_json(), **manifest.recipe},
        "sources": {name: {**split.source, "listed": split.listed} for name, split in manifest.splits.items()},
        "label_names": list(manifest.label_names),
    }
    sources = {
        name: {field: source[field] for field in ("kind", "option", "path", "fingerprint", "listed")}
        for name, source in header["sources"].items()
    }
    # Software is left out: a set that is complete stays so when OpenCV is upgraded.
    check_same(found, {**header, "sources": sources, "provenance": {}}, root / MANIFEST_NAME)
    return manifest


def _make_folders(root: Path, splits: Iterable[str]) -> None:
    try:
        for split in splits:
            (root / split).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(
            f"{root}: cannot be made ({error.strerror}). Choose another --out, or permit writing"
        ) from error


def _is_there(root: Path, split: str, record: ShardRecord) -> bool:
    if record.count == 0:
        return True
    try:
        return (root / split / record.name).stat().st_size == record.bytes
    except OSError:
        return False


def _sweep(root: Path, keys: set[Key] | None) -> None:
    """Remove unfinished files of these shards (None: all unfinished files), left by processes that were killed."""
    for folder in (root, *(root / split for split in SPLITS)):
        for path in folder.glob(".*"):
            match = _UNFINISHED.fullmatch(path.name)
            if match and (keys is None or (match[1] and (folder.name, int(match[1])) in keys)):
                path.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise write_failure(path, error) from error


def _rejects_text(results: Iterable[ShardResult]) -> bytes:
    ordered = sorted(results, key=lambda result: result.number)
    return "".join(json.dumps(entry) + "\n" for result in ordered for entry in result.rejects).encode()


def _count_text(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {code}" for code, count in sorted(counts.items()))
