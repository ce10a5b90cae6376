"""What is done to make a view, and the papers' and reports' lists of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from sbformat.errors import ConfigError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
#: The color jitter of SimCLR's followers: probability 0.8, strengths 0.4, 0.4, 0.4, 0.1.
Interpolation = Literal["bilinear", "bicubic"]
Kernel = Literal["pil", "twentieth"]


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """One view: a crop, then what happens to it, in this order.

    Raises
    ------
    ConfigError
        A field out of its range.
    """

    size: int
    """Pixels of a side of the view."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Of the crop: its share of the image's area, uniform between these."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Of the crop: width over height, its logarithm uniform between these."""
    interpolation: Interpolation = "bilinear"
    flip: float = 0.5
    """Probability of a mirrored view."""
    jitter: float = 0.8
    """Probability that brightness, contrast, saturation and hue are changed, in random order."""
    brightness: float = 0.4
    """Factor uniform in 1 ± this; contrast and saturation too."""
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    """Turns around the color circle, uniform in ± this, at most 0.5."""
    grayscale: float = 0.2
    """Probability."""
    blur: float = 0.0
    """Probability."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """Of the blur, in pixels of the view, uniform between these."""
    kernel: Kernel = "pil"
    """Width of the blur: as far as PIL's reaches (3 sigma), or torchvision's usual size // 20 * 2 + 1."""
    blur_above: int = 0
    """Views of this size and smaller are not blurred."""
    solarize: float = 0.0
    """Probability that every channel value of 128 and more (of 255) is inverted."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grayscale", "blur", "solarize"):
            _between(name, getattr(self, name), 0, 1)
        for name in ("brightness", "contrast", "saturation"):
            _between(name, getattr(self, name), 0, 1)
        _between("hue", self.hue, 0, 0.5)
        for name in ("scale", "ratio", "sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"{name} {low}, {high}, expected two numbers above 0, the smaller one first")
        if self.size < 1:
            raise ConfigError(f"views of {self.size} pixels, expected 1 or more")
        if self.blur_probability and self.size <= self.radius:
            raise ConfigError(f"views of {self.size} pixels, expected more than {self.radius}: a blur reaches as far")

    @property
    def blur_probability(self) -> float:
        """Probability of a blur at this size."""
        return self.blur if self.size > self.blur_above else 0.0

    @property
    def radius(self) -> int:
        """Pixels that a blur reaches to each side."""
        return math.ceil(3 * self.sigma[1]) if self.kernel == "pil" else self.size // 20


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} {value}, expected a number from {low} to {high}")


@dataclass(frozen=True)
class Recipe:
    """Views as published, and where."""

    source: str
    views: tuple[ViewSpec, ...]


# Two views alike: SimSiam, https://github.com/facebookresearch/simsiam, main_simsiam.py.
_SIMSIAM = ViewSpec(size=224, blur=0.5)
_SIMSIAM_CIFAR = ViewSpec(size=32, mean=CIFAR_MEAN, std=CIFAR_STD)
# DINO's, as Self-Classifier takes it: https://github.com/elad-amrani/self-classifier, src/utils.py.
_DINO = ViewSpec(size=224, scale=(0.4, 1.0), interpolation="bicubic", saturation=0.2, blur=0.1)
_DINO_2 = replace(_DINO, blur=1.0, solarize=0.2)
_DINO_LOCAL = replace(_DINO, size=96, scale=(0.05, 0.4), blur=0.5)
_MULTICROP = (_DINO, _DINO_2, *[_DINO_LOCAL] * 6)
# Blur of up to 2 pixels leaves nothing of 18: a share of the published radius, as 32 is of 224.
_NATIVE = replace(_SIMSIAM_CIFAR, scale=(0.4, 1.0), interpolation="bicubic", saturation=0.2)
_NATIVE_LOCAL = replace(_NATIVE, size=18, scale=(0.05, 0.4))

RECIPES: dict[str, Recipe] = {
    "simsiam_imagenet": Recipe("X. Chen, K. He, CVPR 2021, section 3; simsiam/main_simsiam.py", (_SIMSIAM,) * 2),
    "simsiam_cifar": Recipe("X. Chen, K. He, CVPR 2021, appendix D: no blur", (_SIMSIAM_CIFAR,) * 2),
    "simsiam_report": Recipe(
        "the SimSiam report's code: blur above 32 pixels, ImageNet's mean and deviation",
        (replace(_SIMSIAM, kernel="twentieth", blur_above=32),) * 2,
    ),
    "dino_multicrop": Recipe("E. Amrani et al., ECCV 2022; self-classifier/src/utils.py, after DINO", _MULTICROP),
    "self_classifier_report": Recipe(
        "the Self-Classifier report's code: dino_multicrop, at 224 and 96 whatever the image's size", _MULTICROP
    ),
    "self_classifier_cifar": Recipe(
        "self-classifier, first version: scripts/train_cifar10.sh", (replace(_SIMSIAM_CIFAR, blur=0.5),) * 2
    ),
    "self_classifier_native32": Recipe(
        "ours: dino_multicrop at the size of CIFAR-10, without blur",
        (_NATIVE, replace(_NATIVE, solarize=0.2), *[_NATIVE_LOCAL] * 6),
    ),
    "crop_flip": Recipe(
        "linear evaluation on ImageNet: simsiam/main_lincls.py",
        (ViewSpec(size=224, scale=(0.08, 1.0), jitter=0.0, grayscale=0.0),),
    ),
    "crop_flip_report": Recipe(
        "fine-tuning in the SimSiam report's code: resized, then crops that are larger than the image are drawn again",
        (ViewSpec(size=224, scale=(0.8, 1.2), jitter=0.0, grayscale=0.0),),
    ),
}


def recipe(name: str, size: int | None = None) -> tuple[ViewSpec, ...]:
    """Return the views of a recipe.

    Parameters
    ----------
    name : str
        One of `RECIPES`.
    size : int, optional
        Of its global views; local ones keep their share of it. None: as published.

    Raises
    ------
    ConfigError
        No such recipe, or a size too small for its blur.
    """
    if name not in RECIPES:
        raise ConfigError(f"augmentation {name!r}, expected one of {', '.join(RECIPES)}")
    views = RECIPES[name].views
    if size is None:
        return views
    return tuple(replace(view, size=max(1, round(view.size * size / views[0].size))) for view in views)
