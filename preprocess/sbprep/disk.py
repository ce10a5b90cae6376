"""Room on the disk, and what is said when it runs out or writing fails for another reason."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sbformat.errors import BuildError
from sbformat.schema import Colorspace
from sbprep.sources.spill import IN_MEMORY

if TYPE_CHECKING:
    from sbprep.plan import Plan

#: libhdf5 tells the number that the system gave within a text of its own.
_ERRNO = re.compile(r"errno = (\d+)")


def check_room(plan: Plan, missing: dict[Colorspace, set[tuple[str, int]]], freed: int = 0) -> int:
    """Return the bytes that the missing shards will take (uncompressed), if the disk has room for them.

    Passes over compressed files take room as well while they last, see `temporary_bytes`.

    Parameters
    ----------
    plan : Plan
    missing : dict of set of (split, shard number)
    freed : int
        Bytes that are discarded first.

    Raises
    ------
    BuildError
        More than the disk has free.
    """
    needed = sum(plan.shard_bytes(*key, colorspace) for colorspace, keys in missing.items() for key in keys)
    free = free_bytes(plan.config.out) + freed
    aside = temporary_bytes(plan, set().union(*missing.values()))
    if (needed if plan.config.compression == "none" else 0) + aside > free:
        more = f" and temporary files of compressed images {aside / 1e6:,.1f} MB" if aside else ""
        raise BuildError(
            f"{plan.config.out}: the shards need {needed / 1e6:,.1f} MB{more}, the disk has {free / 1e6:,.1f} MB free. "
            f"Make room, choose another --out, fewer color spaces, {'fewer --workers, ' if aside else ''}or --limit"
        )
    return needed


def temporary_bytes(plan: Plan, missing: set[tuple[str, int]]) -> int:
    """Return the bytes that passes over compressed files put aside at least: the largest shards, one a worker."""
    sizes = [plan.encoded_bytes(*key) for key in missing if plan.splits[key[0]].source.sequential]
    largest = sorted(sizes, reverse=True)[: plan.config.worker_count]
    return sum(size for size in largest if size > IN_MEMORY)


def check_writable(folder: Path) -> None:
    """Raise `BuildError` where `folder` is, or would have to be made, in a place that may not be written."""
    place = _there(folder)
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        what = "may not be written" if place.is_dir() else "is a file"
        raise BuildError(f"{folder}: {place} {what}. Choose another --out, or permit writing")


def free_bytes(path: Path) -> int:
    """Return the free bytes of the disk on which `path` lies, or will lie."""
    return shutil.disk_usage(_there(path)).free


def _there(path: Path) -> Path:
    """Return `path` or the nearest folder above it that is there."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return place


def write_failure(path: Path, error: Exception, needed: int | None = None) -> BuildError:
    """Say why `path` could not be written and what to do; `needed` are the bytes that it takes as a whole."""
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        return BuildError(f"{path}: folder cannot be written ({_reason(error)})")
    room = f"{free / 1e6:,.1f} MB are free there" + (f", it needs {needed / 1e6:,.1f} MB" if needed else "")
    return BuildError(
        f"{path}: cannot be written ({_reason(error)}); {room}. Nothing already built is lost: "
        f"make room or permit writing, and run the same command again"
    )


def _reason(error: Exception) -> str:
    """Return the system's own words, also where libhdf5 wraps them."""
    if found := _ERRNO.search(str(error)):
        return os.strerror(int(found[1]))
    if isinstance(error, OSError) and error.strerror and error.errno:
        return os.strerror(error.errno)
    return str(error).splitlines()[0]
