"""The limit of rejects holds whatever is there already, and a lost list of them is made again without the shards."""

from pathlib import Path

import pytest

from builds import small_build, small_config, small_manifest, small_plan, tree
from sbformat.errors import BuildError
from sbformat.manifest import Manifest
from sbprep.pipeline import build
from sbprep.verify import find_damage, repair


@pytest.fixture
def flawed(own_photos: Path, tmp_path: Path) -> Manifest:
    """A set of `own_photos` with three rejects, in two shards."""
    names = [small_plan(own_photos).unit("train", number).part.names[5] for number in (0, 2)]
    for name, content in zip(
        [*names, small_plan(own_photos).unit("train", 2).part.names[0]], (b"", b"x", b""), strict=True
    ):
        (own_photos / name).write_bytes(content)
    return small_manifest(own_photos, tmp_path / "out")


@pytest.mark.parametrize(("on_error", "allowed"), [("fail", 0), ("limit=2", 2)])
def test_the_limit_holds_for_a_set_that_is_complete(
    flawed: Manifest, own_photos: Path, on_error: str, allowed: int
) -> None:
    with pytest.raises(
        BuildError,
        match=rf"3 rejected when it was built, listed in .*rejects.jsonl; --on-error {on_error} allows {allowed}",
    ):
        small_build(own_photos, flawed.root.parent, on_error=on_error)
    assert small_build(own_photos, flawed.root.parent, on_error="limit=3").made == 0


def test_the_limit_holds_for_a_partition_that_is_done(flawed: Manifest, own_photos: Path, tmp_path: Path) -> None:
    small_build(own_photos, tmp_path / "parts", partition=(3, 3))

    with pytest.raises(BuildError, match="rejected so far, --on-error fail allows 0"):
        small_build(own_photos, tmp_path / "parts", partition=(3, 3), on_error="fail")


def test_a_limit_that_is_exceeded_offers_a_higher_one(flawed: Manifest, own_photos: Path) -> None:
    with pytest.raises(BuildError, match="allow more: --on-error limit=4, or --on-error skip"):
        small_build(own_photos, flawed.root.parent, on_error="limit=2")


@pytest.mark.parametrize("how", ["removed", "changed"])
@pytest.mark.parametrize("name", ["rejects.jsonl", "sources.txt"])
def test_a_build_over_a_complete_set_restores_its_lists(
    flawed: Manifest, own_photos: Path, name: str, how: str
) -> None:
    whole, path = tree(flawed.root), flawed.root / "train" / name
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b"0", b"1"))
    outcome = build(small_config(own_photos, flawed.root.parent))

    assert (outcome.made, outcome.restored) == (0, [path])
    assert tree(flawed.root) == whole


def test_a_lost_list_is_mended_without_making_a_shard(flawed: Manifest) -> None:
    whole = tree(flawed.root)
    times = {path: path.stat().st_mtime_ns for path in flawed.root.rglob("*.h5")}
    (flawed.root / "train/rejects.jsonl").unlink()

    assert repair(flawed, list(find_damage(flawed)), workers=1) == 0
    assert tree(flawed.root) == whole
    assert {path: path.stat().st_mtime_ns for path in flawed.root.rglob("*.h5")} == times


def test_a_list_that_comes_out_otherwise_is_not_written(flawed: Manifest, own_photos: Path) -> None:
    path = flawed.root / "train/rejects.jsonl"
    path.unlink()
    (bad,) = [image for image in own_photos.rglob("*.png") if image.read_bytes() == b"x"]
    bad.write_bytes(b"\xff")

    with pytest.raises(
        BuildError, match=r"rejects.jsonl: lost, and what is rejected now is not what the manifest says"
    ):
        small_build(own_photos, flawed.root.parent)
    assert not path.exists()
