"""Tasks on a Dask cluster, through joblib. The only module that imports Dask.

Dask gives what a worker was at when it died to another one; workers may come and go.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any
from weakref import WeakSet

from sbformat.errors import BuildError, ConfigError, SplitbrainError
from sbprep.attendance import Attendance
from sbprep.engines import WAITING, Engine, FutureBackend
from sbprep.plan import Plan
from sbprep.remote import Site, opened_site, own_error, reason, unfit_text
from sbprep.worker import Finished, Task

#: Seconds to wait for the scheduler, and then for its first worker.
PATIENCE = 8
#: Seconds that workers may take to load what they need and to say so.
CHECKING = 60


@contextmanager
def dask_engine(plan: Plan) -> Iterator[Engine]:
    """Connect to the scheduler, and see that every worker can take part.

    Raises
    ------
    ConfigError
        Dask is not installed.
    BuildError
        The scheduler cannot be reached, or has no worker, or one that cannot take part.
    """
    client = _connected(_distributed(), str(plan.config.scheduler))
    try:
        with opened_site(plan.config) as site:
            _check_workers(client, site)
            engine = _Dask(client, site, plan)
            with engine.attendance:
                yield engine
    finally:
        client.close(timeout=2)  # where the scheduler is gone it would wait for it


class _Dask(Engine):
    """All threads of all workers, or as many tasks at once as ``--workers`` says."""

    owned = False

    def __init__(self, client: Any, site: Site, plan: Plan) -> None:
        given = plan.config.workers
        self.jobs = sum(client.nthreads().values()) if given == -1 else given
        self.pre_dispatch = self.jobs + WAITING if given == -1 else given
        self._client, self._site, self._address = client, site, client.scheduler.address
        # Also those that have ended: where a result was with a worker that died, fetching it waits for it to be made again.
        self._waiting: WeakSet[Any] = WeakSet()
        self.attendance = Attendance(self._address, lambda: len(client.nthreads()), self.ended)
        self.backend = FutureBackend(self._submit, self.jobs)

    @property
    def run(self) -> Callable[[Task], list[Finished]]:
        return self._site.run

    # Not by the client's executor, whose futures never end where the connection breaks while a result is fetched.
    def _submit(self, call: Callable[[], Any]) -> Any:
        future = self._client.submit(call, pure=False)  # pure: that of an earlier build would be taken for done
        self._waiting.add(future)
        return future

    def stop(self) -> None:
        self._site.marker.unlink(missing_ok=True)  # what runs ends before its next block

    def ended(self) -> None:
        with suppress(Exception):  # the scheduler is gone, and with it what waited
            self._client.cancel(list(self._waiting))

    def explain(self, error: Exception) -> Exception:
        if (own := own_error(error)) is not None:
            return own
        if self.attendance.error is not None:
            return self.attendance.error
        try:
            if isinstance(error, CancelledError) or self._client.status != "running":
                raise ConnectionError
            _check_workers(self._client, self._site)  # one that joined late says more than what came of it
        except SplitbrainError as found:
            return found
        except Exception:  # by every road: no answer
            return BuildError(
                f"{self._address}: the scheduler is gone. Nothing already built is lost: start it and its workers, and "
                f"run the same command again"
            )
        return BuildError(
            f"{self._address}: the workers cannot do a task ({reason(error)}). Nothing already built is lost: their logs "
            f"tell why; run the same command again. Dask gives a task up when several workers have died at it"
        )


def _distributed() -> ModuleType:
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise ConfigError(f"backend dask needs Dask ({error}): pip install 'splitbrain[cluster]'") from error


def _connected(distributed: ModuleType, address: str) -> Any:
    # The library tells of lost connections in long tracebacks; the message of the build tells of them in a line.
    for name in ("distributed", "distributed.client", "distributed.core", "distributed.comm"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        return distributed.Client(address, timeout=PATIENCE, set_as_default=False, name="sbprep")
    except (OSError, ValueError) as error:
        raise BuildError(
            f"{address}: no Dask scheduler answers there ({reason(error)}). Start one (dask scheduler), give --scheduler "
            f"the address that it prints, and look whether this machine can reach it"
        ) from error


def _check_workers(client: Any, site: Site) -> None:
    address = client.scheduler.address
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError as error:
        raise BuildError(
            f"{address}: no worker has come within {PATIENCE} s. Start some: dask worker {address}"
        ) from error
    try:
        found = client.run(site.problems, on_error="return", callback_timeout=CHECKING)
    except TimeoutError as error:
        names = ", ".join(client.nthreads())
        raise BuildError(f"{address}: not every worker has answered within {CHECKING} s, of {names}") from error
    # What a worker could not even load tells of another version, too.
    told = {name: [reason(one)] if isinstance(one, BaseException) else one for name, one in found.items()}
    if unfit := {name: problems for name, problems in told.items() if problems}:
        raise BuildError(unfit_text(unfit))
