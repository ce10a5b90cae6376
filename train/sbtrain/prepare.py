"""What a run is asked for, and what it is made of before it has a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from sbformat.errors import ConfigError, SplitbrainError
from sbformat.manifest import MANIFEST_NAME, Manifest, open_manifest, prepared_colorspaces
from sbformat.rebuild import build_command
from sbformat.schema import Colorspace, TargetSpec
from sbtrain import checkpoint
from sbtrain.build import build_method, count_flops, open_split
from sbtrain.config import AUGMENTATION, PretrainConfig
from sbtrain.data import Cache, SplitReader
from sbtrain.flops import peak_flops
from sbtrain.graphs import refuse
from sbtrain.loop import Habits
from sbtrain.methods import Method
from sbtrain.methods.views import OnViews
from sbtrain.networks.weights import load_weights
from sbtrain.ranks.world import ALONE, World
from sbtrain.residence import nearest
from sbtrain.run_folder import CONFIG_NAME, read_run
from sbtrain.runtime import RunError, Runtime, set_up


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a call of ``sbtrain pretrain`` asks for."""

    config: PretrainConfig
    shards: Path
    colorspace: str | None = None
    preset: str | None = None
    run_dir: Path | None = None
    device: str = "auto"
    cache: Cache = "auto"
    stage: Path | None = None
    verify: bool = False
    habits: Habits = field(default_factory=Habits)
    remarks: tuple[str, ...] = ()
    """Lines for the run's header."""


@dataclass(frozen=True)
class Parts:
    """What a run is made of, before it has a folder."""

    manifest: Manifest
    runtime: Runtime
    method: Method
    reader: SplitReader
    cache: Cache
    """Where the images will wait; not ``auto``."""
    flops: tuple[float | None, float | None]
    weights: tuple[str, ...] = ()
    """What was taken of given ones, in a line."""


def prepare(request: Request, world: World = ALONE) -> Parts:
    """Open the shards, set torch up and build the method.

    Raises
    ------
    SplitbrainError
        Shards or options do not allow it.
    """
    manifest = _open_shards(request)
    config = request.config
    if config.split not in manifest.splits:
        raise RunError(
            f"{manifest.root} has splits {', '.join(manifest.splits)}, no {config.split}. Use one of them: "
            f"--split {next(iter(manifest.splits))}"
        )
    runtime = replace(set_up(world.device(request.device), config.precision, config.mode, config.seed), world=world)
    if request.habits.graphs:
        refuse(config, runtime)
    method = build_method(config, manifest)
    weights: list[str] = []
    if isinstance(method, OnViews) and config.weights:
        weights.append(load_weights(method.backbone, weights_file(Path(config.weights), weights.append)))
    reader = open_split(config, manifest, method)
    # Counting loads much of torch (a second or two), and only CUDA's log has a use for it.
    flops = count_flops(config, manifest) if runtime.device.type == "cuda" else None
    cache = nearest(reader, runtime.device, world.local_size) if request.cache == "auto" else request.cache
    return Parts(
        manifest, runtime, method, reader, cache, (flops, peak_flops(runtime.name, runtime.dtype)), tuple(weights)
    )


def weights_file(given: Path, warn: Callable[[str], None]) -> Path:
    """Return the file of weights that `given` is or, a folder of a run, a checkpoint or an export, holds.

    Raises
    ------
    ConfigError
        The folder holds none.
    CheckpointError
        Every checkpoint of the run is damaged.
    """
    if not given.is_dir():
        return given
    newest = checkpoint.latest(given / "checkpoints", warn)
    files = [(newest.path if newest else given) / "model.safetensors", given / "encoder.safetensors"]
    for path in files:
        if path.is_file():
            return path
    raise ConfigError(
        f"weights {given}: a folder without a checkpoint or an export. Give a run's --run-dir, or a file: .safetensors or "
        f".pth"
    )


def with_default_split(request: Request) -> Request:
    """Return a request whose split nobody named with the one there is: unlabeled, or else train."""
    try:
        splits = _open_shards(request).splits
    except SplitbrainError:  # said where the run is prepared
        return request
    if request.config.split in splits or "train" not in splits:
        return request
    return replace(request, config=replace(request.config, split="train"))


def _open_shards(request: Request) -> Manifest:
    """Return the shards to learn from; methods of views see rgb and nothing else.

    Raises
    ------
    RunError
        There is no rgb for them.
    ManifestError
        As `open_manifest`.
    """
    root, method = request.shards, request.config.method
    colorspace = request.colorspace or _colorspace_of(request) or ("rgb" if method in AUGMENTATION else None)
    if method in AUGMENTATION and colorspace == "rgb" and (other := _other_than_rgb(root)):
        target = other.target if other.target.bins == "uniform" else TargetSpec()
        built = build_command(other, "rgb", other.image_size, target, other.root.resolve().parent)
        raise RunError(
            f"{root}: no rgb here, it holds {other.colorspace}, and {method} sees rgb alone. Build it of the same images: "
            f"{built}"
        )
    return open_manifest(root, colorspace)


def _other_than_rgb(root: Path) -> Manifest | None:
    found = prepared_colorspaces(root)
    if found and "rgb" not in found:
        return open_manifest(root, found[0])
    alone = open_manifest(root) if (root / MANIFEST_NAME).is_file() else None
    return None if alone is None or alone.colorspace == "rgb" else alone


def _colorspace_of(request: Request) -> Colorspace | None:
    """Return that of the run to go on with, where the shards have been joined by others since."""
    if request.run_dir is None or len(prepared_colorspaces(request.shards)) < 2:
        return None
    if not (request.run_dir / CONFIG_NAME).exists():
        return None
    colorspace: Colorspace = read_run(request.run_dir)["data"]["colorspace"]
    return colorspace
