"""How a manifest lies in its file: one shard a line, read without parsing what nobody asks for."""

import json
import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from sbformat.errors import FormatError
from sbformat.layout import Unparsed, laid_out, read_laid_out, spelled
from sbformat.manifest import MANIFEST_NAME, Manifest, json_digest


@pytest.fixture
def content(prepared: Manifest) -> bytes:
    return (prepared.root / MANIFEST_NAME).read_bytes()


def test_a_shard_is_a_line_and_a_member_is_a_line(prepared: Manifest, content: bytes) -> None:
    lines = content.decode().splitlines()

    assert sum(line.startswith('{"bytes":') for line in lines) == len(prepared.splits["train"].shards)
    assert '"schema":1,' in lines
    assert lines.index('"shards":[') < lines.index("],")


def test_without_its_line_ends_and_digest_it_is_the_canonical_text(content: bytes) -> None:
    data = json.loads(content)
    digest = data.pop("sha256")
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))

    assert content.replace(f'"sha256":"{digest}",'.encode(), b"").replace(b"\n", b"").decode() == canonical


def test_tables_are_parsed_when_they_are_asked_for_and_are_those_that_were_written(content: bytes) -> None:
    data, plain = read_laid_out(content), json.loads(content)
    assert data is not None
    read, written = data["splits"]["train"]["shards"], plain["splits"]["train"]["shards"]

    assert [type(record.datasets) for record in read] == [Unparsed] * 3
    assert [record.to_json() for record in read] == written
    assert read[0].datasets == written[0]["datasets"]
    assert read[0] == pickle.loads(pickle.dumps(read[0]))
    assert len(pickle.dumps(read[0])) < len(content) / 2


def test_any_other_layout_is_read_the_long_way_to_the_same_manifest(prepared: Manifest, tmp_path: Path) -> None:
    data = json.loads((prepared.root / MANIFEST_NAME).read_bytes())
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(data, indent=1) + "\n")

    assert read_laid_out((tmp_path / MANIFEST_NAME).read_bytes()) is None
    assert replace(Manifest.read(tmp_path), root=prepared.root) == Manifest.read(prepared.root)


def test_the_spelling_of_earlier_versions_stays_as_it_is(content: bytes) -> None:
    indented = (json.dumps(json.loads(content), indent=1) + "\n").encode()

    assert spelled(content) == content
    assert spelled(indented) == indented
    assert spelled(indented.replace(b"  ", b" ")) == content


def test_a_manifest_without_shards_of_a_split_is_read(prepared: Manifest, tmp_path: Path) -> None:
    data = prepared.to_json()
    data["splits"]["train"] |= {"shards": [], "images": 0}
    del data["sha256"]
    (tmp_path / MANIFEST_NAME).write_bytes(laid_out({**data, "sha256": json_digest(data)}))

    assert Manifest.read(tmp_path).splits["train"].shards == ()


def test_every_flipped_bit_is_found(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / MANIFEST_NAME
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(FormatError):
            Manifest.read(path)


def test_a_large_manifest_takes_little_more_memory_than_its_file(prepared: Manifest, tmp_path: Path) -> None:
    split = prepared.splits["train"]
    written = replace(prepared, root=tmp_path, splits={"train": replace(split, shards=split.shards[:1] * 20_000)})
    written.write()
    size = (tmp_path / MANIFEST_NAME).stat().st_size
    tracemalloc.start()
    read = Manifest.read(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(read.splits["train"].shards) == 20_000
    assert peak < size + 20_000 * 600
