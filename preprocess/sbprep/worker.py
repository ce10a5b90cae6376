"""One task of a build: read, decode, convert and write whole shards. Runs in a worker; no pixels cross its border."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sbformat.manifest import ShardRecord
from sbformat.schema import CHUNK_IMAGES, Colorspace, Compression, DatasetSpec, TargetSpec
from sbprep.config import Resize
from sbprep.convert import Block, convert
from sbprep.decode import decode, fit, use_one_thread
from sbprep.inflight import InFlight
from sbprep.journal import ShardResult
from sbprep.plan import Unit
from sbprep.signals import ignore_signals
from sbprep.sources.base import Item, Listing, Rejected, Source
from sbprep.sources.failures import Naming
from sbprep.writer import ShardWriter

_PR_SET_PDEATHSIG = 1  # linux/prctl.h: the signal to get when the thread that started this process ends


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where one color space of a unit goes."""

    colorspace: Colorspace
    folder: Path
    """Folder of the split's shards."""
    datasets: dict[str, DatasetSpec]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker is given: a few kilobytes, whatever the size of the set."""

    units: list[Unit]
    outputs: list[list[Output]]
    """For each unit the color spaces that it still lacks."""
    source: Source
    image_size: int
    resize: Resize
    target: TargetSpec
    compression: Compression
    owner: int | None = None
    """Process id of the parent: a worker whose parent has died stops. None where the parent is on another machine."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A shard under its temporary name (None where no image survived), ready to be committed."""

    colorspace: Colorspace
    result: ShardResult
    temporary: Path | None


class Stop(Protocol):
    """What says that nobody waits for a task any more: an event of this process, or a site of many."""

    def is_set(self) -> bool:
        """Tell whether the task is to end."""
        ...


def run_task(task: Task, stop: Stop | None = None) -> list[Finished]:
    """Make every shard of `task` in every color space asked for.

    Parameters
    ----------
    task : Task
    stop : Stop, optional
        Set where nobody wants the result any more: a thread, or a process elsewhere, cannot be killed.

    Raises
    ------
    BuildError
        A shard cannot be written.
    UnwantedError
        `stop` was set.
    """
    use_one_thread()
    try:
        return _make_shards(task, stop)
    except OrphanedError:
        os._exit(1)  # a worker that only raises would wait minutes for its next task


def belong_to(owner: int) -> None:
    """Make this worker process end with its parent `owner`, however that ends, and leave signals to it."""
    ignore_signals()
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux; elsewhere the check before each block has to do
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != owner:
        os._exit(1)


def _make_shards(task: Task, stop: Stop | None) -> list[Finished]:
    items = task.source.read(Listing.joined([unit.part for unit in task.units]))
    finished = []
    for unit, outputs in zip(task.units, task.outputs, strict=True):
        finished += _make_shard(task, unit, outputs, islice(items, len(unit.rows)), stop)
    return finished


def _make_shard(
    task: Task, unit: Unit, outputs: list[Output], items: Iterator[Item], stop: Stop | None
) -> list[Finished]:
    _stop_if_unwanted(task.owner, stop)
    rejects: list[dict[str, Any]] = []
    tallies = {output.colorspace: _Tally() for output in outputs}
    with ExitStack() as stack:
        marker = stack.enter_context(InFlight(outputs[0].folder, unit, here=task.owner is not None))
        writers = {
            output.colorspace: stack.enter_context(
                ShardWriter(
                    output.folder / unit.name,
                    output.datasets,
                    len(unit.rows),
                    {"colorspace": output.colorspace, "split": unit.split},
                    task.compression,
                )
            )
            for output in outputs
        }
        stored = np.empty((CHUNK_IMAGES, 3, task.image_size, task.image_size), np.uint8)
        for rgb, kept in _blocks(task, unit, items, marker, rejects):
            _stop_if_unwanted(task.owner, stop)
            for colorspace, writer in writers.items():
                block = convert(rgb, colorspace, task.target, out=stored[: len(rgb)])
                writer.append(_shard_rows(block, unit, kept, tallies[colorspace]))
        return [
            _finish(writers[output.colorspace], unit, output.colorspace, rejects, tallies[output.colorspace])
            for output in outputs
        ]


