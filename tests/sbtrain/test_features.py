"""``sbtrain features``: what its file holds, and that it is whole or not there."""

import json
import re
import signal
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from builds import rows
from runs import CPU, litter, run_apart
from sbformat.manifest import open_manifest
from sbtrain.cli import main
from sbtrain.evaluation.chosen import chosen_rows
from sbtrain.evaluation.features import FeaturesConfig, write_features
from sbtrain.evaluation.features_cli import FIELD_HELP
from sbtrain.evaluation.fitting import Interrupted
from sbtrain.evaluation.labeled import Labeled
from sbtrain.evaluation.pretrained import open_pretrained
from sbtrain.methods.supervised import Encoder


def command(run_dir: Path, shards: Path, *more: str) -> list[str]:
    return [
        "features",
        "--run",
        str(run_dir),
        "--shards",
        str(shards),
        "--device",
        "cpu",
        "--precision",
        "float32",
        *more,
    ]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def message(result: Result) -> str:
    return re.sub(r"\s+", " ", result.output)


def test_the_example_of_the_help_works(few: Path, own_run: Path) -> None:
    example = re.search(r"Example:\n +sbtrain ([^\n]+)\n\Z", invoke("features", "-h").output)
    assert example is not None

    result = invoke(*example[1].replace("runs/NAME", str(own_run)).replace("data_cache", str(few)).split())

    assert result.exit_code == 0, result.output


def test_every_field_of_the_config_has_an_option_with_help() -> None:
    assert set(FIELD_HELP) == {field.name for field in fields(FeaturesConfig)}


def test_a_file_holds_the_features_of_each_image_with_label_and_row(few: Path, own_run: Path) -> None:
    assert invoke(*command(own_run, few, "--layer", "conv3", "--pool", "2")).exit_code == 0

    manifest = open_manifest(few, "lab")
    encoder = Encoder(open_pretrained(own_run, few, "val", print).method, manifest, "conv3", 2).eval()
    with torch.no_grad():
        expected = encoder(Labeled(manifest, "val", ("image",), CPU.device).batch(np.arange(12)))
    with h5py.File(own_run / "features" / "val-conv3.h5") as file:
        # Channels last or not: another order of sums.
        np.testing.assert_allclose(file["features"], expected.numpy(), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(file["label"], rows(manifest, "val", "label"))
        np.testing.assert_array_equal(file["source_index"], rows(manifest, "val", "source_index"))
        np.testing.assert_array_equal(file["row"], np.arange(12))
        assert (file["features"].dtype, file["features"].shape) == (np.float32, (12, 96 * 2 * 2))


def test_a_file_says_what_it_was_made_of(few: Path, own_run: Path) -> None:
    assert invoke(*command(own_run, few)).exit_code == 0

    with h5py.File(own_run / "features" / "val-logits.h5") as file:
        about = dict(file.attrs)
    assert (about["format"], about["layer"], about["split"]) == ("sbtrain-features", "logits", "val")
    assert json.loads(about["run"])["checkpoint"]["model_sha256"] == about["model_sha256"]
    assert json.loads(about["config"])["split"] == "val"
    assert json.loads(about["label_names"]) == ["cat", "dog", "eel"]
    assert json.loads(about["data"])["digest"] == about["data_digest"]


def test_a_limit_takes_always_the_same_images(few: Path, own_run: Path) -> None:
    assert invoke(*command(own_run, few, "--split", "train", "--layer", "conv4", "--pool", "1")).exit_code == 0
    with h5py.File(own_run / "features" / "train-conv4.h5") as file:
        whole = file["features"][:]

    more = ("--split", "train", "--layer", "conv4", "--pool", "1", "--limit", "7", "--out", str(own_run / "seven.h5"))
    assert invoke(*command(own_run, few, *more)).exit_code == 0

    with h5py.File(own_run / "seven.h5") as file:
        assert file["row"][:].tolist() == chosen_rows(24, 7).tolist()
        # Blocks of other sizes may be computed in another order.
        np.testing.assert_allclose(file["features"], whole[chosen_rows(24, 7)], rtol=1e-4, atol=1e-5)


def test_a_split_without_labels_has_features_without_labels(shards: Path, own_run: Path) -> None:
    assert invoke(*command(own_run, shards / "lab", "--split", "unlabeled", "--pool", "1")).exit_code == 0

    with h5py.File(own_run / "features" / "unlabeled-logits.h5") as file:
        assert set(file) == {"features", "row", "source_index"}


def test_a_second_call_leaves_the_file_and_another_layer_replaces_it(few: Path, own_run: Path) -> None:
    out = own_run / "f.h5"
    assert invoke(*command(own_run, few, "--out", str(out))).exit_code == 0
    first = out.stat().st_mtime_ns

    again = invoke(*command(own_run, few, "--out", str(out)))
    assert "holds these features already" in again.output
    assert out.stat().st_mtime_ns == first

    assert invoke(*command(own_run, few, "--out", str(out), "--layer", "conv4")).exit_code == 0
    with h5py.File(out) as file:
        assert file.attrs["layer"] == "conv4"


def test_other_files_are_not_replaced(few: Path, own_run: Path, tmp_path: Path) -> None:
    shard = next((few / "lab" / "val").glob("*.h5"))
    before = shard.read_bytes()
    (tmp_path / "letter.txt").write_text("Dear all")

    for path, text in ((shard, "was not written by sbtrain features"), (tmp_path / "letter.txt", "is no HDF5 file")):
        result = invoke(*command(own_run, few, "--out", str(path)))
        assert result.exit_code == 1
        assert text in message(result)
    assert shard.read_bytes() == before
    assert (tmp_path / "letter.txt").read_text() == "Dear all"


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (("--layer", "conv9"), 2, "layer 'conv9', this run's network has conv1, conv2, conv3, conv4, logits"),
        (("--pool", "9"), 2, "logits has 4 x 4 cells. Use --pool 4 or less"),
        (("--pool", "-1"), 2, "pool -1, expected 0 or more"),
        (("--limit", "-1"), 2, "limit -1, expected 0 or more"),
        (("--split", "test"), 1, "has splits train, val, no test"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_option_is_refused(options: tuple[str, ...], code: int, text: str, few: Path, own_run: Path) -> None:
    result = invoke(*command(own_run, few, *options))

    assert result.exit_code == code, result.output
    assert text in message(result)
    assert not list(own_run.rglob("*.h5"))


def test_a_stop_in_the_middle_leaves_nothing(few: Path, own_run: Path) -> None:
    pretrained = open_pretrained(own_run, few, "val", print)

    with pytest.raises(Interrupted):
        write_features(pretrained, FeaturesConfig(), None, CPU, print, lambda: True)

    assert list((own_run / "features").iterdir()) == []


def test_a_killed_call_leaves_no_file_and_the_next_one_tidies(few: Path, own_run: Path) -> None:
    """Killed as the finished file is made durable, before it has its name."""
    assert run_apart(command(own_run, few), ("fsync", 1), signal.SIGKILL) == -signal.SIGKILL

    assert not (own_run / "features" / "val-logits.h5").exists()
    assert litter(own_run) != []
    assert invoke(*command(own_run, few)).exit_code == 0
    assert litter(own_run) == []


def test_a_full_disk_is_named_and_leaves_nothing(few: Path, own_run: Path) -> None:
    assert run_apart(command(own_run, few), ("fsync", 0), file_limit=1000) == 1

    assert list((own_run / "features").iterdir()) == []
