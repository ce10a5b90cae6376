"""CIFAR-10 and CIFAR-100 (fine labels): the binary version and the version pickled by Python 2.

An image is 3072 bytes: three planes (R, G, B) of 32 x 32, row by row. In a binary file each image follows its label
byte (CIFAR-100: coarse label, then fine label); in a pickle all images are one uint8 array (N, 3072).
Where both versions are there the binary one is read: it needs no unpickling.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbformat.errors import SourceError
from sbprep.sources.base import SPLITS, Item, Listing, Rejected, Source, Split
from sbprep.sources.failures import raise_if_machine
from sbprep.sources.plain_pickle import load_pickle, text_of
from sbprep.sources.records import RecordFiles, count_records, hwc, open_listed, record_listing

SHAPE, AXES = (3, 32, 32), (1, 2, 0)  # plane, row, column; to row, column, channel
PIXELS = 3072  # bytes of an image
#: Largest pickle that is read, in bytes: it lies twice in memory, and the largest official one has 155 MB.
MAX_PICKLE_BYTES = 160 << 20
#: Official order of the CIFAR-10 labels, for copies that lack batches.meta.
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """One of the four ways in which CIFAR is distributed."""

    kind: str
    folder: str
    files: dict[str, tuple[str, ...]]
    names_file: str
    classes: int
    prefix: int  # label bytes before an image in a binary file; 0: pickled
    labels_key: str = "labels"
    names_key: str = "label_names"


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_LAYOUTS = (  # in order of preference
    _Layout(
        kind="cifar10",
        folder="cifar-10-batches-bin",
        files={"train": tuple(f"{name}.bin" for name in _BATCHES), "test": ("test_batch.bin",)},
        names_file="batches.meta.txt",
        classes=10,
        prefix=1,
    ),
    _Layout(
        kind="cifar100",
        folder="cifar-100-binary",
        files={"train": ("train.bin",), "test": ("test.bin",)},
        names_file="fine_label_names.txt",
        classes=100,
        prefix=2,
    ),
    _Layout(
        kind="cifar10",
        folder="cifar-10-batches-py",
        files={"train": _BATCHES, "test": ("test_batch",)},
        names_file="batches.meta",
        classes=10,
        prefix=0,
    ),
    _Layout(
        kind="cifar100",
        folder="cifar-100-python",
        files={"train": ("train",), "test": ("test",)},
        names_file="meta",
        classes=100,
        prefix=0,
        labels_key="fine_labels",
        names_key="fine_label_names",
    ),
)


def matches(path: Path) -> bool:
    """Whether `path` is one of the four official folders or holds one."""
    try:
        return bool(_find(path))
    except OSError:
        return False


def splits(path: Path) -> dict[str, Split]:
    """Return train and test, each from those of its files that are there.

    Raises
    ------
    SourceError
        No batch file, CIFAR-10 and CIFAR-100 both, a file of a wrong size, a label out of range, or a pickle that is
        malformed or wants anything but numbers, text, lists, dicts and uint8 arrays.
    """
    try:
        root, layout = _choose(path)
        label_names = _class_names(root / layout.names_file, layout)
        present = {
            name: [root / file for file in layout.files.get(name, ()) if (root / file).is_file()] for name in SPLITS
        }
        return {name: _split(tuple(files), layout, label_names) for name, files in present.items() if files}
    except OSError as err:
        raise SourceError(f"{path}: cannot be read ({err}); check the permissions and the disk") from err


@dataclass(frozen=True, slots=True, kw_only=True)
class PickledBatches:
    """Images in pickled batches; a row's key is (number of the file, byte offset in the batch's array)."""

    paths: tuple[Path, ...]

    @property
    def sequential(self) -> bool:
        """False: a batch is small enough to load for any part of it."""
        return False

    def read(self, part: Listing) -> Iterator[Item]:
        """Yield (32, 32, 3) uint8 for each row of `part`.

        Each batch is unpickled once and dropped when its rows are copied: memory is one batch and the part.
        """
        assert part.keys is not None
        numbers = part.keys[:, 0]
        records = np.empty((len(part), *SHAPE), np.uint8)
        refused = {number: self._copy(number, part, records) for number in np.unique(numbers).tolist()}
        for number, record in zip(numbers.tolist(), records, strict=True):
            yield refused[number] or hwc(record, AXES)

    def _copy(self, number: int, part: Listing, records: NDArray[np.uint8]) -> Rejected | None:
        """Copy the rows of `part` that lie in one file to their places in `records`, or say why not."""
        assert part.keys is not None
        rows = np.flatnonzero(part.keys[:, 0] == number)
        images = _reread(self.paths[number], int(part.stamps[rows[0]]))
        if isinstance(images, Rejected):
            return images
        records[rows] = images[part.keys[rows, 1] // PIXELS].reshape(-1, *SHAPE)
        return None


def _find(path: Path) -> list[tuple[Path, _Layout]]:
    """Return the layouts in `path` itself or, if there is none, in its folders of the official names."""
    inside = [(path, layout) for layout in _LAYOUTS if _is_root(path, layout)]
    return inside or [(path / layout.folder, layout) for layout in _LAYOUTS if _is_root(path / layout.folder, layout)]


def _is_root(root: Path, layout: _Layout) -> bool:
    files = [root / file for names in layout.files.values() for file in names]
    # The file names of CIFAR-100 could be anybody's: they need a second sign.
    sure = layout.classes == 10 or root.name == layout.folder or (root / layout.names_file).is_file()
    return sure and any(file.is_file() for file in files)


def _choose(path: Path) -> tuple[Path, _Layout]:
    found = _find(path)
    if not found:
        raise SourceError(
            f"{path}: no CIFAR batch here or in {', '.join(layout.folder for layout in _LAYOUTS)}; "
            "unpack the downloaded archive and give the folder it makes"
        )
    if len({layout.kind for _, layout in found}) > 1:
        raise SourceError(
            f"{path}: holds CIFAR-10 and CIFAR-100; give one of {', '.join(str(root) for root, _ in found)}"
        )
    return found[0]


def _split(files: tuple[Path, ...], layout: _Layout, label_names: tuple[str, ...]) -> Split:
    labels = [_labels(path, layout) for path in files]
    source: Source = PickledBatches(paths=files)
    if layout.prefix:
        source = RecordFiles(paths=files, shape=SHAPE, axes=AXES)
    listing = record_listing(
        files,
        [len(found) for found in labels],
        stride=layout.prefix + PIXELS,
        first=layout.prefix,
        labels=np.concatenate(labels).astype(np.int32),
    )
    return Split(kind=layout.kind, source=source, listing=listing, label_names=label_names)


def _labels(path: Path, layout: _Layout) -> NDArray[Any]:
    labels = _binary_labels(path, layout.prefix) if layout.prefix else _load_batch(path, layout.labels_key)[1]
    wrong = np.flatnonzero((labels < 0) | (labels >= layout.classes))
    if len(wrong):
        row = wrong[0]
        raise SourceError(
            f"{path}: label {labels[row]} in row {row}, expected 0 to {layout.classes - 1}; "
            "the file is damaged or of another data set: download it again"
        )
    return labels


def _binary_labels(path: Path, prefix: int) -> NDArray[np.uint8]:
    count = count_records(path, prefix + PIXELS)
    records = np.memmap(path, np.uint8, "r", shape=(count, prefix + PIXELS))
    return np.array(records[:, prefix - 1])


def _load_batch(path: Path, labels_key: str) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Return images (N, 3072) and labels (N,) of a pickled batch."""
    batch = _load_file(path)
    images, labels = batch.get("data"), batch.get(labels_key)
    if not isinstance(images, np.ndarray) or images.ndim != 2 or images.shape[1] != PIXELS or not len(images):
        found = f"uint8 {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise SourceError(f"{path}: 'data' is {found}, expected uint8 (N, {PIXELS}); download it again")
    if not isinstance(labels, list) or len(labels) != len(images) or any(type(label) is not int for label in labels):
        found = f"{len(labels)} values" if isinstance(labels, list) else type(labels).__name__
        raise SourceError(
            f"{path}: {labels_key!r} is {found}, expected a list of {len(images)} ints; download it again"
        )
    return images, np.array(labels)


