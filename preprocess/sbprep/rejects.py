"""Images that were left out: how many a build may have, the file that lists them, and making that file again."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from sbformat.errors import BuildError
from sbformat.manifest import REJECTS_NAME, Manifest
from sbformat.shard import open_shard
from sbprep.config import BuildConfig
from sbprep.decode import use_one_thread
from sbprep.journal import Key, ShardResult
from sbprep.plan import Plan, Unit
from sbprep.sources.base import Item, Rejected
from sbprep.worker import pixels_of, reject_entry

#: Images that are read first to see whether a set can be used at all.
FIRST_LOOK = 64


class RejectCount:
    """Counts rejected images and stops the build where ``--on-error`` says."""

    def __init__(self, config: BuildConfig) -> None:
        self._config = config
        self._counts: dict[Key, int] = {}

    @property
    def total(self) -> int:
        """Images rejected so far, by earlier calls too."""
        return sum(self._counts.values())

    def add(self, result: ShardResult) -> None:
        """Count one shard; it has the same rejects in every color space.

        Raises
        ------
        BuildError
            They are more than allowed.
        """
        self._counts[result.key] = len(result.rejects)
        if result.rejects and self._exceeded(self.total):
            first = result.rejects[0]
            raise BuildError(
                f"{first['path']}: {first['code']} ({first['detail']}). {self.total} rejected so far, {self._remedy(self.total)}"
            )

    def check(self, manifest: Manifest) -> None:
        """Hold a set that is complete to the same limit.

        Raises
        ------
        BuildError
            It has more rejects than allowed.
        """
        counts = {name: sum(split.rejected.values()) for name, split in manifest.splits.items()}
        if self._exceeded(sum(counts.values())):
            where = " and ".join(str(manifest.root / name / REJECTS_NAME) for name, count in counts.items() if count)
            raise BuildError(
                f"{manifest.root}: {sum(counts.values())} rejected when it was built, listed in {where}; {self._remedy(sum(counts.values()))}"
            )

    def _exceeded(self, count: int) -> bool:
        limit = self._config.reject_limit
        return limit is not None and count > limit

    def _remedy(self, count: int) -> str:
        limit, on_error = self._config.reject_limit, self._config.on_error
        more = f"--on-error limit={max(2 * (limit or 0), count)}"
        return f"--on-error {on_error} allows {limit}. Mend or remove such images, or allow more: {more}, or --on-error skip"


def check_usable(plan: Plan) -> None:
    """Read images until one of each split can be used.

    Raises
    ------
    BuildError
        A split has none.
    """
    use_one_thread()
    for name, split in plan.splits.items():
        codes: Counter[str] = Counter()
        first = ""
        for image, item in _items(plan, name):
            pixels = pixels_of(item, plan.config.image_size, plan.config.resize)
            if not isinstance(pixels, Rejected):
                break
            codes[pixels.code] += 1
            first = first or f"{image}: {pixels.detail}"
        else:
            raise BuildError(f"{none_usable(name, len(split.listing), codes, first)}. Nothing was discarded")


def _items(plan: Plan, split: str) -> Iterator[tuple[str, Item]]:
    """Yield name and content of every image of a split, a few first: a compressed archive reads in passes."""
    for number in range(plan.shard_count(split)):
        part, source = plan.unit(split, number).part, plan.splits[split].source
        rows = np.arange(len(part))
        for few in (rows[:FIRST_LOOK], rows[FIRST_LOOK:]) if number == 0 else (rows,):
            if len(few):
                yield from zip(part.take(few).names, source.read(part.take(few)), strict=True)


def rejects_text(rejects: Iterable[dict[str, Any]]) -> bytes:
    """Content of ``rejects.jsonl``."""
    return "".join(json.dumps(entry) + "\n" for entry in rejects).encode()


def restored_rejects(plan: Plan, manifest: Manifest, split: str) -> bytes:
    """Make the content of a lost ``rejects.jsonl`` again: shards say which images are left out, reading those says why.

    Raises
    ------
    BuildError
        They are not rejected for the same reasons now.
    ShardError
        A shard cannot be read.
    """
    content = rejects_text(
        entry
        for number, record in enumerate(manifest.splits[split].shards)
        if record.count < len((unit := plan.unit(split, number)).rows)
        for entry in _rejects_of(plan, manifest, unit)
    )
    path = manifest.root / split / REJECTS_NAME
    if hashlib.sha256(content).hexdigest() != manifest.splits[split].files[REJECTS_NAME]:
        raise BuildError(
            f"{path}: lost, and what is rejected now is not what the manifest says. The images or the software have "
            f"changed since ({manifest.provenance['software']}). Restore them, or build again with --overwrite"
        )
    return content


def _rejects_of(plan: Plan, manifest: Manifest, unit: Unit) -> Iterator[dict[str, Any]]:
    record = manifest.splits[unit.split].shards[unit.number]
    kept = np.empty(0, np.int64)
    if record.count:
        with open_shard(manifest, unit.split, record) as shard:
            kept = np.array(shard.array("source_index"))
    positions = np.flatnonzero(~np.isin(unit.rows, kept))
    items = plan.splits[unit.split].source.read(unit.part.take(positions))
    for position, item in zip(positions.tolist(), items, strict=True):
        pixels = pixels_of(item, plan.config.image_size, plan.config.resize)
        if isinstance(pixels, Rejected):
            yield reject_entry(unit, position, pixels)


def none_usable(split: str, listed: int, codes: Counter[str], first: str) -> str:
    """Say that a split has no usable image."""
    counts = ", ".join(f"{count:,} {code}" for code, count in sorted(codes.items()))
    return f"split {split}: none of the {listed:,} images could be used ({counts}). The first: {first}"
