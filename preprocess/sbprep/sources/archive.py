"""Opens a path as a tree: a folder, one tar or one zip, told apart by content."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

from sbformat.errors import SourceError
from sbprep.sources.folder import FolderTree
from sbprep.sources.strict_tar import is_tar
from sbprep.sources.tar import TarTree
from sbprep.sources.tree import Tree
from sbprep.sources.zipped import ZipTree

#: What `open_tree` takes, for its error message.
SUPPORTED = "a folder, a .zip, a .tar, or a .tar.gz, .tar.bz2, .tar.xz (.tar.zst with Python 3.14 or later)"


def open_tree(path: Path) -> tuple[Tree, str]:
    """Return the tree at `path` and its kind, 'folder', 'zip' or 'tar', told by the content and not by the name.

    Raises
    ------
    SourceError
        Nothing is there, or it is none of these.
    """
    try:
        mode = path.stat().st_mode
    except OSError as err:
        raise SourceError(f"{path}: {err.strerror}, expected {SUPPORTED}; check the path") from err
    if stat.S_ISDIR(mode):
        return FolderTree(path), "folder"
    if not stat.S_ISREG(mode):
        raise SourceError(f"{path}: a device or pipe, expected {SUPPORTED}; save it as a file first")
    if is_tar(path):  # first: a zip is also recognized at the end of a plain tar that holds it
        return TarTree((path,)), "tar"
    if zipfile.is_zipfile(path):
        return ZipTree(path), "zip"
    raise SourceError(
        f"{path}: neither tar nor zip, expected {SUPPORTED}; if it should be one, copy or download it again"
    )
