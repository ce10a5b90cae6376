"""The folder of one color space: what is committed, sealed, merged and discarded, and what is left alone."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builds import (
    pixels_of,
    rows,
    small_build,
    small_config,
    small_manifest,
    small_plan,
    sources,
    tree,
    unfinished,
    write_image,
    write_images,
)
from sbformat.errors import BuildError, ManifestError, ShardError, SourceError
from sbformat.manifest import Manifest
from sbformat.schema import Colorspace, values_from_image
from sbprep.discard import clear_journals, discard
from sbprep.journal import Journal, read_journal
from sbprep.pipeline import build
from sbprep.plan import Plan
from sbprep.seal import merge
from sbprep.store import Store, Survey, survey

FOREIGN = ("notes.txt", "train/shard-list.h5", "train/.shard-00000.h5.swp", "train/.notes.tmp", ".shard-x.1.tmp")


def write_foreign(root: Path) -> None:
    for name in FOREIGN:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("somebody else's")


def partial_build(source: Path, out: Path, *parts: int, of: int = 3) -> Path:
    for part in parts:
        small_build(source, out, partition=(part, of))
    return out / "rgb"


# Sealing


def test_a_finished_folder_holds_manifest_listing_rejects_and_shards_and_nothing_else(prepared: Manifest) -> None:
    assert sorted(tree(prepared.root)) == [
        ".manifest.copy.json",
        "manifest.json",
        "train/rejects.jsonl",
        "train/shard-00000.h5",
        "train/shard-00001.h5",
        "train/shard-00002.h5",
        "train/sources.txt",
    ]


def test_the_manifest_reads_back_equal(prepared: Manifest) -> None:
    assert Manifest.read(prepared.root) == prepared


def test_statistics_are_those_of_the_stored_images(photos: Path, tmp_path: Path) -> None:
    manifest = small_build(photos, tmp_path, "rescaled_lab").manifests["rescaled_lab"]
    assert manifest is not None
    statistics = manifest.splits["train"].statistics
    image = rows(manifest, "train", "image").astype(np.float64)

    assert np.allclose(statistics["mean"], image.mean(axis=(0, 2, 3)), rtol=1e-12)
    assert np.allclose(statistics["std"], image.std(axis=(0, 2, 3)), rtol=1e-9)
    for name, classes in (("target_single", 100), ("target_dual", 100), ("label", 3)):
        counts = np.bincount(rows(manifest, "train", name).ravel(), minlength=classes)
        assert statistics[f"{name}_counts"] == counts.tolist()


def test_constant_images_are_counted(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 4)
    for number in range(3):
        Image.new("RGB", (16, 16), (90 + number,) * 3).save(tmp_path / f"photos/train/cat/gray{number}.png")
    manifest = small_build(tmp_path / "photos", tmp_path / "out", "rescaled_lab").manifests["rescaled_lab"]
    assert manifest is not None

    assert manifest.splits["train"].statistics["constant_images"] == 3
    assert manifest.splits["train"].statistics["constant_channels"] == [3, 3, 3]


def test_labels_and_source_index_belong_to_the_images_beside_them(prepared: Manifest) -> None:
    listing = sources(prepared, "train")
    index, label = rows(prepared, "train", "source_index"), rows(prepared, "train", "label")
    image = values_from_image(rows(prepared, "train", "image"), "rgb")

    assert sorted(index.tolist()) == list(range(40))
    for row in range(40):
        name = listing[index[row]]
        assert prepared.label_names[label[row]] == name.split("/")[1]
        assert np.array_equal(image[row].transpose(1, 2, 0), pixels_of(name.split("/")[-1]))


def test_a_shard_of_which_no_image_is_left_has_no_file(own_photos: Path, tmp_path: Path) -> None:
    unit = small_plan(own_photos).unit("train", 1)
    for name in unit.part.names:
        (own_photos / name).write_bytes(b"no image")
    manifest = small_manifest(own_photos, tmp_path / "out")
    split = manifest.splits["train"]

    assert [shard.count for shard in split.shards] == [16, 0, 8]
    assert not manifest.shard_path("train", split.shards[1]).exists()
    assert split.images == 24
    assert split.rejected == {"not_an_image": 16}
    assert small_build(own_photos, tmp_path / "out").made == 0


def test_a_split_of_which_no_image_is_left_is_an_error_with_the_first_reason(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 3)
    for path in (tmp_path / "photos").rglob("*.png"):
        path.write_bytes(b"")

    for _ in range(2):
        with pytest.raises(
            BuildError, match=r"split train: none of the 3 images could be used \(3 empty\). The first: "
        ):
            small_build(tmp_path / "photos", tmp_path / "out")
    assert not (tmp_path / "out/rgb/manifest.json").exists()


def test_a_manifest_that_came_before_its_journal_went_is_complete(photos: Path, tmp_path: Path) -> None:
    root = partial_build(photos, tmp_path, 1, 2, 3)
    journals = {path: path.read_bytes() for path in root.glob("journal*")}
    temporary = root / ".manifest.json.4711.tmp"
    merge(tmp_path)
    whole = tree(tmp_path)

    for again in (lambda: small_build(photos, tmp_path), lambda: merge(tmp_path)):
        for path, content in [*journals.items(), (temporary, b"half")]:
            path.write_bytes(content)
        again()
        assert tree(tmp_path) == whole


def test_a_build_that_another_one_overtook_makes_nothing_again(
    photos: Path, prepared: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(plan: Plan, colorspace: Colorspace) -> Survey:
        found = survey(plan, colorspace)
        monkeypatch.undo()
        small_build(photos, tmp_path)  # ends between the look and the lock
        return found

    monkeypatch.setattr("sbprep.store.survey", overtaken)
    store = Store(small_plan(photos, tmp_path), "rgb")

    assert store.missing == set()
    assert store.finish() == Manifest.read(tmp_path / "rgb")
    store.close()
    assert tree(tmp_path / "rgb") == tree(prepared.root)


# Merging


def test_merging_partitions_gives_what_one_build_gives(photos: Path, prepared: Manifest, tmp_path: Path) -> None:
    partial_build(photos, tmp_path, 3, 1, 2)

    assert merge(tmp_path)[0].to_json() == prepared.to_json()
    assert tree(tmp_path / "rgb") == tree(prepared.root)


def test_more_partitions_than_shards_merge_too(photos: Path, prepared: Manifest, tmp_path: Path) -> None:
    partial_build(photos, tmp_path, 1, 2, 3, 4, 5, of=5)
    merge(tmp_path)

    assert tree(tmp_path / "rgb") == tree(prepared.root)


def test_merging_names_the_shards_that_are_missing(photos: Path, tmp_path: Path) -> None:
    partial_build(photos, tmp_path, 1, 3)

    with pytest.raises(
        ManifestError, match=r"rgb: 1 of 3 shards are missing, those of 1 partition: 2/3. Run sbprep build"
    ):
        merge(tmp_path)
    small_build(photos, tmp_path, partition=(2, 3))
    assert merge(tmp_path)[0].splits["train"].images == 40


def test_of_partitions_of_several_numbers_those_are_named_of_which_fewest_lack(photos: Path, tmp_path: Path) -> None:
    for part in ((1, 3), (2, 3), (3, 4)):
        small_build(photos, tmp_path, images_per_shard=2, partition=part)

    with pytest.raises(ManifestError, match=r"those of 1 partition: 3/3\. Run"):
        merge(tmp_path)


def test_partitions_of_another_build_do_not_merge(photos: Path, tmp_path: Path) -> None:
    partial_build(photos, tmp_path, 1, of=2)
    partial_build(photos, tmp_path / "other", 2, of=2)
    path = tmp_path / "other/rgb/journal-2-of-2.jsonl"
    (tmp_path / "rgb" / path.name).write_text(path.read_text().replace('"seed":0', '"seed":1'))

    with pytest.raises(
        ManifestError, match=r"journal-2-of-2.jsonl: not a partition of the same build as .* seed 1 there, 0"
    ):
        merge(tmp_path)


def test_partitions_that_disagree_about_a_shard_do_not_merge(photos: Path, tmp_path: Path) -> None:
    root = partial_build(photos, tmp_path, 1, 2, 3)
    path = root / "journal-1-of-3.jsonl"
    header, line = path.read_text().splitlines()
    record = json.loads(line)
    record["record"]["xxh3_128"] = "0" * 32
    (root / "journal-1-of-9.jsonl").write_text(f"{header}\n{json.dumps(record)}\n")

    with pytest.raises(ManifestError, match="shard 0 was built twice with different content"):
        merge(tmp_path)


def test_merging_misses_a_shard_that_was_removed(photos: Path, tmp_path: Path) -> None:
    root = partial_build(photos, tmp_path, 1, 2, 3)
    (root / "train/shard-00001.h5").unlink()

    with pytest.raises(ShardError, match=r"shard-00001.h5: missing or cut, the journal lists it. Run the build again"):
        merge(tmp_path)


def test_there_is_nothing_to_merge_without_partitions(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"nothing to merge, no partition was built there"):
        merge(tmp_path)
    with pytest.raises(ManifestError, match=r"nowhere: no such folder"):
        merge(tmp_path / "nowhere")


def test_what_is_complete_is_merged_already(own_prepared: Manifest) -> None:
    assert merge(own_prepared.root.parent) == []


def test_merging_a_build_that_was_not_parted_says_how_it_goes_on(own_prepared: Manifest, photos: Path) -> None:
    root = partial_build(photos, own_prepared.root.parents[1] / "new", 1)
    (root / "journal-1-of-3.jsonl").rename(root / "journal.jsonl")

    with pytest.raises(ManifestError, match=r"2 of 3 shards are missing, its build is not finished. Run its command"):
        merge(root.parent)


def test_merging_names_every_partition_that_is_missing_over_all_splits(tmp_path: Path) -> None:
    write_images(write_images(tmp_path / "photos", 40), 40, "val")  # 3 shards each
    partial_build(tmp_path / "photos", tmp_path / "out", 1, 4, of=4)

    with pytest.raises(ManifestError, match=r"3 of 6 shards are missing, those of 2 partitions: 2/4, 3/4. Run"):
        merge(tmp_path / "out")


def test_journals_that_say_nothing_do_not_merge(tmp_path: Path) -> None:
    (tmp_path / "rgb").mkdir()
    (tmp_path / "rgb/journal-1-of-2.jsonl").touch()

    with pytest.raises(ManifestError, match="its journals are empty"):
        merge(tmp_path)


def test_merging_waits_for_nobody_and_disturbs_nobody(photos: Path, tmp_path: Path) -> None:
    root = partial_build(photos, tmp_path, 1, 2, 3)
    header, _ = read_journal(root / "journal-2-of-3.jsonl")
    assert header is not None
    journal = Journal(root, {name: header[name] for name in header if name not in ("format", "schema")}, (2, 3))
    before = tree(tmp_path)

    with pytest.raises(BuildError, match=r"journal-2-of-3.jsonl: another sbprep is building here"):
        merge(tmp_path)
    assert tree(tmp_path) == before
    journal.close()
    merge(tmp_path)


# What is left alone, and what is not


def test_overwriting_discards_what_a_build_left_and_nothing_else(photos: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 5, "test")
    small_build(tmp_path / "photos", tmp_path / "out")
    write_foreign(tmp_path / "out/rgb")
    small_build(photos, tmp_path / "out", overwrite=True)

    assert {*tree(tmp_path / "out/rgb")} == {
        *FOREIGN,
        ".manifest.copy.json",
        "manifest.json",
        *(f"train/{name}" for name in ("rejects.jsonl", "sources.txt")),
        *(f"train/shard-0000{number}.h5" for number in range(3)),
    }


def test_discarding_an_unfinished_build_leaves_an_empty_folder(photos: Path, tmp_path: Path) -> None:
    root = partial_build(photos, tmp_path, 2)
    (root / "train/.shard-00000.h5.4711.tmp").touch()
    (root / "train/.shard-00000.h5.4711.inflight").touch()
    discard(root)

    assert list(root.iterdir()) == []


def test_a_folder_in_which_somebody_builds_is_not_discarded(photos: Path, tmp_path: Path) -> None:
    root = partial_build(photos, tmp_path, 1)
    before = tree(tmp_path)
    store = Store(small_plan(photos, partition=(2, 3), out=tmp_path), "rgb")

    with pytest.raises(BuildError, match="another sbprep is building here"):
        discard(root)
    store.close()
    assert before.items() <= tree(tmp_path).items()


def test_left_overs_of_killed_builds_go_and_files_of_others_stay(photos: Path, tmp_path: Path) -> None:
    write_foreign(tmp_path / "rgb")
    ours = ("train/.shard-00002.h5.4711.tmp", "train/.shard-00002.h5.4711.inflight", "train/.sources.txt.4711.tmp")
    for name in (*ours, ".manifest.json.4711.tmp", "..manifest.copy.json.4711.tmp"):
        (tmp_path / "rgb" / name).touch()
    small_build(photos, tmp_path)

    assert unfinished(tmp_path) == sorted(Path(name).name for name in FOREIGN if Path(name).name.startswith("."))


def test_a_partition_leaves_the_unfinished_files_of_the_others_alone(photos: Path, tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / f"rgb/train/.shard-0000{number}.h5.4711.tmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    partial_build(photos, tmp_path, 2)

    assert unfinished(tmp_path) == [".shard-00000.h5.4711.tmp", ".shard-00002.h5.4711.tmp", "journal-2-of-3.jsonl"]


def test_clearing_journals_leaves_the_shards(own_prepared: Manifest) -> None:
    before = tree(own_prepared.root)
    (own_prepared.root / "journal-1-of-2.jsonl").touch()
    clear_journals(own_prepared.root)

    assert tree(own_prepared.root) == before


# A complete folder


def test_a_complete_folder_is_not_written_again(photos: Path, own_prepared: Manifest) -> None:
    before = {path: path.stat().st_mtime_ns for path in own_prepared.root.rglob("*")}
    outcome = small_build(photos, own_prepared.root.parent)

    assert outcome.made == 0
    assert outcome.manifests["rgb"] == own_prepared
    assert {path: path.stat().st_mtime_ns for path in own_prepared.root.rglob("*")} == before


@pytest.mark.parametrize("how", ["removed", "cut"])
def test_a_lost_shard_of_a_complete_folder_is_made_again(
    photos: Path, prepared: Manifest, own_prepared: Manifest, how: str
) -> None:
    path = own_prepared.root / "train/shard-00001.h5"
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])

    assert small_build(photos, own_prepared.root.parent).made == 1
    assert tree(own_prepared.root) == tree(prepared.root)


def test_a_lost_shard_that_comes_out_otherwise_is_not_committed(own_photos: Path, tmp_path: Path) -> None:
    manifest = small_manifest(own_photos, tmp_path / "out")
    before = tree(manifest.root)
    name = small_plan(own_photos).unit("train", 1).part.names[0]
    one = own_photos / name
    one.write_bytes(b"x" * one.stat().st_size)  # listed alike, for sizes and names are the same
    (manifest.root / "train/shard-00001.h5").unlink()

    with pytest.raises(BuildError, match=r"shard-00001.h5: made again it differs from what the manifest says"):
        small_build(own_photos, tmp_path / "out")
    del before["train/shard-00001.h5"]
    assert {name: digest for name, digest in tree(manifest.root).items() if "journal" not in name} == before


def test_a_complete_folder_outlives_an_upgrade_of_the_software(
    photos: Path, own_prepared: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sbformat.__version__", "99.0")

    assert small_build(photos, own_prepared.root.parent).made == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "seed 0 there, 1 asked for"),
        ({"compression": "zstd"}, "compression 'none' there, 'zstd' asked for"),
        ({"image_size": 24, "resize": "squash"}, "image_size 16 there, 24 asked for; resize 'crop' there, 'squash'"),
    ],
)
def test_a_complete_folder_is_not_mixed_with_another_build(
    photos: Path, own_prepared: Manifest, options: dict[str, object], message: str
) -> None:
    before = tree(own_prepared.root)

    with pytest.raises(ManifestError, match=message):
        small_build(photos, own_prepared.root.parent, **options)
    assert tree(own_prepared.root) == before


def test_a_complete_folder_of_other_images_is_an_error(own_photos: Path, tmp_path: Path) -> None:
    small_build(own_photos, tmp_path / "out")
    write_image(own_photos / "train/cat/new.png")

    with pytest.raises(
        SourceError, match=r"\(--source .*: 40 then, 41 now; --limit counts too\). A prepared set stays"
    ):
        small_build(own_photos, tmp_path / "out")


def test_a_copied_data_set_is_still_the_same(own_photos: Path, tmp_path: Path) -> None:
    small_build(own_photos, tmp_path / "out")
    for path in own_photos.rglob("*.png"):
        shutil.copyfile(path, tmp_path / "copy.png")  # a new file: its time differs
        (tmp_path / "copy.png").replace(path)

    assert small_build(own_photos, tmp_path / "out").made == 0


def test_rejects_by_reason_add_up_with_the_images(own_photos: Path, tmp_path: Path) -> None:
    names = small_plan(own_photos).splits["train"].listing.names
    for name, content in zip(names[:5], [b"", b"", b"text", b"\xff\xd8\xff", b"BM"], strict=True):
        (own_photos / name).write_bytes(content)
    config = small_config(own_photos, tmp_path / "out", "rgb", "lab")
    for manifest in build(config).manifests.values():
        assert manifest is not None
        split = manifest.splits["train"]
        entries = [json.loads(line) for line in (manifest.root / "train/rejects.jsonl").read_text().splitlines()]

        assert split.images + sum(split.rejected.values()) == split.listed == 40
        assert Counter(entry["code"] for entry in entries) == split.rejected
        assert sorted(entry["path"] for entry in entries) == sorted(names[:5])
