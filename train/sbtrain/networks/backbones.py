"""Backbones by name, our own and timm's, behind one adapter: whole color images in, one row of features out.

timm is the extra ``backbones``; ResNet-18, AlexNet and the split-brain halves do without it. Weights are always fresh:
nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from sbformat.errors import ConfigError
from sbtrain.networks import HALVES
from sbtrain.networks.trunks import alexnet, half, resnet18

#: Names that ``--network`` takes beside ``timm:NAME``.
RESNETS = {"resnet18": "imagenet", "resnet18-cifar": "cifar", "resnet18-report": "report"}
#: Our name -> timm's, and how ours differs.
TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "efficientnet_b0": ("efficientnet_b0", {}),
    "vit_small": ("vit_small_patch16_224", {}),
    # What timm gave that name to until June 2021 (0.4.9), as the SimSiam report used it: 47,985,408 parameters at 224.
    "vit_small_2021": (
        "vit_small_patch16_224",
        {
            "embed_dim": 768, "depth": 8, "num_heads": 8, "mlp_ratio": 3, "qkv_bias": False, "norm_layer": nn.LayerNorm,
        },
    ),
    "pit_ti": ("pit_ti_224", {}),
}  # fmt: skip
_HALVES = [f"half:{name}" for name in HALVES]
BACKBONES = (*RESNETS, "alexnet", *TIMM, *_HALVES)
#: At this size and below EfficientNet's first convolution has a stride of 1, as in the SimSiam report's code.
SMALL = 32
#: What networks raise where an image does not fit.
_MISFITS = (RuntimeError, AssertionError, ValueError, TypeError, ZeroDivisionError, IndexError)


class Backbone(nn.Module):
    """A network and the names of its layers.

    Parameters
    ----------
    name : str
    body : nn.Module
        (N, 3, S, S) -> (N, D); its stages are layers of their own where it is an `nn.Sequential`.
    width : int
        Number of features D.
    """

    def __init__(self, name: str, body: nn.Module, width: int) -> None:
        super().__init__()
        self.name, self.body, self.width = name, body, width

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, D) of images (N, 3, S, S)."""
        result: Tensor = self.body(x)
        return result

    def layers(self) -> list[str]:
        """Return the names that `until` takes, from input to ``backbone``, the features."""
        stages = [name for name, _ in self.body.named_children()] if isinstance(self.body, nn.Sequential) else [""]
        return [*stages[:-1], "backbone"]

    def until(self, x: Tensor, layer: str) -> Tensor:
        """Return the named layer's output: maps (N, C, h, w), or features (N, D)."""
        if layer not in self.layers():
            raise KeyError(f"layer {layer!r}, expected one of {', '.join(self.layers())}")
        maps = x
        if layer == "backbone":
            features: Tensor = self(x)
            return features
        for name, stage in self.body.named_children():
            maps = stage(maps)
            if name == layer:
                break
        return maps


def build_backbone(name: str, sizes: tuple[int, ...], zero_init: bool = False) -> Backbone:
    """Build a backbone with fresh weights, on torch's current default device.

    Parameters
    ----------
    name : str
        One of `BACKBONES`, or ``timm:NAME``.
    sizes : tuple of int
        Pixels of a side of the images that it will see; the first is the one it is built for.
    zero_init : bool
        Residual blocks begin as identities: ResNets alone.

    Raises
    ------
    ConfigError
        No such backbone, it cannot take images of these sizes, or timm is not installed.
    """
    check_name(name)
    body = _body(name, sizes, zero_init)
    return Backbone(name, body, _width(name, body, sizes))


def check_name(name: str) -> None:
    """Refuse a name that is none; whether timm has one is found out when it is built.

    Raises
    ------
    ConfigError
        With names like it.
    """
    if name in BACKBONES or (name.startswith("timm:") and name != "timm:"):
        return
    if name in HALVES:
        raise ConfigError(
            f"network {name!r} is one of split_brain's halves. Use a backbone of whole color images: --network "
            f"resnet18-cifar for 32 x 32 pixels, --network resnet18 for 96 x 96 and larger, or one of "
            f"{', '.join(BACKBONES)}, and timm:NAME"
        )
    close = [f"timm:{name}"] if _timm_has(name) else get_close_matches(name, BACKBONES, 1)
    hint = f"did you mean {close[0]}? There are" if close else "expected one of"
    raise ConfigError(f"network {name!r}, {hint} {', '.join(BACKBONES)}, and timm:NAME")


