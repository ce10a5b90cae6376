"""Features of a split as one file: for pictures, for other tools.

Axes: N images written, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import sbformat
from sbformat.durable import make_folder
from sbformat.errors import ConfigError
from sbformat.schema import DatasetSpec
from sbtrain.config import Precision
from sbtrain.data import Batch, Residence, Rows, SplitReader, reside
from sbtrain.evaluation.chosen import chosen_rows
from sbtrain.evaluation.feature_file import FORMAT, VERSION, Shapes, beside, holds, lay_out
from sbtrain.evaluation.fitting import Interrupted
from sbtrain.evaluation.labeled import blocks, check_finite
from sbtrain.evaluation.pretrained import Pretrained, check_split
from sbtrain.methods.supervised import Encoder
from sbtrain.run_folder import data_record
from sbtrain.runtime import Runtime


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
    runtime.place(encoder)
    path = out or pretrained.run_dir / "features" / f"{config.split}-{encoder.layer}.h5"
    about = _about(pretrained, config, encoder, runtime)
    if holds(path, about):
        say(f"{path} holds these features already")
        return path
    make_folder(path.parent)
    datasets = pretrained.method.inputs.datasets
    there = pretrained.manifest.datasets(config.split)
    extras: dict[str, DatasetSpec] = {name: there[name] for name in ("label", "source_index") if name in there}
    reader = SplitReader(pretrained.manifest, config.split, (*datasets, *extras))
    try:
        images, rows = _Images(reside("auto", reader, runtime.device)), chosen_rows(len(reader), config.limit)
        with beside(path) as temporary:
            _write(temporary, images, rows, extras, encoder, about, runtime, interrupted)
    finally:
        reader.close()
    say(f"{path}: {encoder.width:,} features of {len(rows):,} images of {config.split}, layer {encoder.layer}")
    return path


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
    places = lay_out(path, shapes, about)
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
            check_finite(found, f"layer {encoder.layer}: features of rows {batch.index[0]} to {batch.index[-1]}")
            put("features", start, found.cpu().numpy())
            for name in extras:
                put(name, start, batch[name].cpu().numpy())


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
