"""The part of ``sbtrain bench`` that augments: on one core beside torchvision, and its share of a training step.

torchvision's side is what most training scripts run in the workers of a loader: `transforms.Compose` on one PIL image
at a time, from the decoded image to the normalized tensor, all views. Decoding and collating are left out. Ours makes
the same views of a batch of stored bytes.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sbtrain.augment.views import Augment, ViewSpec, recipe
from sbtrain.bench.rounds import Bar, comparison, rounds, sampled
from sbtrain.bench.steps import Setting, steady
from sbtrain.bench.synthetic import write_synthetic
from sbtrain.config import PretrainConfig
from sbtrain.runtime import Runtime

#: Recipes, and pixels of a side of the images and their global views.
MEASURED = (("simsiam_cifar", 32), ("self_classifier_native32", 32), ("simsiam_report", 96), ("dino_multicrop", 96))
BAR = Bar(10)
BATCH, THEIRS = 256, 32
#: The step that a share is of: SimSiam as on CIFAR-10. A step of 512 takes a CPU half a minute.
NETWORK, RECIPE, SIDE, CPU_BATCH, CUDA_BATCH = "resnet18-cifar", "simsiam_cifar", 32, 8, 512
PEER = "torchvision"


@dataclass(frozen=True, kw_only=True)
class SimSiamSetting(Setting):
    """One way of training SimSiam."""

    augmentation: str

    def config(self) -> PretrainConfig:
        """Return the config of a run that takes such steps."""
        return PretrainConfig(
            method="simsiam",
            network=self.network,
            augmentation=self.augmentation,
            batch_size=self.batch_size,
            mode=self.mode,
            schedule="constant",
        )


def augmenting(folder: Path, runtime: Runtime, repeats: int, seconds: float) -> Iterator[str]:
    """Measure and yield the lines; `folder` takes the shards."""
    yield "augmentation on one core, all views of an image, beside torchvision.transforms on PIL images"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, side in MEASURED:
        yield _compared(name, side, repeats, seconds)
    torch.set_num_threads(threads)
    yield _share_line(folder, runtime, seconds)


def _compared(name: str, side: int, repeats: int, seconds: float) -> str:
    views = recipe(name, side)
    lacking = _lacking()
    pixels = np.random.default_rng(0).integers(0, 256, (THEIRS, side, side, 3), np.uint8)
    sides = {name: ours(views, pixels)}
    if not lacking:
        sides[PEER] = theirs(views, pixels)
    rates = rounds({who: sampled(batches, seconds) for who, batches in sides.items()}, repeats)
    return comparison(rates, name, PEER, BAR, lacking) + f"   {side} x {side}, {len(views)} views"


def _lacking() -> list[str]:
    try:
        for name in (PEER, f"{PEER}.transforms"):
            importlib.import_module(name)
    except Exception:  # a broken installation of someone else's package must not end the benchmark
        return [f"pip install {PEER}"]
    return []


def ours(views: tuple[ViewSpec, ...], pixels: Any) -> Iterator[int]:
    """Yield sizes of batches that were augmented, of images uint8 (n, S, S, 3)."""
    count = BATCH if pixels.shape[1] <= 32 else BATCH // 4
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).repeat(-(-count // len(pixels)), 1, 1, 1)[:count]
    images, index, augment = images.contiguous(), torch.arange(count), Augment(views, 0)
    epoch = 0
    while True:
        augment(images, index, epoch)
        epoch += 1
        yield count


def theirs(views: Sequence[ViewSpec], pixels: Any) -> Iterator[int]:
    """Yield 1 for each image that torchvision augmented."""
    pil = importlib.import_module("PIL.Image")
    images = [pil.fromarray(image) for image in pixels]
    composed = [composition(view) for view in views]
    while True:
        for image in images:
            for transform in composed:
                transform(image)
            yield 1


def composition(view: ViewSpec) -> Callable[[Any], Any]:
    """Return torchvision's transform of PIL images that does what `view` says."""
    transforms = importlib.import_module("torchvision.transforms")
    steps = [
        transforms.RandomResizedCrop(
            view.size, view.scale, view.ratio, transforms.InterpolationMode(view.interpolation)
        ),
        transforms.RandomHorizontalFlip(view.flip),
    ]
    if view.jitter:
        strengths = view.brightness, view.contrast, view.saturation, view.hue
        steps.append(transforms.RandomApply([transforms.ColorJitter(*strengths)], view.jitter))
    if view.grayscale:
        steps.append(transforms.RandomGrayscale(view.grayscale))
    if view.blur_probability:
        steps.append(transforms.RandomApply([_blur(view, transforms)], view.blur))
    if view.solarize:
        steps.append(transforms.RandomSolarize(128, view.solarize))
    composed: Callable[[Any], Any] = transforms.Compose(
        [*steps, transforms.ToTensor(), transforms.Normalize(view.mean, view.std)]
    )
    return composed


def _blur(view: ViewSpec, transforms: Any) -> Any:
    if view.kernel == "twentieth":
        return transforms.GaussianBlur(2 * view.radius + 1, view.sigma)
    # The filter of PIL that SimSiam's and DINO's code call.
    blur, draw = importlib.import_module("PIL.ImageFilter").GaussianBlur, np.random.default_rng(0)
    return transforms.Lambda(lambda image: image.filter(blur(draw.uniform(*view.sigma))))


def augmentation_share(folder: Path, runtime: Runtime, setting: SimSiamSetting, side: int, seconds: float) -> float:
    """Return how much of a step of SimSiam is augmentation, from the time of each by itself.

    Parameters
    ----------
    folder : Path
        Takes the shards, random bytes.
    runtime : Runtime
    setting : SimSiamSetting
    side : int
        Pixels of a side of the images.
    seconds : float
        Measured of each.
    """
    manifest = write_synthetic(folder, {"unlabeled": 2 * setting.batch_size}, "rgb", side)
    per_image = 1 / steady(manifest, setting, seconds).images_per_s
    return seconds_per_image(runtime, setting, side, seconds) / per_image


def seconds_per_image(runtime: Runtime, setting: SimSiamSetting, side: int, seconds: float) -> float:
    """Return how long the views of one image take in a batch on the device."""
    count = setting.batch_size
    augment = Augment(recipe(setting.augmentation, side), 0).to(runtime.device)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, device=runtime.device)
    index = torch.arange(count, device=runtime.device)
    augment(images, index, 0)
    _wait_for(runtime)
    start, times = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        augment(images, index, times)
        times += 1
        _wait_for(runtime)
    return (time.perf_counter() - start) / (times * count)


def _share_line(folder: Path, runtime: Runtime, seconds: float) -> str:
    on_cuda = runtime.device.type == "cuda"
    setting = SimSiamSetting(
        network=NETWORK,
        cache="device" if on_cuda else "host",
        batch_size=CUDA_BATCH if on_cuda else CPU_BATCH,
        device=str(runtime.device),
        augmentation=RECIPE,
    )
    share = augmentation_share(folder, runtime, setting, SIDE, seconds)
    return (
        f"  {share:.1%} of a step of simsiam, {NETWORK}, {RECIPE} at {SIDE} x {SIDE}, batch {setting.batch_size}, "
        f"is augmentation"
    )


def _wait_for(runtime: Runtime) -> None:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)
