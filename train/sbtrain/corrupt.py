"""Corruptions of the denoising baseline, keyed by sample: P. Vincent et al., JMLR 11 (2010), section 4.

The noise of a sample is a pure function of (seed, epoch, row number): `keyed`.

Axes: B images, 3 channels, S x S pixels.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from sbtrain.keyed import uniform

Noise = Literal["masking", "gaussian", "salt-and-pepper"]


def corrupt(x: Tensor, index: Tensor, noise: Noise, level: float, seed: int, epoch: int | Tensor) -> Tensor:
    """Corrupt x (B, 3, S, S) in [0, 1], each channel value by itself.

    masking: a share `level` becomes 0. salt-and-pepper: a share `level` becomes 0 or 1 with equal chance. gaussian: a
    normal number of standard deviation `level` is added, the sum clipped to [0, 1].
    """
    flat = x.reshape(len(x), -1)
    u = uniform(index, flat.shape[1], seed, epoch)
    if noise == "masking":
        noisy = torch.where(u < level, 0.0, flat)
    elif noise == "salt-and-pepper":
        noisy = torch.where(u < level / 2, 0.0, torch.where(u > 1 - level / 2, 1.0, flat))
    else:
        v = uniform(index, flat.shape[1], seed, epoch, stream=1)
        normal = torch.sqrt(-2 * torch.log(u)) * torch.cos(2 * math.pi * v)  # Box and Muller, 1958
        noisy = (flat + level * normal).clamp(0, 1)
    return noisy.view_as(x)
