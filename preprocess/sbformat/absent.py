"""Why there is nothing to read: what lies there instead, and what goes on from it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sbformat.errors import ManifestError
from sbformat.schema import COLORSPACES

#: Files of finished shards of a build without a manifest; those of partitions say which one, of how many.
JOURNALS = "journal*.jsonl"
PARTITION = re.compile(r"journal-(\d+)-of-(\d+)\.jsonl")


def absent(root: Path, found: Sequence[str], asked: str | None = None) -> ManifestError:
    """Say why the color space `asked` for, or any, is not there to read.

    Parameters
    ----------
    root : Path
        ``data_cache`` or one color space's folder in it.
    found : sequence of str
        The color spaces that are complete there.
    asked : str, optional
    """
    if not root.exists():
        return ManifestError(f"{root}: no such folder. Check the path; it is the --out of sbprep build")
    if not root.is_dir():
        return ManifestError(f"{root}: a file, expected the folder that sbprep build wrote (its --out)")
    names = [asked] if asked else list(COLORSPACES)
    begun = [folder for folder in (root, *(root / name for name in names)) if any(folder.glob(JOURNALS))]
    if begun:
        return ManifestError("; ".join(_unfinished(folder) for folder in begun))
    if asked and found:
        return ManifestError(
            f"{root}: no {asked} here, it holds {', '.join(found)}. Choose one of these with --colorspace, or build "
            f"{asked} too: the command that built them, with --colorspace {asked}"
        )
    what = asked or "prepared shards"
    return ManifestError(
        f"{root}: no {what} here (no manifest.json, nor a folder of a color space with one). Check the path; it is the "
        f"--out of sbprep build"
    )


def _unfinished(folder: Path) -> str:
    journals = sorted(folder.glob(JOURNALS))
    parts = [match for path in journals if (match := PARTITION.fullmatch(path.name))]
    if parts:
        return (
            f"{folder}: partitions of a build, not merged yet ({len(parts)} of {parts[0][2]} begun). "
            f"When all are done: sbprep merge {folder.parent}"
        )
    return (
        f"{folder}: a build that is not finished. The command that began it goes on: "
        f"sbprep build{_paths(journals[0])} --colorspace {folder.name} --out {folder.parent}, and its other options"
    )


def _paths(journal: Path) -> str:
    """Return the options of the journal's first line that say where the images are."""
    try:
        with journal.open("rb") as file:
            sources: dict[str, dict[str, Any]] = json.loads(file.readline())["sources"]
        named = {entry["option"]: entry["path"] for entry in sources.values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""  # torn while it was begun
    return "".join(f" --{option} {path}" for option, path in named.items() if option is not None)
