"""A pretraining run to begin from: its networks, and shards that fit them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

import sbformat
from sbformat.errors import ConfigError, FormatError
from sbformat.manifest import Manifest, open_manifest, prepared_colorspaces
from sbformat.rebuild import build_command
from sbformat.schema import TargetSpec
from sbtrain import checkpoint
from sbtrain.build import build_method
from sbtrain.config import AUGMENTATION, PretrainConfig
from sbtrain.evaluation.chosen import chosen_rows
from sbtrain.methods import Method
from sbtrain.run_folder import data_record, read_config, read_run
from sbtrain.runtime import RunError, Runtime, only_one


class Splits(Protocol):
    """What a config says of the images and the weights that it is about."""

    @property
    def split(self) -> str:
        """Learned from."""

    @property
    def eval_split(self) -> str:
        """Reported."""

    @property
    def eval_limit(self) -> int:
        """Images of it that are reported; 0: all."""

    @property
    def from_scratch(self) -> bool:
        """New weights instead of the run's."""


@dataclass(frozen=True)
class Pretrained:
    """A run to begin from: its config, and networks as its newest checkpoint that verifies has them."""

    run_dir: Path
    config: PretrainConfig
    manifest: Manifest
    method: Method
    record: dict[str, Any]
    """What a result says of the run: config, data, step and digest of its weights."""

    def networks(self, from_scratch: bool, seed: int) -> Method:
        """Return a copy of the run's networks, or the same ones with the new weights that `seed` gives."""
        with seeded(seed):
            return build_method(self.config, self.manifest) if from_scratch else copy.deepcopy(self.method)

    def about(self, config: Splits, runtime: Runtime) -> dict[str, Any]:
        """Return what else than `config` the numbers depend on that it asks for, as JSON values."""
        return {
            # New weights are the same whatever the run has learned since.
            "run": {**self.record, "checkpoint": None} if config.from_scratch else self.record,
            "data": {name: data_record(self.manifest, name) for name in (config.split, config.eval_split)},
            "classes": len(self.manifest.label_names),
            "eval_images": len(chosen_rows(self.manifest.splits[config.eval_split].images, config.eval_limit)),
            "device": runtime.name,
            "dtype": str(runtime.dtype).removeprefix("torch."),
            "versions": {"sbtrain": sbformat.__version__, "torch": torch.__version__},
        }

    def seen(self, eval_split: str) -> list[str]:
        """Return a remark where the reported images are those that the run was pretrained on."""
        if not holds(self.manifest, eval_split, self.record["data"]):
            return []
        return [
            f"the run was pretrained on the images of split {eval_split}, which are reported: not a result on images that "
            f"it has not seen. Report another split, or pretrain on another one"
        ]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers on the host from `seed`; afterwards they go on where they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def hold_pretrained(
    run_dir: Path,
    shards: Path,
    split: str,
    runtime: Runtime,
    say: Callable[[str], None],
    labeled: Mapping[str, str] | None = None,
) -> Iterator[Pretrained]:
    """Load a pretraining run, say what it is, and keep other processes out of its folder meanwhile.

    Raises
    ------
    RunError, CheckpointError
        As `open_pretrained`; or the folder is in use, or cannot be written or read.
    """
    read_run(run_dir)  # before the lock makes a folder
    try:
        with only_one(run_dir):
            pretrained = open_pretrained(run_dir, shards, split, say, labeled)
            weights = pretrained.record["checkpoint"]
            say(f"{pretrained.config.method} with {pretrained.config.network}, step {weights['step']:,}")
            if not (run_dir / "results" / "pretrain.json").exists():
                say("  its pretraining is not finished: these are the weights of that step")
            say(f"  {runtime.describe()}, mode exact")
            yield pretrained
    except OSError as error:
        raise RunError(
            f"{run_dir}: cannot be written or read ({error}). What was finished is in its results/"
        ) from error


