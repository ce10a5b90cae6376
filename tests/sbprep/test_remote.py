"""What a worker on another machine must have in common with the build, and when it stops."""

from dataclasses import replace
from pathlib import Path

import pytest

from builds import small_build, small_config, small_plan, tree
from sbformat.errors import BuildError
from sbprep.remote import FEW, Site, opened_site, own_error, seen
from sbprep.seal import merge
from sbprep.software import code_digest, facts


@pytest.fixture
def site(photos: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    with opened_site(small_config(photos, tmp_path)) as made:
        yield made


def test_a_process_with_the_same_code_and_folders_may_take_part(site: Site) -> None:
    assert site.problems() == []
    assert not site.is_set()


@pytest.mark.parametrize("name", ["sbprep", "opencv", "h5py", "numba", "numpy", "hdf5", "schema", "code"])
def test_any_software_that_has_a_say_in_the_bytes_is_compared(site: Site, name: str) -> None:
    other = replace(site, software={**site.software, name: "another"})

    assert other.problems() == [f"{name} {facts()[name]} where the build has another"]


def test_a_folder_that_is_another_one_is_named(site: Site, tmp_path: Path) -> None:
    elsewhere = replace(site, marker=tmp_path / "lab" / site.marker.name)

    assert elsewhere.problems() == [f"it does not see the build's folder {tmp_path / 'lab'}"]
    assert replace(site, token="other").problems() == [f"it does not see the build's folder {site.marker.parent}"]


def test_images_that_a_worker_does_not_see_keep_it_out_instead_of_being_rejected(site: Site, tmp_path: Path) -> None:
    (path,) = site.sources
    empty = tmp_path / "mount"
    empty.mkdir()
    other = replace(site, sources={empty: site.sources[path], tmp_path / "gone.tar": ("file", 4096)})

    assert other.problems() == [
        f"it sees a folder of 0 entries at {empty}, the build sees a folder of 1 entries",
        f"it sees nothing at {tmp_path / 'gone.tar'}, the build sees a file of 4,096 bytes",
    ]


def test_a_folder_is_known_by_its_first_entries(tmp_path: Path) -> None:
    for number in range(FEW + 10):
        (tmp_path / str(number)).touch()

    assert seen(tmp_path) == ("folder", FEW)


def test_a_worker_that_cannot_take_part_refuses_its_first_task(site: Site) -> None:
    other = replace(site, token="late", software={**site.software, "sbprep": "9.9"})

    with pytest.raises(BuildError, match=r"process \d+ on \S+: sbprep \S+ where the build has 9.9.*pip install"):
        other.run(None)  # type: ignore[arg-type]


def test_the_mark_goes_with_the_build(photos: Path, tmp_path: Path) -> None:
    with opened_site(small_config(photos, tmp_path)) as made:
        assert made.marker.read_text() == made.token

    assert made.is_set()
    assert list(tmp_path.rglob("*.tmp")) == []


def test_an_error_of_ours_is_found_in_what_an_engine_wraps_around_it() -> None:
    ours = BuildError("disk full")
    wrapped = RuntimeError("task failed")
    wrapped.__cause__ = ours

    assert own_error(wrapped) is own_error(ours) is ours
    assert own_error(OSError("no")) is None


def test_the_digest_of_the_code_has_twelve_digits() -> None:
    assert int(code_digest(), 16) < 1 << 48


def test_paths_of_a_remote_build_are_absolute_for_workers_and_as_given_in_the_manifest(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    given = Path(photos.name)
    plan = small_plan(given, out=tmp_path, backend="dask", scheduler="tcp://localhost:1")
    local = small_plan(given, out=tmp_path)

    assert plan.header("rgb") == local.header("rgb")
    assert str(photos) in repr(plan.splits["train"].source)
    assert str(photos) not in repr(local.splits["train"].source)


def test_partitions_that_overlap_join_to_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    small_build(photos, tmp_path / "whole")
    for part in ((1, 2), (2, 3), (2, 2), (1, 3)):
        small_build(photos, tmp_path / "parts", partition=part)
    merge(tmp_path / "parts")

    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")
