"""Arrays of images: ``.npy``, ``.npz`` and HDF5 files.

Images are uint8, in a file of one array or under ``images``, ``x`` or ``data``; labels are ``labels`` or ``y``. A file
of several splits puts the split before or after: ``x_train`` and ``y_train``, ``test_images`` and ``test_labels``.

Axes: N images, H W pixels, C channels. (N, H, W, 3), (N, 3, H, W), and gray (N, H, W), (N, H, W, 1), (N, 1, H, W).
Rows that lie plainly in the file are read there, those of a compressed .npz in a pass over it, whatever the size;
`array_files` and `hdf5` do it. This module says what the arrays mean.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbformat.errors import SourceError
from sbprep.sources.array_files import StoredArray, npy_arrays, npz_arrays
from sbprep.sources.base import SPLITS, Source, Split
from sbprep.sources.hdf5 import hdf5_arrays
from sbprep.sources.records import RecordFiles, record_listing

#: Most bytes of one image, as RGB (4096 x 4096 pixels): it lies a few times in memory.
MAX_IMAGE_BYTES = 48 << 20
#: Most bytes of an array of labels.
MAX_LABEL_BYTES = 64 << 20
#: Most classes; a label beyond it is an identifier, not the number of a class.
MAX_CLASSES = 1_000_000

_SUFFIXES = {".npy": "npy", ".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5"}
_IMAGES, _LABELS = ("images", "x", "data"), ("labels", "y")
_SPLIT_WORDS = {
    "unlabeled": "unlabeled",
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


def matches(path: Path) -> bool:
    """Whether `path` is a file named ``.npy``, ``.npz``, ``.h5`` or ``.hdf5``."""
    try:
        return path.suffix.lower() in _SUFFIXES and path.is_file()
    except OSError:
        return False


def splits(path: Path) -> dict[str, Split]:
    """Return the splits of a file; a lone set of images is train if it has labels, else unlabeled.

    Labels (N,) or (N, 1) are class numbers from 0 on, with their decimal digits as names; (N, A) of zeros and ones are
    attributes ``attribute_0``, ...

    Raises
    ------
    SourceError
        Broken file; no images or several candidates; images that are not uint8, of another shape or in Fortran order;
        labels that are missing, too few, too many or out of range; pickled objects; images or HDF5 chunks too large
        to be held in memory; a shard of a build.
    """
    kind = _SUFFIXES.get(path.suffix.lower())
    try:
        if kind is None or not path.is_file():
            raise SourceError(f"{path}: expected a file named {', '.join(_SUFFIXES)}; rename it, or check the path")
        arrays = {"npy": npy_arrays, "npz": npz_arrays, "hdf5": hdf5_arrays}[kind](path)
        return _splits(path, kind, _by_split(path, arrays))
    except SourceError:
        raise
    except Exception as err:  # a damaged file fails in any way at all
        raise SourceError(
            f"{path}: cannot be read ({type(err).__name__}: {err}), expected a whole .npy, .npz, .h5 or .hdf5 file; "
            "check it or write it again"
        ) from err


def _by_split(path: Path, arrays: dict[str, StoredArray]) -> dict[str, tuple[StoredArray, StoredArray | None]]:
    """Pair images and labels by split; the split of a lone set is ''."""
    slots: dict[tuple[str, str], str] = {}
    for name in arrays:
        slot = _slot(name.lower())
        if slot is not None and slots.setdefault(slot, name) != name:
            raise SourceError(f"{path}: {slots[slot]} and {name} mean the same; leave one of them in the file")
    found = {split: arrays[name] for (split, role), name in slots.items() if role == "images"}
    if not found:
        found = {"": _only_images(path, arrays)}
    if len(found) > 1 and "" in found:
        raise SourceError(f"{path}: {slots['', 'images']} beside images named by split; name its split or remove it")
    return {
        split: (found[split], arrays[slots[split, "labels"]] if (split, "labels") in slots else None)
        for split in ("", *SPLITS)
        if split in found
    }


def _slot(name: str) -> tuple[str, str] | None:
    """Return the split and the role that an array's name means: ('train', 'labels') for y_train."""
    for role, words in (("images", _IMAGES), ("labels", _LABELS)):
        for word in words:
            if name == word:
                return "", role
            for split_word, split in _SPLIT_WORDS.items():
                if name in (f"{word}_{split_word}", f"{split_word}_{word}"):
                    return split, role
    return None


def _only_images(path: Path, arrays: dict[str, StoredArray]) -> StoredArray:
    stacks = [array for array in arrays.values() if len(array.shape) == 4]
    candidates = [array for array in stacks if array.dtype == np.uint8] or stacks
    if len(candidates) == 1:
        return candidates[0]
    names = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in list(arrays.items())[:8])
    raise SourceError(
        f"{path}: holds {names or 'no arrays'}; expected one uint8 array (N, H, W, 3), or images, x or data "
        "(by split: x_train, test_images, ...); give the array of images such a name"
    )


