"""Schema 1 of the shard contract: names, dtypes, shapes, color encodings, bins and their values.

docs/format.md is the normative text; tests/sbformat/test_format_doc.py holds the two together.

Axes: N images, 3 channels, S x S pixels, t x t target cells. The *single* channel is the first of a color space
(R or L), the *dual* channels are the other two (G and B, or a and b).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sbformat.errors import ConfigError
from sbformat.zhang import ZHANG_DUAL_BINS, ZHANG_SINGLE_BINS, zhang_centers, zhang_from_ab

SCHEMA_VERSION = 1
FORMAT_NAME = "splitbrain-shards"

#: The splits of a data set, in the order they are built; names of folders under ``data_cache/<colorspace>/``.
SPLITS = ("unlabeled", "train", "val", "test")

#: Images in one chunk of `image`: at S = 96 exactly 432 pages of 4096 bytes, so chunks follow each other without gaps.
CHUNK_IMAGES = 64
IMAGES_PER_SHARD = 4096
ALIGNMENT = 4096

Colorspace = Literal["rgb", "lab", "rescaled_lab"]
COLORSPACES: tuple[Colorspace, ...] = get_args(Colorspace)
Bins = Literal["uniform", "zhang"]
Rescale = Literal["ab", "all"]
Compression = Literal["none", "zstd"]

CHANNELS: dict[Colorspace, tuple[str, str, str]] = {
    "rgb": ("R", "G", "B"),
    "lab": ("L", "a", "b"),
    "rescaled_lab": ("L", "a", "b"),
}

#: sRGB gamut in Lab (D65, 2 degrees): extremes over all 2**24 colors, to 3e-4. Channel -> (lowest, highest).
LAB_RANGE = ((0.0, 100.0), (-86.1831, 98.2333), (-107.8573, 94.4781))
RGB_RANGE = ((0.0, 255.0),) * 3

#: stored = value * scale + offset, for each channel; `rescaled_lab` has no fixed one, see `image_range`.
STORED_SCALE: dict[str, tuple[float, float, float]] = {"rgb": (1.0, 1.0, 1.0), "lab": (2.55, 1.0, 1.0)}
STORED_OFFSET: dict[str, tuple[float, float, float]] = {"rgb": (0.0, 0.0, 0.0), "lab": (0.0, 128.0, 128.0)}

_ZHANG_L_RANGE = np.array([0.0, 100.0], np.float32)


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """How the t x t target maps are cut into classes.

    Raises
    ------
    ConfigError
        A number out of range, or `single` or `dual` given together with the fixed bins of ``zhang``.
    """

    size: int = 12
    """Cells along each side of a target map; need not divide the image size."""
    bins: Bins = "uniform"
    """``uniform``: equal widths over a range. ``zhang``: the 50 L and 313 in-gamut ab bins of the original paper."""
    single: int = 100
    """Bins of the single channel."""
    dual: int = 10
    """Bins of each of the two other channels; their joint classes are dual * dual."""
    rescale: Rescale = "ab"
    """`rescaled_lab`: channels whose bins span each image's own target map: a and b, or L as well."""

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 4096:
            raise ConfigError(f"target size {self.size}, expected 1 to 4096 cells")
        if self.bins not in get_args(Bins):
            raise ConfigError(f"bins {self.bins!r}, expected one of {', '.join(get_args(Bins))}")
        if self.rescale not in get_args(Rescale):
            raise ConfigError(f"rescale {self.rescale!r}, expected one of {', '.join(get_args(Rescale))}")
        if not 2 <= self.single <= 65536:
            raise ConfigError(
                f"{self.single} bins of the single channel, expected 2 to 65536 (they are stored as uint16)"
            )
        if not 2 <= self.dual <= 256:
            raise ConfigError(
                f"{self.dual} bins of each dual channel, expected 2 to 256 (joint bins are stored as uint16)"
            )
        if self.bins == "zhang" and (self.single, self.dual) != (100, 10):
            raise ConfigError("bins zhang are fixed: 50 of L and 313 of ab. Leave the numbers of bins out")

    @property
    def single_classes(self) -> int:
        """Number of classes of `target_single`."""
        return ZHANG_SINGLE_BINS if self.bins == "zhang" else self.single

    @property
    def dual_classes(self) -> int:
        """Number of classes of `target_dual`."""
        return ZHANG_DUAL_BINS if self.bins == "zhang" else self.dual**2

    def check_colorspace(self, colorspace: Colorspace) -> None:
        """Raise ConfigError where these bins mean nothing in `colorspace`."""
        if self.bins == "zhang" and colorspace != "lab":
            raise ConfigError(f"bins zhang lie on the fixed Lab plane, not on {colorspace}. Use --colorspace lab")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TargetSpec:
        """Inverse of `to_json`; unknown fields raise TypeError."""
        return cls(**{name: data[name] for name in {field.name for field in fields(cls)} | set(data)})


