"""Locks that keep two processes out of one folder, where the file system has them."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from pathlib import Path

#: Seconds that a job which Slurm has put back waits for a lock: that of a machine which died lives on, at a file server,
#: until its lease ends (NFS version 4: 90 s).
PATIENCE = 180.0
_PAUSE = 0.5
#: What a file system without locks answers.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_log = logging.getLogger(__name__)  # nobody has to set it up: Python writes warnings to stderr


def lock(file: int, path: Path, how: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file, until it is closed; return False where its file system has no locks.

    Parameters
    ----------
    file : int
        Its descriptor.
    path : Path
        For messages.
    how : int
        ``LOCK_EX`` or ``LOCK_SH``.

    Raises
    ------
    BlockingIOError
        Another process has it, and this one is no job that was put back, or has waited for `PATIENCE`.
    OSError
        Anything else.
    """
    restarted = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    deadline = time.monotonic() + PATIENCE if restarted else None
    try:
        _take(file, path, how, deadline)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _take(file: int, path: Path, how: int, deadline: float | None) -> None:
    told = False
    while True:
        try:
            return fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if deadline is None or time.monotonic() > deadline:
                raise
        if not told:
            _log.warning(
                "%s: locked, perhaps by the machine that this job was on before: waiting up to %.0f s", path, PATIENCE
            )
            told = True
        time.sleep(_PAUSE)
