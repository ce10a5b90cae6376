"""Tars walked strictly: every header to the very end of the file, plain or compressed, or a `SourceError`.

`tarfile` by itself takes a damaged or cut header for the end of the archive, and images would be lost without a word.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import tarfile
import zlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Any, Self

from sbformat.errors import SourceError
from sbprep.sources.failures import raise_if_machine

#: All that tarfile and the decompressors raise for damaged archives; found by flipping bits.
BROKEN = (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, zlib.error, lzma.LZMAError)

#: Bytes of a header; contents are padded to a multiple of it.
BLOCK = 512

_LONG_NAMES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_LONGEST_NAME = 1 << 20


def is_tar(path: Path) -> bool:
    """Tell by its first block whether a file is a tar, plain or compressed; a compressed file that is broken counts."""
    opener = decompressor(path)
    try:
        with opener(path) if opener else path.open("rb") as stream:
            head = stream.read(BLOCK)
    except BROKEN as err:
        raise_if_machine(err, path)
        return True  # compressed and broken: the listing says where
    if head == bytes(BLOCK):
        return True
    return size_in_header(head) is not None


def decompressor(path: Path) -> Callable[[Path], Any] | None:
    """Return what opens the compressed file, None for a plain or missing one; `MachineError` if the disk fails."""
    try:
        with path.open("rb") as file:
            head = file.read(10)
    except OSError as err:
        raise_if_machine(err, path)
        return None
    if head.startswith(b"BZh") and head[4:] == b"1AY&SY":  # all ten bytes: a plain tar begins with a file name
        return bz2.open
    magics: dict[bytes, Callable[[Path], Any]] = {
        b"\x1f\x8b\x08": gzip.open,
        b"\xfd7zXZ\x00": lzma.open,
        b"\x28\xb5\x2f\xfd": _open_zstd,
    }
    return next((opener for magic, opener in magics.items() if head.startswith(magic)), None)


def size_in_header(block: bytes) -> int | None:
    """Return the size of the member that this block of a tar begins, None if it begins none."""
    try:
        return _StrictTarInfo.frombuf(block, "utf-8", "surrogateescape").size
    except tarfile.HeaderError:
        return None


def walk(path: Path) -> Generator[tuple[int, tarfile.TarFile, tarfile.TarInfo], None, None]:
    """Yield number, tar and header of every member, to the very end of the file.

    Raises
    ------
    MachineError
        The disk or the system fails.
    SourceError
        The tar is broken anywhere. Only the end-of-archive blocks of a plain tar may be missing.
    """
    opener, count, end = decompressor(path), 0, -1
    try:
        with opener(path) if opener else path.open("rb") as stream, _open_tar(stream, bool(opener)) as tar:
            while (info := tar.next()) is not None:
                if tar.offset <= end:
                    raise tarfile.ReadError(f"header at byte {info.offset} points backwards")
                end = tar.offset
                tar.members.clear()  # type: ignore[attr-defined]  # 1 kB each, and nobody asks for it again
                yield count, tar, info
                count += 1
            while opener and stream.read(1 << 20):  # the checksum of a compressed stream comes last
                pass
    except BROKEN as err:
        raise_if_machine(err, path)
        raise SourceError(
            f"{path}: broken tar, {count} members read before ({type(err).__name__}: {err}); copy or download it again"
        ) from err


class _StrictTarInfo(tarfile.TarInfo):
    """Header that must be whole: `tarfile` takes a damaged or cut one, past the first, for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as err:
            if type(err).__name__ in ("EOFHeaderError", "EmptyHeaderError"):  # a block of zeros, or the end of the file
                raise
            raise tarfile.ReadError(f"{err} at byte {tarfile_.offset}") from err

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        # A negative size sends older versions of tarfile back and forth for ever; a long name is read in one piece.
        if info.size < 0 or (info.type in _LONG_NAMES and info.size > _LONGEST_NAME):
            raise tarfile.HeaderError(f"size {info.size}")
        return info


def _open_tar(stream: IO[bytes], compressed: bool) -> tarfile.TarFile:
    options: Any = {"tarinfo": _StrictTarInfo, "encoding": "utf-8", "errors": "surrogateescape"}
    if compressed:
        return tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 16, **options)
    return tarfile.open(fileobj=stream, mode="r:", **options)


def _open_zstd(path: Path) -> Any:
    try:
        return importlib.import_module("compression.zstd").open(path)
    except ImportError as err:
        raise SourceError(f"{path}: zstd needs Python 3.14 or later; decompress it first with `zstd -d`") from err
