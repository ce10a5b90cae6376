"""The only door to scikit-learn: maps of features in two dimensions.

N images, D features.
"""

from __future__ import annotations

import warnings

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
