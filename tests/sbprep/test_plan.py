"""What a build will do: shards, their order, their bytes and what its journal says about the images."""

import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from builds import small_config, small_plan, tree, write_image, write_images
from sbformat.errors import BuildError
from sbformat.permutation import permute
from sbformat.schema import TargetSpec
from sbprep import plan as planning
from sbprep.disk import check_room
from sbprep.pipeline import build
from sbprep.plan import group_units, make_plan, provenance


def test_shards_are_slices_of_the_permuted_listing(photos: Path) -> None:
    plan = small_plan(photos, seed=5)
    units = [plan.unit("train", number) for number in range(3)]

    assert [len(unit.rows) for unit in units] == [16, 16, 8]
    assert np.array_equal(np.concatenate([unit.rows for unit in units]), permute(np.arange(40), 40, 5))
    names = plan.splits["train"].listing.names
    assert units[1].part.names == [names[row] for row in units[1].rows]


def test_another_seed_is_another_order(photos: Path) -> None:
    assert small_plan(photos, seed=1).unit("train", 0).part.names != small_plan(photos).unit("train", 0).part.names


def test_every_shard_is_listed_once_split_by_split(tmp_path: Path) -> None:
    write_images(tmp_path, 20, "val")
    write_images(tmp_path, 5, "train")

    assert small_plan(tmp_path).keys() == [("train", 0), ("val", 0), ("val", 1)]


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 8])
def test_partitions_share_the_shards_out_evenly(photos: Path, parts: int) -> None:
    whole = small_plan(photos, images_per_shard=7)
    own = [small_plan(photos, images_per_shard=7, partition=(i, parts)).own_keys() for i in range(1, parts + 1)]

    assert sorted(key for keys in own for key in keys) == whole.keys() == whole.own_keys()
    assert max(map(len, own)) - min(map(len, own)) <= 1


