"""Features of a split as one HDF5 file: for pictures, for other tools. The only writer of HDF5 in the trainer.

Axes: N images written, D features.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import sbformat
from sbformat.durable import fsync_path, make_folder
from sbformat.errors import ConfigError, FormatError
from sbformat.schema import DatasetSpec
from sbtrain.config import Precision
from sbtrain.data import Batch, Residence, Rows, SplitReader, reside
from sbtrain.evaluation.chosen import chosen_rows
from sbtrain.evaluation.fitting import Interrupted
from sbtrain.evaluation.labeled import blocks
from sbtrain.evaluation.pretrained import Pretrained, check_split
from sbtrain.methods.supervised import Encoder
from sbtrain.run_folder import data_record
from sbtrain.runtime import RunError, Runtime

FORMAT = "sbtrain-features"
VERSION = 1
#: Bytes for everything in a file but its numbers: attributes, with the name of each class, and headers.
ROOM = 1 << 22
#: Name of a dataset -> its shape and dtype.
Shapes = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """Every option of ``sbtrain features`` that the file depends on.

    Raises
    ------
    ConfigError
        A value out of range.
    """

    split: str = "val"
    layer: str | None = None
    """Layer of the run's network; None: the last one."""
    pool: int = 0
    """Average the layer to pool x pool cells; 0: as it is."""
    limit: int = 0
    """Write this many images, always the same; 0: all."""
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        for name in ("pool", "limit"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} {getattr(self, name)}, expected 0 or more")


def write_features(
    pretrained: Pretrained,
    config: FeaturesConfig,
    out: Path | None,
    runtime: Runtime,
    say: Callable[[str], None],
    interrupted: Callable[[], bool] = lambda: False,
) -> Path:
    """Write features of a split's images, block by block, unless the file has these very ones already.

    Parameters
    ----------
    out : Path, optional
        By default ``features/<split>-<layer>.h5`` in the run's folder. A features file that is there is replaced.

    Returns
    -------
    Path
        Of the file, whole.

    Raises
    ------
    SplitbrainError
        The split or the layer is not there, features are not finite, or `out` is another file.
    Interrupted
        A signal came; nothing was written.
    OSError
        The file cannot be written.
    """
    check_split(pretrained.manifest, config.split)
    encoder = Encoder(pretrained.method, pretrained.manifest, config.layer, config.pool).eval()
    nn.Module.to(encoder, runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    path = out or pretrained.run_dir / "features" / f"{config.split}-{encoder.layer}.h5"
    about = _about(pretrained, config, encoder, runtime)
    if _holds(path, about):
        say(f"{path} holds these features already")
        return path
    make_folder(path.parent)
    datasets = pretrained.method.inputs.datasets
    there = pretrained.manifest.datasets(config.split)
    extras: dict[str, DatasetSpec] = {name: there[name] for name in ("label", "source_index") if name in there}
    reader = SplitReader(pretrained.manifest, config.split, (*datasets, *extras))
    try:
        images, rows = _Images(reside("auto", reader, runtime.device)), chosen_rows(len(reader), config.limit)
        with _beside(path) as temporary:
            _write(temporary, images, rows, extras, encoder, about, runtime, interrupted)
    finally:
        reader.close()
    say(f"{path}: {encoder.width:,} features of {len(rows):,} images of {config.split}, layer {encoder.layer}")
    return path


@dataclass(frozen=True)
class FeatureSample:
    """Some rows of a file: features float32 (n, D), labels int64 (n,), of `images` in all."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    """Class of each; 0 of all where the images have none."""
    names: tuple[str, ...]
    images: int


def read_features(path: Path, most: int) -> FeatureSample:
    """Read at most `most` rows of a file of features, evenly spread over it.

    Raises
    ------
    FormatError
        It is damaged, or no file of features.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            images, width = file["features"].shape
            rows = np.unique(np.linspace(0, images - 1, min(images, most)).astype(np.int64))
            features = np.empty((len(rows), width), np.float32)
            for place, row in enumerate(rows):  # a list of rows would read many times as much
                features[place] = file["features"][row]
            classes = "label" in file and file["label"].ndim == 1
            labels = file["label"][:].astype(np.int64)[rows] if classes else np.zeros(len(rows), np.int64)
            names = tuple(map(str, json.loads(file.attrs.get("label_names", "[]"))))
        if (labels < 0).any():
            raise ValueError("a negative label")
    except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise FormatError(f"{path}: no file of features ({error}). Make it again: sbtrain features") from error
    return FeatureSample(features, labels, names, images)


class _Images:
    """Rows of a split as `blocks` takes them."""

    labels = np.empty(0, np.int32)

    def __init__(self, residence: Residence) -> None:
        self._residence = residence

    def batch(self, rows: Rows) -> Batch:
        return self._residence.fetch(rows).arrived()


def _write(
    path: Path,
    images: _Images,
    rows: Rows,
    extras: dict[str, DatasetSpec],
    encoder: Encoder,
    about: dict[str, Any],
    runtime: Runtime,
    interrupted: Callable[[], bool],
) -> None:
    N = len(rows)
    shapes: Shapes = {"row": ((N,), np.dtype("<i8")), "features": ((N, encoder.width), np.dtype("<f4"))}
    shapes |= {name: ((N, *spec.row_shape), np.dtype(spec.dtype)) for name, spec in extras.items()}
    places = _lay_out(path, shapes, about)
    with path.open("r+b") as file:

        def put(name: str, start: int, part: NDArray[Any]) -> None:
            shape, dtype = shapes[name]
            file.seek(places[name] + start * math.prod(shape[1:]) * dtype.itemsize)
            file.write(np.ascontiguousarray(part, dtype).data)

        put("row", 0, rows)
        for start, batch in blocks(images, rows):
            if interrupted():
                raise Interrupted
            with torch.no_grad(), runtime.autocast():
                found = encoder(batch).float()
            if not bool(torch.isfinite(found).all()):
                raise RunError(
                    f"layer {encoder.layer}: features of rows {batch.index[0]} to {batch.index[-1]} are not finite: the "
                    f"run's weights fell apart. Look at the losses in its metrics.jsonl"
                )
            put("features", start, found.cpu().numpy())
            for name in extras:
                put(name, start, batch[name].cpu().numpy())


def _lay_out(path: Path, shapes: Shapes, about: dict[str, Any]) -> dict[str, int]:
    """Make the file with everything but the numbers, and return where those of each dataset begin.

    They are written without libhdf5, one dataset after the other at plain offsets: where a disk is full libhdf5 cannot
    close its file, and ends the process with a segmentation fault.
    """
    import h5py

    room = ROOM + sum(math.prod(shape) * dtype.itemsize for shape, dtype in shapes.values())
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room)  # a full disk is found out here
    with h5py.File(path, "w", libver=("v110", "v110"), locking=False) as file:
        file.attrs.update(_texts(about))
        early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        early.set_obj_track_times(False)  # the same content gives the same bytes
        return {
            name: h5py.h5d.create(
                file.id, name.encode(), h5py.h5t.py_create(dtype), h5py.h5s.create_simple(shape), early
            ).get_offset()
            for name, (shape, dtype) in shapes.items()
        }


