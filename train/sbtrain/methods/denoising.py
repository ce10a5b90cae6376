"""Denoising autoencoder, the reports' baseline: P. Vincent et al., JMLR 11 (2010), sections 2 to 4.

A corrupted image goes in, the clean one is to come out; all channels are seen, none is predicted from others.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbformat.errors import ConfigError
from sbtrain.corrupt import Noise, corrupt
from sbtrain.data import Batch
from sbtrain.inputs import Inputs
from sbtrain.networks.autoencoder import Autoencoder

#: The report's code has four convolutions each way, its text five layers.
WIDTHS = {"autoencoder": (12, 24, 48, 96), "autoencoder-5": (12, 24, 48, 96, 192)}


class Denoising(nn.Module):
    """The autoencoder, its loss and its features.

    Parameters
    ----------
    network : str
        ``autoencoder``, ``autoencoder-5``, either with ``-bn``.
    inputs : Inputs
        Normalized to [0, 1].
    noise, level
        See `sbtrain.corrupt.corrupt`.
    reconstruction : {"bce", "mse"}
        Bernoulli cross-entropy of the sigmoid, or squared error of it.
    seed : int

    Raises
    ------
    ConfigError
        There is no such network.
    """

    def __init__(
        self, network: str, inputs: Inputs, noise: Noise, level: float, reconstruction: Literal["bce", "mse"], seed: int
    ) -> None:
        super().__init__()
        base = network.removesuffix("-bn")
        if base not in WIDTHS:
            names = [name + suffix for name in WIDTHS for suffix in ("", "-bn")]
            raise ConfigError(f"network {network!r} of the denoising method, expected one of {', '.join(names)}")
        self.inputs, self.noise, self.level = inputs, noise, level
        self.reconstruction, self.seed = reconstruction, seed
        self.network = Autoencoder(WIDTHS[base], norm=network.endswith("-bn"))

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets that a batch must bring."""
        return self.inputs.datasets

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the reconstruction loss, a scalar."""
        clean = self.inputs(batch)
        noisy = corrupt(clean, batch.index, self.noise, self.level, self.seed, batch.epoch)
        logits = self.network(noisy).float()
        if self.reconstruction == "bce":
            loss = functional.binary_cross_entropy_with_logits(logits, clean)
        else:
            loss = functional.mse_loss(torch.sigmoid(logits), clean)
        return loss, {}

    def features(self, batch: Batch, layer: str = "conv4") -> Tensor:
        """Return the named encoder stage's output of the clean images: (B, channels, h, w)."""
        x: Tensor = self.inputs(batch)
        for name, stage in self.network.encoder.named_children():
            x = stage(x)
            if name == layer:
                break
        return x

    def layers(self) -> list[str]:
        """Return the names that `features` takes, from input to code."""
        return [name for name, _ in self.network.encoder.named_children()]
