"""From a config and a manifest to the parts of a run: method, loader, and the FLOPs of an image."""

from __future__ import annotations

import torch

from sbformat.errors import ConfigError
from sbformat.manifest import Manifest
from sbtrain.config import AUGMENTATION, PretrainConfig
from sbtrain.data import Cache, Loader, SplitReader, order_from_text, reside
from sbtrain.flops import flops_per_image
from sbtrain.inputs import Inputs
from sbtrain.methods import Denoising, Method, SelfClassifier, SimSiam, SplitBrain
from sbtrain.methods.views import Views
from sbtrain.networks.backbones import build_backbone
from sbtrain.runtime import Runtime


def build_method(config: PretrainConfig, manifest: Manifest) -> Method:
    """Build the method with fresh weights, on torch's current default device.

    Raises
    ------
    ConfigError
        The config does not fit the shards.
    """
    if config.method in AUGMENTATION:
        return _of_views(config, manifest)
    inputs = Inputs(manifest, config.split, config.input, config.normalize)
    if config.method == "denoising":
        return Denoising(config.network, inputs, config.noise, config.noise_level, config.reconstruction, config.seed)
    if config.network == "simplenet" and manifest.image_size < 52:
        raise ConfigError(
            f"network simplenet, images of {manifest.image_size} x {manifest.image_size}: its convolutions need 52 or "
            f"more. Build larger images (sbprep build --image-size 96), or use --network resnet18"
        )
    return SplitBrain(config.network, manifest.target, inputs, config.loss)


def _of_views(config: PretrainConfig, manifest: Manifest) -> SimSiam | SelfClassifier:
    views = Views(manifest, config.augmentation or AUGMENTATION[config.method], config.view_size, config.seed)
    (SimSiam if config.method == "simsiam" else SelfClassifier).check_views(views)
    backbone = build_backbone(config.network, views.sizes, config.zero_init)
    if config.method == "simsiam":
        return SimSiam(backbone, views, config.projector, config.stop_gradient, config.constant_predictor_lr)
    return SelfClassifier(
        backbone, views, head=config.head, classes=config.classes, classifier=config.classifier, prior=config.prior,
        tau_row=config.tau_row, tau_col=config.tau_col, eps=config.eps, queue=config.queue,
        queue_replace=config.queue_replace,
    )  # fmt: skip


def open_split(config: PretrainConfig, manifest: Manifest, method: Method) -> SplitReader:
    """Open the split that the config names, with the datasets that the method needs."""
    return SplitReader(manifest, config.split, method.datasets)


def build_loader(config: PretrainConfig, reader: SplitReader, runtime: Runtime, cache: Cache = "auto") -> Loader:
    """Put the rows where they will wait and return the loader of their batches."""
    rows = min(config.limit or len(reader), len(reader))
    order = order_from_text(config.shuffle, rows, config.seed)
    if config.batch_size > rows:
        raise ConfigError(f"batch size {config.batch_size}, the split has {rows} images. Use a smaller --batch-size")
    world = runtime.world
    mine = world.places(config.batch_size, config.accumulate)
    return Loader(reside(cache, reader, runtime.device, world.local_size), order, config.batch_size, mine)


def count_flops(config: PretrainConfig, manifest: Manifest) -> float:
    """Return the FLOPs of one image's forward and backward pass, counted without computing anything."""
    with torch.device("meta"):
        method = build_method(config, manifest)
    return flops_per_image(method, manifest, config.split)
