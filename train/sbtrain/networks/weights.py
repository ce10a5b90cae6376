"""Weights that somebody else trained, into a backbone: files of torchvision, timm, and checkpoints of our own."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from sbformat.errors import ConfigError
from sbformat.words import counted
from sbtrain.networks.backbones import RESNETS, Backbone
from sbtrain.tensor_files import load_tensors

#: Beginnings of names that wrappers put there: DistributedDataParallel, our exports, our methods, our backbones.
_WRAPPERS = ("module.", "method.", "backbone.", "body.")
#: Classifiers that a backbone does not have, by their names in torchvision and timm.
_CLASSIFIER = re.compile(r"(fc|classifier|head|head_dist)\.")
#: Patterns of torchvision's names -> ours.
_RESNET = (
    (r"^conv1\.", "stem.0."), (r"^bn1\.", "stem.1."), (r"\.bn([12])\.", r".norm\1."), (r"\.downsample\.", ".shortcut."),
)  # fmt: skip
_ALEXNET = (
    (r"^features\.0\.", "conv1.0.0."), (r"^features\.3\.", "conv2.0.0."), (r"^features\.6\.", "conv3.0."),
    (r"^features\.8\.", "conv4.0."), (r"^features\.10\.", "conv5.0.0."), (r"^classifier\.1\.", "fc6.3."),
    (r"^classifier\.4\.", "fc7.1."), (r"^classifier\.6\.", "fc8."),
)  # fmt: skip
#: timm 0.4 made its ``vit_small_patch16_224`` with ``qk_scale = 768 ** -0.5`` where it loaded its weights of that date
#: (``vit_small_p16_224-15ec54c9.pth``): "my scale was wrong for original weights", models/vision_transformer.py. The network
#: itself, 8 heads of 96, has 96 ** -0.5.
_QUERIES_2021 = (96 / 768) ** 0.5
#: Names shown of those that do not fit.
_SHOWN = 4


def load_weights(backbone: Backbone, path: Path) -> str:
    """Give `backbone` the weights of a file, in place.

    Parameters
    ----------
    backbone : Backbone
    path : Path
        A state dict: ``.safetensors``, or what ``torch.save`` wrote, read without running anything of it. Names are
        those of torchvision (``resnet18``, ``alexnet``), of timm (its networks; position embeddings are brought to the
        size of the images by timm), or of a run of ours or its export. What is not of the backbone is left out, as a
        classifier behind the features.

    Returns
    -------
    str
        What was taken and what left out, in a sentence.

    Raises
    ------
    ConfigError
        No such file, it holds no state dict, or its weights are those of another network.
    """
    given = _read(path)
    inside, outside = _unwrapped(given)
    state = _named(backbone, inside)
    # No run of ours, whose names have prefixes of their own behind that of DistributedDataParallel.
    if backbone.name == "vit_small_2021" and any(f"{ddp}blocks.0.attn.qkv.weight" in given for ddp in ("", "module.")):
        state = _with_scale_of_2021(state)
    ours = backbone.body.state_dict()
    spare = [name for name in state if name not in ours and not _CLASSIFIER.match(name)]
    lacking = [name for name in ours if name not in state and not name.endswith("num_batches_tracked")]
    other = [
        f"{name} {tuple(state[name].shape)} for {tuple(ours[name].shape)}"
        for name in ours
        if name in state and state[name].shape != ours[name].shape
    ]
    if spare or lacking or other:
        found = [f"{len(names)} {what} ({_some(names)})" for names, what in (
            (lacking, "missing"), (spare, "unknown"), (other, "of another shape"),
        ) if names]  # fmt: skip
        raise ConfigError(
            f"weights {path} are those of another network than {backbone.name}: {', '.join(found)}. Use the --network that "
            f"they were trained in"
        )
    taken = {name: state[name] for name in ours if name in state}
    backbone.body.load_state_dict(taken, strict=False)
    left = [*(name for name in state if name not in taken), *outside]
    parts = list(dict.fromkeys(name.partition(".")[0] for name in left))
    without = f"{len(left):,} left out (of {_some(parts)})" if left else "none left out"
    return f"weights {path}: {counted(len(taken), 'tensor')} taken, {without}"


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_tensors(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"weights {path}: no such file. Give one of a state dict, .safetensors or .pth") from None
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # torch's own words are how to run what is in there all the same
            reason = "damaged, or a pickle of more than a state dict"
        raise ConfigError(
            f"weights {path}: cannot be read as tensors ({reason}). Give a state dict: torch.save(model.state_dict(), "
            f"PATH), or .safetensors"
        ) from error
    while isinstance(found, Mapping) and (inner := next((k for k in ("state_dict", "model") if k in found), None)):
        found = found[inner]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()) or not found:
        raise ConfigError(f"weights {path}: no state dict, a mapping of names to tensors. Save model.state_dict()")
    return dict(found)


def _unwrapped(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return what is inside of every wrapper, and the names of what is outside of one."""
    outside: list[str] = []
    for wrapper in _WRAPPERS:
        inside = {name.removeprefix(wrapper): value for name, value in state.items() if name.startswith(wrapper)}
        if inside:
            outside += [name for name in state if not name.startswith(wrapper)]
            state = inside
    return state, outside


def _named(backbone: Backbone, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` under the names of the backbone's body."""
    if backbone.name in RESNETS or backbone.name == "alexnet":
        for theirs, ours in _RESNET if backbone.name in RESNETS else _ALEXNET:
            state = {re.sub(theirs, ours, name): value for name, value in state.items()}
        return state
    # Each family of timm knows what its older files need.
    mend: Any = getattr(sys.modules[type(backbone.body).__module__], "checkpoint_filter_fn", None)
    return state if mend is None else dict(mend(state, backbone.body))


def _with_scale_of_2021(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with queries, the first third of rows (3 D, D), that give timm's logits of attention in ours."""
    state = dict(state)
    for name, weight in state.items():
        if name.endswith(".attn.qkv.weight"):
            queries, others = weight.tensor_split([len(weight) // 3])
            state[name] = torch.cat([queries * _QUERIES_2021, others])
    return state


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