def _splits(path: Path, kind: str, pairs: dict[str, tuple[StoredArray, StoredArray | None]]) -> dict[str, Split]:
    for images, _ in pairs.values():
        _check_bytes(images)
    labels = {split: _labels(*pair) for split, pair in pairs.items() if _is_labeled(split, *pair)}
    classes = max((int(found.max()) + 1 for found in labels.values() if found.ndim == 1), default=0)
    made = {split: _split(path, kind, pair[0], labels.get(split), classes) for split, pair in pairs.items()}
    if "" in made:
        return {"train" if "" in labels else "unlabeled": made[""]}
    return made


def _split(path: Path, kind: str, images: StoredArray, labels: NDArray[Any] | None, classes: int) -> Split:
    shape, axes = _layout(images)
    _check_image_size(images, shape, axes)
    source: Source = RecordFiles(paths=(path,), shape=shape, axes=axes)
    if images.offset is None and images.rows is not None:
        source = images.rows(shape, axes)
    listing = record_listing(
        [path], [images.shape[0]], stride=math.prod(shape), first=images.offset or 0, labels=labels
    )
    return Split(kind=kind, source=source, listing=listing, label_names=_label_names(labels, classes))


def _layout(images: StoredArray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shape of one image with a channel axis, and the axes that make it (H, W, C)."""
    shape = images.shape[1:]
    if len(shape) == 3 and shape[2] == 3:
        return shape, (0, 1, 2)
    if len(shape) == 3 and shape[0] == 3:
        return shape, (1, 2, 0)
    if len(shape) == 3 and 1 in (shape[0], shape[2]):
        return shape, (0, 1, 2) if shape[2] == 1 else (1, 2, 0)
    if len(shape) == 2 and shape[1] not in (1, 3):  # (H, W, 3) would be a single color image
        return (*shape, 1), (0, 1, 2)
    raise SourceError(
        f"{images.given}, expected (N, H, W, 3), (N, 3, H, W) or gray (N, H, W); "
        "reshape it, a single image to (1, H, W, 3)"
    )


def _check_image_size(images: StoredArray, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    size = 3 * shape[axes[0]] * shape[axes[1]]
    if size > MAX_IMAGE_BYTES:
        raise SourceError(
            f"{images.given}: {size} bytes an image in RGB, at most {MAX_IMAGE_BYTES} are held in memory; "
            "save the images as files, or resize them first"
        )


def _check_bytes(images: StoredArray) -> None:
    if images.dtype.hasobject:
        raise SourceError(f"{images.given}: objects are pickles, which are not loaded; save a uint8 array (N, H, W, 3)")
    if images.dtype != np.uint8:
        raise SourceError(f"{images.given}, expected uint8; scale to 0..255, round, and save .astype(np.uint8)")
    if images.fortran:
        raise SourceError(f"{images.given} in Fortran order, expected C order; save np.ascontiguousarray(array)")
    if min(images.shape, default=0) <= 0:
        raise SourceError(f"{images.given}: no images; check how it was written")
    if images.content < images.nbytes:
        raise SourceError(
            f"{images.given}: {images.content} bytes, expected {images.nbytes}; "
            "it was cut short: copy or write it again"
        )


def _is_labeled(split: str, images: StoredArray, labels: StoredArray | None) -> bool:
    if split in ("", "unlabeled"):
        return split == "" and labels is not None
    if labels is None:
        raise SourceError(
            f"{images.given} has no labels; add y_{split} or {split}_labels, or name the images x_unlabeled"
        )
    return True


def _labels(images: StoredArray, stored: StoredArray | None) -> NDArray[Any]:
    assert stored is not None
    count = images.shape[0]
    if stored.dtype.kind not in "iub" or len(stored.shape) not in (1, 2) or 0 in stored.shape:
        raise SourceError(f"{stored.given}, expected integers (N,) or (N, attributes); convert with .astype(np.int32)")
    if stored.shape[0] != count or stored.nbytes > MAX_LABEL_BYTES:
        raise SourceError(f"{stored.given}, expected {count} labels, one an image; write both from the same list")
    labels = stored.load().reshape(stored.shape)
    return _class_numbers(stored, labels.reshape(-1)) if labels.size == count else _attributes(stored, labels)


def _class_numbers(stored: StoredArray, labels: NDArray[Any]) -> NDArray[np.int32]:
    wrong = np.flatnonzero((labels < 0) | (labels >= MAX_CLASSES))
    if len(wrong):
        row = wrong[0]
        raise SourceError(
            f"{stored.given}: label {labels[row]} in row {row}, expected 0 to {MAX_CLASSES - 1}; renumber the classes"
        )
    return labels.astype(np.int32)


def _attributes(stored: StoredArray, labels: NDArray[Any]) -> NDArray[np.uint8]:
    wrong = np.flatnonzero(((labels != 0) & (labels != 1)).any(axis=1))
    if len(wrong):
        raise SourceError(
            f"{stored.given}: row {wrong[0]} is not of zeros and ones; expected attributes, or classes (N,)"
        )
    return labels.astype(np.uint8)


def _label_names(labels: NDArray[Any] | None, classes: int) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if labels.ndim == 2:
        return tuple(f"attribute_{column}" for column in range(labels.shape[1]))
    return tuple(str(number) for number in range(classes))
