"""Archives as trees: one or several tars, one zip, and WebDataset, tars whose members belong together by name.

Names are ``<archive file>#<member>``, ``%23`` for a "#" in the name of the file. Nothing is ever extracted to disk.
A member whose path is absolute or climbs, and a link, device or pipe, is listed if it has the name of an image, and
rejected when read. Of several members with one name the last counts, as it does when the archive is extracted.

An uncompressed tar and a zip are read in any order, by offset, without looking at their directory again: a zip of
500,000 images would spend more time on its directory in every shard than on its pixels.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import json
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from sbformat.errors import SourceError

from sbprep.sources.base import SPLITS, Item, Listing, Rejected, Split
from sbprep.sources.folder import (
    MAX_MEMBER_BYTES,
    SPLIT_FOLDERS,
    FolderTree,
    Tree,
    is_hidden,
    is_image,
    is_unsafe,
    read_range,
    refusal_of,
    refusal_of_size,
)

#: What `open_tree` takes, for its error message.
SUPPORTED = "a folder, a .zip, a .tar, or a .tar.gz, .tar.bz2, .tar.xz (.tar.zst with Python 3.14 or later)"

#: Class numbers of WebDataset go up to this: a larger one is a mistake, and a name is made for every class.
MAX_CLASS = 999_999

# Why a member is never read; stands in its key where the offset would be.
_UNSAFE_NAME, _NOT_A_FILE, _SPARSE, _ENCRYPTED, _METHOD = -1, -2, -3, -4, -5
_REFUSED = {
    _UNSAFE_NAME: Rejected("unsafe_name", "the path is absolute or climbs with '..'"),
    _NOT_A_FILE: Rejected("not_a_file", "a link, device or pipe"),
    _SPARSE: Rejected("not_a_file", "a sparse file"),
    _ENCRYPTED: Rejected("encrypted", "needs a password"),
    _METHOD: Rejected("unreadable", "compressed by another method than deflate; unzip the archive to a folder"),
}

# All that tarfile and the decompressors raise for damaged archives; found by flipping bits.
_BROKEN = (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, zlib.error, lzma.LZMAError)
_BROKEN_ZIP = (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, OverflowError, struct.error)

_TAR_BLOCK = 512
_LONG_NAMES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_LONGEST_NAME = 1 << 20
_INT64_MAX = (1 << 63) - 1
_ZIP_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field
_OPEN_TARS = 64


@dataclass(frozen=True, slots=True)
class TarTree:
    """One or several tar files, plain or compressed.

    Keys are int64 (N, 2): which tar, and the offset of the content or, in a compressed tar, the number of the member.
    """

    paths: tuple[Path, ...]

    @property
    def sequential(self) -> bool:
        """True if a tar is compressed: then a read decompresses it up to the last image wanted."""
        return any(_decompressor(path) for path in self.paths)

    @property
    def where(self) -> str:
        """The first tar and the number of others."""
        others = len(self.paths) - 1
        return f"{self.paths[0]} and {others} more" if others else str(self.paths[0])

    def member(self, name: str) -> str:
        """Return the path inside the tar."""
        return name.partition("#")[2]

    def files(self) -> Listing:
        """List the members by sorted name; reads the headers of a plain tar, the whole of a compressed one.

        Raises
        ------
        SourceError
            A tar is missing, broken or of another kind, two have the same file name, or all are empty.
        """
        prefixes = [_prefix(path) for path in self.paths]
        if len(set(prefixes)) < len(prefixes):
            raise SourceError(
                f"{self.where}: two tars have the same file name, and images need unique names; rename one"
            )
        found = {}
        for which, path in enumerate(self.paths):
            stamp = _stamp(path)
            for member, size, place in _tar_members(path):
                found[prefixes[which] + member] = (size, stamp, which, place)
        return _listing(found, self.where)

    def read(self, part: Listing) -> Iterator[Item]:
        """Yield the bytes of each image. Those of compressed tars are all read first, in one pass over each tar."""
        keys = _keys(part)
        streamed = {
            which: _read_stream(path, part, [row for row, key in enumerate(keys) if key[0] == which])
            for which in {which for which, _ in keys}
            if _decompressor(path := self.paths[which])
        }
        with _OpenTars() as tars:
            for row, (which, place) in enumerate(keys):
                size = int(part.sizes[row])
                if refusal := _refusal(place, size):
                    yield refusal
                elif which in streamed:
                    yield streamed[which][place]
                else:
                    yield _read_plain(tars, self.paths[which], place, size)


@dataclass(frozen=True, slots=True)
class ZipTree:
    """One zip file.

    Keys are int64 (N, 4): offset of the member's header, compressed bytes, method (0 stored, 8 deflate), CRC-32.
    """

    path: Path

    @property
    def sequential(self) -> bool:
        """False: any member can be read by itself."""
        return False

    @property
    def where(self) -> str:
        """The zip file."""
        return str(self.path)

    def member(self, name: str) -> str:
        """Return the path inside the zip."""
        return name.partition("#")[2]

    def files(self) -> Listing:
        """List the members by sorted name from the directory at the end of the zip.

        Raises
        ------
        SourceError
            The zip is missing, broken or empty.
        """
        stamp, prefix = _stamp(self.path), _prefix(self.path)
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = [found for info in archive.infolist() if (found := _zip_member(info)) is not None]
            return _listing({prefix + name: (size, stamp, *key) for name, size, key in members}, self.where)
        except _BROKEN_ZIP as err:
            raise SourceError(f"{self.path}: broken zip ({err}), 0 members read; copy or download it again") from err

    def read(self, part: Listing) -> Iterator[Item]:
        """Yield the bytes of each image, checked against size and CRC; no more than the declared size is inflated."""
        try:
            zip_file = self.path.open("rb", buffering=0)
        except OSError as err:
            yield from [refusal_of(err)] * len(part)
            return
        with zip_file:
            for size, key in zip(part.sizes.tolist(), _keys(part), strict=True):
                yield _refusal(key[0], size) or _read_zip_member(zip_file.fileno(), size, *key)


def open_tree(path: Path) -> tuple[Tree, str]:
    """Return the tree at `path` and its kind, 'folder', 'zip' or 'tar', told by the content and not by the name.

    Raises
    ------
    SourceError
        Nothing is there, or it is none of these.
    """
    try:
        mode = path.stat().st_mode
    except OSError as err:
        raise SourceError(f"{path}: {err.strerror}, expected {SUPPORTED}; check the path") from err
    if stat.S_ISDIR(mode):
        return FolderTree(path), "folder"
    if not stat.S_ISREG(mode):
        raise SourceError(f"{path}: a device or pipe, expected {SUPPORTED}; save it as a file first")
    if _is_tar(path):  # first: a zip is also recognized at the end of a plain tar that holds it
        return TarTree((path,)), "tar"
    if zipfile.is_zipfile(path):
        return ZipTree(path), "zip"
    raise SourceError(
        f"{path}: neither tar nor zip, expected {SUPPORTED}; if it should be one, copy or download it again"
    )


def is_webdataset(path: Path) -> bool:
    """Tell whether `path` is a folder of .tar files and nothing else, or a tar whose images have .cls, .json or .txt.

    Only the first 256 members of a tar are looked at. One with a split folder (``train/cat/1.jpg``) is a plain tar.
    """
    if path.is_dir():
        return bool(_tars_in(path))
    if not path.is_file() or not _is_tar(path):
        return False
    with closing(_tar_members(path)) as members:
        head = [member for member, _, _ in islice(members, 256)]
    if any(folder.lower() in SPLIT_FOLDERS for member in head for folder in member.split("/")[:-1]):
        return False
    described = {_sample("#" + member) for member in head if member.lower().endswith((".cls", ".json", ".txt"))}
    return any(is_image(member) and _sample("#" + member) in described for member in head)


def webdataset_splits(paths: Sequence[Path]) -> dict[str, Split]:
    """List the images of a WebDataset: tars, folders of tars, or both.

    Tars whose names begin with a split (``train-000000.tar``) make that split; without such names there is one split,
    ``train`` if the images have labels and ``unlabeled`` if not. The label of a sample is the number in its ``.cls``,
    or else the integer ``label`` or ``cls`` of its ``.json``; the class names are the numbers from 0 on.

    Raises
    ------
    SourceError
        A folder with other files, no images, names of which some mean a split and some do not, a malformed ``.cls``,
        or labels for a part of the images only.
    """
    tars: list[Path] = []
    for path in paths:
        inside = _tars_in(path) if path.is_dir() else [path]
        if not inside:
            raise SourceError(f"{path}: expected a folder of .tar files and nothing else; move other files away")
        tars += inside
    splits = {}
    for split, group in _tars_by_split(tars).items():
        found = _webdataset_split(TarTree(group), labeled=split != "unlabeled")
        splits[split or ("train" if found.label_names else "unlabeled")] = found
    return splits


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


class _OpenTars:
    """Descriptors of the tars in use, at most 64: a data set has more tars than a process may open."""

    def __init__(self) -> None:
        self._files: dict[Path, IO[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def descriptor(self, path: Path) -> int:
        if path not in self._files:
            if len(self._files) == _OPEN_TARS:
                self._files.pop(next(iter(self._files))).close()
            self._files[path] = path.open("rb", buffering=0)
        return self._files[path].fileno()


def _decompressor(path: Path) -> Callable[[Path], Any] | None:
    """Return what opens the compressed file, None for a plain or missing one."""
    try:
        with path.open("rb") as file:
            head = file.read(10)
    except OSError:
        return None
    if head.startswith(b"BZh") and head[4:] == b"1AY&SY":  # all ten bytes: a plain tar begins with a file name
        return bz2.open
    magics: dict[bytes, Callable[[Path], Any]] = {
        b"\x1f\x8b\x08": gzip.open,
        b"\xfd7zXZ\x00": lzma.open,
        b"\x28\xb5\x2f\xfd": _open_zstd,
    }
    return next((opener for magic, opener in magics.items() if head.startswith(magic)), None)


def _open_zstd(path: Path) -> Any:
    try:
        return importlib.import_module("compression.zstd").open(path)
    except ImportError as err:
        raise SourceError(f"{path}: zstd needs Python 3.14 or later; decompress it first with `zstd -d`") from err


def _is_tar(path: Path) -> bool:
    opener = _decompressor(path)
    try:
        with opener(path) if opener else path.open("rb") as stream:
            head = stream.read(_TAR_BLOCK)
    except _BROKEN:
        return True  # compressed and broken: the listing says where
    if head == bytes(_TAR_BLOCK):
        return True
    return _size_in_header(head) is not None


def _size_in_header(block: bytes) -> int | None:
    """Return the size of the member that this block of a tar begins, None if it begins none."""
    try:
        return _StrictTarInfo.frombuf(block, "utf-8", "surrogateescape").size
    except tarfile.HeaderError:
        return None


def _walk(path: Path) -> Generator[tuple[int, tarfile.TarFile, tarfile.TarInfo], None, None]:
    """Yield number, tar and header of every member, to the very end of the file.

    Raises
    ------
    SourceError
        The tar is broken anywhere. Only the end-of-archive blocks of a plain tar may be missing.
    """
    opener, count, end = _decompressor(path), 0, -1
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
    except _BROKEN as err:
        raise SourceError(
            f"{path}: broken tar, {count} members read before ({type(err).__name__}: {err}); copy or download it again"
        ) from err


def _open_tar(stream: IO[bytes], compressed: bool) -> tarfile.TarFile:
    options: Any = {"tarinfo": _StrictTarInfo, "encoding": "utf-8", "errors": "surrogateescape"}
    if compressed:
        return tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 16, **options)
    return tarfile.open(fileobj=stream, mode="r:", **options)


def _tar_members(path: Path) -> Generator[tuple[str, int, int], None, None]:
    """Yield path, size and place (content offset, member number or why it is not read) of what is to be listed."""
    compressed = _decompressor(path) is not None
    for number, _, info in _walk(path):
        if not info.isdir() and _is_listed(info.name, regular=info.isreg()):
            yield (
                _normal(info.name),
                min(info.size, _INT64_MAX),
                _tar_place(info, number if compressed else info.offset_data),
            )


def _tar_place(info: tarfile.TarInfo, place: int) -> int:
    if is_unsafe(info.name):
        return _UNSAFE_NAME
    if not info.isreg():
        return _NOT_A_FILE
    return _SPARSE if info.issparse() else place


def _zip_member(info: zipfile.ZipInfo) -> tuple[str, int, tuple[int, int, int, int]] | None:
    """Return path, size and key of a member, None if it is not to be listed."""
    if info.header_offset < 0:
        raise zipfile.BadZipFile("the beginning is missing")
    member = info.filename.replace("\\", "/")  # some Windows programs write it, against the specification
    place = _zip_place(info, member)
    if info.is_dir() or not _is_listed(member, regular=place != _NOT_A_FILE):
        return None
    return _normal(member), info.file_size, (place, info.compress_size, info.compress_type, info.CRC)


def _zip_place(info: zipfile.ZipInfo, member: str) -> int:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return _NOT_A_FILE
    if is_unsafe(member):
        return _UNSAFE_NAME
    if info.flag_bits & 1:
        return _ENCRYPTED
    return info.header_offset if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else _METHOD


def _is_listed(member: str, regular: bool) -> bool:
    hidden = any(is_hidden(part) and part not in (".", "..") for part in member.split("/"))
    return bool(member) and not hidden and (regular or is_image(member))


def _normal(member: str) -> str:
    """Drop what has no meaning in a path ('./', '//'); an unsafe path stays as it is."""
    return member if is_unsafe(member) else "/".join(part for part in member.split("/") if part not in ("", "."))


def _prefix(path: Path) -> str:
    return path.name.replace("#", "%23") + "#"


def _stamp(path: Path) -> int:
    try:
        with path.open("rb") as file:  # not stat, which a file that may not be read allows
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError as err:
        raise SourceError(f"{path}: cannot be opened ({err.strerror}), expected an archive; check the path") from err


def _listing(found: Mapping[str, tuple[int, ...]], where: str) -> Listing:
    """Return the listing of name -> (size, stamp, *key), by sorted name."""
    if not found:
        raise SourceError(f"{where}: no files in this archive, expected images; check the path")
    names = sorted(found)
    table = np.array([found[name] for name in names], np.int64)
    return Listing(names=names, sizes=table[:, 0], stamps=table[:, 1], keys=table[:, 2:])


def _keys(part: Listing) -> list[Any]:
    return [] if part.keys is None else part.keys.tolist()


def _refusal(place: int, size: int) -> Rejected | None:
    return _REFUSED[place] if place < 0 else refusal_of_size(size)


def _read_plain(tars: _OpenTars, path: Path, offset: int, size: int) -> Item:
    """Read header and content, to be sure that the tar is still the one that was listed."""
    try:
        data = read_range(tars.descriptor(path), _TAR_BLOCK + size, offset - _TAR_BLOCK)
    except OSError as err:
        return refusal_of(err)
    if len(data) < _TAR_BLOCK + size or _size_in_header(data[:_TAR_BLOCK]) != size:
        return Rejected("changed", f"listed with {size} bytes at byte {offset} of the tar, now something else is there")
    return data[_TAR_BLOCK:]


def _read_stream(path: Path, part: Listing, rows: Iterable[int]) -> dict[int, Item]:
    """Read these rows of `part`, by number of the member, in a pass over a compressed tar up to the last of them."""
    keys = _keys(part)
    wanted = {keys[row][1]: row for row in rows if not _refusal(keys[row][1], int(part.sizes[row]))}
    items: dict[int, Item] = {}
    lost = "fewer members in the tar than were listed"
    try:
        with closing(_walk(path)) as members:
            while len(items) < len(wanted):
                number, tar, info = next(members)
                if (row := wanted.get(number)) is not None:
                    items[number] = _streamed_member(tar, info, part.names[row], int(part.sizes[row]))
    except StopIteration:
        pass
    except (SourceError, *_BROKEN) as err:
        lost = f"{type(err).__name__}: {err}"
    return dict.fromkeys(wanted, Rejected("changed", lost)) | items


def _streamed_member(tar: tarfile.TarFile, info: tarfile.TarInfo, name: str, size: int) -> Item:
    if _normal(info.name) != name.partition("#")[2] or info.size != size:
        return Rejected("changed", f"listed with {size} bytes, now {info.name} with {info.size}")
    content = tar.extractfile(info)
    return content.read() if content else _REFUSED[_NOT_A_FILE]


def _read_zip_member(descriptor: int, size: int, offset: int, packed: int, method: int, crc: int) -> Item:
    if packed > MAX_MEMBER_BYTES:
        return Rejected("too_large", f"{packed} bytes, at most {MAX_MEMBER_BYTES} are read")
    try:
        header = read_range(descriptor, _ZIP_HEADER.size, offset)
        signature, name, extra = _ZIP_HEADER.unpack(header)
        data = read_range(descriptor, packed, offset + _ZIP_HEADER.size + name + extra)
        if method == zipfile.ZIP_DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except OSError as err:
        return refusal_of(err)
    except (struct.error, zlib.error) as err:
        return Rejected("damaged_member", str(err))
    if signature != b"PK\x03\x04" or len(data) != size or zlib.crc32(data) != crc:
        return Rejected("damaged_member", f"size or CRC-32 differ from the directory: {size} bytes, {crc:08x}")
    return data


def _tars_in(folder: Path) -> list[Path]:
    """Return the .tar files of a folder by name; none if there is anything else in it."""
    tars = []
    try:
        for entry in folder.iterdir():
            if is_hidden(entry.name):
                continue
            if entry.suffix != ".tar" or not entry.is_file():
                return []  # at once: the folder may hold a million images
            tars.append(entry)
    except OSError:  # a folder that cannot be read is for `FolderTree` to report
        return []
    return sorted(tars)


def _tars_by_split(tars: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Group tars by the split that their names begin with; one group '' if none does."""
    splits = {path: SPLIT_FOLDERS.get(re.split("[^a-z]", path.name.lower())[0], "") for path in tars}
    if len(set(splits.values())) > 1 and "" in splits.values():
        odd = next(path for path, split in splits.items() if not split)
        raise SourceError(
            f"{odd}: other tars beside it begin with a split (train, val, test, unlabeled) and this one does not; "
            f"rename it or move it away"
        )
    order = [split for split in (*SPLITS, "") if split in splits.values()]
    return {split: tuple(path for path in tars if splits[path] == split) for split in order}


