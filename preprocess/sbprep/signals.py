"""Signals that end a command: heard like Ctrl-C, kept back while worker processes start, and never lost."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: What a terminal and a job scheduler send to every process of a job.
ENDING = (signal.SIGINT, signal.SIGTERM)


#: Seconds after which an interrupt that Python swallowed is raised again.
AGAIN = 0.01


@contextmanager
def interruptible() -> Iterator[None]:
    """Make every signal of `ENDING` a KeyboardInterrupt in the main thread: a scheduler's SIGTERM is as good as Ctrl-C.

    Raised while Python runs a finalizer or the callback of a weak reference, the exception goes no further than there:
    it is printed, and the command would go on to its end. So it is raised again from outside, and nothing is printed.
    """
    told, terminate = sys.unraisablehook, signal.getsignal(signal.SIGTERM)
    timers: list[threading.Timer] = []

    def again(swallowed: sys.UnraisableHookArgs) -> None:
        if not issubclass(swallowed.exc_type, KeyboardInterrupt):
            told(swallowed)
            return
        # SIGTERM, for a shell's background job ignores SIGINT.
        timers.append(threading.Timer(AGAIN, signal.pthread_kill, (threading.main_thread().ident, signal.SIGTERM)))
        timers[-1].start()

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.unraisablehook = again
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        sys.unraisablehook = told
        signal.signal(signal.SIGTERM, terminate)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Let processes be started that do not hear `ENDING`, and act on what came meanwhile afterwards.

    A worker that got a signal while it still imports would die with a traceback, so it is started with these blocked:
    a process inherits the mask, and `ignore_signals` in it takes over. This process notes what comes. Only the main
    thread handles signals, so elsewhere nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    heard = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def ignore_signals() -> None:
    """Leave `ENDING` to the parent; for a process that was started under `signals_deferred`."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
