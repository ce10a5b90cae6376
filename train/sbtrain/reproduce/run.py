"""Runs what the published tables are made of: each cell is a run folder, what is there is not made again.

A cell that fails is written down and the others go on. Any signal saves and ends; the same command continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from sbformat.errors import SplitbrainError
from sbformat.manifest import Manifest
from sbtrain.evaluation.fitting import Interrupted
from sbtrain.evaluation.pretrained import open_pretrained
from sbtrain.loop import Habits, Progress
from sbtrain.prepare import Request
from sbtrain.pretrain import pretrain
from sbtrain.reproduce.cells import Cell, Table
from sbtrain.reproduce.estimate import Clock, cell_seconds
from sbtrain.reproduce.judges import Evaluation, judge, splits_of
from sbtrain.reproduce.plan import cells_of
from sbtrain.reproduce.record import Part, Parts, write_record
from sbtrain.reproduce.scales import Scale
from sbtrain.reproduce.sets import MissingShards, Sets
from sbtrain.reproduce.state import check_images, finished_result, is_pretrained
from sbtrain.runtime import StopRequest, only_one, set_up

Say = Callable[[str], None]
PRETRAIN = "pretrain"
#: What ends a cell and not the others: the library's own errors, a full disk, memory that is too small.
FAILURES = (SplitbrainError, OSError, MemoryError, torch.cuda.OutOfMemoryError)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a call of ``sbtrain reproduce`` asks for."""

    scale: Scale
    tables: Sequence[Table]
    sets: Sets
    eval_split: str
    out: Path
    device: str = "auto"

    @property
    def folder(self) -> Path:
        """Where the runs are."""
        return self.out / self.scale.name

    @property
    def cells(self) -> list[Cell]:
        """Every run, in order."""
        return cells_of(list(self.tables))


@dataclass
class _Maker:
    """Makes one cell after another and remembers what became of each part."""

    work: Work
    stop: StopRequest
    say: Say
    progress: Progress
    parts: dict[tuple[str, str], Part] = field(default_factory=dict)

    def make(self, cell: Cell) -> bool:
        """Make what is missing of `cell`; return whether there was anything to do, and it went well."""
        names = [PRETRAIN, *(name for name, _ in cell.evaluations)]
        try:
            manifest, judged = self.work.sets.of(cell), self.work.sets.judged(cell)
        except MissingShards as error:
            skipped = cell.images is not None or cell.target != self.work.sets.base.target
            self._mark(cell, names, Part("skipped" if skipped else "failed", str(error)))
            return False
        self.parts.update(finished_parts(self.work, cell))  # by a job elsewhere, since this call began
        try:
            worked = self._pretrain(cell, manifest)
        except FAILURES as error:
            self._mark(cell, names, Part("failed", f"pretraining: {_text(error)}"))
            return False
        failed = False
        for name, config in cell.evaluations:
            missing = {*splits_of(config)} - {*judged.splits}
            if missing and cell.images is not None:
                self._mark(cell, [name], Part("skipped", f"{judged.root} has no split {', '.join(sorted(missing))}"))
                continue
            try:
                worked |= self._evaluate(cell, name, config, judged)
            except FAILURES as error:
                failed = True
                self._mark(cell, [name], Part("failed", _text(error)))
        return worked and not failed

    def _pretrain(self, cell: Cell, manifest: Manifest) -> bool:
        done = (cell.name, PRETRAIN) in self.parts
        if not done:
            run_dir = self.work.folder / cell.name
            request = pretrain_request(cell, manifest, run_dir, self.work.device)
            _, ended = pretrain(request, self.stop, self.say, self.progress)
            if not ended.complete:
                raise Interrupted
            self.parts[cell.name, PRETRAIN] = _done(cell, "pretrain.json")
        return not done

    def _evaluate(self, cell: Cell, name: str, config: Evaluation, manifest: Manifest) -> bool:
        done = (cell.name, name) in self.parts
        if not done:
            run_dir = self.work.folder / cell.name
            self.say(f"{cell.name}, {name}")
            with only_one(run_dir):
                runtime = set_up(self.work.device, config.precision, "exact", config.seed)
                start = open_pretrained(run_dir, manifest.root, splits_of(config)[0], self.say)
                path = judge(start, config, runtime, self.say, lambda: self.stop.signal is not None)
            self.parts[cell.name, name] = _done(cell, path.name)
        return not done

    def _mark(self, cell: Cell, names: Sequence[str], part: Part) -> None:
        self.parts.update({(cell.name, name): part for name in names})
        why = "why is said at the end" if part.state == "skipped" else part.message
        self.say(f"{cell.name}, {', '.join(names)}: {part.state}: {why}")


