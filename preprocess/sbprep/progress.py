"""How far a build is, told whenever a shard is done and, between shards, by what the workers mark."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from sbprep.inflight import marks
from sbprep.journal import Key

#: Seconds between two looks at the marks. A shard of large photographs takes minutes.
TICK = 0.5
#: A look goes through the names of a folder; where it has very many, looks take this share of the time at most.
SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a call of `build` is."""

    images: int
    """Images listed for the shards made so far in this call."""
    under_way: int = 0
    """Images that workers have done of shards not finished yet."""
    total: int
    """Images listed for all the shards to make in this call."""
    shards: int
    total_shards: int
    rejected: int
    """Images rejected so far, by earlier calls too; those under way are not counted yet."""


Report = Callable[[Progress], None]


class Watch:
    """Reports progress, in a thread of its own between shards; a context manager.

    Reports never come two at a time. What one raises ends the build.

    Parameters
    ----------
    report : callable
    sizes : dict of (split, shard number) to images, of the shards to make
    folders : folders of the splits, by split, in which workers mark where they are
    rejected : int
        Images rejected by earlier calls.
    """

    def __init__(self, report: Report, sizes: dict[Key, int], folders: dict[str, list[Path]], rejected: int) -> None:
        self._report, self._sizes, self._folders = report, sizes, folders
        self._progress = Progress(
            images=0, total=sum(sizes.values()), shards=0, total_shards=len(sizes), rejected=rejected
        )
        self._under_way: dict[Key, int] = {}
        self._made: set[Key] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)

    def __enter__(self) -> Watch:
        self._report(self._progress)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def made(self, keys: Iterable[Key], rejected: int) -> None:
        """Report that these shards are committed; `rejected` images so far."""
        if self._error is not None:
            raise self._error
        with self._lock:
            for key in keys:
                self._made.add(key)
                self._under_way.pop(key, None)
                self._progress = replace(
                    self._progress, images=self._progress.images + self._sizes[key], shards=self._progress.shards + 1
                )
            self._progress = replace(self._progress, rejected=rejected)
            self._report(replace(self._progress, under_way=sum(self._under_way.values())))

    def _tick(self) -> None:
        pause = TICK
        try:
            while not self._stopped.wait(pause):
                start = time.monotonic()
                with self._lock:
                    before = sum(self._under_way.values())
                    self._look()
                    if (now := sum(self._under_way.values())) > before:
                        self._report(replace(self._progress, under_way=now))
                pause = max(TICK, (time.monotonic() - start) / SHARE)
        except BaseException as error:  # whatever it is belongs to the thread that builds
            self._error = error

    def _look(self) -> None:
        for split, folders in self._folders.items():
            for folder in folders:
                for mark in marks(folder):
                    key = (split, mark.number)
                    # A shard keeps its images when its mark goes, until it is committed: the count never falls.
                    if mark.alive and key in self._sizes and key not in self._made:
                        self._under_way[key] = max(mark.position, self._under_way.get(key, 0))
