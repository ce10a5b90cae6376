"""Colors of views: jitter, grayscale, solarize, in place on planes, every image with numbers of its own.

Brightness, contrast and saturation are one operation, f x + a gray + c mean(gray), clamped to [0, 1]; which of them an
image gets at each place of its order is a matter of f, a and c, and 1, 0, 0 leaves it bit for bit. Hue is another
operation, at any place of four: so three slots come before it and three after it, of which an image uses three.

Axes: 3 channels, B images, P pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from sbtrain.augment.recipes import ViewSpec

#: Luma of ITU-R BT.601, as torchvision's rgb_to_grayscale has it.
GRAY = (0.2989, 0.587, 0.114)
#: Random numbers of a jitter: whether, the factors of brightness, contrast and saturation, hue, order.
JITTER_DRAWS = 6
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = tuple(permutations(range(4)))
_STEEP = 1e30  # times a difference of two floats that are not equal: beyond 1


def slot_table() -> Tensor:
    """Return float32 (24, 6, 3): 1 where, in an order of the four, a slot holds brightness, contrast or saturation."""
    table = torch.zeros(len(ORDERS), 6, 3)
    for number, order in enumerate(ORDERS):
        place = order.index(HUE)
        for k, operation in enumerate(order):
            if operation != HUE:
                table[number, k if k < place else k + 2, operation] = 1
    return table


@dataclass(frozen=True)
class Jitter:
    """What happens to each image."""

    f: Tensor
    """float32 (6, B, 1, 1): of each slot"""
    a: Tensor
    c: Tensor
    hue: Tensor
    """float32 (B, 1, 1), in sixths of the circle"""
    group: Tensor
    """int64 (B,): in which place of four hue comes; 4: no jitter"""

    def __getitem__(self, some: slice | Tensor) -> Jitter:
        return Jitter(self.f[:, some], self.a[:, some], self.c[:, some], self.hue[some], self.group[some])


def drawn_jitter(u: Tensor, spec: ViewSpec, table: Tensor) -> Jitter:
    """Return the jitter of `spec` by u, float32 (B, 6) in (0, 1); `table` is `slot_table`'s."""
    applied = (u[:, 0] < spec.jitter).float()
    strength = (spec.brightness, spec.contrast, spec.saturation)
    factors = torch.stack([1 + applied * width * (2 * u[:, 1 + k] - 1) for k, width in enumerate(strength)], 1)
    hue = applied * (6 * spec.hue) * (2 * u[:, 4] - 1)
    held = table[(u[:, 5] * len(ORDERS)).long()]  # (B, 6, 3)
    f = (held * factors[:, None]).sum(2) + (1 - held.sum(2))
    a = held[..., SATURATION] * (1 - factors[:, None, SATURATION])
    c = held[..., CONTRAST] * (1 - factors[:, None, CONTRAST])
    group = torch.where(applied > 0, held[:, :3].sum((1, 2)).long(), 4)
    f, a, c = (values.t().contiguous()[..., None, None] for values in (f, a, c))
    return Jitter(f, a, c, hue[:, None, None], group)


def jittered(x: Tensor, jitter: Jitter, ends: list[int] | None, hue: float) -> None:
    """Change the colors of x (3, B, s, s) in place.

    On a CPU a slot runs over those images alone that use it, which lie side by side. On a GPU the host would have to
    wait to know them, so a slot runs over all; what it does not change keeps its bits, or with hue its value within
    1e-6.

    Parameters
    ----------
    x : float32 (3, B, s, s)
    jitter : Jitter
    ends : list of int, optional
        Images are sorted by `jitter.group`, and so many are in groups 0, up to 1, up to 2 and up to 3. None: in any
        order.
    hue : float
        Of the `ViewSpec`.
    """
    n = x.shape[1]
    changed = n if ends is None else ends[3]
    starts, stops = ([0] * 3, [n] * 3) if ends is None else (ends[:3], ends[:3])
    for k in range(3):
        _blend(x, jitter, k, slice(starts[k], changed))
    if hue and changed:
        shift_hue(x[:, :changed], jitter.hue[:changed], wraps=hue > 1 / 6)
    for k in range(3):
        _blend(x, jitter, 3 + k, slice(0, stops[k]))


