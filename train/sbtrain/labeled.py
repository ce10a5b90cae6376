"""Labeled images of a split, and the few of them that a classifier learns from, held where they are used.

Axes: B images of a batch, n drawn images, V flipped variants of each, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbformat.errors import ConfigError, ShardError
from sbformat.manifest import Manifest
from sbtrain.data import Batch, HostResidence, MappedResidence, Residence, Rows, SplitReader

Flip = Literal["none", "horizontal", "both"]
#: Variants of an image, number 0 as it is. Bit 0 of the number: left and right swapped; bit 1: top and bottom.
VARIANTS: dict[Flip, int] = {"none": 1, "horizontal": 2, "both": 4}
#: Images that are evaluated, or turned into features, at a time.
BLOCK = 256


class Labeled:
    """A split whose images belong to one class each.

    Parameters
    ----------
    manifest : Manifest
    split : str
    datasets : tuple of str
        What a batch brings, ``label`` among it.
    device : torch.device

    Raises
    ------
    FormatError
        There is no such split, it has no labels, or a label is no class.
    ConfigError
        Its labels are attributes.
    """

    def __init__(self, manifest: Manifest, split: str, datasets: tuple[str, ...], device: torch.device) -> None:
        self._reader = SplitReader(manifest, split, datasets)
        if manifest.splits[split].label_kind != "class":
            raise ConfigError(f"{manifest.root}: split {split} has attributes for labels, expected one class an image")
        self.split, self.names = split, manifest.label_names
        self.labels = self._read_labels(manifest)
        kind: type[Residence] = HostResidence if self._reader.compressed else MappedResidence
        self._residence = kind(self._reader, device)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Rows) -> Batch:
        """Return the images of `rows` (B,) on the device."""
        return self._residence.fetch(rows).arrived()

    def blocks(self, rows: Rows) -> Iterator[Batch]:
        """Yield the images of `rows` (B,), some at a time."""
        for start in range(0, len(rows), BLOCK):
            yield self.batch(rows[start : start + BLOCK])

    def close(self) -> None:
        """Close the shards."""
        self._reader.close()

    def _read_labels(self, manifest: Manifest) -> NDArray[np.int32]:
        parts = []
        for _, shard in self._reader.blocks("label"):
            labels = shard.read("label", 0, len(shard))
            wrong = np.flatnonzero((labels < 0) | (labels >= len(self.names)))
            if wrong.size:
                raise ShardError(
                    f"{shard.path}: image {wrong[0]}: label {labels[wrong[0]]}, the manifest names {len(self.names)} "
                    f"classes: damaged. Rebuild it: sbprep verify --repair {manifest.root}"
                )
            parts.append(labels)
        return np.concatenate(parts)


class Drawn:
    """Drawn images, or their features, resident on the device.

    Parameters
    ----------
    whole : Batch
        Of n images; ``feature`` among its fields is (n, V, D) and takes the place of the image.
    """

    def __init__(self, whole: Batch) -> None:
        self._whole = whole

    def __len__(self) -> int:
        return len(self._whole)

    @property
    def index(self) -> Tensor:
        """Row numbers of the images in their split, int64 (n,)."""
        return self._whole.index

    def take(self, places: Tensor, variants: Tensor | None = None) -> Batch:
        """Return images `places` (B,), each as its variant (B,) has it, or as they are."""
        fields = {name: rows.index_select(0, places) for name, rows in self._whole.fields.items()}
        part = Batch(self._whole.index.index_select(0, places), fields)
        if "feature" in fields:
            return variant_of_features(part, 0 if variants is None else variants)
        return part if variants is None else flipped(part, variants)


def flipped(batch: Batch, variants: Tensor) -> Batch:
    """Return the batch with image b mirrored as variants[b] says, int64 (B,)."""
    image = batch["image"]
    for bit, axis in ((1, -1), (2, -2)):
        chosen = (variants & bit).bool()[:, None, None, None]
        image = torch.where(chosen, image.flip(axis), image)
    return replace(batch, fields={**batch.fields, "image": image})


def variant_of_features(batch: Batch, variants: Tensor | int) -> Batch:
    """Return the batch with ``feature`` (B, D) of one variant, or of one for each image, instead of all (B, V, D)."""
    feature = batch["feature"]
    chosen = feature[torch.arange(len(feature), device=feature.device), variants]
    return replace(batch, fields={**batch.fields, "feature": chosen})


def features_of(encode: Callable[[Batch], Tensor], variants: int) -> Callable[[Batch], Batch]:
    """Return what turns images into their features in every variant: the field ``feature``, (B, V, D)."""

    def run(batch: Batch) -> Batch:
        with torch.no_grad():
            found = [encode(flipped(batch, torch.full_like(batch.index, v))).float() for v in range(variants)]
        return Batch(batch.index, {"feature": torch.stack(found, dim=1), "label": batch["label"]})

    return run


def joined(batches: Iterator[Batch]) -> Batch:
    """Put batches behind each other."""
    parts = list(batches)
    fields: dict[str, Any] = {name: torch.cat([part[name] for part in parts]) for name in parts[0].fields}
    return Batch(torch.cat([part.index for part in parts]), fields)
