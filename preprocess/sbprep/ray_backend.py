"""Tasks on a Ray cluster, through joblib. The only module that imports Ray.

Ray does again what a worker that died was at.
"""

from __future__ import annotations

import importlib
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from sbformat.errors import BuildError, ConfigError
from sbprep.attendance import Attendance
from sbprep.engines import WAITING, Engine, FutureBackend
from sbprep.plan import Plan
from sbprep.remote import Site, opened_site, own_error, reason, unfit_text
from sbprep.worker import Finished, Task

#: Times that a task is done again after its worker died, as Dask does: an image that kills every worker ends the build.
RETRIES = 3
#: Seconds to wait for the cluster.
PATIENCE = 8
#: Seconds that every machine may take to say whether it can take part.
CHECKING = 60


@contextmanager
def ray_engine(plan: Plan) -> Iterator[Engine]:
    """Connect to the cluster (without an address: ``RAY_ADDRESS``, or one started here), and see that it can take part.

    Raises
    ------
    ConfigError
        Ray is not installed.
    BuildError
        The cluster cannot be reached, or a machine of it cannot take part.
    """
    ray = _ray()
    _connect(ray, plan.config.scheduler)
    try:
        with opened_site(plan.config) as site:
            _check_machines(ray, site)
            engine = _Ray(ray, site, plan)
            with engine.attendance:
                yield engine
    finally:
        ray.shutdown()


class _Ray(Engine):
    """All processors of the cluster, or as many tasks at once as ``--workers`` says."""

    owned = False

    def __init__(self, ray: ModuleType, site: Site, plan: Plan) -> None:
        given = plan.config.workers
        self.jobs = int(ray.cluster_resources().get("CPU", 1)) if given == -1 else given
        self.pre_dispatch = self.jobs + WAITING if given == -1 else given
        self._ray, self._site = ray, site
        self._call = ray.remote(max_retries=RETRIES)(_call)
        self._waiting: set[Any] = set()
        self.attendance = Attendance("the Ray cluster", lambda: int(ray.cluster_resources().get("CPU", 0)), self.ended)
        self.backend = FutureBackend(self._submit, self.jobs)

    @property
    def run(self) -> Callable[[Task], list[Finished]]:
        return self._site.run

    def _submit(self, call: Callable[[], Any]) -> Future[Any]:
        reference = self._call.remote(call)
        self._waiting.add(reference)
        future: Future[Any] = reference.future()
        future.add_done_callback(lambda _: self._waiting.discard(reference))
        return future

    def stop(self) -> None:
        self._site.marker.unlink(missing_ok=True)  # what runs ends before its next block

    def ended(self) -> None:
        for reference in list(self._waiting):
            with suppress(Exception):  # it has ended in between, or the cluster has
                self._ray.cancel(reference)

    def explain(self, error: Exception) -> Exception:
        if (own := own_error(error)) is not None:
            return own
        if self.attendance.error is not None:
            return self.attendance.error
        return BuildError(
            f"the Ray cluster cannot do a task ({reason(error)}). Nothing already built is lost: look at its logs, and "
            f"run the same command again; Ray gives a task up when {RETRIES + 1} workers have died at it"
        )


def _call(call: Callable[[], Any]) -> Any:
    return call()


def _ray() -> ModuleType:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError(f"backend ray needs Ray ({error}): pip install 'splitbrain[cluster]'") from error


def _connect(ray: ModuleType, address: str | None) -> None:
    try:
        if found := re.fullmatch(r"(?:ray://)?([^/]+):(\d+)", address or ""):
            # Ray itself waits for minutes where nothing answers.
            socket.create_connection((found[1], int(found[2])), timeout=PATIENCE).close()
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        ray.init(address=address, **options, **({} if address else {"include_dashboard": False}))
    except (OSError, ValueError, RuntimeError) as error:
        raise BuildError(
            f"{address or 'a Ray cluster on this machine'}: does not answer ({reason(error)}). Start it (ray start --head), "
            f"and give --scheduler the address that it prints, or none to start one here"
        ) from error


def _check_machines(ray: ModuleType, site: Site) -> None:
    pinned = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    probe = ray.remote(num_cpus=0, max_retries=0)(_call)
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    asked = {probe.options(scheduling_strategy=pinned(one, soft=False)).remote(site.problems): one for one in nodes}
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=CHECKING)
    unfit = {nodes[asked[one]]: [f"no answer within {CHECKING} s"] for one in silent}
    for one in answered:
        try:
            unfit[nodes[asked[one]]] = ray.get(one)
        except Exception as error:  # whatever a machine could not load tells of another version, too
            unfit[nodes[asked[one]]] = [reason(error)]
    if unfit := {name: problems for name, problems in unfit.items() if problems}:
        raise BuildError(unfit_text(unfit))
