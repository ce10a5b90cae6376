"""Fixtures that several test modules share: a small image set and finished builds of it."""

import os
import shutil
from pathlib import Path

import pytest

from sbformat.manifest import Manifest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs compiled kernels where there are none."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        for item in items:
            if item.get_closest_marker("jit"):
                item.add_marker(pytest.mark.skip(reason="needs compiled kernels"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images in three classes, split train. Not to be changed: see `own_photos`."""
    from builds import write_images  # not above: tests of the trainer need none of what this loads

    return write_images(tmp_path_factory.mktemp("photos"), 40)


@pytest.fixture
def own_photos(photos: Path, tmp_path: Path) -> Path:
    """Return a copy of `photos` that the test may change; with its times, for a build compares those."""
    return shutil.copytree(photos, tmp_path / "photos")


@pytest.fixture(scope="session")
def prepared(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Return a finished build of `photos` in rgb, three shards. Not to be changed: see `own_prepared`."""
    from builds import small_manifest

    return small_manifest(photos, tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def own_prepared(prepared: Manifest, tmp_path: Path) -> Manifest:
    """Return a copy of `prepared` that the test may change."""
    return Manifest.read(shutil.copytree(prepared.root, tmp_path / "out" / "rgb"))
