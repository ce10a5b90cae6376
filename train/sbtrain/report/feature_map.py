"""Features of a split in two dimensions: principal components, and t-SNE of the first fifty.

A map is kept in the run's results, so that the next report is quick. N images, D features.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbformat.errors import ConfigError, SplitbrainError
from sbtrain.evaluation.feature_file import read_features
from sbtrain.evaluation.scores import tsne
from sbtrain.report.charts import map_chart
from sbtrain.report.document import Block, Gallery, Picture, Section, Text
from sbtrain.report.runs import Run
from sbtrain.run_folder import write_result

FORMAT, VERSION = "sbtrain-map", 1
#: Images of all maps of a page together. 2,000 take t-SNE about ten seconds of one core.
IMAGES = 2000
#: Maps of a page.
MAPS = 4
#: Components that t-SNE is given (L. van der Maaten and G. Hinton, JMLR 2008, section 4.2: 30).
COMPONENTS = 50


@dataclass(frozen=True)
class Map:
    """Some images of a split: places (n, 2) by both methods, and classes."""

    pca: NDArray[np.float32]
    tsne: NDArray[np.float32] | None
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    images: int
    """Of the whole file."""
    shares: tuple[float, float]
    """Of the variance, along either principal component."""
    remark: str = ""


def map_section(runs: Sequence[Run]) -> Section:
    """Return both maps of the features of each run, up to `MAPS` files."""
    files = [(run, path) for run in runs for path in run.features]
    if not files:
        return Section(
            "Map of features", "map", (Text("No run has features. sbtrain features --run RUN", warning=True),)
        )
    blocks: list[Block] = []
    for run, path in files[:MAPS]:
        try:
            found = _kept(run, path, IMAGES // min(len(files), MAPS))
        except (SplitbrainError, OSError, ValueError, KeyError, TypeError) as error:
            blocks.append(Text(f"{run.name}: {path.name}: {error}: no map.", warning=True))
            continue
        blocks.append(Gallery(_pictures(run, path, found)))
        blocks += [Text(f"{run.name}: {found.remark}", warning=True)] if found.remark else []
    if len(files) > MAPS:
        blocks.append(Text(f"{len(files) - MAPS} more feature files have no map here, to keep the page quick."))
    return Section("Map of features", "map", tuple(blocks))


def principal(features: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the first components (N, count) of features (N, D), and each one's share of the variance (count,).

    By the smaller of both Gram matrices, in float64; of both signs of a component the one with its largest entry positive.
    """
    x = features.astype(np.float64)
    x -= x.mean(axis=0)
    by_images = len(x) <= x.shape[1]
    values, vectors = np.linalg.eigh(x @ x.T if by_images else x.T @ x)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    count = min(count, len(values))
    points = vectors[:, :count] * np.sqrt(values[:count]) if by_images else x @ vectors[:, :count]
    points *= np.sign(points[np.abs(points).argmax(axis=0), np.arange(count)] + 1e-300)
    return points.astype(np.float32), values[:count] / max(values.sum(), 1e-300)


def make_map(features: NDArray[np.float32], labels: NDArray[np.int64], names: Sequence[str], images: int) -> Map:
    """Return the map of features (n, D) with labels (n,), of a file of `images`.

    Raises
    ------
    ConfigError
        They are too few, or not finite.
    """
    if len(features) < 3:
        raise ConfigError(f"{len(features)} images, expected 3 or more")
    if not np.isfinite(features).all():
        raise ConfigError("the features are not finite numbers")
    points, shares = principal(features, COMPONENTS)
    if points.shape[1] < 2:
        points, shares = np.pad(points, ((0, 0), (0, 1))), np.pad(shares, (0, 1))
    remark, near = "", None
    try:
        near = tsne(points)
    except ConfigError as error:
        remark = str(error)
    known = tuple(names[c] if c < len(names) else f"class {c}" for c in range(int(labels.max(initial=0)) + 1))
    return Map(points[:, :2], near, labels, known, images, (float(shares[0]), float(shares[1])), remark)


def _kept(run: Run, path: Path, most: int) -> Map:
    about = path.stat()
    source = {"file": path.name, "bytes": about.st_size, "modified_ns": about.st_mtime_ns, "images": most}
    name = f"map-{path.stem}"
    there = _read_kept(run.path / "results" / f"{name}.json", source)
    if there is not None:
        return there
    sample = read_features(path, most)
    made = _to_json(make_map(sample.features, sample.labels, sample.names or _names(run), sample.images), source)
    # A folder that may only be read keeps none: the next report makes it again.
    with suppress(OSError):
        write_result(run.path, name, made)
    return _from_json(made)


def _names(run: Run) -> tuple[str, ...]:
    """Return the names of classes that a result of the run has, where the features come without."""
    every = [result.confusion.get("classes", ()) for result in run.finetuned if result.confusion]
    return tuple(map(str, max(every, key=len, default=())))


def _to_json(found: Map, source: dict[str, Any]) -> dict[str, Any]:
    def short(points: NDArray[np.float32] | None) -> list[str] | None:
        return None if points is None else [f"{x:.4g} {y:.4g}" for x, y in points.tolist()]

    return {
        "format": FORMAT, "version": VERSION, "source": source, "pca": short(found.pca), "tsne": short(found.tsne),
        "labels": " ".join(map(str, found.labels.tolist())), "classes": list(found.names), "images": found.images,
        "shares": list(found.shares), "remark": found.remark,
    }  # fmt: skip


def _read_kept(path: Path, source: dict[str, Any]) -> Map | None:
    """Return a map that was made before of this very file, if it is whole."""
    try:
        data = json.loads(path.read_bytes())
        if (data["format"], data["version"], data["source"]) != (FORMAT, VERSION, source):
            return None
        return _from_json(data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _from_json(data: dict[str, Any]) -> Map:
    """Return a map as it was written, rounded: the same in the first report and in the next."""
    pca, near = (
        None if data[k] is None else np.array([p.split() for p in data[k]], np.float32) for k in ("pca", "tsne")
    )
    labels = np.array(data["labels"].split(), np.int64)
    if pca is None or pca.shape != (len(labels), 2) or (near is not None and near.shape != pca.shape):
        raise ValueError("places and labels do not match")
    first, second = data["shares"]
    return Map(
        pca, near, labels, tuple(map(str, data["classes"])), int(data["images"]), (first, second), data["remark"]
    )


def _pictures(run: Run, path: Path, found: Map) -> tuple[Picture, ...]:
    classes = len(np.unique(found.labels))
    of = (
        f"{len(found.labels):,} of {found.images:,} images"
        if len(found.labels) < found.images
        else f"{found.images:,} images"
    )
    pictures = []
    for title, points in (("principal components", found.pca), ("t-SNE", found.tsne)):
        if points is None:
            continue
        share = f", {100 * sum(found.shares):.0f} % of the variance" if points is found.pca else ""
        alt = f"{run.name}, {path.stem}: {title} of {of}, {classes} classes{share}"
        svg = map_chart(points, found.labels, found.names, alt)
        pictures.append(Picture(svg=svg, alt=alt, caption=f"{run.name}, {path.stem}: {title}{share}. {of}"))
    return tuple(pictures)