def _webdataset_split(tree: TarTree, labeled: bool) -> Split:
    files = tree.files()
    images = [row for row, name in enumerate(files.names) if is_image(name)]
    if not images:
        raise SourceError(f"{tree.where}: no images among {len(files)} files; check the path")
    listing = files.take(np.array(images))
    numbers = _class_numbers(tree, files) if labeled else {}
    if not numbers:
        return Split(kind="webdataset", source=tree, listing=listing)
    labels = [
        numbers.get(_sample(name), 0 if key[1] < 0 else -1)
        for name, key in zip(listing.names, _keys(listing), strict=True)
    ]
    if -1 in labels:
        raise SourceError(
            f"{tree.where}: {listing.names[labels.index(-1)]} has no label and others do; "
            f"complete the labels, or use an archive without them"
        )
    names = tuple(str(number) for number in range(max(labels) + 1))
    listing = replace(listing, labels=np.array(labels, np.int32))
    return Split(kind="webdataset", source=tree, listing=listing, label_names=names)


def _class_numbers(tree: TarTree, files: Listing) -> dict[str, int]:
    """Return sample -> class number from the .cls members, or from .json where there is no .cls at all."""
    for suffix, parse in ((".cls", _class_of_cls), (".json", _class_of_json)):
        rows = [row for row, name in enumerate(files.names) if name.lower().endswith(suffix)]
        part = files.take(np.array(rows, np.int64))
        pairs = zip(part.names, tree.read(part), strict=True)
        parsed = ((name, parse(f"{tree.where}: {name}", item)) for name, item in pairs)
        if numbers := {_sample(name): number for name, number in parsed if number is not None}:
            return numbers
    return {}


def _class_of_cls(where: str, item: Item) -> int:
    text = item.strip() if isinstance(item, bytes) else b""
    if not re.fullmatch(rb"[0-9]{1,6}", text):
        found = item.detail if isinstance(item, Rejected) else repr(text[:40])
        raise SourceError(f"{where}: {found}, expected a class number from 0 to {MAX_CLASS}; mend this member")
    return int(text)


def _class_of_json(where: str, item: Item) -> int | None:
    try:
        found = json.loads(item) if isinstance(item, bytes) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    number = found.get("label", found.get("cls"))
    if type(number) is not int:  # true is an int too
        return None
    return number if 0 <= number <= MAX_CLASS else None


def _sample(name: str) -> str:
    """Return the sample that a listed name belongs to: the name up to the first dot of the last part of its path."""
    archive, mark, member = name.partition("#")
    folder, slash, last = member.rpartition("/")
    return archive + mark + folder + slash + last.partition(".")[0]
