"""Which colors the bins of a color space hold, and how many of them images use: the report's motivation, measured.

Classes that no image has are wasted, and the fewer share all cells, the less a prediction says: in Lab most cells of
most images fall into a handful of the joint bins of a and b; re-scaled to each image's own range they spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbformat.colorimetry import lab_from_rgb
from sbformat.errors import ConfigError, FormatError, ManifestError
from sbformat.manifest import Manifest, open_manifest, prepared_colorspaces
from sbformat.schema import LAB_RANGE, Colorspace, TargetSpec, bins_from_values, fixed_range
from sbformat.zhang import ZHANG_STEP, zhang_centers

Counts = NDArray[np.int64]

#: Between its faces every fifth level of each channel stands for all colors of the sRGB cube: no bin is missed at 10 x 10
#: (77 of 100 hold a color), 16 x 16 (184), 25 x 25 (419) and zhang (261 of 313), counted against all 2**24 colors.
GAMUT_STEP = 5


@dataclass(frozen=True)
class Usage:
    """How often each class of a target was seen: int64 (Q,)."""

    counts: Counts

    @property
    def used(self) -> int:
        """Classes that any cell has."""
        return int((self.counts > 0).sum())

    @property
    def entropy(self) -> float:
        """In nats: the loss of a network that knows how frequent each class is and nothing else."""
        share = self.counts[self.counts > 0] / self.counts.sum()
        return float(-(share * np.log(share)).sum())

    @property
    def effective(self) -> float:
        """Number of equally frequent classes of the same entropy, its exponential."""
        return float(np.exp(self.entropy))

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        bins = len(self.counts)
        return {
            "bins": bins,
            "used": self.used,
            "entropy_nats": self.entropy,
            "uniform_nats": float(np.log(bins)),
            "effective_bins": self.effective,
            "commonest": float(self.counts.max() / self.counts.sum()),
            "counts": self.counts.tolist(),
        }


@dataclass(frozen=True)
class SpaceBins:
    """One prepared color space and what its cells use."""

    manifest: Manifest
    splits: tuple[str, ...]
    single: Usage
    dual: Usage

    @property
    def colorspace(self) -> Colorspace:
        """``rgb``, ``lab`` or ``rescaled_lab``."""
        return self.manifest.colorspace

    @property
    def images(self) -> int:
        """Images counted."""
        return sum(self.manifest.splits[split].images for split in self.splits)


def count_bins(shards: Path, split: str | None = None) -> list[SpaceBins]:
    """Read from the manifests under `shards` how often each bin is used.

    Parameters
    ----------
    shards : Path
        A ``data_cache`` folder or one color space's folder in it.
    split : str, optional
        Every split by default.

    Raises
    ------
    FormatError
        Nothing is prepared there, no color space has the split, or it has no images.
    """
    spaces = prepared_colorspaces(shards)
    manifests = [open_manifest(shards, space) for space in spaces] or [open_manifest(shards)]
    return [_counted(manifest, split) for manifest in manifests]


def _counted(manifest: Manifest, split: str | None) -> SpaceBins:
    if split is not None and split not in manifest.splits:
        raise FormatError(f"{manifest.root} has splits {', '.join(manifest.splits)}, no {split}. Use one of them")
    splits = tuple(name for name in manifest.splits if split in (None, name))
    return SpaceBins(manifest, splits, *(_usage(manifest, splits, name) for name in ("single", "dual")))


def _usage(manifest: Manifest, splits: tuple[str, ...], name: str) -> Usage:
    classes = {"single": manifest.target.single_classes, "dual": manifest.target.dual_classes}[name]
    total = np.zeros(classes, np.int64)
    for split in splits:
        counts = manifest.splits[split].statistics.get(f"target_{name}_counts")
        if counts is None or len(counts) != classes:
            raise ManifestError(
                f"{manifest.root}: split {split}: statistics without {classes} counts of target_{name}. Build it again"
            )
        total += np.array(counts, np.int64)
    if not total.any():
        raise FormatError(f"{manifest.root}: no images in {', '.join(splits)}. Build them: sbprep build --train PATH")
    return Usage(total)


# --------------------------------------------------------------------------------------------------- the ab plane


def bin_squares(target: TargetSpec) -> NDArray[np.float64]:
    """Return where each joint bin of a and b lies: float64 (Q, 4), lowest a, lowest b, width, height, in Lab units."""
    if target.bins == "zhang":
        low = zhang_centers() - ZHANG_STEP / 2
        return np.concatenate([low, np.full_like(low, ZHANG_STEP)], axis=1).astype(np.float64)
    (a_low, a_high), (b_low, b_high) = LAB_RANGE[1:]
    width, height = (a_high - a_low) / target.dual, (b_high - b_low) / target.dual
    first, second = np.divmod(np.arange(target.dual_classes), target.dual)
    size = np.ones(target.dual_classes)
    return np.stack([a_low + first * width, b_low + second * height, size * width, size * height], axis=1)


def bins_in_gamut(target: TargetSpec) -> NDArray[np.bool_]:
    """Return which joint bins of a and b, cut by the fixed range, hold a color of sRGB: bool (Q,)."""
    lab = gamut_colors().astype(np.float32)
    dual = bins_from_values(lab.T[None, :, :, None], fixed_range("lab"), target)[1]
    return np.bincount(dual.ravel(), minlength=target.dual_classes) > 0


@cache
def gamut_colors() -> NDArray[np.float64]:
    """Return Lab (n, 3) of all sRGB colors that have a channel at 0 or 255, and of some between."""
    levels, inner = np.arange(256, dtype=np.uint8), np.arange(0, 256, GAMUT_STEP, dtype=np.uint8)
    u, v = (side.ravel() for side in np.meshgrid(levels, levels))
    faces = [
        np.roll(np.stack([np.full_like(u, end), u, v], axis=-1), axis, -1) for end in (0, 255) for axis in range(3)
    ]
    cube = np.stack(np.meshgrid(inner, inner, inner, indexing="ij"), axis=-1).reshape(-1, 3)
    return lab_from_rgb(np.concatenate([*faces, cube]))


def check_spaces(spaces: list[SpaceBins]) -> None:
    """Raise ConfigError where the color spaces were cut into other bins: their numbers cannot be compared."""
    specs = {(s.manifest.target.bins, s.manifest.target.single, s.manifest.target.dual) for s in spaces}
    if len(specs) > 1:
        shown = ", ".join(f"{s.colorspace} {s.single.counts.size} and {s.dual.counts.size}" for s in spaces)
        raise ConfigError(f"the color spaces have other numbers of bins: {shown}. Give one: --shards DIR/COLORSPACE")