def open_pretrained(
    run_dir: Path,
    shards: Path,
    split: str,
    say: Callable[[str], None],
    labeled: Mapping[str, str] | None = None,
    option: str = "--split",
) -> Pretrained:
    """Load a pretraining run, to classify the images of `split` under `shards`.

    Parameters
    ----------
    run_dir, shards : Path
    split : str
        Its statistics normalize, where the run's own images are not there.
    say : callable
    labeled : mapping, optional
        Option -> split that has to be there with labels, which is looked at before anything is said.
    option : str
        Chooses another `split`, where none is labeled.

    Raises
    ------
    RunError
        There is no run, it has no checkpoint yet, or the shards are of another kind than the run's.
    FormatError
        A split is not there, or has no labels.
    CheckpointError
        All its checkpoints are damaged.
    """
    there = read_run(run_dir)
    config = read_config(run_dir)
    manifest = _open_shards(shards, there["data"], run_dir, config)
    for chooses, name in (labeled or {option: split}).items():
        check_split(manifest, name, chooses, labeled=labeled is not None)
    if not holds(manifest, config.split, there["data"]):
        by = f": normalized by the statistics of their split {split}" if config.normalize == "standard" else ""
        say(f"{manifest.root}: not the shards that the run learned from, but it can be judged by them as well{by}")
        config = replace(config, split=split)
    method = build_method(config, manifest)
    newest = checkpoint.latest(run_dir / "checkpoints", say)
    if newest is None:
        raise RunError(
            f"{run_dir}: no checkpoint, its pretraining has not begun. Run its sbtrain pretrain command again"
        )
    newest.load_model(method)
    files = json.loads((newest.path / checkpoint.MANIFEST).read_bytes())
    weights = {"step": newest.step, "model_sha256": files["model.safetensors"]["sha256"]}
    record = {"config": there["config"], "data": there["data"], "normalized_by": config.split, "checkpoint": weights}
    return Pretrained(run_dir, config, manifest, method, record)


def check_split(manifest: Manifest, split: str, option: str | None = None, labeled: bool = False) -> None:
    """Refuse a split that is not there, or has no labels where it is to be `labeled`; name the `option` that says which.

    Raises
    ------
    FormatError
        With those that are.
    """
    chosen, there = f" with {option}" if option else "", manifest.splits
    choose = "Choose shards that have it, --shards" if option == "--shards" else f"Choose another{chosen}"
    if split not in there:
        raise FormatError(
            f"{manifest.root} has splits {', '.join(there)}, no {split}. {choose}, or build it: sbprep build "
            f"--{split} PATH"
        )
    if labeled and there[split].label_kind is None:
        others = ", ".join(name for name, about in there.items() if about.label_kind is not None)
        raise FormatError(
            f"{manifest.root}: split {split} has no labels. Choose a labeled split{chosen}"
            f"{f' ({others})' if others else ''}, or build one with sbprep build --train PATH"
        )


def check_classes(manifest: Manifest, split: str, eval_split: str) -> None:
    """Refuse splits that are not there, and a set of fewer than two classes.

    Raises
    ------
    FormatError, ConfigError
    """
    for name in (split, eval_split):
        check_split(manifest, name)
    if len(manifest.label_names) < 2 and manifest.splits[split].label_kind == "class":
        raise ConfigError(f"{manifest.root} has {len(manifest.label_names)} class, expected 2 or more")


def holds(manifest: Manifest, split: str, data: dict[str, Any]) -> bool:
    """Return whether `split` holds the very images of a run, whose record of them is `data`."""
    return split in manifest.splits and data_record(manifest, split)["digest"] == data["digest"]


def _open_shards(shards: Path, data: dict[str, Any], run_dir: Path, config: PretrainConfig) -> Manifest:
    several = len(prepared_colorspaces(shards)) > 1
    manifest = open_manifest(shards, data["colorspace"] if several else None)
    here: dict[str, Any] = {"colorspace": manifest.colorspace}
    if not config.view_size:  # else images of any size are brought to that
        here["image_size"] = manifest.image_size
    if config.method not in AUGMENTATION:  # these look at no target map
        here |= _named(manifest.target.to_json())
    there = {**data, **_named(data["target"])}
    lines = [
        f"  {name}: {there[name]} in the run, {value} here" for name, value in here.items() if there[name] != value
    ]
    if lines:
        shown = "\n".join(lines)
        raise RunError(
            f"{manifest.root}: other shards than {run_dir} was trained on:\n{shown}\nGive shards like its own, with --shards. "
            f"Of these images: {_command_like(data, manifest)}"
        )
    return manifest


def _named(target: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a target map under the names that options of ``sbprep build`` have."""
    options = {"size": "target_size", "single": "bins_single", "dual": "bins_dual"}
    return {options.get(name, name): value for name, value in target.items()}


def _command_like(data: dict[str, Any], manifest: Manifest) -> str:
    """Return what builds shards like those of a run, whose record of them is `data`, of the images of `manifest`."""
    # Resolved: "." and "rgb" have no folder above in their names.
    out, target = manifest.root.resolve().parent, TargetSpec.from_json(data["target"])
    if (data["image_size"], target) != (manifest.image_size, manifest.target):  # else color spaces share a folder
        out = out.with_name(f"{out.name}-{data['image_size']}-{target.size}")
    return build_command(manifest, data["colorspace"], data["image_size"], target, out)
