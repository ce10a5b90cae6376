"""Trees of files made on the fly, folders, tars and zips, and what reading them gives."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

from sbprep.sources.base import Rejected
from sbprep.sources.folder import FolderTree
from sbprep.sources.layout import one_split_of_tree
from sbprep.sources.tar import TarTree
from sbprep.sources.tree import Tree
from sbprep.sources.zipped import ZipTree

NAMES = [
    "train/dog/with space.jpg",
    "train/cat/äöü 漢字.png",
    "train/cat/new\nline.jpg",
    "test/dog/a#b.jpg",
    "readme.md",
]
CONTENTS = {name: (name * 100).encode() for name in NAMES}
COMPRESSORS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def fill(root: Path, *names: str) -> FolderTree:
    """Write files that contain their own names."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))
    return FolderTree(root)


def make_tar(path: Path, members: dict[str, bytes] | list[tuple[str, bytes]]) -> TarTree:
    """Write a tar, compressed if the last suffix says so."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(COMPRESSORS.get(path.suffix[1:], bytes)(tar_bytes(members)))
    return TarTree((path,))


def make_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> ZipTree:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return ZipTree(path)


def tar_bytes(members: dict[str, bytes] | list[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, encoding="utf-8") as tar:
        for name, content in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def read_all(tree: Tree) -> dict[str, object]:
    files = tree.files()
    return dict(zip([tree.member(name) for name in files.names], tree.read(files), strict=True))


def codes(tree: Tree) -> dict[str, str]:
    """Return reject code, or 'ok', of each image as a layout lists them."""
    split = one_split_of_tree(tree, "x", "unlabeled")
    items = zip(split.listing.names, tree.read(split.listing), strict=True)
    return {tree.member(name): item.code if isinstance(item, Rejected) else "ok" for name, item in items}
