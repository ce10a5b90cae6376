"""Classifiers solved by ridge regression, as the whole fit and as its beginning."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from labeled_sets import labeled_shards
from runs import CPU
from sbformat.errors import ConfigError
from sbformat.manifest import open_manifest
from sbtrain.evaluation.finetune_config import FinetuneConfig
from sbtrain.evaluation.fitting import Fitter, evaluate
from sbtrain.evaluation.labeled import Labeled
from sbtrain.methods import supervised
from sbtrain.methods.supervised import Classifier, ridge
from sbtrain.runtime import RunError


def points(count: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardized features, and labels of three classes."""
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(count, width, generator=rng)
    return (x - x.mean(0)) / x.std(0, correction=0), torch.arange(count) % 3


@pytest.mark.parametrize(("count", "width"), [(12, 5), (5, 12)])
def test_ridge_minimizes_its_sum(count: int, width: int) -> None:
    """The gradient of |x W' + b - y|^2 + s |W|^2 is 0, whichever of the two systems is solved."""
    x, label = points(count, width)
    y = torch.nn.functional.one_hot(label, 3).float()

    weight, bias = ridge(x, y, penalty=0.1)

    strength = 0.1 * x.square().sum() / count
    residue = x @ weight.T + bias - y
    torch.testing.assert_close(residue.T @ x + strength * weight, torch.zeros(3, width), atol=1e-4, rtol=0)
    torch.testing.assert_close(residue.sum(0), torch.zeros(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("standardize", [True, False])
def test_a_solved_classifier_gives_the_regression(standardize: bool) -> None:
    x, label = points(12, 5)
    feature = 7 * x + 3
    classifier = Classifier(5, 3, standardize)

    classifier.solve(feature, label)

    weight, bias = ridge(x if standardize else 7 * x, torch.nn.functional.one_hot(label, 3).float())
    expected = supervised.SOLVED_SCALE * ((x if standardize else 7 * x) @ weight.T + bias)
    torch.testing.assert_close(classifier.eval().classify(feature), expected, atol=2e-4, rtol=0)


def test_a_system_too_large_for_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "RIDGE_MOST", 4)
    with pytest.raises(ConfigError, match=r"ridge regression of 12 images on 5 features: .* --pool 1, or use --head"):
        ridge(*points(12, 5))


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_constant_features_give_the_shares_of_the_classes(value: float, standardize: bool) -> None:
    classifier = Classifier(5, 3, standardize)

    classifier.solve(torch.full((8, 5), value), torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]))

    logits = classifier.eval().classify(torch.full((1, 5), value))
    torch.testing.assert_close(logits / supervised.SOLVED_SCALE, torch.tensor([[0.5, 0.25, 0.25]]))


class Means:
    """A source whose features are the means of an image's channels."""

    def __init__(self, images: Labeled) -> None:
        self.labels, self._images = images.labels, images

    def batch(self, rows: np.ndarray):  # type: ignore[no-untyped-def]
        batch = self._images.batch(rows)
        batch.fields["feature"] = batch["image"].float().mean(dim=(2, 3))
        return batch


def fitter(tmp_path: Path, **fields: object) -> Fitter:
    manifest = open_manifest(labeled_shards(tmp_path / "shards"), "lab")
    return Fitter(Means(Labeled(manifest, "train", ("image",), CPU.device)), FinetuneConfig(**fields), CPU)


def test_frozen_features_are_classified_without_a_step(tmp_path: Path) -> None:
    frozen = fitter(tmp_path, freeze=True, head="ridge")
    model = Classifier(3, 3, standardize=True)

    assert frozen.fit(model, np.arange(24), seed=0) == 0
    assert evaluate(model, frozen.source, CPU)[0] > 1 / 3


@pytest.mark.parametrize("freeze", [True, False])
def test_features_that_are_not_finite_give_no_result(freeze: bool, tmp_path: Path) -> None:
    frozen = fitter(tmp_path, freeze=freeze, head="ridge")
    model = Classifier(3, 3, standardize=True)
    model.features = lambda batch: batch["feature"] / 0  # type: ignore[method-assign]

    with pytest.raises(RunError, match=r"features of 24 images are not finite: the run's weights fell apart"):
        frozen.fit(model, np.arange(24), seed=0)


def test_features_too_large_to_solve_give_no_result(tmp_path: Path) -> None:
    frozen = fitter(tmp_path, freeze=True, head="ridge")
    model = Classifier(3, 3, standardize=True)
    model.features = lambda batch: batch["feature"] * 1e35  # type: ignore[method-assign]

    with pytest.raises(RunError, match=r"no finite solution: their features reach \d"):
        frozen.fit(model, np.arange(24), seed=0)


def test_steps_go_on_from_the_solution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    record: Callable[..., torch.Tensor] = Fitter.loss
    monkeypatch.setattr(Fitter, "loss", lambda *given: seen.append(record(*given)) or seen[-1])
    fit = fitter(tmp_path, head="ridge", min_steps=3, epochs=1)

    assert fit.fit(Classifier(3, 3, standardize=True), np.arange(24), seed=0) == 3
    assert seen[0] < np.log(3)


def test_there_is_nothing_to_stop_early_without_steps() -> None:
    with pytest.raises(ConfigError, match="takes no steps to stop"):
        FinetuneConfig(freeze=True, head="ridge", hold_out=0.2)