def _load_file(path: Path) -> Any:
    size = path.stat().st_size
    if size > MAX_PICKLE_BYTES:
        raise SourceError(
            f"{path}: a pickle of {size} bytes, at most {MAX_PICKLE_BYTES} fit in memory; use the binary version"
        )
    return load_pickle(path.read_bytes(), path)


def _reread(path: Path, stamp: int) -> NDArray[np.uint8] | Rejected:
    handle = open_listed(path, stamp)
    if isinstance(handle, Rejected):
        return handle
    try:
        with handle:
            images: NDArray[np.uint8] = load_pickle(handle.readall(), path)["data"]
        return images
    except (OSError, SourceError) as err:
        raise_if_machine(err, path)
        return Rejected("unreadable", str(err))


def _class_names(path: Path, layout: _Layout) -> tuple[str, ...]:
    if not path.is_file():
        return CIFAR10_CLASSES if layout.classes == 10 else tuple(str(number) for number in range(layout.classes))
    found: Any = path.read_text(encoding="latin1").split() if layout.prefix else _load_file(path).get(layout.names_key)
    if (
        not isinstance(found, list)
        or len(found) != layout.classes
        or not all(isinstance(x, str | bytes) for x in found)
    ):
        given = f"{len(found)} names" if isinstance(found, list) else f"no list of {layout.names_key}"
        raise SourceError(f"{path}: {given}, expected {layout.classes} texts; download it again")
    return tuple(text_of(name) for name in found)
