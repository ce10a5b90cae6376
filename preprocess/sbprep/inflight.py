"""Which image each worker is at: a small file for each, for whoever wants to know how far it is or where it died."""

from __future__ import annotations

import mmap
import os
import re
import secrets
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sbprep.disk import write_failure
from sbprep.plan import Plan, Unit

_MARK = struct.Struct("<qq")  # position in the unit, time in ns
_NAME = re.compile(r"\.shard-(\d+)\.h5\.(\d+)\.inflight")


class InFlight:
    """A small file that says which image a worker is at; it outlives a worker that is killed or crashes.

    Position and time lie in a shared memory map, so marking an image costs nanoseconds and needs no write to disk.

    Parameters
    ----------
    folder : Path
    unit : Unit
    here : bool
        The build runs on this machine, and may look by the number in the name whether this process lives. Elsewhere the
        same number may be in use twice, so one is drawn that no process has.

    Raises
    ------
    BuildError
        The file cannot be written.
    """

    def __init__(self, folder: Path, unit: Unit, here: bool = True) -> None:
        number = os.getpid() if here else secrets.randbits(63)
        self._path = folder / f".{unit.name}.{number}.inflight"
        self._shard = folder / unit.name

    def __enter__(self) -> InFlight:
        try:
            with self._path.open("w+b") as file:
                file.write(bytes(_MARK.size))
                file.flush()
                self._map = mmap.mmap(file.fileno(), _MARK.size)
        except OSError as error:
            self._path.unlink(missing_ok=True)
            raise write_failure(self._shard, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._map.close()
        self._path.unlink(missing_ok=True)

    def at(self, position: int) -> None:
        """Say that the image at `position` of the unit is being read."""
        _MARK.pack_into(self._map, 0, position, time.monotonic_ns())


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a worker is, or was when it died."""

    number: int
    """Shard of the split."""
    position: int
    """Image of the unit."""
    time: int
    """Of the system's monotonic clock, in ns: whoever died first stopped marking first."""
    alive: bool
    """Whether the process still runs (on this machine)."""


def marks(folder: Path) -> Iterator[Mark]:
    """Yield where the workers in a split's folder are, and those that died there."""
    found = {path: _NAME.fullmatch(path.name) for path in folder.glob(".shard-*.inflight")}
    for path, name in found.items():
        with suppress(FileNotFoundError):  # its shard was finished in between
            if name and len(content := path.read_bytes()) == _MARK.size:
                position, at = _MARK.unpack(content)
                yield Mark(int(name[1]), position, at, Path(f"/proc/{name[2]}").exists())


def earlier_death(plan: Plan) -> str | None:
    """Say at which images a build that was killed here was at; a decoder that crashes may take the whole program."""
    where = _dead_at(plan)
    if not where:
        return None
    return (
        f"An earlier build here ended without a word at {' or '.join(where)}: it was killed, or the image crashed its "
        f"decoder. It goes on; if it ends there again, remove that image."
    )


def death_notice(plan: Plan) -> str:
    """Say where a worker died; all are gone by now."""
    where = " or ".join(_dead_at(plan)) or "an unknown image"
    return (
        f"a worker process died at {where}: it was killed, ran out of memory, or the image crashed its decoder. "
        f"Nothing already built is lost: run the same command again; if it dies there again, remove that image"
    )


def _dead_at(plan: Plan) -> list[str]:
    """Return the images that dead workers were at. The one that died first stopped marking first."""
    own, found = set(plan.own_keys()), []
    for split in plan.splits:
        for name in plan.config.colorspaces:
            for mark in marks(plan.root(name) / split):
                if (split, mark.number) in own and not mark.alive:
                    unit = plan.unit(split, mark.number)
                    found.append((mark.time, f"{unit.part.names[mark.position]} ({split}/{unit.name})"))
    return [image for _, image in sorted(found)]
