"""Tasks on other machines: the same software, the same folders, and whether anybody still waits.

Nothing here loads what a worker may lack (Numba above all): a machine that cannot take part has to be able to say so.
"""

from __future__ import annotations

import importlib
import os
import platform
import secrets
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from sbformat.durable import fsync_path
from sbformat.errors import BuildError, SplitbrainError
from sbprep.disk import write_failure
from sbprep.software import facts

if TYPE_CHECKING:
    from sbprep.config import BuildConfig
    from sbprep.worker import Finished, Task

#: Entries of a folder that are counted to know it again: enough to tell a set from an empty mount point.
FEW = 100
#: Sites that this process has been checked for.
_joined: set[str] = set()


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a worker on any machine must have in common with the build that it works for.

    While the build lasts, `marker` lies in the folder of the shards and holds `token`: a worker that cannot read it
    there sees another folder, and one that finds it gone stops before its next 64 images.
    """

    marker: Path
    token: str
    sources: dict[Path, tuple[str, int]]
    """What the build sees at each path to read: see `seen`."""
    software: dict[str, str | None]
    host: str = field(default_factory=platform.node)

    def problems(self) -> list[str]:
        """Say what keeps this process from working for the build; nothing: an empty list."""
        mine = facts()
        found = [
            f"{name} {mine.get(name)} where the build has {theirs}"
            for name, theirs in self.software.items()
            if mine.get(name) != theirs
        ]
        try:
            importlib.import_module("sbprep.worker")
        except ImportError as error:
            found.append(f"it cannot convert images ({error})")
        found += [
            f"it sees {_words(seen(path))} at {path}, the build sees {_words(expected)}"
            for path, expected in self.sources.items()
            if seen(path) != expected
        ]
        if not _reads(self.marker, self.token):
            found.append(f"it does not see the build's folder {self.marker.parent}")
        elif not os.access(self.marker.parent, os.W_OK | os.X_OK):
            found.append(f"it may not write into {self.marker.parent}")
        return found

    def is_set(self) -> bool:
        """Tell whether the build is over: nobody waits for the result any more."""
        return not self.marker.exists()

    def run(self, task: Task) -> list[Finished]:
        """Run `task` in this process, which is checked before its first one: workers may join at any time.

        Raises
        ------
        SplitbrainError
            This process cannot work for the build, or the task failed.
        """
        if self.token not in _joined:
            if found := self.problems():
                raise BuildError(unfit_text({f"process {os.getpid()} on {platform.node()}": found}))
            _joined.add(self.token)
        from sbprep.worker import run_task

        finished = run_task(task, self)
        if platform.node() != self.host:  # fsync reaches what was written on the same machine, no more
            for one in finished:
                _make_durable(one.temporary)
        return finished


@contextmanager
def opened_site(config: BuildConfig) -> Iterator[Site]:
    """Mark the folder of the shards for as long as the build lasts.

    Raises
    ------
    BuildError
        It cannot be written.
    """
    token = secrets.token_hex(8)
    folder = config.out.absolute() / config.colorspaces[0]
    marker = folder / f".workers.{int(token, 16)}.tmp"
    sources = {path.absolute(): seen(path) for path in config.paths.values()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marker.write_text(token)
    except OSError as error:
        raise write_failure(marker, error) from error
    try:
        yield Site(marker=marker, token=token, sources=sources, software=facts())
    finally:
        marker.unlink(missing_ok=True)


def seen(path: Path) -> tuple[str, int]:
    """Return what lies at `path`: folder and entries (`FEW` at most), file and bytes, or nothing."""
    try:
        if path.is_dir():
            with os.scandir(path) as entries:
                return "folder", sum(1 for _ in islice(entries, FEW))
        return "file", path.stat().st_size
    except OSError:
        return "nothing", 0


def unfit_text(found: dict[str, list[str]]) -> str:
    """Say which workers cannot take part, why, and what to do."""
    lines = "; ".join(f"{name}: {', '.join(problems)}" for name, problems in found.items())
    return (
        f"workers that cannot take part: {lines}. Give each the environment of this machine "
        f"(pip install 'splitbrain[prep,cluster]' of the same version) and the same folders, or stop it, and run the "
        f"same command again"
    )


def reason(error: BaseException) -> str:
    """Return an error of a worker in one line: its kind and its last words."""
    return traceback.format_exception_only(error)[-1].strip().splitlines()[0]


def own_error(error: BaseException) -> SplitbrainError | None:
    """Return the error of this project in what an engine wrapped around it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, SplitbrainError):
        cause = getattr(cause, "cause", None) or cause.__cause__
    return cause


def _words(what: tuple[str, int]) -> str:
    kind, size = what
    if kind == "nothing":
        return kind
    return f"a file of {size:,} bytes" if kind == "file" else f"a folder of {size}{' or more' * (size == FEW)} entries"


def _reads(marker: Path, token: str) -> bool:
    try:
        return marker.read_text() == token
    except OSError:
        return False


def _make_durable(path: Path | None) -> None:
    try:
        if path is not None:
            fsync_path(path)
    except OSError as error:
        raise write_failure(path or Path(), error) from error
