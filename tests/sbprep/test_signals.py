"""Signals that come while workers start reach the build, not the workers, and none is lost."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from sbprep.signals import ENDING, signals_deferred

MASK = "import signal; print(*sorted(int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])))"


class HeardError(Exception):
    pass


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_comes_meanwhile_is_acted_on_afterwards(number: signal.Signals) -> None:
    def hear(number: int, frame: object) -> None:
        raise HeardError

    before, reached = signal.signal(number, hear), []

    def start_workers() -> None:
        with signals_deferred():
            os.kill(os.getpid(), number)
            reached.append(True)

    try:
        with pytest.raises(HeardError):
            start_workers()
        assert reached
        assert signal.getsignal(number) is hear
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals_deferred():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_process_started_meanwhile_does_not_hear_and_afterwards_one_does() -> None:
    with signals_deferred():
        deaf = subprocess.run([sys.executable, "-c", MASK], capture_output=True, text=True, check=True).stdout
    hearing = subprocess.run([sys.executable, "-c", MASK], capture_output=True, text=True, check=True).stdout

    assert deaf.split() == [str(int(number)) for number in sorted(ENDING)]
    assert hearing.split() == []


def test_a_worker_ignores_what_came_while_it_was_deaf() -> None:
    code = (
        "import os, signal; from sbprep.signals import *\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, ENDING); os.kill(os.getpid(), signal.SIGTERM); ignore_signals()\n"
        "os.kill(os.getpid(), signal.SIGINT); print('alive', *signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    )
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=paths)

    assert (result.returncode, result.stdout) == (0, "alive\n")


def test_elsewhere_than_in_the_main_thread_nothing_is_done() -> None:
    def run() -> None:
        with signals_deferred():
            found.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))

    found: list[set[int]] = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert found == [set()]
