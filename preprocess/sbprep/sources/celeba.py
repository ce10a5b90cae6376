"""CelebA, aligned and cropped: JPEG files or their zip, 40 binary attributes, the official split.

    img_align_celeba/ or img_align_celeba.zip   000001.jpg ... 202599.jpg
    list_attr_celeba.txt                        count; 40 names; then 000001.jpg -1 1 ... in columns
    list_eval_partition.txt                     000001.jpg 0; 0 train, 1 val, 2 test

All in one folder or in its folders Img, Anno and Eval, as they are distributed. A part of the images may be missing
(a smaller copy is a usual thing to have); whatever is there must have its attributes and its split.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbformat.errors import SourceError
from sbprep.sources.base import SPLITS, Listing, Split
from sbprep.sources.folder import FolderTree
from sbprep.sources.tree import Tree, is_image
from sbprep.sources.zipped import ZipTree

ATTRIBUTES = 40
#: Meaning of the numbers in list_eval_partition.txt.
PARTITION = {"0": "train", "1": "val", "2": "test"}

_IMAGES, _ATTRIBUTES, _PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
_BITS = {"-1": 0, "1": 1}


def matches(path: Path) -> bool:
    """Whether `path` or its folder ``celeba`` holds the images and one of the two lists."""
    try:
        return _base(path) is not None
    except OSError:
        return False


def splits(path: Path) -> dict[str, Split]:
    """Return train, val and test with labels uint8 (N, 40), 1 where the attribute is there.

    Images are matched with the lists by file name; those of a split keep the order of the tree.

    Raises
    ------
    SourceError
        A list is missing, malformed or contradicts its own count, or an image is in only one of the lists or in none.
    """
    try:
        base = _base(path)
        if base is None:
            raise SourceError(
                f"{path}: no {_IMAGES}/ or {_IMAGES}.zip with {_ATTRIBUTES} here, in celeba/ or in Img/ and Anno/; "
                "put the images and both lists into one folder and give that"
            )
        return _splits(base)
    except OSError as err:
        raise SourceError(f"{path}: cannot be read ({err}); check the permissions and the disk") from err


def read_attributes(path: Path) -> tuple[tuple[str, ...], dict[str, int], NDArray[np.uint8]]:
    """Return the attribute names, the row of each image by file name, and the attributes (N, 40) of 0 and 1."""
    with path.open(encoding="utf-8", errors="replace") as file:
        count = _count(path, file.readline())
        names = tuple(file.readline().split())
        if len(names) != ATTRIBUTES:
            raise SourceError(
                f"{path}, line 2: {len(names)} names, expected {ATTRIBUTES} attributes; download it again"
            )
        rows: dict[str, int] = {}
        bits = bytearray()
        for number, line in enumerate(file, start=3):
            if fields := line.split():
                bits += _bits(path, number, fields[1:])
                _add(path, number, rows, fields[0], len(rows))
    if len(rows) != count:
        raise SourceError(f"{path}: line 1 says {count} images, {len(rows)} follow; the file is cut: download it again")
    return names, rows, np.frombuffer(bytes(bits), np.uint8).reshape(-1, ATTRIBUTES)


def read_partition(path: Path) -> dict[str, str]:
    """Return the split of each image by file name."""
    found: dict[str, str] = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if fields := line.split():
                if len(fields) != 2 or fields[1] not in PARTITION:
                    raise SourceError(
                        f"{path}, line {number}: {line.strip()[:80]!r}, expected a file name and 0, 1 or 2; "
                        "download it again"
                    )
                _add(path, number, found, fields[0], PARTITION[fields[1]])
    return found


def _splits(base: Path) -> dict[str, Split]:
    attributes_file, partition_file = _list_file(base, _ATTRIBUTES), _list_file(base, _PARTITION)
    names, rows, attributes = read_attributes(attributes_file)
    partition = read_partition(partition_file)
    tree = _tree(base)
    images, files = _images(tree)
    _check_listed(tree, files, rows, attributes_file)
    _check_listed(tree, files, partition, partition_file)
    images = replace(images, labels=attributes[[rows[file] for file in files]])
    split_of = np.array([partition[file] for file in files])
    parts = {split: images.take(np.flatnonzero(split_of == split)) for split in SPLITS}
    return {
        split: Split(kind="celeba", source=tree, listing=part, label_names=names)
        for split, part in parts.items()
        if len(part)
    }


def _images(tree: Tree) -> tuple[Listing, list[str]]:
    """List the images of a tree, and the file name of each without its folders."""
    listing = tree.files()
    files = [tree.member(name).rpartition("/")[2] for name in listing.names]
    rows = [row for row, file in enumerate(files) if is_image(file)]
    if not rows:
        raise SourceError(f"{tree.where}: no images among {len(files)} files; unpack {_IMAGES}.zip there")
    images = [files[row] for row in rows]
    repeated = next((file for file, count in Counter(images).items() if count > 1), None)
    if repeated:
        raise SourceError(f"{tree.where}: {repeated} is there in two folders; move one of the folders away")
    return listing.take(np.array(rows, np.int64)), images


def _check_listed(tree: Tree, files: list[str], listed: Container[str], path: Path) -> None:
    missing = [file for file in files if file not in listed]
    if missing:
        raise SourceError(
            f"{path}: {len(missing)} of the {len(files)} images in {tree.where} are not listed, "
            f"the first is {missing[0]}; use the lists of the same download, or move these images away"
        )


def _base(path: Path) -> Path | None:
    for base in (path, path / "celeba", path / "CelebA"):
        lists = any(file.is_file() for name in (_ATTRIBUTES, _PARTITION) for file in _places(base, name))
        folders, zips = _places(base, _IMAGES), _places(base, f"{_IMAGES}.zip")
        if lists and (any(place.is_dir() for place in folders) or any(place.is_file() for place in zips)):
            return base
    return None


def _places(base: Path, name: str) -> Iterator[Path]:
    return (folder / name for folder in (base, base / "Anno", base / "Eval", base / "Img"))


def _tree(base: Path) -> Tree:
    """Return the folder of images if there is one, for reading it needs no inflating, else the zip."""
    folder = next((place for place in _places(base, _IMAGES) if place.is_dir()), None)
    if folder is not None:
        return FolderTree(folder)
    return ZipTree(next(place for place in _places(base, f"{_IMAGES}.zip") if place.is_file()))


def _list_file(base: Path, name: str) -> Path:
    found = next((place for place in _places(base, name) if place.is_file()), None)
    if found is None:
        raise SourceError(f"{base}: {name} is not there, nor in Anno/ or Eval/; download it beside the images")
    return found


def _count(path: Path, line: str) -> int:
    if not re.fullmatch("[0-9]{1,12}", line.strip()):
        raise SourceError(f"{path}, line 1: {line.strip()[:80]!r}, expected the number of images; download it again")
    return int(line)


def _bits(path: Path, number: int, values: list[str]) -> bytes:
    if len(values) != ATTRIBUTES:
        raise SourceError(f"{path}, line {number}: {len(values)} values, expected {ATTRIBUTES}; download it again")
    try:
        return bytes([_BITS[value] for value in values])
    except KeyError as err:
        raise SourceError(f"{path}, line {number}: value {err}, expected -1 or 1; download it again") from err


def _add(path: Path, number: int, found: dict[str, Any], file: str, value: Any) -> None:
    if file in found:
        raise SourceError(f"{path}, line {number}: {file} for the second time; download it again")
    found[file] = value
