"""Pictures of what a pretrained network predicts, and how right it is: the report's Figures 3 to 5.

Which images are shown follows from their place in the split alone, never from how they come out.

Axes: N images, t x t target cells.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

import sbformat
from sbformat.durable import make_folder, write_atomically
from sbformat.errors import ConfigError, FormatError
from sbformat.manifest import SOURCES_NAME, Manifest
from sbformat.permutation import permute
from sbtrain.batch import Batch
from sbtrain.config import check_number
from sbtrain.evaluation.few_shot import interval
from sbtrain.evaluation.pretrained import Pretrained
from sbtrain.methods import Denoising, SplitBrain
from sbtrain.pictures.decoding import Decode
from sbtrain.pictures.figures import as_png
from sbtrain.pictures.picture_grid import grid
from sbtrain.pictures.reconstruct_views import View, datasets_of, view
from sbtrain.reader import Rows, SplitReader
from sbtrain.run_folder import data_record
from sbtrain.runtime import RunError, Runtime

FORMAT = "sbtrain-reconstruct"
VERSION = 1
#: Images that go through the network at a time.
BLOCK = 64

_WORDS = {
    "argmax": "arg-max: the center of the bin that the network holds most likely",
    "expectation": "expectation: the mean of all bin centers, weighted by their probabilities",
}


@dataclass(frozen=True, kw_only=True)
class ReconstructConfig:
    """Every option of ``sbtrain reconstruct`` that a result depends on.

    Raises
    ------
    ConfigError
        A number out of range.
    """

    split: str = "val"
    images: int = 8
    decode: Literal["argmax", "expectation", "both"] = "both"
    score_images: int = 512
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("images", "score_images"):
            check_number(name, getattr(self, name))
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}, expected 1 or more")
        if self.images > 256:
            raise ConfigError(f"images {self.images}, expected 256 or fewer: each is a row of one picture")
        if self.seed is not None:
            check_number("seed", self.seed)

    @property
    def decodes(self) -> tuple[Decode, ...]:
        """The ways to turn probabilities into a color."""
        return ("argmax", "expectation") if self.decode == "both" else (self.decode,)

    def rows(self, total: int) -> Rows:
        """Return the rows to look at, the shown ones first: int64, of a split of `total`."""
        count = min(max(self.images, self.score_images), total)
        if self.seed is None:
            return np.arange(count, dtype=np.int64)
        return np.array([permute(i, total, self.seed, 0) for i in range(count)], dtype=np.int64)


def reconstruct(
    pretrained: Pretrained, config: ReconstructConfig, runtime: Runtime, folder: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Draw reconstructions and count how right they are.

    Parameters
    ----------
    pretrained : Pretrained
    config : ReconstructConfig
    runtime : Runtime
    folder : Path
        Where ``reconstruct-<split>.json`` goes, and the pictures that it names, in ``reconstruct/``.
    say : callable

    Returns
    -------
    dict
        What the JSON file holds.

    Raises
    ------
    ConfigError
        The method reconstructs nothing, or matplotlib is missing.
    RunError
        The folder cannot be written, or the network's outputs are not finite.
    FormatError
        The split is not there or has no images, or a shard is missing.
    """
    manifest = pretrained.manifest
    reader = SplitReader(manifest, config.split, datasets_of(pretrained.method, manifest))
    try:
        rows = config.rows(len(reader))
        views = list(_views(pretrained, config, runtime, reader, rows))
        sources = _sources(manifest, config.split, _gathered(reader, rows[: config.images])["source_index"])
    finally:
        reader.close()
    shown = _first(views, config.images)
    record: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "config": asdict(config),
        "figures": [],
        "scores": _scores(views, config.score_images),
        "run": pretrained.record,
        "data": {config.split: data_record(manifest, config.split)},
        "versions": {"sbtrain": sbformat.__version__, "torch": torch.__version__},
    }
    try:
        make_folder(folder / "reconstruct")
        for name, columns in (("", shown.columns), ("-fixed-range", shown.distorted)):
            if columns:
                file = f"reconstruct/{config.split}{name}.png"
                write_atomically(folder / file, as_png(grid(columns)))
                caption = _caption(pretrained, config, bool(name)).rstrip(".")  # a page goes on behind it
                record["figures"].append({"file": file, "caption": caption, "columns": list(columns), "rows": sources})
                say(f"{folder / file}")
        write_atomically(folder / f"reconstruct-{config.split}.json", (json.dumps(record, indent=1) + "\n").encode())
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error}). Make room, or choose another --out") from error
    return record


