"""Denoising autoencoders: the report's code (four convolutions each way) and its text (five layers)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


class Autoencoder(nn.Module):
    """Convolutions 4 x 4 of stride 2 down and their transposes up.

    Parameters
    ----------
    widths : tuple of int
        Channels after each convolution. (12, 24, 48, 96): the report's code, 194,955 parameters; one more, 192: the
        five layers of its text.
    norm : bool
        BatchNorm after every convolution but the last.
    """

    def __init__(self, widths: tuple[int, ...] = (12, 24, 48, 96), norm: bool = False) -> None:
        super().__init__()
        down = (3, *widths)
        up = down[::-1]
        self.encoder = nn.Sequential(
            OrderedDict(
                (f"conv{i + 1}", _stage(nn.Conv2d(down[i], down[i + 1], 4, 2, 1), norm)) for i in range(len(widths))
            )
        )
        stages = [_stage(nn.ConvTranspose2d(up[i], up[i + 1], 4, 2, 1), norm) for i in range(len(widths) - 1)]
        self.decoder = nn.Sequential(*stages, nn.ConvTranspose2d(up[-2], 3, 4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1] -> (N, 3, S, S) logits of the clean image: the sigmoid belongs to the loss."""
        result: Tensor = self.decoder(self.encoder(x))
        return result


def _stage(convolution: nn.Conv2d | nn.ConvTranspose2d, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [convolution]
    if norm:
        layers.append(nn.BatchNorm2d(convolution.out_channels))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))
