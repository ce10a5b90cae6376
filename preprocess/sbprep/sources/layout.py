"""The layouts of trees: names turned into splits and labels.

A layout looks at the names alone, so one piece of code serves folders and archives:

    train/<class>/<image>      labeled; also val (valid, validation) and test, in any case
    unlabeled/**               no labels; also unsupervised
    supervised/train/<class>/<image>, supervised/val/..., unsupervised/**
    anything else              one split, unlabeled

Folders that all images share (the name of the data set, as a rule) are looked through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sbformat.errors import ConfigError, SourceError
from sbprep.sources.base import SPLITS, Listing, Split
from sbprep.sources.tree import IMAGE_SUFFIXES, Tree, is_image, is_unsafe

#: Folder names, in lower case, that mean a split.
SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "unlabeled": "unlabeled",
    "unsupervised": "unlabeled",
}

# Class of an image whose name is unsafe: it has no place in a layout, but keeps a line and is rejected when read.
_NO_PLACE = ""


def splits_of_tree(tree: Tree, kind: str) -> dict[str, Split]:
    """Find the layout of a tree (see the module) and list its images by split.

    Returns
    -------
    dict of str to Split
        In the order of `SPLITS`. Labels int32 (N,), the rank of the class folder in the sorted names of this split;
        see `join_labels`. A train, val or test folder without any class folder is a split without labels.

    Raises
    ------
    SourceError
        No images, or an image beside the class folders of its split.
    """
    images, folders = _images(tree)
    places = _places(folders)
    splits = {}
    for split in SPLITS:
        rows = [row for row, place in enumerate(places) if place[0] == split]
        if rows:
            splits[split] = _split(tree, kind, split, images.take(np.array(rows)), [places[row][1] for row in rows])
    return splits


def one_split_of_tree(tree: Tree, kind: str, split: str) -> Split:
    """List the whole tree as one split; all but 'unlabeled' take the class from the first folder that differs.

    Where all images lie in one folder, that folder is the class.

    Raises
    ------
    ConfigError
        `split` is no split.
    SourceError
        No images, or a labeled split with an image outside of class folders.
    """
    if split not in SPLITS:
        raise ConfigError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    images, folders = _images(tree)
    if split == "unlabeled":
        return Split(kind=kind, source=tree, listing=images)
    safe = [path for path in folders if path is not None]
    shared = len(_common_folders(safe))
    level = max(shared - 1, 0) if all(len(path) == shared for path in safe) else shared
    classes = [_NO_PLACE if path is None else _at(path, level) for path in folders]
    if None in classes:
        raise SourceError(
            f"{tree.where}: {images.names[classes.index(None)]} is in no class folder, but {split} needs class "
            f"folders: {split}/<class>/<image>; pass it as --unlabeled if it has no labels"
        )
    return _split(tree, kind, split, images, classes)


def join_labels(splits: dict[str, Split]) -> dict[str, Split]:
    """Give all labeled splits the same class names, and class indices (int32) to match.

    Where one split knows every class its order is kept, for it may be the official one; else the union is sorted.
    Splits with attributes (uint8 (N, A)) or without labels are returned as they are.

    Raises
    ------
    SourceError
        Some splits have classes and others attributes, or the attributes have different names.
    """
    attributes = {name: split for name, split in splits.items() if _label_axes(split) == 2}
    classes = {name: split for name, split in splits.items() if _label_axes(split) == 1}
    _check_attributes(attributes, classes)
    known = [split.label_names or () for split in classes.values()]
    union = sorted(set().union(*known))
    most = max(known, key=len, default=())
    names = most if len(most) == len(union) else tuple(union)
    return splits | {name: _relabel(split, names) for name, split in classes.items()}


def _images(tree: Tree) -> tuple[Listing, list[list[str] | None]]:
    """List the images of a tree and the folders of each, outermost first; None in place of an unsafe path."""
    files = tree.files()
    members = [tree.member(name) for name in files.names]
    rows = [row for row, member in enumerate(members) if is_image(member)]
    if not rows:
        raise SourceError(
            f"{tree.where}: no images among {len(files)} files, expected names ending in {' '.join(IMAGE_SUFFIXES)}; "
            f"check the path or rename the files"
        )
    folders = [None if is_unsafe(members[row]) else members[row].split("/")[:-1] for row in rows]
    return files.take(np.array(rows)), folders


def _places(folders: list[list[str] | None]) -> list[tuple[str, str | None]]:
    """Return split and class folder of each image. Images with unsafe paths join the first split."""
    safe = [path for path in folders if path is not None]
    for level in range(len(_common_folders(safe)) + 1):  # outermost first: the only split folder is common to all
        known = [place for path in safe if (place := _place(path, level)) is not None]
        if safe and len(known) == len(safe):
            first = min((place[0] for place in known), key=SPLITS.index)
            placed = iter(known)
            return [(first, _NO_PLACE) if path is None else next(placed) for path in folders]
    return [("unlabeled", None)] * len(folders)


def _place(path: list[str], level: int) -> tuple[str, str | None] | None:
    """Return split and class folder of an image if the layout starts at this level of its folders."""
    folder = _at(path, level)
    if folder is not None and folder.lower() == "supervised":
        level += 1
        folder = _at(path, level)
    if folder is None or folder.lower() not in SPLIT_FOLDERS:
        return None
    return SPLIT_FOLDERS[folder.lower()], _at(path, level + 1)


def _at(path: list[str], level: int) -> str | None:
    return path[level] if level < len(path) else None


def _common_folders(folders: Sequence[list[str]]) -> list[str]:
    """Return the folders that all paths begin with: what the least and the greatest of them share."""
    if not folders:
        return []
    least, greatest = min(folders), max(folders)
    shared = next((i for i, (a, b) in enumerate(zip(least, greatest, strict=False)) if a != b), len(least))
    return least[:shared]


def _split(tree: Tree, kind: str, split: str, listing: Listing, classes: Sequence[str | None]) -> Split:
    if split == "unlabeled" or not any(classes):
        return Split(kind=kind, source=tree, listing=listing)
    if None in classes:
        raise SourceError(
            f"{tree.where}: {listing.names[classes.index(None)]} lies directly in the folder of {split}, expected "
            f"{split}/<class>/<image>; move it to the folder of its class, or all images of {split} out of theirs"
        )
    names = sorted({name for name in classes if name})
    rank = {name: index for index, name in enumerate(names)} | {_NO_PLACE: 0}
    labels = np.array([rank[name or _NO_PLACE] for name in classes], np.int32)
    return Split(kind=kind, source=tree, listing=replace(listing, labels=labels), label_names=tuple(names))


def _label_axes(split: Split) -> int:
    return 0 if split.listing.labels is None else split.listing.labels.ndim


def _check_attributes(attributes: dict[str, Split], classes: dict[str, Split]) -> None:
    if attributes and classes:
        raise SourceError(
            f"splits {', '.join(attributes)} have attributes and {', '.join(classes)} have classes; "
            f"build them as two data sets"
        )
    if len({split.label_names for split in attributes.values()}) > 1:
        raise SourceError(f"splits {', '.join(attributes)} name different attributes, expected the same in all of them")


def _relabel(split: Split, names: tuple[str, ...]) -> Split:
    index = {name: i for i, name in enumerate(names)}
    new_from_old: NDArray[np.int32] = np.array([index[name] for name in split.label_names or ()], np.int32)
    return replace(split, listing=replace(split.listing, labels=new_from_old[split.listing.labels]), label_names=names)