def _blocks(
    task: Task, unit: Unit, items: Iterator[Item], marker: InFlight, rejects: list[dict[str, Any]]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Yield (rgb (n, S, S, 3), positions in the unit (n,)) of the usable images, 64 at a time; list the others."""
    size = task.image_size
    rgb = np.empty((CHUNK_IMAGES, size, size, 3), np.uint8)
    kept: list[int] = []
    for position in range(len(unit.rows)):
        marker.at(position)
        with Naming(unit.part.names[position]):
            pixels = pixels_of(next(items), size, task.resize)
        if isinstance(pixels, Rejected):
            rejects.append(reject_entry(unit, position, pixels))
            continue
        rgb[len(kept)] = pixels
        kept.append(position)
        if len(kept) == CHUNK_IMAGES:
            yield rgb, np.array(kept)
            kept = []
    if kept:
        yield rgb[: len(kept)], np.array(kept)


def pixels_of(item: Item, size: int, resize: Resize) -> NDArray[np.uint8] | Rejected:
    """Decode what a source gave and fit it: uint8 (size, size, 3), or the reason why not."""
    pixels = decode(item) if isinstance(item, bytes) else item
    return pixels if isinstance(pixels, Rejected) else fit(pixels, size, resize)


def reject_entry(unit: Unit, position: int, rejected: Rejected) -> dict[str, Any]:
    """Return the line of ``rejects.jsonl`` for the image at `position` of the unit."""
    return {
        "source_index": int(unit.rows[position]),
        "path": unit.part.names[position],
        "code": rejected.code,
        "detail": rejected.detail,
        "shard": unit.name,
    }


def _shard_rows(block: Block, unit: Unit, kept: NDArray[np.int64], tally: _Tally) -> dict[str, NDArray[Any]]:
    rows: dict[str, NDArray[Any]] = {
        "image": block.image,
        "target_single": block.target_single,
        "target_dual": block.target_dual,
        "source_index": unit.rows[kept],
    }
    if block.image_range is not None and block.target_range is not None:
        rows |= {"image_range": block.image_range, "target_range": block.target_range}
    if unit.part.labels is not None:
        rows["label"] = unit.part.labels[kept]
    tally.add(block, rows.get("label"))
    return rows


def _finish(
    writer: ShardWriter, unit: Unit, colorspace: Colorspace, rejects: list[dict[str, Any]], tally: _Tally
) -> Finished:
    if writer.count == 0:
        writer.discard()
        record, temporary = ShardRecord(unit.name, 0, 0, "", {}), None
    else:
        record, temporary = writer.finish(), writer.temporary
    result = ShardResult(
        split=unit.split, number=unit.number, record=record, rejects=rejects, statistics=tally.to_json()
    )
    return Finished(colorspace=colorspace, result=result, temporary=temporary)


@dataclass
class _Tally:
    """Statistics of one shard, in integers."""

    images: int = 0
    sums: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 2), np.int64))
    constant_channels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, np.int64))
    constant_images: int = 0
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """How often each value came, by value; dictionaries in place of arrays cost 1.7 us an image."""

    def add(self, block: Block, label: NDArray[Any] | None) -> None:
        self.images += len(block.image)
        self.sums += block.sums
        if block.image_range is not None:
            constant = block.image_range[..., 0] == block.image_range[..., 1]
            self.constant_channels += constant.sum(axis=0)
            self.constant_images += int(constant.any(axis=1).sum())
        counted = {"target_single": block.target_single, "target_dual": block.target_dual}
        if label is not None:
            # Of binary attributes the images that have each one; of classes the images of each.
            counted["label"] = label if label.ndim == 1 else np.nonzero(label)[1]
        for name, values in counted.items():
            before = self.counts.get(name, np.zeros(0, np.int64))
            found = np.bincount(np.asarray(values).ravel(), minlength=len(before))
            found[: len(before)] += before
            self.counts[name] = found

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "sums": self.sums.tolist(),
            "constant_channels": self.constant_channels.tolist(),
            "constant_images": self.constant_images,
            "counts": {name: [(int(v), int(n[v])) for v in np.flatnonzero(n)] for name, n in self.counts.items()},
        }


def _stop_if_unwanted(owner: int | None, stop: Stop | None) -> None:
    if stop is not None and stop.is_set():
        raise UnwantedError("the build has ended")
    # The parent was killed: nobody will commit what this worker makes, and the next build may be under way.
    if owner is not None and os.getpid() != owner and os.getppid() != owner:
        raise OrphanedError(f"the build's process {owner} is gone")


class UnwantedError(Exception):
    """Nobody waits for the result any more."""


class OrphanedError(UnwantedError):
    """The parent of this worker process has died."""
