"""Gamut and use of bins: the numbers, the figures and ``sbtrain bins``."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from matplotlib.image import imread

from sbformat.colorimetry import lab_from_rgb
from sbformat.manifest import Manifest, json_digest
from sbformat.schema import TargetSpec, bins_from_values, fixed_range
from sbformat.shard import open_shard
from sbtrain.cli import main
from sbtrain.pictures.color_bins import Usage, bin_squares, bins_in_gamut, count_bins


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bins", *map(str, arguments)])


@pytest.fixture(scope="module")
def drawn(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of all figures of the small shards. Not to be changed."""
    out = tmp_path_factory.mktemp("bins") / "out"
    result = invoke("--shards", shards, "--out", out)
    assert result.exit_code == 0, result.output
    return out


def record(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "reconstruct-colors.json").read_text())
    return data


def test_entropy_is_that_of_the_shares() -> None:
    usage = Usage(np.array([2, 0, 1, 1]))

    assert usage.used == 3
    assert usage.entropy == pytest.approx(1.5 * np.log(2))
    assert usage.effective == pytest.approx(2**1.5)


def test_counts_are_those_of_the_targets(shards: Path, lab: Manifest) -> None:
    counts = np.zeros(100, np.int64)
    for shard_record in lab.splits["unlabeled"].shards:
        with open_shard(lab, "unlabeled", shard_record) as shard:
            counts += np.bincount(shard.array("target_dual").ravel(), minlength=100)

    (space,) = count_bins(shards / "lab", "unlabeled")

    assert (space.dual.counts == counts).all()
    assert space.images == 48


@pytest.mark.parametrize(
    ("target", "bins"),
    [
        (TargetSpec(dual=10), 77),
        (TargetSpec(dual=16), 184),
        (TargetSpec(dual=25), 419),
        (TargetSpec(bins="zhang"), 261),
    ],
)
def test_the_gamut_reaches_as_many_bins_as_all_colors_do(target: TargetSpec, bins: int) -> None:
    """Numbers counted over all 2**24 colors."""
    assert bins_in_gamut(target).sum() == bins


@pytest.mark.parametrize("target", [TargetSpec(dual=10), TargetSpec(bins="zhang")])
def test_a_color_lies_in_the_square_of_its_bin(target: TargetSpec) -> None:
    lab = lab_from_rgb(np.random.default_rng(0).integers(0, 256, (200, 3), np.uint8))
    dual = bins_from_values(lab.T[None, :, :, None].astype(np.float32), fixed_range("lab"), target)[1].ravel()

    low, size = np.split(bin_squares(target)[dual], 2, axis=1)

    offset = lab[:, 1:] - low
    inside = ((offset >= -1e-4) & (offset <= size + 1e-4)).all(axis=1)
    assert inside.all() or (target.bins == "zhang" and inside.mean() > 0.95)  # some leave the list of 313


def test_every_color_space_is_counted_and_drawn(drawn: Path) -> None:
    found = record(drawn)

    assert list(found["spaces"]) == ["rgb", "lab", "rescaled_lab"]
    assert found["gamut"] == {"bins": 100, "in_gamut": 77}
    assert found["spaces"]["rescaled_lab"]["dual"]["effective_bins"] > found["spaces"]["lab"]["dual"]["effective_bins"]
    for figure in found["figures"]:
        assert imread(drawn / figure["file"]).shape[0] > 300
        assert (drawn / figure["svg"]).read_text().startswith("<svg")
    assert "77 of 100" in found["figures"][0]["caption"]


def test_the_figures_can_be_those_of_a_run(own_run: Path, shards: Path) -> None:
    result = invoke("--shards", shards, "--run", own_run)

    assert result.exit_code == 0, result.output
    assert record(own_run / "results")["format"] == "sbtrain-reconstruct"


def test_one_color_space_is_enough(shards: Path, tmp_path: Path) -> None:
    result = invoke("--shards", shards / "rgb", "--out", tmp_path, "--split", "unlabeled")

    assert result.exit_code == 0, result.output
    assert list(record(tmp_path)["spaces"]) == ["rgb"]


def test_the_example_of_the_help_is_a_command(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.search(r"Example:\n +sbtrain bins ([^\n]+)\n\Z", invoke("-h").output)
    assert example is not None
    monkeypatch.chdir(tmp_path)

    result = invoke(*example[1].replace("data_cache", str(shards)).split())

    assert result.exit_code == 0, result.output


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("given", [(), ("--out", "a", "--run", "b")])
def test_exactly_one_place_for_the_figures_is_needed(shards: Path, given: tuple[str, ...]) -> None:
    result = invoke("--shards", shards, *given)

    assert result.exit_code == 2
    assert "either --out DIR or --run RUN" in result.output


def test_a_mistyped_run_becomes_no_folder(shards: Path, tmp_path: Path) -> None:
    result = invoke("--shards", shards, "--run", tmp_path / "typo")

    assert result.exit_code == 1
    assert not (tmp_path / "typo").exists()


def test_nothing_prepared_is_an_error(tmp_path: Path) -> None:
    result = invoke("--shards", tmp_path / "none", "--out", tmp_path / "out")

    assert result.exit_code == 1
    assert "sbprep build" in result.output


def test_a_split_that_is_not_there_is_named(shards: Path, tmp_path: Path) -> None:
    result = invoke("--shards", shards, "--out", tmp_path / "out", "--split", "test")

    assert result.exit_code == 1
    assert ", no test. Use one of them" in result.output


def test_statistics_of_other_bins_are_refused(shards: Path, tmp_path: Path) -> None:
    own = shutil.copytree(shards / "lab", tmp_path / "lab")
    data = json.loads((own / "manifest.json").read_text())
    del data["sha256"]
    data["splits"]["unlabeled"]["statistics"]["target_dual_counts"].pop()
    (own / "manifest.json").write_text(json.dumps({**data, "sha256": json_digest(data)}))

    result = invoke("--shards", own, "--out", tmp_path / "out")

    assert result.exit_code == 1
    assert "100 counts of target_dual" in result.output
