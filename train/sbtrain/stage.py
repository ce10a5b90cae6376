"""Shards copied from a slow or remote disk to a local one, while the first epoch runs: ``sbtrain pretrain --stage DIR``.

    DIR/<color space>-<digest of the split>/<split>/shard-00000.h5 ... manifest.json, last

A shard is copied under a temporary name, compared with the manifest's checksum on the way, and renamed; from then on it is
read from the copy. A copy that was there before is used once this process has read and compared it, so neither half a
file nor a damaged one ever is, and nothing needs to be fsynced. Of all processes of a machine one copies, by a lock: the
others, ranks of this run or other runs of the same images, take what appears.

Rows and their order are the same from either place, so a batch is the same to the bit at any moment of the copying.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash

from sbformat.durable import make_folder
from sbformat.errors import ShardError, SplitbrainError
from sbformat.manifest import MANIFEST_NAME, Manifest, write_atomically
from sbformat.records import ShardRecord
from sbformat.words import every
from sbtrain.progress import bytes_text
from sbtrain.reader import SplitReader

BLOCK = 4 << 20
#: Seconds between looks at what another process has copied.
PAUSE = 0.2


class StageError(SplitbrainError):
    """Nothing can be staged there."""


class Stage:
    """Copies the shards of one split below `root` and has `reader` read the copies.

    Parameters
    ----------
    root : Path
    manifest : Manifest
    split : str
    digest : str
        Of the split: images of another build get another folder.
    reader : SplitReader
    say : callable
        Takes one sentence.

    Raises
    ------
    StageError
        The folder cannot be made.
    """

    def __init__(
        self, root: Path, manifest: Manifest, split: str, digest: str, reader: SplitReader, say: Callable[[str], None]
    ) -> None:
        self.folder = root / f"{manifest.colorspace}-{digest[:12]}"
        self._manifest, self._split, self._reader, self._say = manifest, split, reader, say
        self._seen: dict[Path, tuple[int, int]] = {}  # copies that are not whole: (inode, time)
        self._stopping = threading.Event()
        try:
            make_folder(self.folder / split)
        except OSError as error:
            raise StageError(f"{root}: cannot hold copies of shards ({error}). Use another --stage") from error

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Copy in a thread of its own, which ends with the context, done or not."""
        worker = threading.Thread(target=self._run, daemon=True)
        worker.start()
        try:
            yield
        finally:
            self._stopping.set()
            worker.join()

    def fill(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Copy every shard, or wait until another process has, or until `stopped`; what is not there stays as it was."""
        if self.folder.resolve() == self._manifest.root.resolve():
            return
        pending = dict(enumerate(self._reader.records))
        total, left_out = len(pending), 0
        with _Lock(self.folder / ".lock") as lock:
            while pending and not stopped():
                begun, mine = time.monotonic(), lock.take()
                if mine:
                    self._remove_litter()
                for number, record in list(pending.items()):
                    if stopped():
                        return
                    path = self.folder / self._split / record.name
                    if self._whole(path, record) or (mine and self._copied(path, record, stopped)):
                        self._reader.replace(number, path)
                    elif not mine:
                        continue
                    else:
                        left_out += 1
                    del pending[number]
                if pending:  # looking takes no more than a tenth of the time, however many shards there are
                    self._stopping.wait(max(PAUSE, 10 * (time.monotonic() - begun)))
            if not pending and not left_out:
                if lock.held:
                    write_atomically(self.folder / MANIFEST_NAME, (self._manifest.root / MANIFEST_NAME).read_bytes())
                self._say(f"{every(total, 'shard')} read from {self.folder} now")

    def _run(self) -> None:
        try:
            self.fill(self._stopping.is_set)
        except Exception as error:  # training needs no copies
            self._say(self._given_up(error))

    def try_to_fill(self, stopped: Callable[[], bool]) -> None:
        """Do as `fill`; a full disk is told and nothing more."""
        size = sum(record.bytes for record in self._reader.records)
        self._say(f"copying {bytes_text(size)} of shards to {self.folder} before they are read")
        try:
            self.fill(stopped)
        except OSError as error:
            self._say(self._given_up(error))

    def _given_up(self, error: Exception) -> str:
        return (
            f"{self.folder}: copying ends here ({error}). The shards that are not there are read from "
            f"{self._manifest.root}; make room for {bytes_text(sum(record.bytes for record in self._reader.records))}"
        )

    def _whole(self, path: Path, record: ShardRecord) -> bool:
        """Return whether a copy is there and has the manifest's bytes; one that has not is looked at once."""
        with suppress(OSError):
            about = path.stat()
            state = (about.st_ino, about.st_mtime_ns)
            if about.st_size != record.bytes or self._seen.get(path) == state:
                return False
            with path.open("rb", buffering=0) as file:
                digest = xxhash.xxh3_128()
                while (block := file.read(BLOCK)) and not self._stopping.is_set():
                    digest.update(block)
            if digest.hexdigest() == record.xxh3_128:
                return True
            self._seen[path] = state
        return False

    def _copied(self, path: Path, record: ShardRecord, stopped: Callable[[], bool]) -> bool:
        """Copy one shard; False where the source is damaged or the copying was stopped.

        Raises
        ------
        OSError
            There is no room for it.
        """
        source = self._manifest.shard_path(self._split, record)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb", buffering=0) as file:
                digest = xxhash.xxh3_128()
                for block in _blocks(source):
                    if stopped():
                        return False
                    digest.update(block)
                    _write(file.fileno(), block)
            if digest.hexdigest() != record.xxh3_128:
                raise ShardError(f"{source}: not the manifest's bytes. Find all damage with --verify")
            temporary.replace(path)
            return True
        except ShardError as error:  # reading it decides what comes of that, here it is only not copied
            self._say(f"not copied: {error}")
            return False
        finally:
            temporary.unlink(missing_ok=True)

    def _remove_litter(self) -> None:
        for path in (self.folder / self._split).glob(".*.tmp"):  # of a process that was killed
            path.unlink(missing_ok=True)


class _Lock:
    """A lock that one process of this machine holds, until its end at the latest."""

    def __init__(self, path: Path) -> None:
        self.held = False
        self._file = path.open("a")

    def __enter__(self) -> _Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take(self) -> bool:
        """Return whether this process holds it now."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.held = True
        except BlockingIOError:
            pass
        except OSError:  # no locks on this disk: two that copy the same disturb nobody
            self.held = True
        return self.held


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK):
                yield block
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({error.strerror})") from error


def _write(descriptor: int, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
