"""Maps by scikit-learn: the same for the same seed, and neighbors stay neighbors."""

import sys
from collections.abc import Callable

import numpy as np
import pytest

from sbformat.errors import ConfigError
from sbtrain.evaluation.scores import LEAST, kmeans, matched_accuracy, tsne


def clusters(n: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    return (np.repeat(np.eye(2, 6) * 40, n, axis=0) + generator.normal(size=(2 * n, 6))).astype(np.float32)


def test_a_map_keeps_clusters_apart_and_repeats() -> None:
    features = clusters(12)

    points = tsne(features)

    assert points.shape == (24, 2)
    assert np.array_equal(points, tsne(features))
    first, second = points[:12], points[12:]
    between = np.linalg.norm(first.mean(0) - second.mean(0))
    assert between > max(np.ptp(first, axis=0).max(), np.ptp(second, axis=0).max())


@pytest.mark.parametrize("value", [0.0, 3.0, np.nan, np.inf])
def test_images_that_are_all_the_same_are_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="there is nothing to map"), np.errstate(all="ignore"):
        tsne(np.full((20, 3), value, np.float32))


def test_features_of_any_scale_have_a_map() -> None:
    assert np.isfinite(tsne(clusters(6) * np.float32(1e18))).all()


def test_too_few_images_for_a_map_are_refused() -> None:
    with pytest.raises(ConfigError, match=f"{LEAST - 1} images, expected {LEAST} or more"):
        tsne(np.zeros((LEAST - 1, 3), np.float32))


@pytest.mark.parametrize(
    "call",
    [
        lambda: tsne(clusters(12)),
        lambda: kmeans(clusters(2), clusters(2), 2, 0),
        lambda: matched_accuracy(np.eye(2, dtype=np.int64)),
    ],
)
def test_without_scikit_learn_the_extra_is_named(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sklearn", "sklearn.cluster", "sklearn.manifold"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(ConfigError, match=r"Install it: pip install 'splitbrain\[report\]'"):
        call()