def _blend(x: Tensor, jitter: Jitter, slot: int, some: slice) -> None:
    part = x[:, some]
    if part.numel():
        blend(part, jitter.f[slot, some], jitter.a[slot, some], jitter.c[slot, some])
        part.clamp_(0, 1)


def blend(x: Tensor, f: Tensor, a: Tensor, c: Tensor) -> None:
    """Make f x + a gray + c mean(gray) of x (3, B, s, s) in place; f, a and c are (B, 1, 1)."""
    grey = gray(x)
    # In two stages: a sum of one image's pixels at once is split among threads when it is the only one of its batch.
    mean = grey.sum(2).sum(1)[:, None, None] * (1 / grey[0].numel())
    # Not an addcmul for gray too: with two operands that do not vary from pixel to pixel it is four times as slow on a CPU.
    torch.addcmul(grey.mul_(a).add_(c * mean), x, f, out=x)


def gray(x: Tensor) -> Tensor:
    """Return the luma of x (3, B, s, s): (B, s, s)."""
    return torch.mul(x[0], GRAY[0]).add_(x[1], alpha=GRAY[1]).add_(x[2], alpha=GRAY[2])


def grayed(x: Tensor, applied: Tensor) -> None:
    """Make those of x (3, B, s, s) gray in place whose `applied`, float32 (B,), is 1 and not 0."""
    share = applied[:, None, None]
    torch.addcmul(gray(x).mul_(share), x, 1 - share, out=x)


def shift_hue(x: Tensor, shift: Tensor, *, wraps: bool) -> None:
    """Turn the hue of x (3, B, s, s), in [0, 1], in place: what torchvision's way over HSV gives, without its cases.

    Parameters
    ----------
    x : float32 (3, B, s, s)
    shift : float32 (B, 1, 1)
        In sixths of the circle, in [-3, 3].
    wraps : bool
        Whether some shift exceeds 1.

    Notes
    -----
    With m and M the least and the greatest channel and d = M - m, each channel is m + d T(h - h_c), where h is the hue
    in sixths, h_c = 0, 2, -2 for red, green and blue, and T has period 6: 1 up to |h| = 1, 0 from 2 on. A turn changes
    h alone. Of the hue in [-3, 3] the absolute value is (1 + g + b - r) with r, g, b = (R, G, B - m) / d, and its sign
    that of g - b.
    """
    R, G, B = x
    low, high = torch.minimum(torch.minimum(R, G), B), torch.maximum(torch.maximum(R, G), B)
    d = high.sub_(low)
    h = torch.sub(G, R).add_(B).sub_(low).add_(d).div_(d.clamp(min=1e-20))  # exactly 0 where all three are equal
    # The sign, where comparisons are slow on a CPU: 1 for g = b too, where h is 0 or 3.
    h.mul_(torch.sub(G, B).mul_(_STEEP).add_(1).clamp_(-1, 1)).add_(shift)
    if wraps:
        h.sub_(torch.round(h / 6).mul_(6))
    low.sub_(d)
    for channel, home in zip(x, (0, 2, -2), strict=True):
        # ||h| - 3| lies in [2, 3] where T is 1 and in [0, 1] where it is 0, for |h| up to 6.
        t = torch.sub(h, home).abs_().sub_(3).abs_().clamp_(1, 2)
        torch.addcmul(low, t, d, out=channel)


def solarized(x: Tensor, applied: Tensor) -> None:
    """Invert channel values of 128 of 255 and more, in place, of those x (B, 3, s, s) whose `applied` (B,) is 1."""
    bright = torch.sub(x, 127.5 / 255).mul_(_STEEP).clamp_(0, 1).mul_(applied[:, None, None, None])
    x.addcmul_(bright, 1 - 2 * x)
