"""The monitor of pretraining: what it finds, and that the training does not know of it."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier

from runs import CPU, command, lines, outcome, run_apart, small_parts
from sbformat.manifest import Manifest, open_manifest
from sbtrain.cli import main
from sbtrain.data import Batch
from sbtrain.evaluation.labeled import Labeled
from sbtrain.events import NAME
from sbtrain.methods import Method
from sbtrain.methods.supervised import RIDGE_PENALTY, Encoder
from sbtrain.metrics import Line
from sbtrain.monitor import FeatureLook, Kind, Monitor, MonitorConfig


@pytest.fixture(scope="module")
def lab_few(few: Path) -> Manifest:
    return open_manifest(few, "lab")


def run(shards: Path, run_dir: Path, *more: str) -> list[str]:
    """Six steps on train, three an epoch."""
    return command(shards / "lab", run_dir, "--split", "train", "--precision", "float32", *more)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def line() -> Line:
    return Line(3, 6, 8, {"loss": 1.0}, {"seconds": 1.0})


@pytest.fixture
def look(lab_few: Manifest) -> Iterator[tuple[FeatureLook, Method]]:
    method = small_parts(lab_few, split="train")[1]
    made = FeatureLook(MonitorConfig(), lab_few, method, CPU.device)
    yield made, method
    made.close()


# ------------------------------------------------------------------------------------------------- what it finds


def test_the_share_is_that_of_scikit_learn(lab_few: Manifest, look: tuple[FeatureLook, Method]) -> None:
    """Of every fifth image by the 19 others, six of a class, whose mean features of conv4 are alike."""
    made, method = look
    images = Labeled(lab_few, "train", ("image",), CPU.device)
    held = torch.arange(24) % 5 == 0
    with torch.no_grad():
        feature = Encoder(method, lab_few, "conv4", 1).eval()(images.batch(torch.arange(24).numpy())).double().numpy()
    model = KNeighborsClassifier(6, metric="cosine", weights=lambda d: torch.exp((1 - torch.tensor(d)) / 0.1).numpy())
    model.fit(feature[~held], images.labels[~held])

    found = made.look(method.eval(), CPU)

    assert found == {"knn_top1": model.score(feature[held], images.labels[held])}
    assert made.describe() == "6-NN of 5 images of train among 19 others, layer conv4"


@pytest.mark.parametrize("kind", ["linear", "both"])
def test_the_linear_share_is_that_of_scikit_learn(kind: Kind, lab_few: Manifest) -> None:
    method = small_parts(lab_few, split="train")[1].eval()
    images = Labeled(lab_few, "train", ("image",), CPU.device)
    held = np.arange(24) % 5 == 0
    with torch.no_grad():
        feature = Encoder(method, lab_few, "conv4", 1).eval()(images.batch(np.arange(24))).double().numpy()
    mean, deviation = feature[~held].mean(0), np.sqrt(feature[~held].var(0) + 1e-5)
    x = (feature - mean) / deviation
    model = Ridge(RIDGE_PENALTY * np.square(x[~held]).sum(1).mean()).fit(x[~held], np.eye(3)[images.labels[~held]])

    made = FeatureLook(MonitorConfig(kind=kind), lab_few, method, CPU.device)
    found = made.look(method, CPU)
    made.close()

    share = (model.predict(x[held]).argmax(1) == np.asarray(images.labels)[held]).mean()
    assert found.pop("linear_top1") == pytest.approx(share)
    assert list(found) == (["knn_top1"] if kind == "both" else [])
    assert made.describe().startswith({"linear": "linear of 5 images", "both": "6-NN and linear of 5 images"}[kind])


def test_queries_of_another_split_are_asked_for(lab_few: Manifest) -> None:
    method = small_parts(lab_few, split="train")[1]

    made = FeatureLook(MonitorConfig(queries="val"), lab_few, method, CPU.device)

    assert made.describe() == "8-NN of 12 images of val among 24 of train, layer conv4"
    made.close()


def test_features_that_are_not_finite_have_no_number(look: tuple[FeatureLook, Method]) -> None:
    made, method = look
    with torch.no_grad():
        next(method.parameters()).fill_(float("nan"))

    assert made.look(method.eval(), CPU) == {"knn_top1": None}


def test_lines_events_and_progress_show_it(few: Path, tmp_path: Path) -> None:
    result = invoke(*run(few, tmp_path / "run", "--monitor", "knn", "--log-every", "100"))

    assert result.exit_code == 0, result.output
    found = {line["step"]: line["knn_top1"] for line in lines(tmp_path / "run")}
    assert set(found) == {3, 6}
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    events = [
        event for event in loading.EventFileLoader(str(tmp_path / "run" / NAME)).Load() if event.HasField("summary")
    ]
    shown = [value.tensor.float_val[0] for event in events for value in event.summary.value if value.tag == "knn_top1"]
    assert shown == pytest.approx(list(found.values()))
    assert f"kNN {found[6]:.1%}" in result.output
    assert "monitor: 6-NN of 5 images of train among 19 others, layer conv4, every epoch" in result.output


def test_looks_come_every_so_many_epochs_and_at_the_end(few: Path, tmp_path: Path) -> None:
    more = ("--monitor", "knn", "--monitor-every", "2", "--epochs", "3")
    assert invoke(*run(few, tmp_path / "run", *more)).exit_code == 0

    assert [line["step"] for line in lines(tmp_path / "run") if "knn_top1" in line] == [6, 9]


# ------------------------------------------------------------------------------------ training does not know of it


def test_training_is_the_same_to_the_bit(few: Path, tmp_path: Path) -> None:
    assert invoke(*run(few, tmp_path / "plain")).exit_code == 0
    assert invoke(*run(few, tmp_path / "watched", "--monitor", "knn")).exit_code == 0

    assert outcome(tmp_path / "watched")[0] == outcome(tmp_path / "plain")[0]


@pytest.mark.parametrize("step", [2, 4])
def test_a_killed_run_writes_the_same_lines(step: int, few: Path, tmp_path: Path) -> None:
    assert invoke(*run(few, tmp_path / "whole", "--monitor", "knn")).exit_code == 0

    arguments = run(few, tmp_path / "run", "--monitor", "knn")
    assert run_apart(arguments, ("step", step), signal.SIGKILL) == -signal.SIGKILL
    assert invoke(*arguments).exit_code == 0

    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_look_changes_no_mode_no_statistics_and_draws_nothing(look: tuple[FeatureLook, Method]) -> None:
    made, method = look
    method.train()
    frozen = next(module for module in method.modules() if isinstance(module, torch.nn.BatchNorm2d)).eval()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    modes, state = [module.training for module in method.modules()], torch.random.get_rng_state()

    seen = Monitor([made], 3, CPU).add(method, line())

    assert "knn_top1" in seen.values
    assert [module.training for module in method.modules()] == modes
    assert not frozen.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in method.parameters())


def test_the_time_of_a_look_is_told_apart(look: tuple[FeatureLook, Method]) -> None:
    made, method = look

    seen = Monitor([made], 3, CPU).add(method, line())

    assert seen.speed["seconds"] == 1.0
    assert seen.speed["monitor_s"] > 0


def test_the_reported_split_is_not_looked_at(lab_few: Manifest, look: tuple[FeatureLook, Method]) -> None:
    made, _ = look

    assert {source._reader.root for source in made._sources} == {lab_few.root}
    assert [len(source) for source in made._sources] == [24, 24]


def test_other_looks_are_taken_as_well(lab_few: Manifest) -> None:
    class Width:
        def look(self, method: Method, runtime: object) -> dict[str, float | None]:
            index = torch.zeros(1, dtype=torch.int64)
            batch = Batch(index, {"image": torch.zeros((1, 3, 64, 64), dtype=torch.uint8)})
            return {"width": float(method.features(batch).shape[1])}

        def describe(self) -> str:
            return "width"

        def close(self) -> None:
            pass

    monitor = Monitor([Width()], 3, CPU)

    assert monitor.add(small_parts(lab_few, split="train")[1], line()).values == {"loss": 1.0, "width": 200.0}


# -------------------------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--monitor", "probe"), "'probe' is not one of 'knn', 'linear', 'both'"),
        (("--monitor-every", "2"), "--monitor-every without --monitor. Add --monitor knn"),
        (("--monitor", "knn", "--monitor-every", "0"), "monitor every 0 epochs, expected 1 or more"),
        (("--monitor", "knn", "--monitor-images", "3"), "monitor images 3, expected 10 or more"),
        (("--monitor", "knn", "--monitor-split", "test"), "no split test"),
        (("--monitor", "knn", "--monitor-queries", "train"), "are both train"),
        (("--monitor", "knn", "--monitor-layer", "conv9"), "layer 'conv9', this run's network has conv1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_option_is_refused(options: tuple[str, ...], text: str, few: Path, tmp_path: Path) -> None:
    result = invoke(*run(few, tmp_path / "run", *options))

    assert result.exit_code == 2, result.output
    assert text in re.sub(r"\s+", " ", result.output)


def test_shards_without_labels_are_refused(shards: Path, tmp_path: Path) -> None:
    result = invoke(*command(shards / "lab", tmp_path / "run", "--monitor", "knn", "--monitor-split", "unlabeled"))

    assert result.exit_code == 2
    assert "split unlabeled has no class labels, which --monitor compares images by" in re.sub(
        r"\s+", " ", result.output
    )


def test_the_result_has_the_last_value(few: Path, tmp_path: Path) -> None:
    assert invoke(*run(few, tmp_path / "run", "--monitor", "knn")).exit_code == 0

    content = json.loads((tmp_path / "run" / "results" / "pretrain.json").read_bytes())
    assert content["last"]["knn_top1"] == lines(tmp_path / "run")[-1]["knn_top1"]
