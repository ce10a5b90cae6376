"""Stored bytes to what a network sees, on the device.

Axes: B images, 3 channels, S x S pixels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from sbformat.errors import ConfigError
from sbformat.manifest import Manifest
from sbformat.schema import LAB_RANGE
from sbtrain.data import Batch

Input = Literal["stored", "lab"]
Normalize = Literal["unit", "standard"]


class Inputs(nn.Module):
    """Decode a batch: uint8 (B, 3, S, S) -> float32 (B, 3, S, S).

    Parameters
    ----------
    manifest : Manifest
    split : str
        Whose statistics ``standard`` uses.
    kind : {"stored", "lab"}
        The stored levels as they are, or decoded back to Lab: the same for `lab`, undistorted for `rescaled_lab`.
    normalize : {"unit", "standard"}
        To [0, 1] by the fixed range (the reports), or to mean 0 and standard deviation 1 over the split.

    Raises
    ------
    ConfigError
        `lab` of an `rgb` set, or `standard` of a re-scaled set decoded to Lab, whose statistics are of stored levels.
    """

    def __init__(self, manifest: Manifest, split: str, kind: Input = "stored", normalize: Normalize = "unit") -> None:
        super().__init__()
        if kind == "lab" and manifest.colorspace == "rgb":
            raise ConfigError("input lab, the shards hold rgb. Use --input stored, or shards of lab or rescaled_lab")
        self.by_range = kind == "lab" and manifest.colorspace == "rescaled_lab"
        if self.by_range and normalize == "standard":
            raise ConfigError("normalize standard, but the statistics are of re-scaled levels. Use --normalize unit")
        low, width = np.array(LAB_RANGE)[:, 0], np.ptp(np.array(LAB_RANGE), axis=1)
        statistics = manifest.splits[split].statistics
        if normalize == "standard":
            scale, shift = 1 / np.maximum(statistics["std"], 1e-3), -np.array(statistics["mean"])
            shift = shift * scale
        elif self.by_range:
            scale, shift = 1 / width, -low / width
        elif manifest.colorspace == "lab":
            # stored = L * 2.55, a + 128, b + 128
            scale, shift = (
                np.array([1 / 255, 1 / width[1], 1 / width[2]]),
                np.array([0, *(-(128 + low[1:]) / width[1:])]),
            )
        else:
            scale, shift = np.full(3, 1 / 255), np.zeros(3)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets that a batch must bring."""
        return ("image", "image_range") if self.by_range else ("image",)

    def forward(self, batch: Batch) -> Tensor:
        """Return float32 (B, 3, S, S)."""
        x = batch["image"].float()
        if self.by_range:
            low, high = batch["image_range"].unbind(-1)
            x = low[..., None, None] + x * ((high - low) / 255)[..., None, None]
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        return x * scale + shift
