"""What a build has done so far: an append-only file of finished shards beside them, until the manifest replaces it.

One journal a color space and partition. Its first line says what is being built; every further line is one finished
shard, written and fsynced after the shard itself is durable. A torn last line is dropped. The open journal is locked,
so two builds cannot write one folder.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbformat.absent import JOURNALS
from sbformat.errors import BuildError, ManifestError
from sbformat.locks import lock
from sbformat.manifest import ShardRecord, check_schema, fsync_path
from sbformat.schema import FORMAT_NAME, SCHEMA_VERSION
from sbprep.disk import write_failure
from sbprep.request import check_same, discard_advice

Key = tuple[str, int]
Partition = tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """One finished slice of a split: its shard, its rejects and its share of the statistics."""

    split: str
    number: int
    record: ShardRecord
    rejects: list[dict[str, Any]]
    """source_index, path, code and detail of each image left out, in shard order"""
    statistics: dict[str, Any]
    """Integer counts and sums, so that any grouping adds up to the same."""

    @property
    def key(self) -> Key:
        """(split, shard number)."""
        return self.split, self.number

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**vars(self), "record": self.record.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ShardResult:
        """Inverse of `to_json`."""
        return cls(**{**data, "record": ShardRecord.from_json(data["record"])})


class Journal:
    """The journals of one color space's folder: every finished shard in `results`, and one file open for more.

    Parameters
    ----------
    root : Path
        ``data_cache/<colorspace>``
    header : dict
        What is being built; journals already there must say the same.
    partition : (i, n) or None

    Raises
    ------
    ManifestError
        A journal there was begun with other options or software.
    SourceError
        The images to read have changed since.
    BuildError
        Another build has this journal open, or the folder cannot be written.
    """

    def __init__(self, root: Path, header: dict[str, Any], partition: Partition) -> None:
        self.path = root / journal_name(partition)
        self.results: dict[Key, ShardResult] = {}
        self._file = open_locked(self.path)
        try:
            self._read_all(root, header, partition)
            _drop_torn_line(self.path, self._file)
            if os.fstat(self._file).st_size == 0:
                self._append({"format": FORMAT_NAME, "schema": SCHEMA_VERSION, **header})
                fsync_path(root)
        except BaseException:
            self.close()
            raise

    def _read_all(self, root: Path, header: dict[str, Any], partition: Partition) -> None:
        for path in journal_paths(root):
            # Partitions get on with each other, but not with a build of the whole, which ends by removing journals.
            if path != self.path and (partition is None or path.name == journal_name(None)):
                _check_unlocked(path)
            found, results = read_journal(path)
            if found is not None:
                check_same(found, header, path)
            self.results.update({result.key: result for result in results})

    def add(self, result: ShardResult) -> None:
        """Record a shard that is durable under its final name."""
        self._append(result.to_json())
        self.results[result.key] = result

    def close(self) -> None:
        """Unlock and close."""
        os.close(self._file)

    def _append(self, data: dict[str, Any]) -> None:
        line = (json.dumps(data, separators=(",", ":")) + "\n").encode()
        size = os.fstat(self._file).st_size
        try:
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)  # or a line that fits would be joined to the torn one
            raise write_failure(self.path, error) from error


def journal_name(partition: Partition) -> str:
    """File name of a journal."""
    return "journal.jsonl" if partition is None else f"journal-{partition[0]}-of-{partition[1]}.jsonl"


def journal_paths(root: Path) -> list[Path]:
    """Return every journal in a color space's folder."""
    return sorted(root.glob(JOURNALS))


def read_journal(path: Path) -> tuple[dict[str, Any] | None, list[ShardResult]]:
    """Read (header, finished shards); a header of None means that the file was cut before its first line ended."""
    content = path.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    if not lines:
        return None, []
    try:
        header, *rest = (json.loads(line) for line in lines)
        check_schema(header, path)
        return header, [ShardResult.from_json(data) for data in rest]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{path}: not a readable journal ({error!r}). Begin anew {discard_advice(path)}") from error


def open_locked(path: Path) -> int:
    """Open a journal for appending and lock it against other builds; return the file descriptor.

    Raises
    ------
    BuildError
        Another build has it, or it cannot be written.
    """
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise BuildError(
                f"{path}: cannot be written ({error.strerror}). Choose another --out, or permit writing"
            ) from error
        try:
            _lock(file, fcntl.LOCK_EX, path)
        except BaseException:
            os.close(file)
            raise
        try:
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        except FileNotFoundError:
            pass
        os.close(file)  # the build that held the lock finished and removed the file in between


@contextmanager
def all_locked(root: Path) -> Iterator[None]:
    """Lock every journal in a color space's folder: nobody builds there meanwhile."""
    with ExitStack() as stack:
        for path in journal_paths(root):
            stack.callback(os.close, open_locked(path))
        yield


def _check_unlocked(path: Path) -> None:
    with suppress(FileNotFoundError), path.open("rb") as file:
        _lock(file.fileno(), fcntl.LOCK_SH, path)  # shared: two builds that look at once do not stop each other


def _lock(file: int, how: int, path: Path) -> None:
    try:
        # Where there are no locks writing goes on: every step is atomic and gives the same bytes.
        lock(file, path, how)
    except BlockingIOError:
        raise BuildError(f"{path}: another sbprep is building here. Wait for it, or use another --out") from None


def _drop_torn_line(path: Path, file: int) -> None:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        os.ftruncate(file, whole)
