"""The networks of a method up to one layer, as a module of plain tensors: what is exported.

Axes: N images, S x S pixels, C channels of the layer (both halves side by side), h x w cells, D features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sbformat.errors import ConfigError
from sbformat.manifest import Manifest, SplitManifest
from sbformat.schema import TargetSpec
from sbtrain.batch import Batch
from sbtrain.build import build_method
from sbtrain.config import PretrainConfig
from sbtrain.methods import Method
from sbtrain.methods.views import Views
from sbtrain.networks.pooling import PoolTo

#: Largest difference that plain views as products may make, as a share of the largest feature.
PLAIN_TOLERANCE = 1e-4
_GRAY, _BRIGHT = 64, 192


class ExportedEncoder(nn.Module):
    """Stored bytes to the features of one layer: no batch, no loss, no layer beyond it.

    Parameters
    ----------
    method : Method
        Anything with ``features(batch, layer)``, ``layers()`` and ``inputs.datasets``. Taken over: parts that the layer
        does not need are removed from it.
    manifest : Manifest
        Of the images that it was built for.
    layer : str, optional
        One of ``method.layers()``; the last one by default.
    pool : int
        Average the layer to pool x pool cells; 0: take it as it is.

    Raises
    ------
    ConfigError
        There is no such layer, or it has fewer cells.
    """

    def __init__(self, method: Method, manifest: Manifest, layer: str | None = None, pool: int = 0) -> None:
        super().__init__()
        self.layer = layer or method.layers()[-1]
        if self.layer not in method.layers():
            raise ConfigError(f"layer {self.layer!r}, this run's network has {', '.join(method.layers())}")
        specs = manifest.datasets(next(iter(manifest.splits)))
        self.inputs: dict[str, tuple[int, ...]] = {name: specs[name].row_shape for name in method.inputs.datasets}
        """Input -> shape of one image's part, in the order of `forward`'s arguments."""
        self.pool: nn.Module = nn.Identity()
        self.method = method
        self.eval()
        if isinstance(method.inputs, Views):
            self._simplify(method.inputs)
        trim(self, self.example(1))
        with torch.no_grad():
            cells = self(*self.example(1)).shape[2:]
        if pool and cells:
            if pool > min(cells):
                raise ConfigError(
                    f"pool {pool}, but {self.layer} has {cells[0]} x {cells[1]} cells. Use a smaller --pool"
                )
            self.pool = PoolTo(pool)

    def forward(self, image: Tensor, image_range: Tensor | None = None) -> Tensor:
        """Return the layer of uint8 images (N, 3, S, S): float32 (N, C, h, w), or (N, D) where it has no cells.

        `image_range`, float32 (N, 3, 2), is needed where `inputs` names it.
        """
        fields = {"image": image}
        if image_range is not None:
            fields["image_range"] = image_range
        features = self.method.features(Batch(torch.zeros(1, dtype=torch.int64), fields), self.layer)
        pooled: Tensor = self.pool(features) if features.dim() == 4 else features
        return pooled

    def _simplify(self, views: Views) -> None:
        # Resampling of views of all kinds goes by loops over images, which no graph holds; that of plain images is a product.
        example = self.example(2)
        with torch.no_grad():
            wanted = self(*example)
            self.method.inputs = PlainView(views, self.inputs["image"][-1])  # type: ignore[assignment]
            difference = float((self(*example) - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))
        if not difference < PLAIN_TOLERANCE:
            raise ConfigError(
                f"the views of {type(self.method).__name__} cannot be exported: they differ by {difference:.2g}"
            )

    def example(self, count: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Return random images, and ranges where needed, of the right shapes: what exports are checked with."""
        generator = torch.Generator().manual_seed(seed)
        found = [torch.randint(0, 256, (count, *self.inputs["image"]), dtype=torch.uint8, generator=generator)]
        if "image_range" in self.inputs:
            low = torch.tensor([0.0, -40.0, -40.0]) + 10 * torch.rand(count, 3, generator=generator)
            found.append(torch.stack([low, low + 10 + 60 * torch.rand(count, 3, generator=generator)], dim=-1))
        return tuple(found)


class PlainView(nn.Module):
    """What a method of views sees where nothing is random, as two products: uint8 (N, 3, S, S) -> float32 (N, 3, s, s).

    Parameters
    ----------
    views : Views
    size : int
        S, of the stored images.
    """

    def __init__(self, views: Views, size: int) -> None:
        super().__init__()
        self.datasets = views.datasets
        # One brighter row in each gray image: what comes out is a column of the resampling. Not white on black, as a cubic
        # filter goes beyond both, where values are cut off. Black and white give the normalization.
        rows = torch.full((size + 3, 3, size, size), _GRAY, dtype=torch.uint8)
        rows[torch.arange(size), :, torch.arange(size)] = _BRIGHT
        rows[-2], rows[-1] = 0, 255
        with torch.no_grad():
            seen = views.plain(Batch(torch.zeros(1, dtype=torch.int64), {"image": rows})).double()
        gray, black, white = seen[-3], seen[-2, :, :1, :1], seen[-1, :, :1, :1]
        columns = (seen[:size] - gray) / (white - black) * (255 / (_BRIGHT - _GRAY))
        resample = columns[:, 0, :, 0].T  # (s, S)
        self.resized = resample.shape[0] != size or not torch.allclose(resample, torch.eye(size).double(), atol=1e-6)
        self.register_buffer("resample", resample.float().contiguous(), persistent=False)
        self.register_buffer("scale", ((white - black) / 255).float(), persistent=False)
        self.register_buffer("shift", black.float(), persistent=False)

    def plain(self, batch: Batch) -> Tensor:
        """Return the images as the networks see them."""
        x, resample = batch["image"].float(), self.get_buffer("resample")
        if self.resized:
            x = (resample @ x @ resample.T).clamp(0, 255)
        return x * self.get_buffer("scale") + self.get_buffer("shift")


def rebuild(config: PretrainConfig, data: dict[str, Any], layer: str, pool: int) -> ExportedEncoder:
    """Build an encoder without weights, from the config of its run and what an export's card says of the data."""
    split = SplitManifest(
        source={}, listed=0, rejected={}, label_kind=None, files={}, statistics=data["statistics"], shards=()
    )
    manifest = Manifest(
        root=Path(), colorspace=data["colorspace"], image_size=data["image_size"],
        target=TargetSpec.from_json(data["target"]), label_names=(), recipe={}, provenance={},
        splits={config.split: split},
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):  # the first weights are random, and nobody will see them
        return ExportedEncoder(build_method(config, manifest), manifest, layer, pool)


def trim(module: nn.Module, example: tuple[Tensor, ...]) -> None:
    """Put `nn.Identity` where a part of `module` has no say in its output of `example`."""
    used: set[nn.Module] = set()
    hooks = [part.register_forward_pre_hook(lambda part, _: used.add(part)) for part in module.modules()]
    try:
        with torch.enable_grad():
            total = module(*example).sum()
    finally:
        for hook in hooks:
            hook.remove()
    # A network that another of its methods runs is never called itself; the gradient finds its own weights.
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    for name, gradient in zip(named, gradients, strict=True):
        if gradient is not None:
            used.add(module.get_submodule(name.rpartition(".")[0]))
    _drop(module, used)


def _drop(module: nn.Module, used: set[nn.Module]) -> None:
    for name, child in module.named_children():
        if used.isdisjoint(child.modules()):
            if next(child.parameters(), None) is not None:
                setattr(module, name, nn.Identity())
        else:
            _drop(child, used)
