"""A real Dask scheduler and workers, each a process of its own, on loopback."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from builds import environment

#: Seconds that a scheduler or a worker may take to start.
STARTING = 30.0


class Cluster:
    """A scheduler, and the workers that tests add to it.

    Parameters
    ----------
    folder : Path
        Where logs and working folders of the processes go; the workers' is not that of the build.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._scheduler, self.address = self._start_scheduler()

    def _start_scheduler(self) -> tuple[subprocess.Popen[bytes], str]:
        port = free_port()
        process = self._start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-show", "--no-dashboard")
        wait_until(lambda: answers(port), "the scheduler does not answer")
        return process, f"tcp://127.0.0.1:{port}"

    def add_worker(self, **changes: str) -> subprocess.Popen[bytes]:
        """Start a worker of one thread and wait until the scheduler has it; `changes` go to its environment."""
        number = len(self._processes)
        process = self._start(
            "worker", self.address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard",
            "--name", f"worker-{number}", "--local-directory", str(self._folder), **changes,
        )  # fmt: skip
        log = self._folder / f"{number}.log"
        wait_until(lambda: "Registered to" in log.read_text(), f"worker {number} does not register")
        return process

    def _start(self, *arguments: str, **changes: str) -> subprocess.Popen[bytes]:
        number = len(self._processes)
        with (self._folder / f"{number}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments],
                cwd=self._folder, env=environment(**changes), stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def kill_scheduler(self) -> None:
        self._scheduler.kill()
        self._scheduler.wait()

    def close(self) -> None:
        """Leave no process behind."""
        for process in reversed(self._processes):
            process.send_signal(signal.SIGKILL)
            process.wait()


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    made = None
    try:
        made = Cluster(folder)
        for _ in range(workers):
            made.add_worker()
        yield made
    finally:
        if made is not None:
            made.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def wait_until(true: Callable[[], bool], otherwise: str, seconds: float = STARTING) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, otherwise
        time.sleep(0.02)
