"""The file of finished shards: what it survives, what it refuses and who may hold it."""

import json
from pathlib import Path
from typing import Any

import pytest

from builds import HEADER, changed, largest_file
from sbformat.errors import BuildError, ManifestError, SchemaVersionError
from sbformat.manifest import ShardRecord
from sbprep.journal import Journal, ShardResult, all_locked, read_journal


def result(number: int = 0, count: int = 16) -> ShardResult:
    return ShardResult(
        split="train",
        number=number,
        record=ShardRecord(f"shard-{number:05d}.h5", count, 1000, "ab" * 16, {"image": {"rows": 64}}),
        rejects=[{"source_index": 3, "path": "ü\udcff\n.jpg", "code": "empty", "detail": "0 bytes"}],
        statistics={"images": count, "counts": {"label": [[0, 7]]}},
    )


def write(root: Path, *results: ShardResult, partition: tuple[int, int] | None = None) -> Path:
    journal = Journal(root, HEADER, partition)
    for one in results:
        journal.add(one)
    journal.close()
    return journal.path


def results_of(root: Path, header: dict[str, Any] = HEADER) -> dict[tuple[str, int], ShardResult]:
    journal = Journal(root, header, None)
    journal.close()
    return journal.results


def test_a_result_reads_back_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path, result(0), result(2))

    assert results_of(tmp_path) == {("train", 0): result(0), ("train", 2): result(2)}


def test_a_journal_goes_on_where_it_ended(tmp_path: Path) -> None:
    write(tmp_path, result(0))
    write(tmp_path, result(1))

    assert list(results_of(tmp_path)) == [("train", 0), ("train", 1)]


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_line_that_a_crash_cut_is_dropped_and_the_next_one_stands_alone(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path, result(0), result(1))
    path.write_bytes(path.read_bytes()[:-cut])
    write(tmp_path, result(2))

    assert list(results_of(tmp_path)) == [("train", 0), ("train", 2)]


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_line_that_does_not_fit_on_the_disk_leaves_the_next_one_alone(tmp_path: Path, room: int) -> None:
    path = write(tmp_path, result(0))
    journal = Journal(tmp_path, HEADER, None)
    with (
        largest_file(path.stat().st_size + room),
        pytest.raises(
            BuildError,
            match=r"journal.jsonl: cannot be written \(File too large\); .* MB are free there. Nothing already",
        ),
    ):
        journal.add(result(1))
    journal.add(result(2))
    journal.close()

    assert list(results_of(tmp_path)) == [("train", 0), ("train", 2)]


def test_a_journal_cut_within_its_first_line_begins_anew(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])

    assert read_journal(path) == (None, [])
    assert results_of(tmp_path) == {}
    assert read_journal(path)[0] is not None


def test_the_journals_of_other_partitions_count(tmp_path: Path) -> None:
    write(tmp_path, result(0), partition=(1, 2))
    write(tmp_path, result(1), partition=(2, 2))

    assert list(results_of(tmp_path)) == [("train", 0), ("train", 1)]


def test_a_journal_of_another_build_is_refused(tmp_path: Path) -> None:
    write(tmp_path)

    with pytest.raises(ManifestError, match="other options: seed 0 there, 3 asked for"):
        Journal(tmp_path, changed(recipe__seed=3), None)


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        (b'"schema":1', b'"schema":7', SchemaVersionError, "schema 7, this version reads 1"),
        (b'"splitbrain-shards"', b'"something-else"', ManifestError, "format 'something-else', expected"),
        (b'"recipe"', b'recipe"', ManifestError, "not a readable journal .* --overwrite"),
        (b'"split":"train"', b'"split":"train', ManifestError, "not a readable journal"),
        (b'"number":0', b'"nummer":0', ManifestError, "not a readable journal"),
        (b'"record":{', b'"record":[{}],"x":{', ManifestError, "not a readable journal"),
    ],
)
def test_a_journal_of_another_kind_is_refused_by_path(
    tmp_path: Path, old: bytes, new: bytes, error: type[Exception], message: str
) -> None:
    path = write(tmp_path, result(0))
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))

    with pytest.raises(error, match=f"{path}: {message}"):
        Journal(tmp_path, HEADER, None)


def test_a_journal_is_open_once_at_a_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path, HEADER, None)
    with pytest.raises(BuildError, match=r"another sbprep is building here. Wait for it, or use another --out"):
        Journal(tmp_path, HEADER, None)
    journal.close()

    Journal(tmp_path, HEADER, None).close()


def test_a_refused_journal_is_let_go(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ManifestError):
        Journal(tmp_path, changed(recipe__seed=3), None)

    Journal(tmp_path, HEADER, None).close()


def test_partitions_are_built_side_by_side(tmp_path: Path) -> None:
    first, second = Journal(tmp_path, HEADER, (1, 2)), Journal(tmp_path, HEADER, (2, 2))
    first.close()
    second.close()


@pytest.mark.parametrize(("first", "second"), [((1, 2), None), (None, (1, 2))])
def test_a_partition_and_the_whole_are_not_built_side_by_side(
    tmp_path: Path, first: tuple[int, int] | None, second: tuple[int, int] | None
) -> None:
    journal = Journal(tmp_path, HEADER, first)
    with pytest.raises(BuildError, match="another sbprep is building here"):
        Journal(tmp_path, HEADER, second)
    journal.close()

    Journal(tmp_path, HEADER, second).close()


def test_all_journals_are_locked_together(tmp_path: Path) -> None:
    write(tmp_path, partition=(1, 2))
    with all_locked(tmp_path), pytest.raises(BuildError, match=r"journal-1-of-2.jsonl: another sbprep"):
        Journal(tmp_path, HEADER, (1, 2))

    Journal(tmp_path, HEADER, (1, 2)).close()


def test_a_journal_says_on_its_first_line_what_is_built(tmp_path: Path) -> None:
    first, second = write(tmp_path, result(0)).read_text().splitlines()

    assert json.loads(first) == {"format": "splitbrain-shards", "schema": 1, **HEADER}
    assert json.loads(second)["number"] == 0
