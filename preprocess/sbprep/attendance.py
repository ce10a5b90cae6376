"""Whether anybody is left to work for a build on other machines: where nobody is, it would wait for ever and say nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from sbformat.errors import BuildError

#: Seconds without a worker after which that is said, and after which the build ends.
SAID, ENDED = 10.0, 300.0
#: Seconds between looks.
LOOK = 2.0
_log = logging.getLogger(__name__)  # nobody has to set it up: Python writes warnings to stderr


class Attendance:
    """Looks now and then whether a cluster has workers, in a thread of its own; a context manager.

    Parameters
    ----------
    place : str
        Of the cluster, for messages.
    count : callable
        Returns how many workers there are; what it raises is no answer, and does not count.
    give_up : callable
        Called where nobody has come for `ENDED` seconds: ends what the build waits for.
    """

    def __init__(self, place: str, count: Callable[[], int], give_up: Callable[[], None]) -> None:
        self.error: BuildError | None = None
        """Why it was given up."""
        self._place, self._count, self._give_up = place, count, give_up
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="attendance", daemon=True)

    def __enter__(self) -> Attendance:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(LOOK)  # no longer: where the cluster is gone a look may hang

    def _run(self) -> None:
        seen, said = time.monotonic(), False
        while not self._stopped.wait(LOOK):
            with suppress(Exception):
                if self._count():
                    seen, said = time.monotonic(), False
            alone = time.monotonic() - seen
            if alone >= ENDED:
                self.error = BuildError(
                    f"{self._place}: no worker for {ENDED:.0f} s. Nothing already built is lost: start workers and run the "
                    f"same command again"
                )
                return self._give_up()
            if alone >= SAID and not said:
                _log.warning("%s: no worker left there, waiting up to %.0f s for one", self._place, ENDED)
                said = True
