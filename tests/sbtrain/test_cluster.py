"""Clusters beside classes: scores worked out by hand, who assigns, and that a result comes out the same again."""

import json
import math
import re
import shutil
import signal
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from runs import CPU, command, litter, run_apart, small_parts
from sbformat.errors import ConfigError
from sbformat.manifest import open_manifest
from sbtrain.cli import main
from sbtrain.evaluation import scores
from sbtrain.evaluation.cluster import contingency, usage_entropy
from sbtrain.evaluation.cluster_cli import FIELD_HELP
from sbtrain.evaluation.cluster_config import ClusterConfig
from sbtrain.evaluation.labeled import Labeled, blocks
from sbtrain.evaluation.pretrained import open_pretrained
from sbtrain.runtime import EXIT_REQUEUE

SELF_CLASSIFIER = (
    "--method", "self_classifier", "--network", "half:simplenet", "--augmentation", "simsiam_cifar", "--head", "16",
    "--classes", "3,4", "--epochs", "1", "--split", "train",
)  # fmt: skip


@pytest.fixture(scope="module")
def own_classes(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small run of Self-Classifier."""
    run_dir = tmp_path_factory.mktemp("own-classes") / "run"
    result = CliRunner().invoke(main, command(few / "rgb", run_dir, *SELF_CLASSIFIER))
    assert result.exit_code == 0, result.output
    return run_dir


def arguments(run_dir: Path, shards: Path, *more: str) -> list[str]:
    return ["cluster", "--run", str(run_dir), "--shards", str(shards), "--split", "val", "--device", "cpu", *more]


def invoke(run_dir: Path, shards: Path, *more: str) -> Result:
    return CliRunner().invoke(main, arguments(run_dir, shards, *more))


def found(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted((run_dir / "results").glob("cluster-*.json"))]


# ------------------------------------------------------------------------------------------------------------ scores


def test_scores_of_a_small_partition_are_those_worked_out_by_hand() -> None:
    """Classes aab|bb in clusters 000|11: two bits of entropy each of 3 : 2, mutual information as below."""
    labels, assigned = np.array([0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1])
    entropy = -(0.4 * math.log(0.4) + 0.6 * math.log(0.6))
    mutual = 0.4 * math.log(0.4 / 0.24) + 0.2 * math.log(0.2 / 0.36) + 0.4 * math.log(0.4 / 0.24)

    result = scores.agreement(labels, assigned)

    assert result.nmi == pytest.approx(mutual / entropy)
    assert result.ari == pytest.approx(
        (2 - 4 * 4 / 10) / (4 - 4 * 4 / 10)
    )  # pairs: 2 agree, 4 and 4 of 10 are together
    assert result.ami < result.nmi
    assert scores.matched_accuracy(contingency(labels, assigned, 2, 2)) == 4 / 5


def test_the_same_partition_under_other_names_is_perfect() -> None:
    labels = np.repeat(np.arange(4), 5)
    assigned = (3 - labels).astype(np.int64)

    result = scores.agreement(labels, assigned)

    assert (result.nmi, result.ami, result.ari) == pytest.approx((1, 1, 1))
    assert scores.matched_accuracy(contingency(labels, assigned, 4, 4)) == 1


def test_of_more_clusters_than_classes_one_a_class_counts() -> None:
    """Class 0 in clusters of 3 and 1, class 1 in clusters of 2 and 2: 3 + 2 of 8 are matched."""
    counts = np.array([[3, 0, 1, 0], [0, 2, 0, 2]])

    assert scores.matched_accuracy(counts) == 5 / 8


def test_of_fewer_clusters_than_classes_a_class_is_left_out() -> None:
    assert scores.matched_accuracy(np.array([[4, 0], [0, 3], [2, 2]])) == 7 / 11


def test_a_matching_is_the_best_and_not_the_greedy_one() -> None:
    """The largest count alone, 5, would leave 0 for the other: 4 + 4 is more."""
    assert scores.matched_accuracy(np.array([[5, 4], [4, 0]])) == 8 / 13


@pytest.mark.parametrize(("counts", "expected"), [([5, 5, 5, 5], 1.0), ([7, 0, 0], 0.0), ([4, 4, 0, 0], 0.5)])
def test_usage_entropy_is_1_where_clusters_are_used_alike(counts: list[int], expected: float) -> None:
    assert usage_entropy(np.array(counts)) == pytest.approx(expected)


def test_k_means_finds_what_is_far_apart_the_same_again_for_a_seed() -> None:
    features = np.repeat(np.eye(3, 5, dtype=np.float32), 6, axis=0)

    assigned = scores.kmeans(features, features, 3, 7)

    assert scores.agreement(np.repeat(np.arange(3), 6), assigned).ari == 1
    assert np.array_equal(assigned, scores.kmeans(features, features, 3, 7))


def test_k_means_of_images_that_are_all_the_same_uses_one_cluster() -> None:
    """The collapse, which is to be seen, not to fail."""
    same = np.ones((8, 4), np.float32)

    assert len(np.unique(scores.kmeans(same, same, 3, 0))) == 1


def test_more_clusters_than_images_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"9 clusters of 8 images\. Use --clusters 8 or less"):
        scores.kmeans(np.ones((8, 4), np.float32), np.ones((8, 4), np.float32), 9, 0)


# --------------------------------------------------------------------------------------------------------- who assigns


def test_self_classifier_assigns_by_its_first_classifier(few: Path, own_classes: Path) -> None:
    result = invoke(own_classes, few)

    assert result.exit_code == 0, result.output
    (data,) = (each for each in found(own_classes) if each["config"]["classifier"] == 0)
    pretrained = open_pretrained(own_classes, few, "val", lambda _: None)
    images = Labeled(open_manifest(few, "rgb"), "val", ("image",), CPU.device)
    method = pretrained.method.eval()
    assigned = np.concatenate([method.assign(batch).numpy() for _, batch in blocks(images, np.arange(12))])
    assert data["contingency"]["counts"] == contingency(images.labels, assigned, 3, 3).tolist()
    assert data["fits"][0]["used"] == len(np.unique(assigned))
    assert data["scores"]["acc"] == {"mean": scores.matched_accuracy(contingency(images.labels, assigned, 3, 3)), "ci95": None}  # fmt: skip
    assert data["format"] == "sbtrain-cluster"
    assert "classifier 0" in result.stdout


def test_another_classifier_has_its_own_clusters(few: Path, own_classes: Path) -> None:
    result = invoke(own_classes, few, "--classifier", "1")

    assert result.exit_code == 0, result.output
    (data,) = (each for each in found(own_classes) if each["config"]["classifier"] == 1)
    assert data["clusters"] == 4
    assert np.array(data["contingency"]["counts"]).shape == (3, 4)


def test_k_means_on_any_other_run_gives_intervals_over_starts(few: Path, own_run: Path) -> None:
    result = invoke(own_run, few, "--draws", "3", "--layer", "conv4")

    assert result.exit_code == 0, result.output
    (data,) = found(own_run)
    assert (data["config"]["method"], data["clusters"], len(data["fits"])) == ("kmeans", 3, 3)
    assert data["scores"]["nmi"]["ci95"] is not None
    assert data["scores"]["nmi"]["mean"] == pytest.approx(np.mean([fit["nmi"] for fit in data["fits"]]))
    assert "k-means on unit features of conv4, centers of train, mean ± 95 % interval of 3 starts" in result.stdout


def test_the_same_command_does_nothing_twice_and_more_draws_are_added(few: Path, own_run: Path) -> None:
    assert invoke(own_run, few, "--draws", "1").exit_code == 0
    (first,) = found(own_run)

    again, more = invoke(own_run, few, "--draws", "1"), invoke(own_run, few, "--draws", "2")

    assert "1 of 1:" not in again.output
    assert "1 of 1:" in more.output
    (both,) = found(own_run)
    assert both["fits"][0] == first["fits"][0]
    assert [fit["draw"] for fit in both["fits"]] == [0, 1]


def test_new_weights_stand_beside(few: Path, own_classes: Path) -> None:
    result = invoke(own_classes, few, "--compare", "--draws", "2", "--center", "0.875")

    assert result.exit_code == 0, result.output
    rows = [line.split("|")[1].strip() for line in result.stdout.splitlines() if line.startswith("|")]
    assert rows[2:] == ["pretrained", "new weights"]


# ------------------------------------------------------------------------------------------------------------ stopping


def numbers(run_dir: Path) -> list[dict[str, Any]]:
    """Every result without what depends on the clock."""
    results = found(run_dir)
    for fit in (fit for result in results for fit in result["fits"]):
        del fit["seconds"]
    return results


@pytest.mark.parametrize(
    ("number", "code", "kept"), [(signal.SIGTERM, EXIT_REQUEUE, 2), (signal.SIGINT, 130, 2), (signal.SIGKILL, -9, 1)]
)
def test_a_stop_keeps_finished_starts_and_the_same_command_does_the_rest(
    number: signal.Signals, code: int, kept: int, few: Path, own_run: Path, tmp_path: Path
) -> None:
    """Between two starts of k-means too, which look at no image. The signal comes as the second one's file is written."""
    whole = shutil.copytree(own_run, tmp_path / "whole")
    assert invoke(whole, few, "--draws", "3").exit_code == 0

    assert run_apart(arguments(own_run, few, "--draws", "3"), ("fsync", 2), number) == code

    assert [len(result["fits"]) for result in found(own_run)] == [kept]
    again = invoke(own_run, few, "--draws", "3")
    assert again.exit_code == 0, again.output
    assert f"{3 - kept} of {3 - kept}:" in again.output
    assert numbers(own_run) == numbers(whole)
    assert litter(own_run) == []


# ------------------------------------------------------------------------------------------------------ what it refuses


def test_every_field_of_the_config_has_an_option_with_help() -> None:
    output = CliRunner().invoke(main, ["cluster", "-h"]).output

    assert set(FIELD_HELP) == {field.name for field in fields(ClusterConfig)}
    assert all("--" + name.replace("_", "-") in output for name in FIELD_HELP)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--method", "classifier"), 2, "has no classes of its own: only self_classifier has. Use --method kmeans"),
        (("--split", "test"), 1, "has splits train, val, no test"),
        (("--learn-split", "test"), 1, "has splits train, val, no test"),
        (("--learn-split", "val"), 2, "learn_split and split are both val: reported images would be what centers"),
        (("--clusters", "1"), 2, "clusters 1, expected 2 or more, or 0"),
        (("--clusters", "25"), 2, "25 clusters of 24 images"),
        (("--layer", "conv9"), 2, "layer 'conv9', this run's network has"),
        (("--draws", "0"), 2, "draws 0, expected 1 or more"),
        (("--center", "1.5"), 2, "center 1.5, expected a part of the sides"),
        (("--seed", "-1"), 2, "seed -1, expected 0 or more"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_option_is_refused(options: tuple[str, ...], code: int, message: str, few: Path, own_run: Path) -> None:
    result = invoke(own_run, few, *options)

    assert result.exit_code == code, result.output
    assert message in re.sub(r"\s+", " ", result.output)
    assert found(own_run) == []


def test_a_classifier_that_is_not_there_is_refused(few: Path, own_classes: Path) -> None:
    result = invoke(own_classes, few, "--classifier", "2")

    assert result.exit_code == 2
    assert "classifier 2, this run has 2. Use --classifier 0 to 1" in re.sub(r"\s+", " ", result.output)


def test_where_there_is_one_classifier_it_is_named(few: Path) -> None:
    fields: dict[str, Any] = {"method": "self_classifier", "network": "half:simplenet", "head": "16", "classes": "3"}
    only = small_parts(open_manifest(few, "rgb"), split="train", augmentation="simsiam_cifar", **fields)[1]

    with pytest.raises(ConfigError, match=r"classifier 1, this run has one\. Use --classifier 0$"):
        ClusterConfig(classifier=1, split="val").settled(only)


def test_shards_of_another_color_space_come_with_the_command(few: Path, own_classes: Path) -> None:
    result = invoke(own_classes, few / "lab")

    assert result.exit_code == 1
    assert "colorspace: rgb in the run, lab here" in result.output
    built = re.search(
        r"sbprep build --source \S+ --colorspace rgb --out (\S+) --image-size 64 --target-size 4", result.output
    )
    assert built is not None, result.output
    assert built[1] == str(few)
