"""What a build is asked to do: one frozen value, checked where it is made."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from sbformat.errors import ConfigError
from sbformat.schema import COLORSPACES, IMAGES_PER_SHARD, Colorspace, Compression, TargetSpec, class_dtype

Resize = Literal["crop", "squash"]
Backend = Literal["loky", "threading", "dask", "ray"]
#: Backends whose workers may be on other machines.
REMOTE = ("dask", "ray")


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Options of ``sbprep build``.

    Raises
    ------
    ConfigError
        A value out of range, or options that contradict each other.
    """

    colorspaces: tuple[Colorspace, ...]
    """Color spaces to write; images are decoded once for all of them."""
    paths: dict[str, Path] = field(default_factory=dict)
    """``source`` (a whole data set) and, or, one path a split; none: the built-in data set."""
    dataset: str = "auto"
    """Adapter to read `paths` with; ``auto`` looks."""
    out: Path = Path("data_cache")
    """Folder that gets one folder a color space."""
    image_size: int = 96
    """Side S of the stored images, in pixels."""
    resize: Resize = "crop"
    """Shorter side to S, then the center; or both sides to S."""
    target: TargetSpec = field(default_factory=TargetSpec)
    images_per_shard: int = IMAGES_PER_SHARD
    """Images listed for one shard: the unit of work, of resume and of repair."""
    compression: Compression = "none"
    seed: int = 0
    """Key of the permutation that mixes every split, and of the built-in data set."""
    limit: int | None = None
    """Keep this many images of each split, drawn by the permutation."""
    workers: int = -1
    """Processes or threads: a count, -1 for one a core. On a cluster: tasks at once, -1 for as many as it takes."""
    backend: Backend = "loky"
    scheduler: str | None = None
    """Address of the cluster, of ``dask`` and ``ray``."""
    partition: tuple[int, int] | None = None
    """(i, n): make the i-th of n interleaved parts of the shards, i from 1; ``sbprep merge`` joins them."""
    on_error: str = "skip"
    """``skip``: list rejected images and go on; ``fail``: stop at the first; ``limit=N``: stop after N."""
    overwrite: bool = False
    """Discard what the color spaces' folders hold."""

    def __post_init__(self) -> None:
        if not self.colorspaces:
            raise ConfigError(f"no color space given, expected one or more of {', '.join(COLORSPACES)}")
        if len(set(self.colorspaces)) != len(self.colorspaces):
            raise ConfigError(f"color space given twice: {', '.join(self.colorspaces)}")
        for colorspace in self.colorspaces:
            if colorspace not in COLORSPACES:
                raise ConfigError(f"color space {colorspace!r}, expected one of {', '.join(COLORSPACES)}")
            self.target.check_colorspace(colorspace)
        _check_number("image size", self.image_size, 8, 1024, "pixels")
        if self.target.size > self.image_size:
            raise ConfigError(f"target size {self.target.size} exceeds the image size {self.image_size}")
        _check_number("images per shard", self.images_per_shard, 1, 1 << 20, "images")
        if self.limit is not None:
            _check_number("limit", self.limit, 1, 1 << 62, "images of each split")
        worker_count(self.workers)
        for name, choices in (("resize", Resize), ("backend", Backend), ("compression", Compression)):
            if getattr(self, name) not in get_args(choices):
                raise ConfigError(f"{name} {getattr(self, name)!r}, expected one of {', '.join(get_args(choices))}")
        self._check_scheduler()
        self._check_targets_fit_a_chunk()
        if self.partition is not None and not 1 <= self.partition[0] <= self.partition[1]:
            i, n = self.partition[0], max(self.partition[1], 1)
            raise ConfigError(
                f"partition {i}/{self.partition[1]}, expected 1/{n} to {n}/{n} (in a Slurm array: --array=1-{n}; for some "
                f"parts of N alone, as --array={max(i, 1)}, docs/jobs/prepare.sbatch takes PARTS=N)"
            )
        if self.partition is not None and self.overwrite:
            raise ConfigError(
                "overwrite with a partition would discard the shards of the other partitions. Remove the folder first"
            )
        _ = self.reject_limit

    def _check_scheduler(self) -> None:
        if self.scheduler is not None and self.backend not in REMOTE:
            raise ConfigError(f"scheduler {self.scheduler} with backend {self.backend}, expected backend dask or ray")
        if self.backend == "dask" and not re.fullmatch(r"\w+://\S+", self.scheduler or ""):
            raise ConfigError(
                f"scheduler {self.scheduler or 'not given'}: backend dask needs its address, for example "
                f"--scheduler tcp://login1:8786"
            )

    def _check_targets_fit_a_chunk(self) -> None:
        item = class_dtype(max(self.target.single_classes, self.target.dual_classes)).itemsize
        size = self.images_per_shard * self.target.size**2 * item
        if size >= 1 << 32:
            raise ConfigError(
                f"{self.images_per_shard:,} images per shard have {size:,} bytes of targets, a chunk of HDF5 holds "
                f"{(1 << 32) - 1:,}: fewer images per shard, or a smaller target size"
            )

    def absolute(self) -> BuildConfig:
        """Return the same with paths that mean the same in every folder."""
        paths = {name: path.absolute() for name, path in self.paths.items()}
        return replace(self, paths=paths, out=self.out.absolute())

    @property
    def reject_limit(self) -> int | None:
        """Rejects that a build may have: None for any number, 0 for none."""
        if self.on_error in ("skip", "fail"):
            return None if self.on_error == "skip" else 0
        match = re.fullmatch(r"limit=(\d+)", self.on_error)
        if match is None:
            raise ConfigError(f"on-error {self.on_error!r}, expected skip, fail or limit=N")
        return int(match[1])

    @property
    def worker_count(self) -> int:
        """Number of workers, with -1 resolved to the cores this process may use."""
        return worker_count(self.workers)

    def recipe(self) -> dict[str, Any]:
        """Every option that decides what a shard holds, as JSON values."""
        return {
            "image_size": self.image_size,
            "resize": self.resize,
            "target": self.target.to_json(),
            "images_per_shard": self.images_per_shard,
            "compression": self.compression,
            "seed": self.seed,
            "limit": self.limit,
            "dataset": self.dataset,
        }


def worker_count(workers: int) -> int:
    """Resolve -1 to the cores that this process may use.

    Raises
    ------
    ConfigError
        Neither -1 nor a count from 1.
    """
    if workers == 0 or workers < -1:
        raise ConfigError(f"{workers} workers, expected a count from 1, or -1 for one a core")
    return len(os.sched_getaffinity(0)) if workers == -1 else workers


def partition_from_text(text: str) -> tuple[int, int]:
    """Parse ``i/n``."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise ConfigError(f"partition {text!r}, expected i/n, for example 1/3")
    return int(match[1]), int(match[2])


def _check_number(name: str, value: int, lowest: int, highest: int, unit: str) -> None:
    if not lowest <= value <= highest:
        raise ConfigError(f"{name} {value}, expected {lowest} to {highest:,} {unit}")
