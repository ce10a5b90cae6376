"""Images that one pass meets in the order of the file and that are wanted in another, kept outside of memory.

A shard's images are spread over its whole archive. Held encoded they were 830 MB for 4,096 photographs of 200 kB.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Self

from sbformat.errors import BuildError
from sbprep.sources.base import Rejected
from sbprep.sources.tree import read_range

#: Bytes that are kept in memory before a file is made: most tests, labels and small sets never need one.
IN_MEMORY = 1 << 24


class Spill:
    """Bytes by key in a temporary file without a name, which the system removes with the process however that ends.

    It lies in `folder`, the output folder of a build, which has room for the shards; the system's folder for temporary
    files is often memory itself. That one is taken where `folder` is None or not there.

    Raises
    ------
    BuildError
        The file cannot be made or written; full disk.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = str(folder) if folder is not None and folder.is_dir() else tempfile.gettempdir()
        self._places: dict[Hashable, tuple[int, int]] = {}
        self._rejected: dict[Hashable, Rejected] = {}
        self._memory = bytearray()
        self._file: Any = None
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def put(self, key: Hashable, item: bytes | Rejected) -> None:
        """Keep `item` under `key`."""
        if isinstance(item, Rejected):
            self._rejected[key] = item
        else:
            self._keep(key, item)

    def _keep(self, key: Hashable, data: bytes) -> None:
        if self._file is None and self._end + len(data) <= IN_MEMORY:
            self._memory += data
        else:
            self._write(data)
        self._places[key] = (self._end, len(data))
        self._end += len(data)

    def get(self, key: Hashable) -> bytes | Rejected:
        """Return what was kept under `key`."""
        if key in self._rejected:
            return self._rejected[key]
        start, size = self._places[key]
        if self._file is None:
            return bytes(self._memory[start : start + size])
        return read_range(self._file.fileno(), size, start)

    def _write(self, data: bytes) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)
                _write_all(self._file.fileno(), self._memory)
                self._memory = bytearray()
            _write_all(self._file.fileno(), data)
        except OSError as error:
            raise BuildError(
                f"{self._folder}: no temporary file of {self._end + len(data):,} bytes can be written here "
                f"({error.strerror}), and a pass over a compressed file needs one beside the shards. Nothing already "
                "built is lost: make room, use fewer --workers, or unpack the images first, and run the same command again"
            ) from error


def _write_all(descriptor: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
