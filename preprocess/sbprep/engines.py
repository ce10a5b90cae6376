"""Where tasks run: in this process, in processes or threads of this machine, or on other machines.

An engine is what `pipeline` and joblib need to know of a place: how many tasks at once, the backend that takes them,
what is done before results are dropped and after, and what its errors mean.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from multiprocessing import resource_tracker
from typing import Any

import joblib
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend import resource_tracker as loky_tracker
from joblib.parallel import LokyBackend, ParallelBackendBase

from sbformat.errors import BuildError
from sbprep.inflight import death_notice
from sbprep.plan import Plan
from sbprep.signals import signals_deferred
from sbprep.worker import Finished, Task, belong_to, run_task

#: Tasks that wait at an engine on other machines beside those that run: workers that join find some.
WAITING = 32


class Engine:
    """One after the other in this process; the others differ from it in what they say."""

    backend: Any = "loky"  # of one job joblib makes plain calls, whatever its backend
    jobs = 1
    pre_dispatch: int | str = "2 * n_jobs"
    owned = True
    """Workers are processes (or threads) of this machine that may look whether this one lives."""

    @property
    def run(self) -> Callable[[Task], list[Finished]]:
        """What a worker is to call with each task."""
        return run_task

    def starting(self) -> AbstractContextManager[None]:
        """Return a context in which the first tasks are handed out."""
        return nullcontext()

    def stop(self) -> None:
        """Ask tasks to end: their results are wanted no longer, or all are there."""

    def ended(self) -> None:
        """Leave no worker at work for this build."""

    def explain(self, error: Exception) -> Exception:
        """Return what is to be raised where a task ended with `error`."""
        return error


@contextmanager
def opened_engine(plan: Plan, tasks: int) -> Iterator[Engine]:
    """Open the place that `plan` names, for so many tasks.

    Raises
    ------
    SplitbrainError
        There is none: no such scheduler, or workers that cannot take part.
    """
    if plan.config.backend == "dask":
        from sbprep.dask_backend import dask_engine

        with dask_engine(plan) as engine:
            yield engine
    elif plan.config.backend == "ray":
        from sbprep.ray_backend import ray_engine

        with ray_engine(plan) as engine:
            yield engine
    else:
        jobs = min(plan.config.worker_count, tasks)
        kinds = {"loky": _Processes, "threading": _Threads}
        yield Engine() if jobs == 1 else kinds[plan.config.backend](plan, jobs)


class _Processes(Engine):
    """Processes of this machine. One that dies ends the build."""

    def __init__(self, plan: Plan, jobs: int) -> None:
        self.jobs, self._plan = jobs, plan
        self.backend = _OwnedProcesses()
        self._told = threading.excepthook

    @contextmanager
    def starting(self) -> Iterator[None]:
        threading.excepthook = self._tell
        for tracker in (loky_tracker, resource_tracker):
            tracker.ensure_running()  # started later, with the workers, these would let signals through again
        with signals_deferred():
            yield

    def ended(self) -> None:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)
        threading.excepthook = self._told

    def _tell(self, failure: threading.ExceptHookArgs) -> None:
        # Tasks dropped before they were handed out are a KeyError in loky's own thread: nothing that a user can mend.
        name = None if failure.thread is None else failure.thread.name
        if failure.exc_type is not KeyError or name != "ExecutorManagerThread":
            self._told(failure)

    def explain(self, error: Exception) -> Exception:
        return BuildError(death_notice(self._plan)) if isinstance(error, BrokenProcessPool) else error


class _OwnedProcesses(LokyBackend):  # type: ignore[misc]  # joblib has no types
    """Worker processes that end with this one, from before their first task on."""

    def configure(self, n_jobs: int = 1, parallel: joblib.Parallel | None = None, **options: Any) -> int:
        options |= {"initializer": belong_to, "initargs": (os.getpid(),)}
        workers: int = super().configure(n_jobs, parallel, **options)
        return workers


class _Threads(Engine):
    """Tasks in threads, which cannot be killed: they are asked to end, and waited for."""

    backend = "threading"

    def __init__(self, plan: Plan, jobs: int) -> None:
        self.jobs = jobs
        self._slots = threading.Semaphore(jobs)
        self._stopped = threading.Event()

    @property
    def run(self) -> Callable[[Task], list[Finished]]:
        return self._run

    def _run(self, task: Task) -> list[Finished]:
        with self._slots:
            return run_task(task, self._stopped)

    def stop(self) -> None:
        self._stopped.set()

    def ended(self) -> None:
        # A thread that the end of the interpreter meets inside HDF5 keeps its lock: the process would hang.
        for _ in range(self.jobs):
            self._slots.acquire()


class FutureBackend(ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """joblib on anything that takes a call and gives a future back.

    joblib's own backend for Dask never ends where a task fails outside its function (a worker without the package, one
    that dies too often), as it calls nobody back then; Ray's gives no results before the last one.

    Parameters
    ----------
    submit : callable
        Takes a call without arguments, which is pickled; gives a future with `add_done_callback` and `result`.
    jobs : int
    """

    supports_retrieve_callback = True

    def __init__(self, submit: Callable[[Callable[[], Any]], Future[Any]], jobs: int) -> None:
        super().__init__()
        self._submit, self._jobs = submit, jobs

    def configure(self, n_jobs: int = 1, parallel: joblib.Parallel | None = None, **_: Any) -> int:
        """Begin; return the number of tasks at once."""
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return the number of tasks at once, whatever joblib was told."""
        # One would mean to joblib: here, in this process.
        return max(self._jobs, 2)

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> Future[Any]:
        """Hand `func` out; `callback` gets the future when it has ended, in whatever way."""
        future = self._submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return, or raise, what came of a task."""
        return out.result()