def test_a_limit_keeps_so_many_images_of_each_split_and_their_order(tmp_path: Path) -> None:
    write_images(tmp_path, 20, "val")
    write_images(tmp_path, 5, "train")
    whole, limited = small_plan(tmp_path), small_plan(tmp_path, limit=6)

    assert [len(limited.splits[name].listing) for name in ("train", "val")] == [5, 6]
    names = whole.splits["val"].listing.names
    kept = limited.splits["val"].listing.names
    assert kept == [name for name in names if name in set(kept)]


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 32},
        {"image_size": 48, "images_per_shard": 20, "limit": 20, "target": TargetSpec(size=12, dual=25)},
        {"image_size": 96, "images_per_shard": 1, "limit": 2},
    ],
)
def test_the_predicted_bytes_are_those_of_the_build_to_a_percent(
    photos: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    config = small_config(photos, tmp_path, "rgb", "rescaled_lab", **options)
    plan = make_plan(config)
    build(config)
    for colorspace in config.colorspaces:
        predicted = sum(plan.shard_bytes(*key, colorspace) for key in plan.keys())
        real = sum(path.stat().st_size for path in (tmp_path / colorspace).rglob("*.h5"))

        assert abs(predicted - real) <= 0.01 * real


def test_a_listing_is_one_line_an_image_whatever_the_names(tmp_path: Path) -> None:
    for name in ("a\nb.png", "c\\d.png", "e\rf.png", "ü漢.png", "plain.png"):
        write_image(tmp_path / "x" / name)
    written = small_plan(tmp_path).source_listing("unlabeled")

    assert written.decode().split("\n") == [
        "x/a\\nb.png",
        "x/c\\\\d.png",
        "x/e\\rf.png",
        "x/plain.png",
        "x/ü漢.png",
        "",
    ]


def test_a_name_that_is_no_text_keeps_its_bytes(tmp_path: Path) -> None:
    plain = write_image(tmp_path / "x.png")
    plain.rename(Path(f"{tmp_path}/\udcff.png"))  # the byte 0xff, as Python spells it

    assert small_plan(tmp_path).source_listing("unlabeled") == b"\xff.png\n"


@pytest.mark.parametrize("field", ["names", "sizes", "labels"])
def test_the_fingerprint_changes_with_every_part_of_the_listing(photos: Path, field: str) -> None:
    plan = small_plan(photos)
    split = plan.splits["train"]
    value = getattr(split.listing, field)
    changed = [*value[:-1], "other.png"] if field == "names" else np.concatenate([value[:-1], value[-1:] + 1])
    other = replace(plan, splits={"train": replace(split, listing=replace(split.listing, **{field: changed}))})

    before, after = (p.header("rgb")["sources"]["train"] for p in (plan, other))
    assert before["fingerprint"] != after["fingerprint"]
    assert before["dates"] == after["dates"]


def test_a_touched_file_changes_the_dates_and_nothing_else(photos: Path) -> None:
    plan = small_plan(photos)
    split = plan.splits["train"]
    stamps = split.listing.stamps.copy()
    stamps[7] += 1
    other = replace(plan, splits={"train": replace(split, listing=replace(split.listing, stamps=stamps))})

    before, after = (p.header("rgb")["sources"]["train"] for p in (plan, other))
    assert {name for name in before if before[name] != after[name]} == {"dates"}


def test_a_compressed_archive_is_read_in_as_few_passes_as_may_be_put_aside(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "photos.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(photos, ".")
    plan = small_plan(archive, images_per_shard=5)
    units = [plan.unit(*key) for key in plan.keys()]

    assert [len(group) for group in group_units(plan, units)] == [8]
    monkeypatch.setattr(planning, "PASS_BYTES", int(plan.splits["train"].listing.sizes.sum()) // 3 + 1)
    assert [len(group) for group in group_units(plan, units)] == [3, 3, 2]
    assert [len(group) for group in group_units(small_plan(photos), units)] == [1] * 8


def test_a_pass_makes_no_more_shards_than_a_kill_may_lose(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((70, 16, 16, 3), np.uint8))
    plan = small_plan(tmp_path / "a.npz", images_per_shard=1)

    assert [len(group) for group in group_units(plan, [plan.unit(*key) for key in plan.keys()])] == [24, 23, 23]


def test_a_compressed_npz_is_read_in_as_few_passes_as_a_tar(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((40, 16, 16, 3), np.uint8))
    plan = small_plan(tmp_path / "a.npz", images_per_shard=5, workers=2)

    assert [len(group) for group in group_units(plan, [plan.unit(*key) for key in plan.keys()])] == [4, 4]


def test_passes_put_aside_at_most_what_the_shards_leave_of_the_disk_and_a_shard_at_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((40, 16, 16, 3), np.uint8))
    plan = small_plan(tmp_path / "a.npz", images_per_shard=5)
    units = [plan.unit(*key) for key in plan.keys()]
    shards = sum(plan.shard_bytes(*key, "rgb") for key in plan.keys())
    # Half of what is free is more than what the shards leave, but for the last.
    for left, groups in ((20 * 768, [4, 4]), (10 * 768, [2, 2, 2, 2]), (0, [1] * 8), (9 * shards, [8])):
        free = shards + left
        monkeypatch.setattr(planning, "free_bytes", lambda path, free=free: free)

        assert [len(group) for group in group_units(plan, units)] == groups


def test_room_is_needed_for_what_a_pass_puts_aside_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sbprep.disk.IN_MEMORY", 1000)
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((12, 16, 16, 3), np.uint8))
    plan = small_plan(tmp_path / "a.npz", images_per_shard=5, workers=2)
    missing = {"rgb": set(plan.keys())}
    needed = sum(plan.shard_bytes(*key, "rgb") for key in plan.keys())
    aside = 2 * 5 * 768

    for free, fits in ((needed + aside, True), (needed + aside - 1, False)):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        if fits:
            assert check_room(plan, missing) == needed
        else:
            with pytest.raises(
                BuildError, match=r"and temporary files of compressed images 0.0 MB, .* fewer --workers"
            ):
                check_room(plan, missing)


def test_provenance_names_convention_and_software_that_decide_the_bytes() -> None:
    assert provenance("rgb")["color"]["channels"] == ["R", "G", "B"]
    assert "white" not in provenance("rgb")["color"]
    assert provenance("lab")["color"]["stored_scale"] == [2.55, 1.0, 1.0]
    assert provenance("rescaled_lab")["color"]["constant_span"] > 0
    software = provenance("lab")["software"]
    assert list(software) == ["sbprep", "opencv", "simplejpeg", "h5py", "zstandard"]
    assert all(software.values())


def test_a_plan_writes_nothing(photos: Path, tmp_path: Path) -> None:
    make_plan(small_config(photos, tmp_path / "out", "lab", overwrite=True))

    assert tree(tmp_path) == {}
    assert not (tmp_path / "out").exists()