def reproduce(work: Work, stop: StopRequest, say: Say, progress: Progress) -> Parts:
    """Make every cell of the tables that is not there, and write ``reproduce.json`` after each.

    Returns
    -------
    Parts
        What became of each step of each cell.

    Raises
    ------
    SplitbrainError
        The folder holds runs of other images, or another process works there.
    Interrupted
        A signal came; everything that was finished is on disk.
    OSError
        ``reproduce.json`` cannot be written.
    """
    cells = work.cells
    check_images(work.folder, cells, work.sets)
    maker = _Maker(work, stop, say, progress)
    clock = Clock([guess(work, cell) for cell in cells])
    with only_one(work.folder):
        for cell in cells:  # those that come late must not read as waiting where this call is stopped early
            maker.parts.update(finished_parts(work, cell))
        for i, cell in enumerate(cells):
            say(f"cell {i + 1} of {len(cells)}: {cell.name}, {clock.left}")
            clock.begin()
            try:
                clock.end(i, maker.make(cell))
            finally:
                write_record(work.folder, work.scale, work.tables, work.sets, maker.parts)
            if stop.signal is not None:
                raise Interrupted
    return maker.parts


def pretrained_cells(cells: Iterable[Cell], parts: Parts) -> list[Cell]:
    """Return those of `cells` whose run is complete."""
    return [cell for cell in cells if parts.get((cell.name, PRETRAIN), Part()).state == "done"]


def guess(work: Work, cell: Cell) -> float:
    """Return about how many seconds a cell takes on the machine whose rates the scales have; 0 where it is done."""
    try:
        manifest, judged = work.sets.of(cell), work.sets.judged(cell)
    except MissingShards:
        return 0.0
    possible = [name for name, config in cell.evaluations if {*splits_of(config)} <= {*judged.splits}]
    finished = {name for _, name in finished_parts(work, cell)}
    return 0.0 if {PRETRAIN, *possible} <= finished else cell_seconds(cell, manifest, judged)


def finished_parts(work: Work, cell: Cell) -> Parts:
    """Return what of a cell is on disk, made by this call or an earlier one, here or by a job elsewhere."""
    run_dir = work.folder / cell.name
    try:
        manifest, judged = work.sets.of(cell), work.sets.judged(cell)
    except MissingShards:
        return {}
    if not is_pretrained(run_dir, cell, manifest):
        return {}
    found = {name: finished_result(run_dir, config, judged) for name, config in cell.evaluations}
    parts = {(cell.name, name): _done(cell, path.name) for name, path in found.items() if path}
    return {(cell.name, PRETRAIN): _done(cell, "pretrain.json"), **parts}


def _done(cell: Cell, result: str) -> Part:
    return Part("done", file=f"{cell.name}/results/{result}")


def pretrain_request(cell: Cell, manifest: Manifest, run_dir: Path, device: str) -> Request:
    """Return what ``sbtrain pretrain`` is asked for a cell."""
    habits = Habits(checkpoint_every=cell.budget.checkpoint_every, keep_last=1)
    return Request(
        config=cell.config, shards=manifest.root, colorspace=cell.colorspace, preset=cell.preset, run_dir=run_dir,
        device=device, habits=habits,
    )  # fmt: skip


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
