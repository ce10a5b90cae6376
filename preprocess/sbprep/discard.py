"""Remove what builds left in a color space's folder, and nothing of anybody else."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from sbformat.errors import BuildError
from sbformat.manifest import COPY_NAME, MANIFEST_NAME, REJECTS_NAME, SOURCES_NAME
from sbformat.schema import SPLITS
from sbprep.journal import Key, all_locked, journal_paths

_SHARD = re.compile(r"shard-(\d{5,})\.h5")
#: What `write_atomically`, `ShardWriter`, `InFlight` and `opened_site` call their files; anybody else's are left alone.
_UNFINISHED = re.compile(
    rf"\.(?:{_SHARD.pattern}|workers|sources\.txt|rejects\.jsonl|manifest\.json|\.manifest\.copy\.json)\.\d+\.(?:tmp|inflight)"
)


def discardable(root: Path) -> list[Path]:
    """Return what `discard` would remove, the manifest first: no half is ever visible."""
    paths = [root / MANIFEST_NAME, root / COPY_NAME, *journal_paths(root)]
    for folder in (root / split for split in SPLITS):
        paths += [path for path in sorted(folder.glob("shard-*.h5")) if _SHARD.fullmatch(path.name)]
        paths += [folder / SOURCES_NAME, folder / REJECTS_NAME]
    return [path for path in paths if path.is_file()]


def discard(root: Path) -> None:
    """Remove what a build left in a color space's folder.

    Raises
    ------
    BuildError
        A build is going on there, or the folder cannot be written.
    """
    try:
        with all_locked(root):
            for path in discardable(root):
                path.unlink(missing_ok=True)
            sweep(root, None)
            for split in SPLITS:
                with suppress(OSError):  # not there, or it holds files of somebody else
                    (root / split).rmdir()
    except OSError as error:
        raise BuildError(
            f"{root}: what it holds cannot be discarded ({error.strerror}). Choose another --out, or permit writing"
        ) from error


def clear_journals(root: Path) -> None:
    """Remove journals and every left-over of killed processes."""
    sweep(root, None)
    for path in journal_paths(root):
        path.unlink(missing_ok=True)


def sweep(root: Path, keys: set[Key] | None) -> None:
    """Remove unfinished files of these shards (None: all unfinished files), left by processes that were killed."""
    for folder in (root, *(root / split for split in SPLITS)):
        for path in folder.glob(".*"):
            match = _UNFINISHED.fullmatch(path.name)
            if match and (keys is None or (match[1] and (folder.name, int(match[1])) in keys)):
                path.unlink(missing_ok=True)
