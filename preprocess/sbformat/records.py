"""One shard as the manifest tells of it: name, images, size, digest, and where every chunk lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHECKSUM_HEX = 16  # digits of one xxh3_64


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """Where the chunks of one dataset lie in the shard file, and their checksums.

    Every chunk holds `rows` rows (the last one padded with zeros). Uncompressed chunks have one size and lie
    `stride` bytes apart; compressed ones have `offsets` and `sizes` of their own.
    """

    rows: int
    checksums: str
    """xxh3_64 of each chunk's bytes as they lie in the file, 16 hexadecimal digits each."""
    offset: int = 0
    stride: int = 0
    offsets: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()

    @property
    def compressed(self) -> bool:
        """True where chunks have sizes of their own."""
        return bool(self.sizes)

    def __len__(self) -> int:
        return len(self.checksums) // CHECKSUM_HEX

    def checksum(self, chunk: int) -> str:
        """Return the 16 hexadecimal digits of one chunk."""
        return self.checksums[chunk * CHECKSUM_HEX : (chunk + 1) * CHECKSUM_HEX]

    def extent(self, chunk: int, row_bytes: int) -> tuple[int, int]:
        """Return (offset, bytes) of one chunk in the file."""
        if self.compressed:
            return self.offsets[chunk], self.sizes[chunk]
        return self.offset + chunk * self.stride, self.rows * row_bytes

    def to_json(self) -> dict[str, Any]:
        """Return the fields that say something, as JSON values."""
        place: dict[str, Any] = (
            {"offsets": list(self.offsets), "sizes": list(self.sizes)}
            if self.compressed
            else {"offset": self.offset, "stride": self.stride}
        )
        return {"rows": self.rows, **place, "xxh3_64": self.checksums}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ChunkTable:
        """Inverse of `to_json`."""
        return cls(
            rows=data["rows"],
            checksums=data["xxh3_64"],
            offset=data.get("offset", 0),
            stride=data.get("stride", 0),
            offsets=tuple(data.get("offsets", ())),
            sizes=tuple(data.get("sizes", ())),
        )


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """One shard file: name, images, size, digest and chunk tables.

    A slice of which no image survived has `count` 0 and no file.
    """

    name: str
    count: int
    bytes: int
    xxh3_128: str
    """Of the whole file: finds damage outside the chunks as well."""
    datasets: Mapping[str, Any]
    """Dataset name -> `ChunkTable` as JSON: parsed by `chunks` when a shard is opened, as a manifest may hold 100,000."""

    def chunks(self, dataset: str) -> ChunkTable:
        """Return the chunk table of one dataset."""
        return ChunkTable.from_json(self.datasets[dataset])

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "name": self.name,
            "count": self.count,
            "bytes": self.bytes,
            "xxh3_128": self.xxh3_128,
            "datasets": dict(self.datasets),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ShardRecord:
        """Inverse of `to_json`."""
        return cls(data["name"], data["count"], data["bytes"], data["xxh3_128"], data["datasets"])
