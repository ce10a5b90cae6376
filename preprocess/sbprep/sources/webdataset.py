"""WebDataset: tars whose members belong together by name, an image and its ``.cls``, ``.json`` or ``.txt``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from sbformat.errors import SourceError
from sbprep.sources.base import SPLITS, Item, Listing, Rejected, Split
from sbprep.sources.layout import SPLIT_FOLDERS
from sbprep.sources.members import keys_of
from sbprep.sources.strict_tar import is_tar
from sbprep.sources.tar import TarTree, tar_members
from sbprep.sources.tree import is_hidden, is_image

#: Class numbers of WebDataset go up to this: a larger one is a mistake, and a name is made for every class.
MAX_CLASS = 999_999


def is_webdataset(path: Path) -> bool:
    """Tell whether `path` is a folder of .tar files and nothing else, or a tar whose images have .cls, .json or .txt.

    Only the first 256 members of a tar are looked at. One with a split folder (``train/cat/1.jpg``) is a plain tar.
    """
    if path.is_dir():
        return bool(_tars_in(path))
    if not path.is_file() or not is_tar(path):
        return False
    with closing(tar_members(path)) as members:
        head = [member for member, _, _ in islice(members, 256)]
    if any(folder.lower() in SPLIT_FOLDERS for member in head for folder in member.split("/")[:-1]):
        return False
    described = {_sample("#" + member) for member in head if member.lower().endswith((".cls", ".json", ".txt"))}
    return any(is_image(member) and _sample("#" + member) in described for member in head)


def webdataset_splits(paths: Sequence[Path]) -> dict[str, Split]:
    """List the images of a WebDataset: tars, folders of tars, or both.

    Tars whose names begin with a split (``train-000000.tar``) make that split; without such names there is one split,
    ``train`` if the images have labels and ``unlabeled`` if not. The label of a sample is the number in its ``.cls``,
    or else the integer ``label`` or ``cls`` of its ``.json``; the class names are the numbers from 0 on.

    Raises
    ------
    SourceError
        A folder with other files, no images, names of which some mean a split and some do not, a malformed ``.cls``,
        or labels for a part of the images only.
    """
    tars: list[Path] = []
    for path in paths:
        inside = _tars_in(path) if path.is_dir() else [path]
        if not inside:
            raise SourceError(f"{path}: expected a folder of .tar files and nothing else; move other files away")
        tars += inside
    splits = {}
    for split, group in _tars_by_split(tars).items():
        found = _webdataset_split(TarTree(group), labeled=split != "unlabeled")
        splits[split or ("train" if found.label_names else "unlabeled")] = found
    return splits


def _tars_in(folder: Path) -> list[Path]:
    """Return the .tar files of a folder by name; none if there is anything else in it."""
    tars = []
    try:
        for entry in folder.iterdir():
            if is_hidden(entry.name):
                continue
            if entry.suffix != ".tar" or not entry.is_file():
                return []  # at once: the folder may hold a million images
            tars.append(entry)
    except OSError:  # a folder that cannot be read is for `FolderTree` to report
        return []
    return sorted(tars)


def _tars_by_split(tars: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Group tars by the split that their names begin with; one group '' if none does."""
    splits = {path: SPLIT_FOLDERS.get(re.split("[^a-z]", path.name.lower())[0], "") for path in tars}
    if len(set(splits.values())) > 1 and "" in splits.values():
        odd = next(path for path, split in splits.items() if not split)
        raise SourceError(
            f"{odd}: other tars beside it begin with a split (train, val, test, unlabeled) and this one does not; "
            f"rename it or move it away"
        )
    order = [split for split in (*SPLITS, "") if split in splits.values()]
    return {split: tuple(path for path in tars if splits[path] == split) for split in order}


def _webdataset_split(tree: TarTree, labeled: bool) -> Split:
    files = tree.files()
    images = [row for row, name in enumerate(files.names) if is_image(name)]
    if not images:
        raise SourceError(f"{tree.where}: no images among {len(files)} files; check the path")
    listing = files.take(np.array(images))
    numbers = _class_numbers(tree, files) if labeled else {}
    if not numbers:
        return Split(kind="webdataset", source=tree, listing=listing)
    labels = [
        numbers.get(_sample(name), 0 if key[1] < 0 else -1)
        for name, key in zip(listing.names, keys_of(listing), strict=True)
    ]
    if -1 in labels:
        raise SourceError(
            f"{tree.where}: {listing.names[labels.index(-1)]} has no label and others do; "
            f"complete the labels, or use an archive without them"
        )
    names = tuple(str(number) for number in range(max(labels) + 1))
    listing = replace(listing, labels=np.array(labels, np.int32))
    return Split(kind="webdataset", source=tree, listing=listing, label_names=names)


def _class_numbers(tree: TarTree, files: Listing) -> dict[str, int]:
    """Return sample -> class number from the .cls members, or from .json where there is no .cls at all."""
    for suffix, parse in ((".cls", _class_of_cls), (".json", _class_of_json)):
        rows = [row for row, name in enumerate(files.names) if name.lower().endswith(suffix)]
        part = files.take(np.array(rows, np.int64))
        pairs = zip(part.names, tree.read(part), strict=True)
        parsed = ((name, parse(f"{tree.where}: {name}", item)) for name, item in pairs)
        if numbers := {_sample(name): number for name, number in parsed if number is not None}:
            return numbers
    return {}


def _class_of_cls(where: str, item: Item) -> int:
    text = item.strip() if isinstance(item, bytes) else b""
    if not re.fullmatch(rb"[0-9]{1,6}", text):
        found = item.detail if isinstance(item, Rejected) else repr(text[:40])
        raise SourceError(f"{where}: {found}, expected a class number from 0 to {MAX_CLASS}; mend this member")
    return int(text)


def _class_of_json(where: str, item: Item) -> int | None:
    try:
        found = json.loads(item) if isinstance(item, bytes) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    number = found.get("label", found.get("cls"))
    if type(number) is not int:  # true is an int too
        return None
    return number if 0 <= number <= MAX_CLASS else None


def _sample(name: str) -> str:
    """Return the sample that a listed name belongs to: the name up to the first dot of the last part of its path."""
    archive, mark, member = name.partition("#")
    folder, slash, last = member.rpartition("/")
    return archive + mark + folder + slash + last.partition(".")[0]
