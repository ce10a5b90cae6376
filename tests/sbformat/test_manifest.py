"""manifest.json: written whole or not at all, read back the same, and any edit is found."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sbformat.errors import ManifestError, SchemaVersionError
from sbformat.manifest import (
    MANIFEST_NAME,
    ChunkTable,
    Manifest,
    ShardRecord,
    SplitManifest,
    json_digest,
    open_manifest,
    prepared_colorspaces,
)
from sbformat.schema import Colorspace, TargetSpec

TABLE = ChunkTable(rows=64, checksums="0123456789abcdef" * 2, offset=8192, stride=12288)
PACKED = ChunkTable(rows=70, checksums="f" * 16, offsets=(40_000,), sizes=(321,))


def record(number: int = 0, count: int = 70) -> ShardRecord:
    tables = {"image": TABLE.to_json(), "source_index": PACKED.to_json()}
    return ShardRecord(f"shard-{number:05d}.h5", count, 50_000 + number, "ab" * 16, tables)


def split(*shards: ShardRecord, label_kind: str | None = None) -> SplitManifest:
    return SplitManifest(
        source={"kind": "folder", "option": "train", "path": "fotos/größe", "fingerprint": "0" * 64},
        listed=200,
        rejected={"truncated": 60},
        label_kind=label_kind,
        files={"sources.txt": "1" * 64, "rejects.jsonl": "2" * 64},
        statistics={"mean": [1 / 3, 1e-7, 255.0]},
        shards=shards,
    )


def manifest(root: Path, colorspace: Colorspace = "lab") -> Manifest:
    folder = root / colorspace
    folder.mkdir()
    return Manifest(
        root=folder,
        colorspace=colorspace,
        image_size=8,
        target=TargetSpec(size=2),
        label_names=("cat", "dög"),
        recipe={"compression": "none", "seed": 0, "limit": None},
        provenance={"software": {"h5py": "3"}},
        splits={"unlabeled": split(record(0), record(1, 0)), "train": split(record(), label_kind="class")},
    )


def rewrite(path: Path, **changes: Any) -> None:
    """Change members of a manifest and give it the right digest again; None removes one."""
    data = {**json.loads(path.read_text()), **changes}
    body = {name: value for name, value in data.items() if name != "sha256" and value is not None}
    path.write_text(json.dumps({**body, "sha256": json_digest(body)}))


def descend(data: Any, trail: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values that are neither object nor list."""
    if isinstance(data, (dict, list)):
        items = data.items() if isinstance(data, dict) else enumerate(data)
        return [path for key, value in items for path in descend(value, (*trail, key))]
    return [trail]


# -------------------------------------------------------------------------------------------- write and read


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = manifest(tmp_path)
    written.write()

    assert Manifest.read(written.root) == written


def test_the_file_is_read_by_its_own_path_too(tmp_path: Path) -> None:
    written = manifest(tmp_path)
    written.write()

    assert Manifest.read(written.root / MANIFEST_NAME) == written


def test_the_same_manifest_gives_the_same_bytes(tmp_path: Path) -> None:
    written = manifest(tmp_path)
    written.write()
    first = (written.root / MANIFEST_NAME).read_bytes()
    Manifest.read(written.root).write()

    assert (written.root / MANIFEST_NAME).read_bytes() == first
    assert first.isascii()


def test_images_are_the_sum_over_the_shards() -> None:
    assert split(record(0, 70), record(1, 0), record(2, 4)).images == 74


@pytest.mark.parametrize(
    ("label_kind", "dtype", "row_shape"), [("class", np.dtype("<i4"), ()), ("attribute", np.dtype("u1"), (2,))]
)
def test_a_labeled_split_has_a_label_dataset(
    tmp_path: Path, label_kind: str, dtype: np.dtype, row_shape: tuple[int, ...]
) -> None:
    written = replace(manifest(tmp_path), splits={"train": split(record(), label_kind=label_kind)})
    label = written.datasets("train")["label"]

    assert (label.dtype, label.row_shape) == (dtype, row_shape)


def test_an_unlabeled_split_has_none(tmp_path: Path) -> None:
    assert "label" not in manifest(tmp_path).datasets("unlabeled")


def test_a_shard_lies_in_the_folder_of_its_split(tmp_path: Path) -> None:
    written = manifest(tmp_path)

    assert written.shard_path("train", record(3)) == tmp_path / "lab" / "train" / "shard-00003.h5"


# --------------------------------------------------------------------------------------------- damage and edits


def test_every_edit_of_a_value_is_found(tmp_path: Path) -> None:
    written = manifest(tmp_path)
    written.write()
    path = written.root / MANIFEST_NAME
    original = json.loads(path.read_text())
    for trail in descend(original):
        data = json.loads(path.read_text())
        owner = data
        for key in trail[:-1]:
            owner = owner[key]
        value = owner[trail[-1]]
        owner[trail[-1]] = f"{value}x" if isinstance(value, str) else 7 if value is None else value + 1
        edited = tmp_path / "edited.json"
        edited.write_text(json.dumps(data))

        with pytest.raises((ManifestError, SchemaVersionError), match=r"digest|format|schema"):
            Manifest.read(edited)


