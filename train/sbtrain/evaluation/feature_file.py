"""The HDF5 file that features are in: laid out, found again, read. The only writer of HDF5 in the trainer."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbformat.durable import fsync_path
from sbformat.errors import FormatError
from sbtrain.runtime import RunError

FORMAT = "sbtrain-features"
VERSION = 1
#: Bytes for everything in a file but its numbers: attributes, with the name of each class, and headers.
ROOM = 1 << 22
#: Name of a dataset -> its shape and dtype.
Shapes = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]


@dataclass(frozen=True)
class FeatureSample:
    """Some rows of a file: features float32 (n, D), labels int64 (n,), of `images` in all."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    """Class of each; 0 of all where the images have none."""
    names: tuple[str, ...]
    images: int


def read_features(path: Path, most: int) -> FeatureSample:
    """Read at most `most` rows of a file of features, evenly spread over it.

    Raises
    ------
    FormatError
        It is damaged, or no file of features.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            images, width = file["features"].shape
            rows = np.unique(np.linspace(0, images - 1, min(images, most)).astype(np.int64))
            features = np.empty((len(rows), width), np.float32)
            for place, row in enumerate(rows):  # a list of rows would read many times as much
                features[place] = file["features"][row]
            classes = "label" in file and file["label"].ndim == 1
            labels = file["label"][:].astype(np.int64)[rows] if classes else np.zeros(len(rows), np.int64)
            names = tuple(map(str, json.loads(file.attrs.get("label_names", "[]"))))
        if (labels < 0).any():
            raise ValueError("a negative label")
    except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise FormatError(f"{path}: no file of features ({error}). Make it again: sbtrain features") from error
    return FeatureSample(features, labels, names, images)


def lay_out(path: Path, shapes: Shapes, about: dict[str, Any]) -> dict[str, int]:
    """Make the file with everything but the numbers, and return where those of each dataset begin.

    They are written without libhdf5, one dataset after the other at plain offsets: where a disk is full libhdf5 cannot
    close its file, and ends the process with a segmentation fault.
    """
    import h5py

    room = ROOM + sum(math.prod(shape) * dtype.itemsize for shape, dtype in shapes.values())
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room)  # a full disk is found out here
    with h5py.File(path, "w", libver=("v110", "v110"), locking=False) as file:
        file.attrs.update(_texts(about))
        early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        early.set_obj_track_times(False)  # the same content gives the same bytes
        return {
            name: h5py.h5d.create(
                file.id, name.encode(), h5py.h5t.py_create(dtype), h5py.h5s.create_simple(shape), early
            ).get_offset()
            for name, (shape, dtype) in shapes.items()
        }


def _texts(about: dict[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}


def holds(path: Path, about: dict[str, Any]) -> bool:
    """Return whether `path` holds these features; refuse to replace a file of another kind."""
    import h5py

    if not path.exists():
        return False
    try:
        with h5py.File(path, "r") as file:
            there = dict(file.attrs)
    except OSError as error:
        raise RunError(f"{path}: exists, and is no HDF5 file. Choose another --out, or move it away") from error
    if there.get("format") != FORMAT:
        raise RunError(
            f"{path}: exists, and was not written by sbtrain features. Choose another --out, or move it away"
        )
    return there == _texts(about)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Give a name to write to that becomes `path` when all went well, and is gone otherwise."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):  # of a killed process
        left.unlink()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        fsync_path(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(path.parent)
