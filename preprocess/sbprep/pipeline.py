"""The build: plan -> tasks -> workers -> commit -> manifest.

Workers make shards under temporary names; this process alone makes them visible (fsync, rename) and journals them, in
a thread, which overlaps with computing. Killed anywhere, the same command goes on where the journal ends.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import joblib

from sbformat.manifest import Manifest
from sbformat.schema import Colorspace
from sbprep.config import REMOTE, BuildConfig
from sbprep.disk import check_room
from sbprep.engines import Engine, opened_engine
from sbprep.journal import Key
from sbprep.plan import Plan, Unit, group_units, make_plan
from sbprep.progress import Report, Watch
from sbprep.rejects import RejectCount, check_usable
from sbprep.store import Store, survey
from sbprep.worker import Finished, Output, Task


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a build left."""

    manifests: dict[Colorspace, Manifest | None]
    """None where other partitions are still to be made and merged."""
    made: int
    """Shards made by this call."""
    kept: int
    """Shards that were there already."""
    restored: list[Path]
    """Listings of complete sets that were lost or damaged."""


#: Finished shards that may wait to be committed.
MOST_WAITING = 4


def build(config: BuildConfig, report: Report = lambda progress: None) -> Outcome:
    """Build, or go on building, every color space of `config`.

    Raises
    ------
    SplitbrainError
        See the tree in `sbformat.errors`; nothing already committed is lost.
    """
    return run_plan(make_plan(config), report)


def run_plan(
    plan: Plan, report: Report = lambda progress: None, redo: dict[Colorspace, set[Key]] | None = None
) -> Outcome:
    """Build what `plan` lays out; `redo` names shards to make again although they look sound from outside."""
    redo, found = redo or {}, {name: survey(plan, name) for name in plan.config.colorspaces}
    missing = {name: one.missing | redo.get(name, set()) for name, one in found.items()}
    check_room(plan, missing, sum(one.freed for one in found.values()))
    if any(one.discards for one in found.values()):
        check_usable(plan)  # before a good set goes
    with ExitStack() as stack:
        stores = {
            name: stack.enter_context(closing(Store(plan, name, redo.get(name, ()))))
            for name in plan.config.colorspaces
        }
        rejects = _count_rejects(plan, stores)
        wanted = [key for key in plan.own_keys() if any(key in store.missing for store in stores.values())]
        if wanted:
            _run(plan, stores, [plan.unit(*key) for key in wanted], rejects, report)
        return Outcome(
            manifests={name: store.finish() for name, store in stores.items()},
            made=len(wanted),
            kept=len(plan.own_keys()) - len(wanted),
            restored=[path for store in stores.values() for path in store.restored],
        )


def _count_rejects(plan: Plan, stores: dict[Colorspace, Store]) -> RejectCount:
    """Count what earlier calls rejected, also where nothing is left to be made."""
    rejects = RejectCount(plan.config)
    for store in stores.values():
        if store.manifest is not None:
            rejects.check(store.manifest)
        for result in store.results.values():
            rejects.add(result)
    return rejects


def _run(plan: Plan, stores: dict[Colorspace, Store], units: list[Unit], rejects: RejectCount, report: Report) -> None:
    sizes = {(unit.split, unit.number): len(unit.rows) for unit in units}
    folders = {split: [store.root / split for store in stores.values()] for split in plan.splits}
    commit = partial(_commit, stores, rejects)
    tasks = _tasks(plan, stores, units)
    with (
        opened_engine(plan, len(tasks)) as engine,
        Watch(report, sizes, folders, rejects.total) as watch,
        closing(_finished(engine, tasks)) as batches,
        closing(_committed(batches, commit)) as done,
    ):
        for keys in done:
            watch.made(keys, rejects.total)


def _commit(stores: dict[Colorspace, Store], rejects: RejectCount, batch: list[Finished]) -> set[Key]:
    for finished in batch:
        rejects.add(finished.result)
        stores[finished.colorspace].add(finished)
    return {finished.result.key for finished in batch}


def _committed(
    batches: Iterator[list[Finished]], commit: Callable[[list[Finished]], set[Key]]
) -> Generator[set[Key], None, None]:
    """Commit each batch in a thread of its own, in order, and yield its keys.

    fsync waits for the disk and not for the interpreter, so a build by one process computes meanwhile. What waits to be
    committed is bounded: a disk slower than the workers holds them back.
    """
    thread = ThreadPoolExecutor(1, "commit")
    waiting: deque[Future[set[Key]]] = deque()
    try:
        for batch in batches:
            waiting.append(thread.submit(commit, batch))
            while waiting and (waiting[0].done() or len(waiting) > MOST_WAITING):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        thread.shutdown(wait=True, cancel_futures=True)


def _tasks(plan: Plan, stores: dict[Colorspace, Store], units: list[Unit]) -> list[Task]:
    config = plan.config
    return [
        Task(
            units=group,
            outputs=[_outputs(plan, stores, unit) for unit in group],
            source=plan.splits[group[0].split].source,
            image_size=config.image_size,
            resize=config.resize,
            target=config.target,
            compression=config.compression,
            owner=None if config.backend in REMOTE else os.getpid(),
        )
        for group in group_units(plan, units)
    ]


def _outputs(plan: Plan, stores: dict[Colorspace, Store], unit: Unit) -> list[Output]:
    # Absolute, for workers on other machines have another working folder.
    return [
        Output(
            colorspace=name,
            folder=(store.root / unit.split).absolute(),
            datasets=plan.datasets(unit.split, name),
        )
        for name, store in stores.items()
        if (unit.split, unit.number) in store.missing
    ]


def _finished(engine: Engine, tasks: list[Task]) -> Generator[list[Finished], None, None]:
    """Run the tasks, yielding each one's shards as it ends; on any failure no worker is left running."""
    parallel = joblib.Parallel(
        n_jobs=engine.jobs,
        backend=engine.backend,
        pre_dispatch=engine.pre_dispatch,
        return_as="generator_unordered",
        batch_size=1,
        max_nbytes=None,
    )
    batches: Generator[list[Finished], None, None] | None = None
    try:
        with engine.starting():
            batches = parallel(joblib.delayed(engine.run)(task) for task in tasks)
        # Not `yield from`: that would close `batches` first, and loudly.
        for batch in batches:  # noqa: UP028
            yield batch
    except Exception as error:
        explained = engine.explain(error)
        if explained is error:
            raise
        raise explained from error
    finally:
        engine.stop()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib tells that tasks are dropped, which is the purpose here
            if batches is not None:
                batches.close()
        engine.ended()
