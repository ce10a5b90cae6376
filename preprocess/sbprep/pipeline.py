"""The build: plan -> tasks -> workers -> commit -> manifest. The only module that imports joblib.

Workers make shards under temporary names; this process alone makes them visible (fsync, rename) and journals them, in
a thread, which overlaps with computing. Killed anywhere, the same command goes on where the journal ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import joblib
from joblib.externals.loky import get_reusable_executor
from joblib.parallel import LokyBackend

from sbformat.errors import BuildError
from sbformat.manifest import Manifest
from sbformat.schema import Colorspace
from sbprep.config import BuildConfig
from sbprep.journal import Key, ShardResult
from sbprep.plan import Plan, Unit, group_units, make_plan
from sbprep.store import Store
from sbprep.worker import Finished, Output, Task, belong_to, in_flight, run_task


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a call of `build` is."""

    images: int
    """Images listed for the shards made so far in this call."""
    total: int
    """Images listed for all the shards to make in this call."""
    shards: int
    total_shards: int
    rejected: int
    """Images rejected so far, by earlier calls too."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a build left."""

    manifests: dict[Colorspace, Manifest | None]
    """None where other partitions are still to be made and merged."""
    made: int
    """Shards made by this call."""


Report = Callable[[Progress], None]

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
    redo = redo or {}
    with ExitStack() as stack:
        stores = {
            name: stack.enter_context(closing(Store(plan, name, redo.get(name, ()))))
            for name in plan.config.colorspaces
        }
        wanted = [key for key in plan.own_keys() if any(key in store.missing for store in stores.values())]
        check_room(plan, {name: store.missing for name, store in stores.items()})
        if wanted:
            _run(plan, stores, [plan.unit(*key) for key in wanted], report)
        return Outcome(manifests={name: store.finish() for name, store in stores.items()}, made=len(wanted))


def check_room(plan: Plan, missing: dict[Colorspace, set[Key]]) -> int:
    """Return the bytes that the missing shards will take (uncompressed).

    Raises
    ------
    BuildError
        More than the disk has free.
    """
    needed = sum(plan.shard_bytes(*key, colorspace) for colorspace, keys in missing.items() for key in keys)
    place = plan.config.out.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free and plan.config.compression == "none":
        raise BuildError(
            f"{plan.config.out}: the shards need {needed / 1e6:,.1f} MB, the disk has {free / 1e6:,.1f} MB free. "
            f"Make room, choose another --out, fewer color spaces, or --limit"
        )
    return needed


def _run(plan: Plan, stores: dict[Colorspace, Store], units: list[Unit], report: Report) -> None:
    rejects = _Rejects(plan.config)
    for store in stores.values():
        for result in store.results.values():
            rejects.add(result)
    sizes = {(unit.split, unit.number): len(unit.rows) for unit in units}
    progress = Progress(images=0, total=sum(sizes.values()), shards=0, total_shards=len(units), rejected=rejects.total)
    report(progress)
    commit = partial(_commit, stores, rejects)
    with closing(_finished(plan, _tasks(plan, stores, units))) as batches, closing(_committed(batches, commit)) as done:
        for keys in done:
            progress = replace(
                progress,
                images=progress.images + sum(sizes[key] for key in keys),
                shards=progress.shards + len(keys),
                rejected=rejects.total,
            )
            report(progress)


def _commit(stores: dict[Colorspace, Store], rejects: _Rejects, batch: list[Finished]) -> set[Key]:
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


class _Rejects:
    """Counts rejected images and stops the build where ``--on-error`` says."""

    def __init__(self, config: BuildConfig) -> None:
        self._config = config
        self._counts: dict[Key, int] = {}

    @property
    def total(self) -> int:
        return sum(self._counts.values())

    def add(self, result: ShardResult) -> None:
        self._counts[result.key] = len(result.rejects)  # the same in every color space
        limit = self._config.reject_limit
        if limit is not None and self.total > limit and result.rejects:
            last = result.rejects[0]
            raise BuildError(
                f"{last['path']}: {last['code']} ({last['detail']}). {self.total} rejected so far, "
                f"--on-error {self._config.on_error} allows {limit}. Mend or remove it, or use --on-error skip"
            )


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
            owner=os.getpid(),
        )
        for group in group_units(plan, units)
    ]


