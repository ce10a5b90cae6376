"""How ``manifest.json`` is laid out: a member or a shard a line, so that a hundred thousand shards open in under a second.

The text is the canonical one of docs/format.md with line ends between members, and inside nothing else. So its digest
needs no second text, and a shard's chunk tables are parsed when somebody asks for them. Any other layout is read, too,
by `json`: 10^5 shards then take 2.2 s and 790 MB instead of 0.6 s and 220 MB (docs/benchmarks.md).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sbformat.records import ShardRecord

_DIGEST = re.compile(rb'\n"sha256":"([0-9a-f]{64})",\n')
_ROWS, _END = b'\n"shards":[\n', b"\n]"
_ROW = re.compile(
    rb'\{"bytes":(\d+),"count":(\d+),"datasets":(\{.*\}),"name":"([\w.-]+)","xxh3_128":"([0-9a-f]*)"\}(?:,\n)?'
)


def laid_out(data: dict[str, Any]) -> bytes:
    """Return what ``manifest.json`` holds where `data` are its values."""
    return (_members(data, {"splits": _splits}) + "\n").encode()


def spelled(content: bytes) -> bytes:
    """Return a manifest's values as sbprep spells them: this version, or where it is so already the versions before."""
    data = json.loads(content)
    indented = (json.dumps(data, indent=1) + "\n").encode()
    return content if content == indented else laid_out(data)


def read_laid_out(content: bytes) -> dict[str, Any] | None:
    """Return the values of a sound manifest in this layout, its shards as records; None: anything else.

    Parameters
    ----------
    content : bytes
        The whole file.
    """
    found = _DIGEST.search(content)
    if found is None or _digest_of_lines(content, found) != found[1].decode():
        return None
    skeleton, rows = [], []
    place = 0
    while (start := content.find(_ROWS, place)) >= 0:
        start += len(_ROWS)
        stop = content.find(_END, start - 1)
        shards = _records(content, start, stop)
        if shards is None:
            return None
        rows.append(shards)
        skeleton.append(content[place:start])
        place = max(stop, start)
    try:
        data: dict[str, Any] = json.loads(b"".join([*skeleton, content[place:]]))
        for split, shards in zip(data["splits"].values(), rows, strict=True):
            split["shards"] = shards
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return data


class Unparsed(Mapping[str, Any]):
    """The chunk tables of one shard, as they lie in the file: parsed whenever they are looked at."""

    __slots__ = ("_content", "_start", "_stop")

    def __init__(self, content: bytes, start: int, stop: int) -> None:
        self._content, self._start, self._stop = content, start, stop

    def _parsed(self) -> dict[str, Any]:
        tables: dict[str, Any] = json.loads(self._content[self._start : self._stop])
        return tables

    def __getitem__(self, name: str) -> Any:
        return self._parsed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())

    def __eq__(self, other: object) -> bool:
        return self._parsed() == (other._parsed() if isinstance(other, Unparsed) else other)

    def __hash__(self) -> int:
        return hash(self._content[self._start : self._stop])

    def __repr__(self) -> str:
        return repr(self._parsed())

    def __reduce__(self) -> tuple[Any, ...]:
        # Or every record would take the whole file along to another process.
        return dict, (self._parsed(),)


def _members(data: dict[str, Any], special: dict[str, Callable[[Any], str]]) -> str:
    lines = (f"{json.dumps(name)}:{special.get(name, _compact)(data[name])}" for name in sorted(data))
    return "{\n" + ",\n".join(lines) + "\n}"


def _splits(splits: dict[str, Any]) -> str:
    return _members(splits, dict.fromkeys(splits, lambda split: _members(split, {"shards": _rows})))


def _rows(shards: list[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(map(_compact, shards)) + "\n]"


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _digest_of_lines(content: bytes, without: re.Match[bytes]) -> str:
    """sha256 of `content` without line ends (JSON has none inside of strings) and without the member that was found."""
    digest, view = hashlib.sha256(), memoryview(content)
    for start, stop in ((0, without.start() + 1), (without.end(), len(content))):
        while start < stop:
            end = content.find(b"\n", start, stop)
            digest.update(view[start : stop if end < 0 else end])
            start = stop if end < 0 else end + 1
    return digest.hexdigest()


def _records(content: bytes, start: int, stop: int) -> list[ShardRecord] | None:
    """Return the shards of the rows between `start` and `stop`; None where one looks otherwise."""
    records, place = [], start
    for row in _ROW.finditer(content, start, stop):
        if row.start() != place:
            return None
        size, count, _, name, digest = row.groups()
        tables = Unparsed(content, *row.span(3))
        records.append(ShardRecord(name.decode(), int(count), int(size), digest.decode(), tables))
        place = row.end()
    return records if place == stop else None
