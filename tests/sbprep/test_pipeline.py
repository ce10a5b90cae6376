"""A build gives the same bytes however it is run, in the order that the permutation says, and counts what it rejects."""

import json
import os
import tarfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builds import (
    SMALL_OPTIONS,
    rows,
    run_sbprep,
    small_build,
    small_config,
    small_manifest,
    small_plan,
    sources,
    tree,
    unfinished,
    write_images,
)
from sbformat.errors import BuildError
from sbformat.manifest import Manifest
from sbformat.permutation import permute
from sbprep.disk import check_room
from sbprep.pipeline import build, run_plan
from sbprep.plan import make_plan
from sbprep.progress import Progress
from sbprep.seal import merge

COLORSPACES = ("rgb", "lab", "rescaled_lab")


@pytest.fixture(scope="module")
def in_three_spaces(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return every file of an undisturbed build of three color spaces in one pass, one worker."""
    out = tmp_path_factory.mktemp("reference")
    small_build(photos, out, *COLORSPACES)
    return tree(out)


# The same bytes


@pytest.mark.parametrize("order", [("rescaled_lab",), ("lab", "rgb"), ("lab",)])
def test_color_spaces_come_out_alike_together_and_one_by_one(
    photos: Path, tmp_path: Path, in_three_spaces: dict[str, str], order: tuple[str, ...]
) -> None:
    small_build(photos, tmp_path, *order)

    assert tree(tmp_path) == {path: digest for path, digest in in_three_spaces.items() if path.split("/")[0] in order}


def test_a_color_space_added_later_comes_out_alike(
    photos: Path, tmp_path: Path, in_three_spaces: dict[str, str]
) -> None:
    small_build(photos, tmp_path, "lab")
    outcome = small_build(photos, tmp_path, *COLORSPACES)

    assert outcome.made == 3
    assert tree(tmp_path) == in_three_spaces


@pytest.mark.parametrize("workers", [2, 5])
def test_threads_give_the_same_bytes(
    photos: Path, tmp_path: Path, in_three_spaces: dict[str, str], workers: int
) -> None:
    small_build(photos, tmp_path, *COLORSPACES, workers=workers, backend="threading")

    assert tree(tmp_path) == in_three_spaces


@pytest.mark.jit
def test_processes_give_the_same_bytes(photos: Path, tmp_path: Path, in_three_spaces: dict[str, str]) -> None:
    small_build(photos, tmp_path, *COLORSPACES, workers=2)

    assert tree(tmp_path) == in_three_spaces


def test_partitions_give_the_same_bytes(photos: Path, tmp_path: Path, in_three_spaces: dict[str, str]) -> None:
    for part in (2, 3, 1):
        outcome = small_build(photos, tmp_path, *COLORSPACES, partition=(part, 3))
        assert outcome.manifests == dict.fromkeys(COLORSPACES)
    merge(tmp_path)

    assert tree(tmp_path) == in_three_spaces


def test_a_build_of_the_whole_goes_on_where_partitions_stopped(
    photos: Path, tmp_path: Path, in_three_spaces: dict[str, str]
) -> None:
    small_build(photos, tmp_path, *COLORSPACES, partition=(2, 3))
    outcome = small_build(photos, tmp_path, *COLORSPACES)

    assert outcome.made == 2
    assert tree(tmp_path) == in_three_spaces


@pytest.mark.jit
def test_any_processor_gives_the_same_bytes(photos: Path, tmp_path: Path, in_three_spaces: dict[str, str]) -> None:
    spaces = [text for name in COLORSPACES for text in ("--colorspace", name)]
    result = run_sbprep(
        "build", "--source", photos, *spaces, "--out", tmp_path, *SMALL_OPTIONS, "--workers", "1",
        NUMBA_CPU_NAME="generic",
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert tree(tmp_path) == in_three_spaces


def test_compressed_shards_are_the_same_every_time_and_hold_the_same_images(
    photos: Path, prepared: Manifest, tmp_path: Path
) -> None:
    first = small_manifest(photos, tmp_path / "one", compression="zstd")
    small_build(photos, tmp_path / "two", compression="zstd", workers=2, backend="threading")

    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    for dataset in first.datasets("train"):
        assert np.array_equal(rows(first, "train", dataset), rows(prepared, "train", dataset))


def test_an_archive_gives_the_images_of_its_folder(photos: Path, prepared: Manifest, tmp_path: Path) -> None:
    for suffix in ("tar", "tar.gz"):
        archive = tmp_path / f"photos.{suffix}"
        with tarfile.open(archive, f"w:{suffix.partition('.')[2]}") as tar:
            tar.add(photos, ".")
        manifest = small_manifest(archive, tmp_path / suffix)

        for dataset in ("image", "label", "source_index"):
            assert np.array_equal(rows(manifest, "train", dataset), rows(prepared, "train", dataset))


# Order


def test_images_lie_in_the_order_of_the_permutation(prepared: Manifest) -> None:
    assert rows(prepared, "train", "source_index").tolist() == permute(np.arange(40), 40, 0).tolist()


def test_a_reject_shifts_no_other_shard(own_photos: Path, prepared: Manifest, tmp_path: Path) -> None:
    unit = small_plan(own_photos).unit("train", 1)
    bad = own_photos / unit.part.names[5]
    bad.write_bytes(b"x" * bad.stat().st_size)
    manifest = small_manifest(own_photos, tmp_path / "out")
    before, after = tree(prepared.root), tree(manifest.root)

    assert {name for name in before if before[name] != after[name]} == {
        ".manifest.copy.json",
        "manifest.json",
        "train/rejects.jsonl",
        "train/shard-00001.h5",
    }
    expected = np.delete(permute(np.arange(40), 40, 0), 16 + 5)
    assert rows(manifest, "train", "source_index").tolist() == expected.tolist()


def test_splits_are_permuted_each_by_itself(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 20, "train")
    write_images(tmp_path / "photos", 7, "val")
    manifest = small_manifest(tmp_path / "photos", tmp_path / "out", seed=3)

    for split, count in (("train", 20), ("val", 7)):
        assert rows(manifest, split, "source_index").tolist() == permute(np.arange(count), count, 3).tolist()


def test_a_limited_build_counts_in_its_own_listing(photos: Path, tmp_path: Path) -> None:
    manifest = small_manifest(photos, tmp_path, limit=11)
    listing = sources(manifest, "train")

    assert len(listing) == manifest.splits["train"].listed == 11
    names = [listing[row].split("/")[1] for row in rows(manifest, "train", "source_index")]
    assert names == [manifest.label_names[label] for label in rows(manifest, "train", "label")]


# Rejects


def spoil(photos: Path, count: int, shard: int = 1) -> list[str]:
    """Empty so many images of one shard."""
    names = list(small_plan(photos).unit("train", shard).part.names[:count])
    for name in names:
        (photos / name).write_bytes(b"")
    return names


def test_a_build_that_may_have_no_reject_stops_at_the_first_and_keeps_the_rest(
    own_photos: Path, prepared: Manifest, tmp_path: Path
) -> None:
    (name,) = spoil(own_photos, 1)
    for _ in range(2):
        with pytest.raises(
            BuildError, match=rf"{name}: empty \(0 bytes\). 1 rejected so far, --on-error fail allows 0"
        ):
            small_build(own_photos, tmp_path, on_error="fail")

    assert unfinished(tmp_path) == ["journal.jsonl"]
    assert not (tmp_path / "rgb/train/shard-00001.h5").exists()
    assert small_manifest(own_photos, tmp_path).splits["train"].rejected == {"empty": 1}
    assert (tmp_path / "rgb/train/shard-00002.h5").read_bytes() == (prepared.root / "train/shard-00002.h5").read_bytes()
    assert unfinished(tmp_path) == []


def test_rejects_are_counted_over_all_calls_of_a_build(own_photos: Path, tmp_path: Path) -> None:
    spoil(own_photos, 2, shard=0)
    spoil(own_photos, 2, shard=1)
    small_build(own_photos, tmp_path, on_error="limit=2", partition=(1, 3))

    with pytest.raises(BuildError, match="4 rejected so far, --on-error limit=3 allows 3"):
        small_build(own_photos, tmp_path, on_error="limit=3")
    assert not (tmp_path / "rgb/train/shard-00001.h5").exists()
    assert small_build(own_photos, tmp_path, on_error="limit=4").manifests["rgb"] is not None


def test_an_image_is_one_reject_whatever_the_number_of_color_spaces(own_photos: Path, tmp_path: Path) -> None:
    spoil(own_photos, 2)
    small_build(own_photos, tmp_path, *COLORSPACES, on_error="limit=2")

    assert len({(tmp_path / name / "train/rejects.jsonl").read_bytes() for name in COLORSPACES}) == 1


def test_a_reject_is_one_line_with_place_reason_and_shard(own_photos: Path, tmp_path: Path) -> None:
    (name,) = spoil(own_photos, 1)
    manifest = small_manifest(own_photos, tmp_path)

    assert json.loads((manifest.root / "train/rejects.jsonl").read_text()) == {
        "source_index": sources(manifest, "train").index(name),
        "path": name,
        "code": "empty",
        "detail": "0 bytes",
        "shard": "shard-00001.h5",
    }


# Images that change


def test_an_image_added_while_a_build_waits_to_go_on_is_noticed(own_photos: Path, tmp_path: Path) -> None:
    small_build(own_photos, tmp_path / "out", partition=(1, 3))
    write_images(own_photos, 41)

    with pytest.raises(
        Exception, match=r": 40 then, 41 now; --limit counts too\).* bring the images back and run the command again"
    ):
        small_build(own_photos, tmp_path / "out")


def test_an_image_written_anew_while_a_build_waits_to_go_on_is_noticed(own_photos: Path, tmp_path: Path) -> None:
    small_build(own_photos, tmp_path / "out", partition=(1, 3))
    path = next(own_photos.rglob("*.png"))
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))

    with pytest.raises(Exception, match="images of split train have changed since this was begun"):
        small_build(own_photos, tmp_path / "out")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert small_build(own_photos, tmp_path / "out").made == 2


def test_images_that_go_or_grow_after_listing_are_rejected(own_photos: Path, tmp_path: Path) -> None:
    plan = make_plan(small_config(own_photos, tmp_path))
    gone, grown, replaced = plan.splits["train"].listing.names[:3]
    (own_photos / gone).unlink()
    with (own_photos / grown).open("ab") as file:
        file.write(b"more")
    (own_photos / replaced).unlink()
    (own_photos / replaced).mkdir()
    manifest = run_plan(plan).manifests["rgb"]
    assert manifest is not None
    entries = [json.loads(line) for line in (manifest.root / "train/rejects.jsonl").read_text().splitlines()]

    assert {entry["path"]: entry["code"] for entry in entries} == {
        gone: "vanished",
        grown: "changed",
        replaced: "unreadable",
    }
    assert manifest.splits["train"].images == 37


# Room, progress, failures


class Disk:
    def __init__(self, free: int) -> None:
        self.free = free


def test_a_disk_that_is_too_small_is_refused_before_anything_is_made(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(photos, tmp_path / "deep/out", *COLORSPACES)
    plan = make_plan(config)
    missing = {name: set(plan.keys()) for name in COLORSPACES}
    needed = check_room(plan, missing)
    monkeypatch.setattr("shutil.disk_usage", lambda path: Disk(needed - 1))

    with pytest.raises(BuildError, match=r"the shards need 0.5 MB, the disk has 0.5 MB free. Make room, choose"):
        build(config)
    assert list(tmp_path.rglob("*.h5")) == []
    monkeypatch.setattr("shutil.disk_usage", lambda path: Disk(needed))
    assert build(config).made == 3


def test_only_what_is_missing_needs_room(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_build(photos, tmp_path, partition=(1, 3))
    plan = make_plan(small_config(photos, tmp_path))
    needed = check_room(plan, {"rgb": set(plan.keys()[1:])})
    monkeypatch.setattr("shutil.disk_usage", lambda path: Disk(needed))

    assert small_build(photos, tmp_path).made == 2


def test_progress_goes_from_nothing_to_everything_of_this_call(own_photos: Path, tmp_path: Path) -> None:
    spoil(own_photos, 2, shard=0)
    small_build(own_photos, tmp_path, partition=(2, 3))
    seen: list[Progress] = []
    build(small_config(own_photos, tmp_path, "rgb", "lab"), seen.append)

    # A shard may be under way while the one before it is reported.
    assert list(dict.fromkeys((p.images, p.total, p.shards, p.total_shards, p.rejected) for p in seen)) == [
        (0, 40, 0, 3, 0),
        (16, 40, 1, 3, 2),
        (32, 40, 2, 3, 2),
        (40, 40, 3, 3, 2),
    ]


def test_a_failing_report_leaves_nothing_half_made(photos: Path, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.shards == 1:
            raise KeyboardInterrupt

    for backend in ("loky", "threading"):
        with pytest.raises(KeyboardInterrupt):
            build(
                small_config(photos, tmp_path / backend, workers=2 if backend == "threading" else 1, backend=backend),
                stop,
            )

        assert unfinished(tmp_path / backend) == ["journal.jsonl"]
        journal = (tmp_path / backend / "rgb" / "journal.jsonl").read_text().splitlines()
        shards = list((tmp_path / backend).rglob("*.h5"))
        assert len(shards) == len(journal) - 1 >= 1
        assert small_build(photos, tmp_path / backend).made == 3 - len(shards)
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name and not thread.daemon]


def test_a_failing_thread_ends_the_build_with_its_error(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "rgb/train/shard-00001.h5").mkdir(parents=True)  # cannot be replaced by a file

    with pytest.raises(BuildError, match=r"shard-00001.h5: cannot be written \(.*Is a directory"):
        small_build(photos, tmp_path, workers=2, backend="threading")
    assert unfinished(tmp_path) == ["journal.jsonl"]


@pytest.mark.parametrize("options", [{"resize": "squash"}, {"seed": 9}, {"limit": 20}, {"images_per_shard": 7}])
def test_an_option_of_the_recipe_decides_the_bytes(
    photos: Path, prepared: Manifest, tmp_path: Path, options: dict[str, Any]
) -> None:
    manifest = small_manifest(photos, tmp_path, **options)

    assert {**manifest.recipe, **options} == manifest.recipe
    assert tree(manifest.root) != tree(prepared.root)
