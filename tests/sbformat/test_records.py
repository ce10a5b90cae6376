"""Where the chunks of a shard lie, and their checksums."""

import json

import pytest

from sbformat.records import ChunkTable

TABLE = ChunkTable(rows=64, checksums="0123456789abcdef" * 2, offset=8192, stride=12288)
PACKED = ChunkTable(rows=70, checksums="f" * 16, offsets=(40_000,), sizes=(321,))


@pytest.mark.parametrize("table", [TABLE, PACKED])
def test_a_chunk_table_survives_json(table: ChunkTable) -> None:
    assert ChunkTable.from_json(json.loads(json.dumps(table.to_json()))) == table


def test_chunks_lie_one_stride_apart() -> None:
    assert [TABLE.extent(chunk, 192) for chunk in range(len(TABLE))] == [(8192, 12288), (20480, 12288)]
    assert not TABLE.compressed


def test_compressed_chunks_lie_where_they_say() -> None:
    assert PACKED.extent(0, 8) == (40_000, 321)
    assert PACKED.compressed


def test_each_chunk_has_its_own_checksum() -> None:
    table = ChunkTable(rows=1, checksums="".join(f"{k:016x}" for k in range(5)))

    assert [table.checksum(chunk) for chunk in range(len(table))] == [f"{k:016x}" for k in range(5)]