def class_dtype(classes: int) -> np.dtype[Any]:
    """Smallest unsigned dtype that holds class numbers below `classes`."""
    return np.dtype("u1") if classes <= 256 else np.dtype("<u2")


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """One HDF5 dataset of a shard: its dtype and the shape of one image's row."""

    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one image's row."""
        return int(self.dtype.itemsize * np.prod(self.row_shape, dtype=np.int64))


def shard_datasets(
    colorspace: Colorspace, image_size: int, target: TargetSpec, label: DatasetSpec | None = None
) -> dict[str, DatasetSpec]:
    """Return the datasets of a shard in the order in which they are written.

    `label` is the label's dtype and row shape (`class_label`, `attribute_label`), None in an unlabeled split.
    """
    t = target.size
    datasets = {
        "image": DatasetSpec(dtype=np.dtype("u1"), row_shape=(3, image_size, image_size)),
        "target_single": DatasetSpec(dtype=class_dtype(target.single_classes), row_shape=(t, t)),
        "target_dual": DatasetSpec(dtype=class_dtype(target.dual_classes), row_shape=(t, t)),
    }
    if colorspace == "rescaled_lab":
        datasets["image_range"] = DatasetSpec(dtype=np.dtype("<f4"), row_shape=(3, 2))
        datasets["target_range"] = DatasetSpec(dtype=np.dtype("<f4"), row_shape=(3, 2))
    if label is not None:
        datasets["label"] = label
    datasets["source_index"] = DatasetSpec(dtype=np.dtype("<i8"), row_shape=())
    return datasets


def class_label() -> DatasetSpec:
    """Label of a split whose images belong to one class each."""
    return DatasetSpec(dtype=np.dtype("<i4"), row_shape=())


def attribute_label(attributes: int) -> DatasetSpec:
    """Label of a split whose images have `attributes` binary attributes each."""
    return DatasetSpec(dtype=np.dtype("u1"), row_shape=(attributes,))


def fixed_range(colorspace: Colorspace) -> NDArray[np.float32]:
    """Range that fixed bins span: float32 (3, 2), lowest and highest of each channel in the units of the space."""
    return np.array(RGB_RANGE if colorspace == "rgb" else LAB_RANGE, dtype=np.float32)


# --------------------------------------------------------------------------------------------- values <-> bins


