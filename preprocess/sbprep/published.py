"""The per-image preparation behind the published results, kept to be measured against; nothing else uses it.

The published trainer did this in every epoch for every image (its "re-scaled Lab"): read a 96 x 96 file with Pillow,
convert it with scikit-image in float64, shrink it to 12 x 12 by ``skimage.transform.resize`` (a Gaussian of sigma 3.5,
zeros beyond the border) and cut it into classes by ``np.digitize``: L over a fixed range, a and b each over the range
of that image's own 12 x 12 map. Scaling the network's input is left out, so a comparison errs in its favor.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CELLS = 12
BINS_SINGLE = 100
BINS_DUAL = 10

#: Module -> distribution that pip knows.
PEERS = {"PIL": "pillow", "skimage": "scikit-image"}


def missing_peers() -> list[str]:
    """Return the distributions that `prepare` needs and that are not installed."""
    missing = []
    for module, distribution in PEERS.items():
        try:
            importlib.import_module(module)
        except ImportError:
            missing.append(distribution)
    return missing


def prepare(path: Path | str) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Read one image file and make what the published trainer fed to its networks.

    Returns
    -------
    lab : float64 (S, S, 3), L in [0, 100], a and b in about [-108, 99]
    single : int64 (12, 12), bin of L in [0, 100)
    dual : int64 (12, 12), joint bin of a and b in [0, 100)
    """
    pil = importlib.import_module("PIL.Image")
    color, transform = importlib.import_module("skimage.color"), importlib.import_module("skimage.transform")
    with pil.open(path) as file:
        rgb = np.asarray(file.convert("RGB"))
    lab = color.rgb2lab(rgb)
    small = transform.resize(lab, (CELLS, CELLS), mode="constant", anti_aliasing=True, preserve_range=True)
    return lab, *classes(small)


def classes(small: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut a Lab map (t, t, 3) into classes: int64 (t, t) of L and of a and b together, a · 10 + b."""
    L, a, b = np.moveaxis(small, -1, 0)
    single = _bins(L, 0.0, BINS_SINGLE + 1.0, BINS_SINGLE)
    return single, _bins(a, *_own_range(a), BINS_DUAL) * BINS_DUAL + _bins(b, *_own_range(b), BINS_DUAL)


def _own_range(channel: NDArray[Any]) -> tuple[float, float]:
    return float(channel.min()), float(channel.max()) + 1


def _bins(channel: NDArray[Any], low: float, high: float, bins: int) -> NDArray[np.int64]:
    return np.asarray(np.digitize(channel, np.linspace(low, high, bins + 1)) - 1, np.int64)