def _outputs(plan: Plan, stores: dict[Colorspace, Store], unit: Unit) -> list[Output]:
    return [
        Output(colorspace=name, folder=store.root / unit.split, datasets=plan.datasets(unit.split, name))
        for name, store in stores.items()
        if (unit.split, unit.number) in store.missing
    ]


def _finished(plan: Plan, tasks: list[Task]) -> Generator[list[Finished], None, None]:
    """Run the tasks, yielding each one's shards as it ends; on any failure no worker is left running."""
    backend = plan.config.backend
    jobs = min(plan.config.worker_count, len(tasks))
    in_processes = jobs > 1 and backend == "loky"
    threads = _Threads(jobs) if jobs > 1 and backend == "threading" else None
    parallel = joblib.Parallel(
        n_jobs=jobs,
        backend=_Processes() if in_processes else backend,
        return_as="generator_unordered",
        batch_size=1,
        max_nbytes=None,
    )
    make = run_task if threads is None else threads.run
    batches: Generator[list[Finished], None, None] | None = None
    try:
        with _signals_ignored() if in_processes else nullcontext():
            batches = parallel(joblib.delayed(make)(task) for task in tasks)
        # Not `yield from`: that would close `batches` first, and loudly.
        for batch in batches:  # noqa: UP028
            yield batch
    except BrokenProcessPool as error:
        raise BuildError(_death_notice(plan)) from error
    finally:
        if threads is not None:
            threads.stop()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib tells that tasks are dropped, which is the purpose here
            if batches is not None:
                batches.close()
        if in_processes:
            get_reusable_executor().shutdown(wait=True, kill_workers=True)
        if threads is not None:
            threads.wait()


class _Processes(LokyBackend):  # type: ignore[misc]  # joblib has no types
    """Worker processes that end with this one, from before their first task on."""

    def configure(self, n_jobs: int = 1, parallel: joblib.Parallel | None = None, **options: Any) -> int:
        options |= {"initializer": belong_to, "initargs": (os.getpid(),)}
        workers: int = super().configure(n_jobs, parallel, **options)
        return workers


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """Ignore what a terminal sends to every process, for as long as workers start: they inherit it.

    A worker that got it while it still imports would die with a traceback. Only the main thread sets handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Threads:
    """Tasks in threads, which cannot be killed: they are asked to end, and waited for."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._slots = threading.Semaphore(jobs)
        self._stopped = threading.Event()

    def run(self, task: Task) -> list[Finished]:
        with self._slots:
            return run_task(task, self._stopped)

    def stop(self) -> None:
        self._stopped.set()

    def wait(self) -> None:
        # A thread that the end of the interpreter meets inside HDF5 keeps its lock: the process would hang.
        for _ in range(self._jobs):
            self._slots.acquire()


def _death_notice(plan: Plan) -> str:
    own, found = set(plan.own_keys()), []
    for split in plan.splits:
        for name in plan.config.colorspaces:
            for at, number, position in in_flight(plan.root(name) / split):
                if (split, number) in own:
                    unit = plan.unit(split, number)
                    found.append((at, f"{unit.part.names[position]} ({split}/{unit.name})"))
    # All workers are gone by now; the one that died first stopped marking first.
    where = " or ".join(image for _, image in sorted(found)) or "an unknown image"
    return (
        f"a worker process died at {where}: it was killed, ran out of memory, or the image crashed its decoder. "
        f"Nothing already built is lost: run the same command again; if it dies there again, remove that image"
    )