def bins_from_values(
    values: NDArray[np.float32], value_range: NDArray[np.float32], target: TargetSpec
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cut target maps into classes.

    Parameters
    ----------
    values : float32 (N, 3, t, t), in the units of the color space
    value_range : float32 (3, 2) or (N, 3, 2)
        Lowest and highest value that the bins of each channel span; equal ones make bin 0 throughout.
    target : TargetSpec

    Returns
    -------
    target_single, target_dual : u1 or u2 (N, t, t)

    Notes
    -----
    Uniform: ``min(floor((v - lo) / (hi - lo) * n), n - 1)``, in float32; the joint class is first * n + second.
    Zhang: L bins are 2 wide; ab is rounded to the grid of step 10, and a grid point that is none of the 313 centers
    goes to the nearest of them.
    """
    if target.bins == "zhang":
        single = _uniform_bins(values[:, 0], _ZHANG_L_RANGE, ZHANG_SINGLE_BINS)
        dual = zhang_from_ab(values[:, 1], values[:, 2])
    else:
        single = _uniform_bins(values[:, 0], value_range[..., 0, :], target.single)
        first = _uniform_bins(values[:, 1], value_range[..., 1, :], target.dual)
        second = _uniform_bins(values[:, 2], value_range[..., 2, :], target.dual)
        dual = first * target.dual + second
    return single.astype(class_dtype(target.single_classes)), dual.astype(class_dtype(target.dual_classes))


def values_from_bins(
    target_single: NDArray[Any],
    target_dual: NDArray[Any],
    value_range: NDArray[np.float32],
    target: TargetSpec,
) -> NDArray[np.float32]:
    """Return the bin centers: the inverse of `bins_from_values` to within half a bin.

    Parameters
    ----------
    target_single, target_dual : unsigned (N, t, t)
    value_range : float32 (3, 2) or (N, 3, 2), the one that the bins were made with
    target : TargetSpec

    Returns
    -------
    float32 (N, 3, t, t), in the units of the color space
    """
    if target.bins == "zhang":
        L = _uniform_centers(target_single, _ZHANG_L_RANGE, ZHANG_SINGLE_BINS)
        ab = zhang_centers()[target_dual.astype(np.int64)]  # (N, t, t, 2)
        return np.stack([L, ab[..., 0], ab[..., 1]], axis=1)
    joint = target_dual.astype(np.int64)
    bins = (target_single, joint // target.dual, joint % target.dual)
    counts = (target.single, target.dual, target.dual)
    channels = [_uniform_centers(bins[c], value_range[..., c, :], counts[c]) for c in range(3)]
    return np.stack(channels, axis=1)


def values_from_image(
    image: NDArray[np.uint8] | NDArray[np.float32],
    colorspace: Colorspace,
    image_range: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Decode stored images to the units of their color space.

    Parameters
    ----------
    image : uint8 (N, 3, H, W), or means of stored levels: float32
    colorspace : Colorspace
    image_range : float32 (N, 3, 2), needed by `rescaled_lab` alone

    Returns
    -------
    float32 (N, 3, H, W): R, G, B in [0, 255], or L in [0, 100] with a and b inside the gamut
    """
    if colorspace == "rescaled_lab":
        if image_range is None:
            raise ValueError("rescaled_lab decodes with image_range, none was given")
        lo, hi = image_range[:, :, 0, None, None], image_range[:, :, 1, None, None]
        return lo + image.astype(np.float32) * ((hi - lo) / np.float32(255))
    scale = np.array(STORED_SCALE[colorspace], np.float32)[:, None, None]
    offset = np.array(STORED_OFFSET[colorspace], np.float32)[:, None, None]
    return (image.astype(np.float32) - offset) / scale


def _uniform_bins(values: NDArray[np.float32], ends: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    lo, hi = ends[..., 0], ends[..., 1]
    if ends.ndim == 2:  # one range an image
        lo, hi = lo[:, None, None], hi[:, None, None]
    span = np.where(hi > lo, hi - lo, np.float32(1))
    bins = np.clip(np.floor((values - lo) / span * np.float32(n)).astype(np.int64), 0, n - 1)
    return np.where(hi > lo, bins, 0)


def _uniform_centers(bins: NDArray[Any], ends: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    lo, hi = ends[..., 0], ends[..., 1]
    if ends.ndim == 2:
        lo, hi = lo[:, None, None], hi[:, None, None]
    return lo + (bins.astype(np.float32) + np.float32(0.5)) / np.float32(n) * (hi - lo)