def _texts(about: dict[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}


def _about(pretrained: Pretrained, config: FeaturesConfig, encoder: Encoder, runtime: Runtime) -> dict[str, Any]:
    data = data_record(pretrained.manifest, config.split)
    return {
        "format": FORMAT,
        "version": str(VERSION),
        "layer": encoder.layer,
        "split": config.split,
        "model_sha256": pretrained.record["checkpoint"]["model_sha256"],
        "data_digest": data["digest"],
        "config": {**asdict(config), "layer": encoder.layer},
        "run": pretrained.record,
        "data": data,
        "label_names": list(pretrained.manifest.label_names),
        "device": runtime.name,
        "dtype": str(runtime.dtype).removeprefix("torch."),
        "versions": {"sbtrain": sbformat.__version__, "torch": torch.__version__},
    }


def _holds(path: Path, about: dict[str, Any]) -> bool:
    """Return whether `path` holds these features; refuse to replace a file of another kind."""
    import h5py

    if not path.exists():
        return False
    try:
        with h5py.File(path, "r") as file:
            there = dict(file.attrs)
    except OSError as error:
        raise RunError(f"{path}: exists, and is no HDF5 file. Choose another --out, or move it away") from error
    if there.get("format") != FORMAT:
        raise RunError(
            f"{path}: exists, and was not written by sbtrain features. Choose another --out, or move it away"
        )
    return there == _texts(about)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Give a name to write to that becomes `path` when all went well, and is gone otherwise."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):  # of a killed process
        left.unlink()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        fsync_path(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(path.parent)