def test_a_flipped_bit_anywhere_is_found_or_changes_nothing(tmp_path: Path) -> None:
    written = manifest(tmp_path)
    written.write()
    path = written.root / MANIFEST_NAME
    content = path.read_bytes()
    missed = 0
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 2]) + content[place + 1 :])
        try:
            missed += Manifest.read(path) != written
        except (ManifestError, SchemaVersionError):
            continue

    assert missed == 0


def test_an_edit_is_told_with_both_digests_and_a_way_out(tmp_path: Path) -> None:
    written = manifest(tmp_path)
    written.write()
    path = written.root / MANIFEST_NAME
    path.write_text(path.read_text().replace('"listed":200', '"listed":201'))

    with pytest.raises(ManifestError, match=r"manifest\.json: its content has digest .*…, the file says .*--repair"):
        Manifest.read(path)


def test_white_space_and_order_of_members_do_not_matter(tmp_path: Path) -> None:
    written = manifest(tmp_path)
    written.write()
    path = written.root / MANIFEST_NAME
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))

    assert Manifest.read(path) == written


def test_a_missing_digest_is_an_error(tmp_path: Path) -> None:
    written = manifest(tmp_path)
    written.write()
    path = written.root / MANIFEST_NAME
    data = json.loads(path.read_text())
    del data["sha256"]
    path.write_text(json.dumps(data))

    with pytest.raises(ManifestError, match="the file says None"):
        Manifest.read(path)


def test_another_schema_is_refused_by_number(tmp_path: Path) -> None:
    written = manifest(tmp_path)
    written.write()
    rewrite(written.root / MANIFEST_NAME, schema=2)

    with pytest.raises(SchemaVersionError, match="schema 2, this version reads 1"):
        Manifest.read(written.root)


def test_json_of_another_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text('{"name": "something else"}')

    with pytest.raises(ManifestError, match="format None, expected 'splitbrain-shards'"):
        Manifest.read(tmp_path)


def test_a_missing_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json: missing. Build it: sbprep build"):
        Manifest.read(tmp_path / MANIFEST_NAME)


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": "splitb', b"\xff\xfe\x00", b"no json"])
def test_what_is_not_json_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content)

    with pytest.raises(ManifestError, match=r"manifest\.json: not readable as JSON"):
        Manifest.read(tmp_path)


def test_a_manifest_that_the_system_does_not_give_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).mkdir()

    with pytest.raises(ManifestError, match=r"manifest\.json: cannot be read \(Is a directory\). Permit reading it"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(("content", "kind"), [("[]", "list"), ("3", "int"), ("null", "NoneType")])
def test_json_that_is_no_object_is_refused(tmp_path: Path, content: str, kind: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(content)

    with pytest.raises(ManifestError, match=f"holds {kind}, expected a JSON object"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"splits": None},
        {"image_size": None},
        {"splits": []},
        {"splits": {"train": {"source": {}}}},
        {"target": {"size": 2}},
        {"target": {**TargetSpec().to_json(), "size": 0}},
        {"target": {**TargetSpec().to_json(), "stride": 1}},
        {"label_names": 3},
    ],
)
def test_a_digest_does_not_make_a_manifest(tmp_path: Path, changes: dict[str, Any]) -> None:
    written = manifest(tmp_path)
    written.write()
    rewrite(written.root / MANIFEST_NAME, **changes)

    with pytest.raises(ManifestError, match="not a manifest of schema 1"):
        Manifest.read(written.root)


def test_a_color_space_of_another_number_of_channels_is_refused(tmp_path: Path) -> None:
    written = manifest(tmp_path)
    written.write()
    rewrite(written.root / MANIFEST_NAME, colorspace="gray")

    with pytest.raises(
        ManifestError, match=r"colorspace 'gray', expected one of rgb, lab, .*three channels each\. Build"
    ):
        Manifest.read(written.root)


def test_members_that_nobody_knows_yet_are_passed_over(tmp_path: Path) -> None:
    written = manifest(tmp_path)
    written.write()
    rewrite(written.root / MANIFEST_NAME, comment="later")

    assert Manifest.read(written.root) == written


# -------------------------------------------------------------------------------------------------- finding one


def test_the_only_color_space_of_a_folder_is_opened(tmp_path: Path) -> None:
    written = manifest(tmp_path, "rgb")
    written.write()

    assert open_manifest(tmp_path) == written
    assert open_manifest(tmp_path, "rgb") == written
    assert open_manifest(tmp_path / "rgb") == written


def test_of_several_color_spaces_one_must_be_chosen(tmp_path: Path) -> None:
    manifest(tmp_path, "rescaled_lab").write()
    manifest(tmp_path, "rgb").write()

    with pytest.raises(ManifestError, match="holds rgb, rescaled_lab: choose one with --colorspace"):
        open_manifest(tmp_path)
    assert open_manifest(tmp_path, "rgb").colorspace == "rgb"
    assert prepared_colorspaces(tmp_path) == ["rgb", "rescaled_lab"]
