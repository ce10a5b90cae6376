"""``--overwrite``: what goes, when it goes, and that an interrupted one goes on instead of beginning again."""

import os
import stat
from pathlib import Path

import pytest

from builds import small_build, small_config, small_manifest, small_plan, tree, unfinished, write_images
from crashes import journaled
from sbformat.errors import BuildError, SplitbrainError
from sbformat.manifest import Manifest
from sbprep.disk import check_room
from sbprep.pipeline import build
from sbprep.plan import make_plan
from sbprep.progress import Progress
from sbprep.store import survey


class Disk:
    def __init__(self, free: int) -> None:
        self.free = free


def interrupted(source: Path, out: Path, shards: int = 1, **options: object) -> int:
    """Build until so many shards are committed, or one more; return how many are."""

    def stop(progress: Progress) -> None:
        if progress.shards == shards:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(small_config(source, out, **options), stop)
    return journaled(out) - 1


def spoil(photos: Path) -> None:
    for path in photos.rglob("*.png"):
        path.write_bytes(b"x" * path.stat().st_size)


def test_an_interrupted_overwrite_goes_on_with_the_same_command(
    photos: Path, prepared: Manifest, own_prepared: Manifest
) -> None:
    out = own_prepared.root.parent
    kept = interrupted(photos, out, overwrite=True)
    outcome = small_build(photos, out, overwrite=True)

    assert (outcome.made, outcome.kept) == (3 - kept, kept)
    assert kept
    assert tree(own_prepared.root) == tree(prepared.root)


def test_an_interrupted_overwrite_goes_on_without_the_option_too(photos: Path, own_prepared: Manifest) -> None:
    out = own_prepared.root.parent
    kept = interrupted(photos, out, overwrite=True)

    assert small_build(photos, out).made == 3 - kept < 3


def test_a_complete_set_is_overwritten_every_time(photos: Path, own_prepared: Manifest) -> None:
    out = own_prepared.root.parent

    assert [small_build(photos, out, overwrite=True).made for _ in range(2)] == [3, 3]


def test_what_an_ordinary_build_began_is_discarded(photos: Path, tmp_path: Path) -> None:
    interrupted(photos, tmp_path, shards=2)

    assert small_build(photos, tmp_path, overwrite=True).made == 3


def test_an_overwrite_with_other_options_discards_what_another_began(photos: Path, tmp_path: Path) -> None:
    interrupted(photos, tmp_path, shards=2, overwrite=True)

    assert small_build(photos, tmp_path, overwrite=True, seed=4).made == 3


def test_an_overwrite_of_changed_images_discards_what_it_began(own_photos: Path, tmp_path: Path) -> None:
    interrupted(own_photos, tmp_path / "out", shards=2, overwrite=True)
    write_images(own_photos, 41)

    assert small_manifest(own_photos, tmp_path / "out", overwrite=True).splits["train"].images == 41


def test_a_good_set_stays_while_no_image_of_the_new_one_can_be_used(own_photos: Path, own_prepared: Manifest) -> None:
    spoil(own_photos)
    before = tree(own_prepared.root)

    with pytest.raises(
        BuildError, match=r"none of the 40 images could be used \(40 not_an_image\).* Nothing was disca"
    ):
        small_build(own_photos, own_prepared.root.parent, overwrite=True)
    assert tree(own_prepared.root) == before


def test_a_good_set_stays_while_the_new_one_has_no_images(own_prepared: Manifest, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    before = tree(own_prepared.root)

    with pytest.raises(SplitbrainError, match="empty: no files"):
        small_build(tmp_path / "empty", own_prepared.root.parent, overwrite=True)
    assert tree(own_prepared.root) == before


def test_one_usable_image_in_the_last_shard_is_found(own_photos: Path, own_prepared: Manifest) -> None:
    last = own_photos / small_plan(own_photos).unit("train", 2).part.names[-1]
    content = last.read_bytes()
    spoil(own_photos)
    last.write_bytes(content)

    assert small_manifest(own_photos, own_prepared.root.parent, overwrite=True).splits["train"].images == 1


def test_a_split_without_any_usable_image_leaves_its_reasons_and_says_the_way_out(
    own_photos: Path, tmp_path: Path
) -> None:
    spoil(own_photos)
    listed = tmp_path / "out/rgb/train/rejects.jsonl"

    with pytest.raises(
        BuildError, match=rf"All are listed in {listed}. Mend the images, or leave this split out, and build again with"
    ):
        small_build(own_photos, tmp_path / "out")
    assert len(listed.read_text().splitlines()) == 40


def test_an_overwrite_that_found_nothing_usable_begins_anew_when_the_images_are_back(
    own_photos: Path, tmp_path: Path
) -> None:
    whole = tree(small_manifest(own_photos, tmp_path / "whole").root)
    plan = make_plan(small_config(own_photos, tmp_path / "out", overwrite=True))
    times = {path: path.stat() for path in own_photos.rglob("*.png")}
    contents = {path: path.read_bytes() for path in times}
    spoil(own_photos)
    for path, found in times.items():  # listed alike: names, sizes and dates
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(BuildError, match="none of the 40"):
        build(plan.config)
    for path, found in times.items():
        path.write_bytes(contents[path])
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))

    assert build(plan.config).made == 3
    assert tree(tmp_path / "out/rgb") == whole


def test_room_counts_what_is_discarded_first(
    photos: Path, own_prepared: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = own_prepared.root.parent
    plan = make_plan(small_config(photos, out, overwrite=True))
    found = survey(plan, "rgb")
    needed = check_room(plan, {"rgb": found.missing})
    monkeypatch.setattr("shutil.disk_usage", lambda path: Disk(needed - found.freed))

    assert found.freed > 100_000
    assert small_build(photos, out, overwrite=True).made == 3
    monkeypatch.setattr("shutil.disk_usage", lambda path: Disk(needed - found.freed - 1))
    with pytest.raises(BuildError, match="the shards need"):
        small_build(photos, out, overwrite=True)
    assert Manifest.read(out / "rgb") == own_prepared


def test_a_survey_writes_nothing(photos: Path, own_prepared: Manifest) -> None:
    out = own_prepared.root.parent
    for path in (out, own_prepared.root):
        path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for options in ({}, {"overwrite": True}, {"partition": (2, 3)}):
        survey(make_plan(small_config(photos, out, **options)), "rgb")

    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert unfinished(out) == []
