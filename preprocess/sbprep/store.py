"""One color space's folder: a journal of finished shards while it is built, a manifest when it is complete.

data_cache/<colorspace>/journal.jsonl            while building (journal-2-of-3.jsonl for a partition)
data_cache/<colorspace>/manifest.json            complete
data_cache/<colorspace>/<split>/sources.txt      the listing that `source_index` counts in
data_cache/<colorspace>/<split>/rejects.jsonl    images left out, with reasons
data_cache/<colorspace>/<split>/shard-00000.h5
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbformat.durable import make_folder
from sbformat.errors import BuildError, SplitbrainError
from sbformat.manifest import MANIFEST_NAME, REJECTS_NAME, SOURCES_NAME, Manifest, ShardRecord
from sbformat.schema import Colorspace
from sbprep.discard import clear_journals, discard, discardable, sweep
from sbprep.journal import Journal, Key, ShardResult, all_locked, journal_paths, read_journal
from sbprep.plan import Plan
from sbprep.rejects import restored_rejects
from sbprep.request import check_same
from sbprep.seal import is_there, seal, write_file
from sbprep.worker import Finished
from sbprep.writer import commit


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What the folder of one color space holds for a build, seen without writing or locking anything."""

    manifest: Manifest | None
    """Of a complete set."""
    missing: set[Key]
    """Shards that this build makes."""
    discards: list[Path]
    """Files that ``--overwrite`` removes first."""

    @property
    def freed(self) -> int:
        """Bytes of what is discarded."""
        return sum(path.stat().st_size for path in self.discards)


def survey(plan: Plan, colorspace: Colorspace) -> Survey:
    """Look at what the folder of `colorspace` holds.

    Raises
    ------
    SplitbrainError
        A build of something else, and `plan` does not overwrite.
    """
    root, header = plan.root(colorspace), plan.header(colorspace)
    if plan.config.overwrite and not _goes_on(root, header):
        return Survey(manifest=None, missing=set(plan.own_keys()), discards=discardable(root))
    manifest = _complete_manifest(root, header)
    recorded = _recorded(manifest, {} if manifest is not None else _journaled(root, header))
    return Survey(manifest=manifest, missing=_lost(plan, root, recorded), discards=[])


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
        found = survey(plan, colorspace)
        if found.discards:
            discard(self.root)
        _make_folders(self.root, plan.splits)
        self.manifest, self.missing = found.manifest, found.missing | set(redo)
        self.restored: list[Path] = []
        """Listings that `finish` wrote anew."""
        self._journal: Journal | None = None
        if self.manifest is None or self.missing or journal_paths(self.root):
            self._journal = self._open_journal()
            self._read_locked(set(redo))
        sweep(self.root, self.missing)

    @property
    def results(self) -> dict[Key, ShardResult]:
        """Shards that the journals list."""
        return {} if self._journal is None else self._journal.results

    def close(self) -> None:
        """Let go of the folder; nothing unfinished stays in it."""
        if self._journal is not None:
            sweep(self.root, set(self.plan.own_keys()))  # also of shards that a second worker made when one had died
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
        if self.manifest is not None and self.manifest.splits[result.split].shards[result.number] != result.record:
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
        if self.manifest is not None:
            self._restore_listings(self.manifest)
            if self._journal is not None:
                clear_journals(self.root)
        elif self.plan.config.partition is None:
            self.manifest = seal(self.root, self.header, self.results.values())
        return self.manifest

    def _read_locked(self, redo: set[Key]) -> None:
        """Look again under the lock: another build may have ended, or begun to overwrite, after the survey."""
        try:
            self.manifest = _complete_manifest(self.root, self.header)
            self.missing = redo | _lost(self.plan, self.root, _recorded(self.manifest, self.results))
        except BaseException:
            self.close()
            raise

    def _open_journal(self) -> Journal:
        partition = self.plan.config.partition
        if self.manifest is not None:
            # What older journals say is in the manifest, or void. One name for all who mend: one at a time.
            partition = None
            with all_locked(self.root):
                clear_journals(self.root)
        # That an overwriting build began is written down, so that the same command goes on instead of discarding again.
        mark = {"overwrite": True} if self.plan.config.overwrite else {}
        journal = Journal(self.root, {**self.header, **mark}, partition)
        try:
            for split in self.plan.splits:
                path, content = self.root / split / SOURCES_NAME, self.plan.source_listing(split)
                if not path.is_file() or path.read_bytes() != content:
                    write_file(path, content)
        except BaseException:
            journal.close()
            raise
        return journal

    def _restore_listings(self, manifest: Manifest) -> None:
        """Write ``sources.txt`` and ``rejects.jsonl`` anew where they are not what the manifest says."""
        for name, split in manifest.splits.items():
            sources, rejects = self.root / name / SOURCES_NAME, self.root / name / REJECTS_NAME
            if _digest(sources) != split.files[SOURCES_NAME]:
                write_file(sources, self.plan.source_listing(name))
                self.restored.append(sources)
            if _digest(rejects) != split.files[REJECTS_NAME]:
                write_file(rejects, restored_rejects(self.plan, manifest, name))
                self.restored.append(rejects)


def _goes_on(root: Path, header: dict[str, Any]) -> bool:
    """Tell whether an overwriting build of the same request was interrupted here."""
    if (root / MANIFEST_NAME).is_file():
        return False
    begun, results = False, {}
    try:
        for path in journal_paths(root):
            found, listed = read_journal(path)
            if found is None:
                continue
            check_same(found, header, path)
            if not found.get("overwrite"):
                return False
            begun, results = True, {result.key: result for result in listed}
    except SplitbrainError:
        return False
    return begun and not _hopeless(header, results)


def _hopeless(header: dict[str, Any], results: dict[Key, ShardResult]) -> bool:
    """Tell whether a split is finished without any image: going on would only say so again."""
    for split, source in header["sources"].items():
        found = [result.record.count for (name, _), result in results.items() if name == split]
        if len(found) == -(-source["listed"] // header["recipe"]["images_per_shard"]) and not any(found):
            return True
    return False


def _journaled(root: Path, header: dict[str, Any]) -> dict[Key, ShardResult]:
    results: dict[Key, ShardResult] = {}
    for path in journal_paths(root):
        found, listed = read_journal(path)
        if found is not None:
            check_same(found, header, path)
        results.update({result.key: result for result in listed})
    return results


def _recorded(manifest: Manifest | None, results: dict[Key, ShardResult]) -> dict[Key, ShardRecord]:
    if manifest is None:
        return {key: result.record for key, result in results.items()}
    return {
        (name, number): record for name, split in manifest.splits.items() for number, record in enumerate(split.shards)
    }


def _lost(plan: Plan, root: Path, recorded: dict[Key, ShardRecord]) -> set[Key]:
    """Own shards that are not recorded, or whose file is missing or has another size."""
    return {key for key in plan.own_keys() if key not in recorded or not is_there(root, key[0], recorded[key])}


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
            make_folder(root / split)
    except OSError as error:
        raise BuildError(
            f"{root}: cannot be made ({error.strerror}). Choose another --out, or permit writing"
        ) from error


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
