"""Heads and classifiers of Self-Classifier: what lies between a backbone's features and the logits of its classes.

Axes: N rows, D features, E numbers an embedding, C classes.
"""

from __future__ import annotations

from typing import Literal

from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from sbformat.errors import ConfigError

ClassifierKind = Literal["weight-norm", "orthonormal"]
#: Name -> widths of the head's linear layers. The published code counts linear layers (its ``num_hidden``): 1 is one
#: linear layer and no hidden one. The report calls that "1 HL", and "2 HL" what has two hidden layers and three linear.
HEADS = {"1hl": "128", "2hl": "4096-4096-128", "official": "4096-128", "v1": "256-256-64"}


def class_counts(text: str) -> list[int]:
    """Read the numbers of classes: ``10``, ``1000,2000,4000,8000``, or ``30x30`` for 30 classifiers of 30 classes.

    Raises
    ------
    ConfigError
        It is something else.
    """
    try:
        if "x" in text:
            count, C = map(int, text.split("x"))
            found = [C] * count
        else:
            found = list(map(int, text.split(",")))
    except ValueError:
        found = []
    if not found or min(found) < 2 or len(found) > 1000:
        raise ConfigError(
            f"classes {text!r}, expected numbers of 2 or more such as 10, 1000,2000,4000,8000 or 30x30 (30 classifiers of "
            f"30 classes)"
        )
    return found


def head_widths(text: str) -> list[int]:
    """Return the widths of a head's linear layers, by a name of `HEADS` or as ``4096-4096-128``.

    Raises
    ------
    ConfigError
        It is neither.
    """
    try:
        found = list(map(int, HEADS.get(text, text).split("-")))
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise ConfigError(f"head {text!r}, expected one of {', '.join(HEADS)}, or widths such as 4096-4096-128")
    return found


def build_head(text: str, D: int) -> tuple[nn.Sequential, int]:
    """Return linear layers of the given widths on features (N, D), and the last width E.

    BatchNorm and LeakyReLU lie between them, nothing behind the last; weights are of deviation 0.02, biases 0.
    """
    *hidden, E = head_widths(text)
    layers: list[nn.Module] = []
    for before, after in zip([D, *hidden], hidden, strict=False):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.LeakyReLU(0.01, inplace=True)]
    layers.append(nn.Linear(hidden[-1] if hidden else D, E))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers), E


def build_classifier(kind: ClassifierKind, E: int, C: int) -> nn.Module:
    """Return a linear layer without bias, embeddings (..., E) -> logits (..., C).

    Raises
    ------
    ConfigError
        There are no C orthonormal rows of E numbers.
    """
    if kind == "orthonormal" and C > E:
        raise ConfigError(
            f"{C} classes, but {E} numbers an embedding: no more rows than that are orthonormal. Use fewer --classes, a "
            f"wider --head, or --classifier weight-norm"
        )
    linear = nn.Linear(E, C, bias=False)
    if kind == "orthonormal":
        nn.init.orthogonal_(linear.weight)
        linear.weight.requires_grad_(False)
        return linear
    normed: nn.Linear = weight_norm(linear)
    nn.init.ones_(normed.parametrizations.weight.original0)  # type: ignore[union-attr, arg-type, unused-ignore]
    return normed
