"""Shards that the trainer's tests read, and one run of them that nobody disturbed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from labeled_sets import labeled_shards
from runs import command, small_shards
from sbformat.manifest import Manifest, open_manifest
from sbtrain.cli import main


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Before every other fixture: runs that are compared are of one number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three color spaces under one root. Not to be changed: see `own_shards`."""
    return small_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="session")
def lab(shards: Path) -> Manifest:
    return open_manifest(shards, "lab")


@pytest.fixture(scope="session")
def rescaled(shards: Path) -> Manifest:
    return open_manifest(shards, "rescaled_lab")


@pytest.fixture
def own_shards(shards: Path, tmp_path: Path) -> Path:
    """Return a copy of the lab shards that the test may change."""
    return shutil.copytree(shards / "lab", tmp_path / "own" / "lab").parent


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of three classes to learn from (train), 12 to report (val). Not to be changed."""
    return labeled_shards(tmp_path_factory.mktemp("few") / "shards")


@pytest.fixture(scope="session")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small run on `lab` that went through. Not to be changed."""
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    result = CliRunner().invoke(main, command(shards / "lab", run_dir))
    assert result.exit_code == 0, result.output
    return run_dir


@pytest.fixture
def own_run(undisturbed: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run that the test may change."""
    return shutil.copytree(undisturbed, tmp_path / "run")
