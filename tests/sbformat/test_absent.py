"""Where there is nothing to read, the message says what is there instead and never what would build something else."""

import json
from pathlib import Path

import pytest

from sbformat.errors import ManifestError
from sbformat.manifest import Manifest, open_manifest
from sbformat.schema import Colorspace, TargetSpec

HEADER = {
    "sources": {"train": {"option": "train", "path": "birds/train"}, "val": {"option": "val", "path": "birds/val"}}
}


def message(root: Path, colorspace: str | None = None) -> str:
    with pytest.raises(ManifestError) as raised:
        open_manifest(root, colorspace)
    return str(raised.value)


def begin(folder: Path, name: str = "journal.jsonl", content: str | None = None) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(HEADER) + "\n" if content is None else content)


def test_a_folder_that_does_not_exist_is_said_not_to_exist_and_nothing_else(tmp_path: Path) -> None:
    text = message(tmp_path / "data_cahce")

    assert text == f"{tmp_path}/data_cahce: no such folder. Check the path; it is the --out of sbprep build"


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert message(tmp_path / "file").startswith(f"{tmp_path}/file: a file, expected the folder")


def test_a_folder_without_shards_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()

    assert message(tmp_path).startswith(f"{tmp_path}: no prepared shards here")
    assert message(tmp_path, "lab").startswith(f"{tmp_path}: no lab here")


def test_a_color_space_that_is_not_there_is_answered_with_those_that_are(manifests: Path) -> None:
    assert message(manifests, "rescaled_lab").startswith(
        f"{manifests}: no rescaled_lab here, it holds rgb, lab. Choose one of these with --colorspace"
    )
    assert message(manifests / "lab", "rgb").startswith(f"{manifests}/lab: no rgb here, it holds lab.")


@pytest.mark.parametrize("asked", [None, "lab"])
def test_an_unfinished_build_is_named_with_the_command_that_goes_on(tmp_path: Path, asked: str | None) -> None:
    begin(tmp_path / "lab")

    assert message(tmp_path, asked) == (
        f"{tmp_path}/lab: a build that is not finished. The command that began it goes on: "
        f"sbprep build --train birds/train --val birds/val --colorspace lab --out {tmp_path}, and its other options"
    )
    assert message(tmp_path / "lab") == message(tmp_path)


@pytest.mark.parametrize("content", ["", '{"sour', "[]\n", '{"sources": 3}\n'])
def test_a_journal_that_cannot_be_read_is_an_unfinished_build_all_the_same(tmp_path: Path, content: str) -> None:
    begin(tmp_path / "lab", content=content)

    assert "sbprep build --colorspace lab --out" in message(tmp_path)


def test_partitions_that_are_not_merged_are_named_with_the_command_that_joins_them(tmp_path: Path) -> None:
    for i in (1, 3):
        begin(tmp_path / "rgb", f"journal-{i}-of-3.jsonl")

    assert message(tmp_path) == (
        f"{tmp_path}/rgb: partitions of a build, not merged yet (2 of 3 begun). "
        f"When all are done: sbprep merge {tmp_path}"
    )


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """Return a folder that holds rgb and lab."""
    colorspaces: tuple[Colorspace, ...] = ("rgb", "lab")
    for colorspace in colorspaces:
        (tmp_path / colorspace).mkdir()
        Manifest(
            root=tmp_path / colorspace,
            colorspace=colorspace,
            image_size=8,
            target=TargetSpec(size=2),
            label_names=(),
            recipe={},
            provenance={},
            splits={},
        ).write()
    return tmp_path