def _views(
    pretrained: Pretrained, config: ReconstructConfig, runtime: Runtime, reader: SplitReader, rows: Rows
) -> Iterator[View]:
    method = pretrained.method.to(runtime.device).eval()
    assert isinstance(method, SplitBrain | Denoising), "`datasets_of` refuses the others"
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        fields = {name: torch.from_numpy(array).to(runtime.device) for name, array in _gathered(reader, part).items()}
        batch = Batch(torch.from_numpy(part).to(runtime.device), fields)
        found = view(method, pretrained.manifest, batch, config.decodes)
        keep = max(config.images - start, 0)  # pictures of scored images are not looked at
        yield View(
            {name: pixels[:keep] for name, pixels in found.columns.items()},
            {name: pixels[:keep] for name, pixels in found.distorted.items()},
            found.scores,
            found.bins,
        )


def _gathered(reader: SplitReader, rows: Rows) -> dict[str, NDArray[Any]]:
    fields = {name: np.empty((len(rows), *spec.row_shape), spec.dtype) for name, spec in reader.specs.items()}
    reader.gather(rows, fields)
    return fields


def _first(views: list[View], images: int) -> View:
    def joined(parts: list[dict[str, NDArray[np.uint8]]]) -> dict[str, NDArray[np.uint8]]:
        return {name: np.concatenate([part[name] for part in parts])[:images] for name in parts[0]}

    return View(joined([v.columns for v in views]), joined([v.distorted for v in views]))


def _scores(views: list[View], images: int) -> dict[str, Any]:
    every = {name: np.concatenate([v.scores[name] for v in views])[:images] for name in views[0].scores}
    scores: dict[str, Any] = {"images": len(next(iter(every.values())))}
    scores |= {name: interval(values.tolist()).to_json() for name, values in every.items()}
    for name in views[0].bins:
        # What a network that knows nothing but the commonest bin would reach on these cells.
        cells = np.concatenate([v.bins[name] for v in views])[:images]
        scores[f"commonest_{name.removeprefix('target_')}"] = float(np.bincount(cells.ravel()).max() / cells.size)
    return scores


def _sources(manifest: Manifest, split: str, indices: NDArray[np.int64]) -> list[str]:
    """Return the lines of the source listing; row numbers of it where the listing is not there."""
    path = manifest.root / split / SOURCES_NAME
    wanted = {int(index) for index in indices}
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = {i: line.rstrip("\n") for i, line in enumerate(islice(file, max(wanted) + 1)) if i in wanted}
    except FileNotFoundError:
        lines = {}
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}). Permit reading it") from error
    return [lines.get(int(index), f"source {index}") for index in indices]


def _caption(pretrained: Pretrained, config: ReconstructConfig, distorted: bool) -> str:
    run, manifest = pretrained.config, pretrained.manifest
    which = "the first in shard order" if config.seed is None else f"by the permutation of seed {config.seed}"
    head = (
        f"{run.network}, {manifest.colorspace}, step {pretrained.record['checkpoint']['step']:,}; images of "
        f"{config.split}, {which}, none chosen by its result."
    )
    if run.method == "denoising":
        return f"{head} Corrupted: {run.noise} of {run.noise_level:g}, the network's input. Reconstructed: its output."
    first, *others = list("RGB" if manifest.colorspace == "rgb" else "Lab")
    dual = " and ".join(others)
    halves = f"{first} comes from F2, which saw {dual} alone; {dual} come from F1, which saw {first} alone."
    t = manifest.target.size
    if run.loss == "regression":
        return f"{head} Means: of each of {t} × {t} cells. Regression: what the network predicts of them. {halves}"
    ways = "; ".join(_WORDS[decode] for decode in config.decodes)
    cells = f"Target: the bins of {t} × {t} cells, decoded. {ways[0].upper()}{ways[1:]}. {halves}"
    if distorted:
        spans = "every channel" if manifest.target.rescale == "all" else dual
        return (
            f"{head} Bins decoded by the fixed range of {spans} instead of each image's own, which "
            f"distorts the colors of the target as well: as the report shows its re-scaled images. {cells}"
        )
    if manifest.colorspace == "rescaled_lab":
        cells += " The range that an image's bins span is the stored one, of the image itself: no network predicts it."
    return f"{head} {cells}"
