"""The only door to scikit-learn: maps of features in two dimensions, k-means, and how clusters agree with classes.

N images, D features, Q classes, K clusters.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbformat.errors import ConfigError

#: Neighbors that a point of a map keeps close, at most (L. van der Maaten and G. Hinton, JMLR 2008: 5 to 50).
PERPLEXITY = 30.0
#: Images below which there is no neighborhood to draw.
LEAST = 8


def tsne(features: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32]:
    """Return a map (N, 2) of features (N, D) by t-SNE, begun at their principal components: the same for the same seed.

    Raises
    ------
    ConfigError
        scikit-learn is missing, there are fewer than `LEAST` images, or all are the same.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ConfigError("t-SNE needs scikit-learn. Install it: pip install 'splitbrain[report]'") from error
    if len(features) < LEAST:
        raise ConfigError(f"t-SNE of {len(features)} images, expected {LEAST} or more")
    spread = float(features.astype(np.float64).std(axis=0).max())
    if not (np.isfinite(spread) and spread > 0):  # scikit-learn 1.9 ends the process with a segmentation fault
        raise ConfigError(f"t-SNE of features of which the widest spreads by {spread:g}: there is nothing to map")
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own numerics; what comes out is looked at below
        fitted = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(features / spread)
    points = np.asarray(fitted, np.float32)
    if not np.isfinite(points).all():
        raise ConfigError("t-SNE of these features is not finite")
    return points


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How two partitions of the same images agree; 1: they are the same."""

    nmi: float
    """Mutual information over the arithmetic mean of both entropies."""
    ami: float
    """The same above what chance gives (N. Vinh, J. Epps and J. Bailey, JMLR 2010)."""
    ari: float
    """Share of pairs of images on which both agree, above what chance gives (L. Hubert and P. Arabie, 1985)."""


def agreement(labels: NDArray[Any], assigned: NDArray[Any]) -> Agreement:
    """Return the scores of clusters (N,) against classes (N,).

    Raises
    ------
    ConfigError
        scikit-learn is missing.
    """
    _check("scores of clusters")
    from sklearn import metrics

    return Agreement(
        nmi=float(metrics.normalized_mutual_info_score(labels, assigned, average_method="arithmetic")),
        ami=float(metrics.adjusted_mutual_info_score(labels, assigned, average_method="arithmetic")),
        ari=float(metrics.adjusted_rand_score(labels, assigned)),
    )


def matched_accuracy(counts: NDArray[np.int64]) -> float:
    """Return the share of images in clusters matched with their class, counts (Q, K), one cluster a class at most.

    The matching is the best there is (H. Kuhn, 1955). Images of clusters that are left without a class are wrong.

    Raises
    ------
    ConfigError
        scikit-learn, which brings scipy, is missing.
    """
    _check("scores of clusters")
    from scipy.optimize import linear_sum_assignment

    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / counts.sum())


def kmeans(learned: NDArray[np.float32], reported: NDArray[np.float32], clusters: int, seed: int) -> NDArray[np.int64]:
    """Return the nearest of `clusters` centers, means of `learned` (M, D), to each row of `reported` (N, D): int64 (N,).

    Centers begin far apart (k-means++, D. Arthur and S. Vassilvitskii, SODA 2007), by `seed`, of 32 bits.

    Raises
    ------
    ConfigError
        scikit-learn is missing, or there are fewer rows than clusters.
    """
    _check("k-means")
    from sklearn.cluster import KMeans

    if len(learned) < clusters:
        raise ConfigError(f"{clusters} clusters of {len(learned)} images. Use --clusters {len(learned)} or less")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that fewer rows differ than there are clusters: unused ones are counted
        fitted = KMeans(clusters, n_init=1, random_state=seed).fit(learned)
    found: NDArray[np.int64] = fitted.predict(reported).astype(np.int64)
    return found


def version() -> str:
    """Return scikit-learn's.

    Raises
    ------
    ConfigError
        It is missing.
    """
    _check("clustering")
    import sklearn

    return str(sklearn.__version__)


def _check(what: str) -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{what}: scikit-learn is missing. Install it: pip install 'splitbrain[report]'") from error
