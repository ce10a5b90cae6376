"""Signals that end a command reach it and not its workers, whenever they come, and none is lost."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from sbprep.signals import ENDING, interruptible, signals_deferred

MASK = "import signal; print(*sorted(int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])))"


class HeardError(Exception):
    pass


class _Signaled:
    """Gets a signal while it is finalized, where an exception goes no further."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        for _ in range(1000):
            pass


@pytest.mark.parametrize("number", ENDING)
def test_an_interrupt_that_python_swallows_comes_again_and_is_not_printed(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(signaled: list[_Signaled]) -> None:
        with interruptible():
            signaled.clear()
            reached.append(True)
            time.sleep(10)
            reached.append(False)

    reached: list[bool] = []
    before = signal.getsignal(signal.SIGTERM)
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)  # in a shell's background job it may be
    try:
        with pytest.raises(KeyboardInterrupt):
            command([_Signaled(number)])
    finally:
        signal.signal(signal.SIGINT, ignored)

    assert reached == [True]
    assert capsys.readouterr().err == ""
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_exceptions_that_python_swallows_are_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __del__(self) -> None:
            raise HeardError

    told: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda swallowed: told.append(swallowed.exc_type))
    with interruptible():
        Failing()

    assert told == [HeardError]


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
