"""Failures of the machine, told from failures of an image.

A disk that does not answer or a process out of memory says nothing about the image at hand: a reject would lose it for
good. So these end the build, which goes on where it stood when the same command is run again.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType

from sbformat.errors import SourceError
from sbprep.sources.base import Rejected

#: Errors of disks, networks and limits of the system; every other one (ENOENT, EACCES, EISDIR, ...) is the file's own.
MACHINE_ERRORS = frozenset(
    {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENOBUFS}
    | {errno.ENOTCONN, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.ENETDOWN, errno.ENETUNREACH}
    | {errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOLINK, errno.EREMOTEIO, errno.ESHUTDOWN}
)


class MachineError(SourceError):
    """An image could not be read because of the machine: nothing is known about the image."""


def raise_if_machine(error: BaseException, where: Path | str) -> None:
    """Raise `MachineError` that names `where`, if `error` is the machine's; else return.

    Raises
    ------
    MachineError
    """
    if isinstance(error, MachineError):
        raise error
    if isinstance(error, MemoryError):
        raise MachineError(
            f"{where}: out of memory while this was read. Nothing already built is lost: "
            "run the same command again, with fewer --workers if it stays"
        ) from error
    if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
        raise MachineError(
            f"{where}: {errno.errorcode[error.errno]} ({os.strerror(error.errno)}), an error of the disk, the network "
            "or the system and not of the image. Nothing already built is lost: run the same command again; "
            "if it stays, copy this file anew or remove it"
        ) from error


def refusal_of(error: OSError, where: Path | str) -> Rejected:
    """Return the reject for an image at `where` that the system does not give.

    Raises
    ------
    MachineError
        The error is the machine's, see `MACHINE_ERRORS`.
    """
    raise_if_machine(error, where)
    code = "vanished" if isinstance(error, FileNotFoundError) else "unreadable"
    return Rejected(code, error.strerror or str(error))


class Naming:
    """Context in which a failure of the machine becomes a `MachineError` that names an image; 0.3 us a use."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise `MachineError` in place of a failure of the machine."""
        if error is not None:
            raise_if_machine(error, self._name)
