"""One process at a time, also where Slurm has put a job back, and where a file system has no locks."""

import errno
import fcntl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from sbformat import locks


@pytest.fixture
def held(tmp_path: Path) -> Iterator[IO[str]]:
    """Return a file that another one has locked: to the kernel an open file is as good as a process."""
    with (tmp_path / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def take(held: IO[str]) -> bool:
    path = Path(held.name)
    with path.open("a") as second:
        return locks.lock(second.fileno(), path)


def test_a_second_process_is_refused_at_once(held: IO[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)

    with pytest.raises(BlockingIOError):
        take(held)


def test_a_job_that_was_put_back_waits_for_the_lock_of_a_dead_machine(
    held: IO[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(locks, "_PAUSE", 0.01)
    threading.Timer(0.1, lambda: fcntl.flock(held, fcntl.LOCK_UN)).start()

    assert take(held)
    assert [f"{held.name}: locked" in line for line in caplog.messages] == [True]


def test_it_waits_no_longer_than_that(held: IO[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(locks, "_PAUSE", 0.01)
    monkeypatch.setattr(locks, "PATIENCE", 0.05)

    with pytest.raises(BlockingIOError):
        take(held)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_no_error(number: int, held: IO[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(*_: object) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", answers)

    assert not take(held)