def _timm_has(name: str) -> bool:
    try:
        import timm
    except ImportError:
        return False
    return bool(timm.is_model(name))


def _body(name: str, sizes: tuple[int, ...], zero_init: bool) -> nn.Module:
    if name in RESNETS:
        return resnet18(RESNETS[name], zero_init)  # type: ignore[arg-type]
    if zero_init and not name.startswith("timm:"):
        raise ConfigError(f"zero_init, but {name} is no ResNet. Use --no-zero-init")
    if name == "alexnet":
        return alexnet()
    if name.startswith("half:"):
        return half(name.removeprefix("half:"))
    return _from_timm(name, sizes, zero_init)


def _from_timm(ours: str, sizes: tuple[int, ...], zero_init: bool) -> nn.Module:
    name, changes = TIMM.get(ours, (ours.removeprefix("timm:"), {}))
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"network {ours} comes from timm, which is not installed: pip install 'splitbrain[backbones]'"
        ) from error
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), 3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists what there is"
        raise ConfigError(f"network timm:{name}: timm {timm.__version__} has no such model, {hint}")
    about = timm.models.get_pretrained_cfg(name)
    several = about is not None and about.fixed_input_size and len(set(sizes)) > 1
    if about is not None and about.fixed_input_size:
        changes = changes | {"img_size": sizes[0]} | ({"dynamic_img_size": True} if several else {})
    try:
        model = _created(timm.create_model, name, changes, zero_init)
    except _MISFITS as error:
        reason = "it is built for one size" if several and isinstance(error, TypeError) else error
        raise ConfigError(_misfit(ours, sizes, reason)) from error
    if name == "efficientnet_b0" and max(sizes) <= SMALL:
        stem = model.get_submodule("conv_stem")
        assert isinstance(stem, nn.Conv2d)
        stem.stride = (1, 1)
    return model


def _created(create: Callable[..., nn.Module], name: str, changes: dict[str, Any], zero_init: bool) -> nn.Module:
    # timm's ResNets begin as identities unless told otherwise; what is no ResNet does not know the word.
    try:
        return create(name, pretrained=False, num_classes=0, zero_init_last=zero_init, **changes)
    except TypeError as error:
        if "zero_init_last" not in str(error):
            raise
    if zero_init:
        raise ConfigError(f"zero_init, but {name} is no ResNet. Use --no-zero-init")
    return create(name, pretrained=False, num_classes=0, **changes)


@torch.no_grad()
def _width(name: str, body: nn.Module, sizes: tuple[int, ...]) -> int:
    # One image of each size tells what no table of minimal sizes could, in less than half a second.
    patches = _patches(body)
    body.eval()
    for size in sizes:
        if patches is not None and (size - patches.kernel_size[0]) % patches.stride[0]:
            seen = " x ".join(map(str, patches.kernel_size))
            raise ConfigError(_misfit(name, (size,), f"it sees patches of {seen}, whole ones", sizes[0]))
        try:
            found = body(torch.zeros(1, 3, size, size))
        except _MISFITS as error:
            raise ConfigError(_misfit(name, (size,), error, sizes[0])) from error
    body.train()
    if not isinstance(found, Tensor) or found.ndim != 2:
        raise ConfigError(f"network {name} ends in no row of features an image. Use another --network")
    return int(found.shape[1])


def _patches(body: nn.Module) -> nn.Conv2d | None:
    # What lies beyond the last patch would not be seen; networks that pad, as PVT v2 does, have no such rest.
    embed = getattr(body, "patch_embed", None)
    first = None if embed is None else next((m for m in embed.modules() if isinstance(m, nn.Conv2d)), None)
    return None if first is None or first.padding != (0, 0) else first


def _misfit(name: str, sizes: tuple[int, ...], why: object, whole: int = 0) -> str:
    shown = " and ".join(f"{size} x {size}" for size in dict.fromkeys(sizes))
    if whole not in (0, *sizes):
        shown += f", the local views beside those of {whole} x {whole}"
    reason = str(why).strip().partition("\n")[0] or "its layers do not fit"  # timm has assertions without a word
    return (
        f"network {name} cannot take images of {shown} ({reason}). Use another --view-size or an --augmentation of other "
        f"views, larger images (sbprep build --image-size 96), or another --network, such as resnet18-cifar"
    )
