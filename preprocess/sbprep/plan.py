"""What a build will do, worked out before anything is written: the splits, their order, their shards, their bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbformat.colorimetry import CONVENTION
from sbformat.errors import SourceError
from sbformat.permutation import permute
from sbformat.schema import (
    ALIGNMENT,
    CHANNELS,
    CHUNK_IMAGES,
    STORED_OFFSET,
    STORED_SCALE,
    Colorspace,
    DatasetSpec,
    attribute_label,
    class_label,
    shard_datasets,
)
from sbprep.config import REMOTE, BuildConfig
from sbprep.convert import CONSTANT_SPAN
from sbprep.disk import free_bytes
from sbprep.software import versions
from sbprep.sources import open_splits
from sbprep.sources.base import Listing, Split

#: Encoded bytes that one pass over a compressed archive may put aside on the disk of the output.
PASS_BYTES = 4 << 30
#: Shards that one pass makes at most: they are committed together, so a kill loses so many, a minute or two of a worker.
PASS_SHARDS = 32


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One shard to make: its number in its split and the rows of the split's listing that belong to it."""

    split: str
    number: int
    rows: NDArray[np.int64]
    """Positions in the listing, in the order of the shard."""
    part: Listing
    """The listing of these rows."""

    @property
    def name(self) -> str:
        """File name of the shard."""
        return f"shard-{self.number:05d}.h5"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A build, worked out: `config` and the listed splits."""

    config: BuildConfig
    splits: dict[str, Split]

    def root(self, colorspace: Colorspace) -> Path:
        """Folder of one color space."""
        return self.config.out / colorspace

    @property
    def label_names(self) -> tuple[str, ...]:
        """Class or attribute names, the same in every labeled split."""
        return next((split.label_names for split in self.splits.values() if split.label_names), ())

    def label(self, split: str) -> DatasetSpec | None:
        """Label dataset of one split."""
        kind = self.label_kind(split)
        return {None: None, "class": class_label(), "attribute": attribute_label(len(self.label_names))}[kind]

    def label_kind(self, split: str) -> str | None:
        """``class``, ``attribute`` or None."""
        labels = self.splits[split].listing.labels
        if labels is None:
            return None
        return "class" if labels.ndim == 1 else "attribute"

    def datasets(self, split: str, colorspace: Colorspace) -> dict[str, DatasetSpec]:
        """Return the datasets in each shard of `split`."""
        return shard_datasets(colorspace, self.config.image_size, self.config.target, self.label(split))

    def shard_count(self, split: str) -> int:
        """Return the number of shards of one split."""
        return -(-len(self.splits[split].listing) // self.config.images_per_shard)

    def keys(self) -> list[tuple[str, int]]:
        """(split, shard number) of every shard."""
        return [(split, number) for split in self.splits for number in range(self.shard_count(split))]

    def own_keys(self) -> list[tuple[str, int]]:
        """Those of `keys` that this partition makes."""
        if self.config.partition is None:
            return self.keys()
        i, n = self.config.partition
        return self.keys()[i - 1 :: n]

    def unit(self, split: str, number: int) -> Unit:
        """Work out one shard: slice `number` of the permuted listing."""
        rows = self._rows(split, number)
        return Unit(split=split, number=number, rows=rows, part=self.splits[split].listing.take(rows))

    def _rows(self, split: str, number: int) -> NDArray[np.int64]:
        total, size = len(self.splits[split].listing), self.config.images_per_shard
        return permute(np.arange(number * size, min((number + 1) * size, total)), total, self.config.seed)

    def shard_bytes(self, split: str, number: int, colorspace: Colorspace) -> int:
        """Bytes of one uncompressed shard in which every listed image survives, to within the HDF5 headers."""
        images = min(
            self.config.images_per_shard, len(self.splits[split].listing) - number * self.config.images_per_shard
        )
        total = 2 * ALIGNMENT
        for name, spec in self.datasets(split, colorspace).items():
            chunk_rows = CHUNK_IMAGES if name == "image" else images
            chunk = chunk_rows * spec.row_bytes
            if chunk >= ALIGNMENT:  # smaller ones lie anywhere
                chunk = -(-chunk // ALIGNMENT) * ALIGNMENT
            total += -(-images // chunk_rows) * chunk
        return total

    def encoded_bytes(self, split: str, number: int) -> int:
        """Return the encoded bytes of the images of one shard, as they are listed."""
        return int(self.splits[split].listing.sizes[self._rows(split, number)].sum())

    def header(self, colorspace: Colorspace) -> dict[str, Any]:
        """Return what a journal of this build says on its first line."""
        sources = {name: self._source_entry(name) for name in self.splits}
        return {
            "colorspace": colorspace,
            "recipe": self.config.recipe(),
            "provenance": provenance(colorspace),
            "sources": sources,
            "label_names": list(self.label_names),
        }

    def source_listing(self, split: str) -> bytes:
        """Content of ``sources.txt``: one line an image, in listing order; backslash and line ends are escaped."""
        names = self.splits[split].listing.names
        lines = (name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") for name in names)
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")

    def _source_entry(self, name: str) -> dict[str, Any]:
        split = self.splits[name]
        option = next((option for option in (name, "source") if option in self.config.paths), None)
        return {
            "kind": split.kind,
            "option": option,
            "path": None if option is None else str(self.config.paths[option]),
            "fingerprint": _fingerprint(split.listing),
            "listed": len(split.listing),
            "dates": hashlib.sha256(np.ascontiguousarray(split.listing.stamps, "<i8").tobytes()).hexdigest(),
            "label_kind": self.label_kind(name),
            "listing": hashlib.sha256(self.source_listing(name)).hexdigest(),
        }


def make_plan(config: BuildConfig) -> Plan:
    """List the images that `config` asks for and lay out their shards.

    Raises
    ------
    SourceError
        See `sbprep.sources.open_splits`; also a split without images.
    """
    # Other machines read the images from another working folder; the manifest keeps the paths as they were given.
    splits = open_splits(config if config.backend not in REMOTE else config.absolute())
    for name, split in splits.items():
        if len(split.listing) == 0:
            raise SourceError(f"split {name} has no images. Leave it out, or check its path")
    return Plan(config=config, splits=splits)


def provenance(colorspace: Colorspace) -> dict[str, Any]:
    """Color convention and software behind the bytes of one color space."""
    color: dict[str, Any] = {"channels": list(CHANNELS[colorspace])}
    if colorspace != "rgb":
        color |= CONVENTION
    if colorspace == "rescaled_lab":
        color["constant_span"] = CONSTANT_SPAN
    else:
        color |= {"stored_scale": list(STORED_SCALE[colorspace]), "stored_offset": list(STORED_OFFSET[colorspace])}
    return {"color": color, "software": versions()}


def _fingerprint(listing: Listing) -> str:
    digest = hashlib.sha256("\n".join(listing.names).encode("utf-8", "surrogateescape"))
    digest.update(np.ascontiguousarray(listing.sizes, "<i8").tobytes())
    if listing.labels is not None:
        digest.update(np.ascontiguousarray(listing.labels).tobytes())
    return digest.hexdigest()


def group_units(plan: Plan, units: list[Unit]) -> list[list[Unit]]:
    """Put together the shards that one task makes: one, or for a sequential source as many as one pass may serve.

    A pass puts encoded images aside, see `sbprep.sources.spill`: at most `PASS_BYTES`, and all workers together at most
    half of what the disk has free and what the shards leave of it, but one shard in any case (`disk.check_room` sees
    to that); and it makes at most `PASS_SHARDS`.
    """
    groups: list[list[Unit]] = []
    shards = sum(plan.shard_bytes(unit.split, unit.number, name) for unit in units for name in plan.config.colorspaces)
    for split, content in plan.splits.items():
        mine = [unit for unit in units if unit.split == split]
        if not content.source.sequential:
            groups += [[unit] for unit in mine]
            continue
        workers, free = plan.config.worker_count, free_bytes(plan.config.out)
        room = max(1, min(PASS_BYTES, min(free // 2, free - shards) // workers))
        total = sum(int(unit.part.sizes.sum()) for unit in mine)
        passes = min(max(-(-total // room), -(-len(mine) // PASS_SHARDS), workers), len(mine))
        groups += [[mine[k] for k in part] for part in np.array_split(np.arange(len(mine)), passes)] if mine else []
    return groups
