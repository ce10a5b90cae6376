"""STL-10, binary version.

Axes: N images, C = 3 planes (R, G, B), H = W = 96 pixels. An image of ``*_X.bin`` is three planes, each column-major:
byte ``c * 9216 + column * 96 + row``. Labels are one byte an image, 1 to 10.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sbformat.errors import SourceError
from sbprep.sources.base import SPLITS, Split
from sbprep.sources.records import RecordFiles, count_records, record_listing

SHAPE = (3, 96, 96)  # plane, column, row
RECORD = 27_648  # bytes of an image
#: Order of the labels 1 to 10 (the data set's page), for copies that lack class_names.txt.
CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def matches(path: Path) -> bool:
    """Whether `path` is ``stl10_binary/`` or holds it."""
    try:
        return _root(path) is not None
    except OSError:
        return False


def splits(path: Path) -> dict[str, Split]:
    """Return the splits whose ``*_X.bin`` is there: train and test with labels, unlabeled without.

    Raises
    ------
    SourceError
        No image file, a size that is no whole number of images, labels missing, too few, too many or outside 1 to 10.
    """
    try:
        root = _root(path)
        if root is None:
            raise SourceError(
                f"{path}: no train_X.bin, test_X.bin or unlabeled_X.bin here or in stl10_binary/; "
                "unpack stl10_binary.tar.gz and give the folder it makes"
            )
        names = _class_names(root / "class_names.txt")
        return {name: _split(root, name, names) for name in SPLITS if (root / f"{name}_X.bin").is_file()}
    except OSError as err:
        raise SourceError(f"{path}: cannot be read ({err}); check the permissions and the disk") from err


def _root(path: Path) -> Path | None:
    files = [f"{name}_X.bin" for name in SPLITS]
    for root in (path, path / "stl10_binary"):
        if any((root / file).is_file() for file in files):
            return root
    return None


def _split(root: Path, name: str, class_names: tuple[str, ...]) -> Split:
    images = root / f"{name}_X.bin"
    count = count_records(images, RECORD)
    labels = None if name == "unlabeled" else _labels(root / f"{name}_y.bin", count)
    return Split(
        kind="stl10",
        source=RecordFiles(paths=(images,), shape=SHAPE, axes=(2, 1, 0)),
        listing=record_listing([images], [count], stride=RECORD, labels=labels),
        label_names=None if labels is None else class_names,
    )


def _labels(path: Path, count: int) -> NDArray[np.int32]:
    if not path.is_file():
        raise SourceError(f"{path}: not there, expected {count} labels of one byte; unpack it beside the images")
    given = path.stat().st_size
    if given != count:
        raise SourceError(
            f"{path}: {given} labels, expected {count}, one an image; unpack or download both files again"
        )
    labels = np.fromfile(path, np.uint8)
    wrong = np.flatnonzero((labels < 1) | (labels > len(CLASSES)))
    if len(wrong):
        row = wrong[0]
        raise SourceError(f"{path}: label {labels[row]} in row {row}, expected 1 to {len(CLASSES)}; download it again")
    return labels.astype(np.int32) - 1


def _class_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return CLASSES
    names = tuple(path.read_text(encoding="utf-8", errors="replace").split())
    if len(names) != len(CLASSES):
        raise SourceError(f"{path}: {len(names)} names, expected {len(CLASSES)}; remove it to use the official ones")
    return names
