"""Show what a prepared color space holds: counts, statistics, bins in use, and a contact sheet to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbformat.colorimetry import rgb_from_lab
from sbformat.errors import ConfigError
from sbformat.manifest import Manifest, SplitManifest
from sbformat.schema import CHANNELS, SPLITS, Colorspace, fixed_range, values_from_bins, values_from_image
from sbformat.shard import open_shard
from sbprep.decode import draw_text, write_png

Picture = NDArray[np.uint8]

TILE = 96  # pixels a picture takes on the sheet at least
GAP = 6
HEADER = 22
PAPER = 255
INK = (40, 40, 40)
BLOCKS = " ▁▂▃▄▅▆▇█"
HISTOGRAM_COLUMNS = 50


def summary(manifest: Manifest, split: str | None = None, whole: bool = False) -> str:
    """Return counts and bins in use of every split (or one), as text; the `whole` has channel statistics and histograms."""
    target = manifest.target
    bins = "zhang" if target.bins == "zhang" else f"{target.single} single, {target.dual} x {target.dual} dual"
    lines = [
        f"{manifest.root}: {manifest.colorspace}, {manifest.image_size} x {manifest.image_size} images, "
        f"{target.size} x {target.size} targets, bins {bins}"
    ]
    for name in _chosen(manifest, split):
        lines += _split_lines(manifest, name, manifest.splits[name], whole)
    return "\n".join(lines)


def write_sheet(manifest: Manifest, split: str | None, images: int, path: Path) -> None:
    """Draw a contact sheet: a row an image with the decoded image, its channels, target maps and decoded targets.

    Raises
    ------
    ConfigError
        The split is not there.
    """
    names = _chosen(manifest, split)
    counts = [images // len(names) + (k < images % len(names)) for k in range(len(names))]
    rows = [row for name, count in zip(names, counts, strict=True) for row in _sheet_rows(manifest, name, count)]
    first, *others = CHANNELS[manifest.colorspace]
    titles = ["image", first, *others, f"target {first}", f"target {''.join(others)}", "decoded"]
    write_png(path, _grid(rows, titles, max(TILE, manifest.image_size)))


def _chosen(manifest: Manifest, split: str | None) -> list[str]:
    if split is not None and split not in manifest.splits:
        raise ConfigError(f"{manifest.root} has splits {', '.join(manifest.splits)}, no {split}")
    return [name for name in SPLITS if name in manifest.splits and split in (None, name)]


def _split_lines(manifest: Manifest, name: str, split: SplitManifest, whole: bool) -> list[str]:
    statistics = split.statistics
    size = sum(shard.bytes for shard in split.shards)
    labels = {None: "no labels", "class": "classes", "attribute": "attributes"}[split.label_kind]
    count = f"{len(manifest.label_names)} " if split.label_kind else ""
    shards = f"{len(split.shards)} shard{'s' if len(split.shards) != 1 else ''}"
    lines = [f"{name}: {split.images:,} images in {shards}, {size / 1e6:,.1f} MB, {count}{labels}"]
    for code, rejected in split.rejected.items():
        lines.append(f"  rejected {code}: {rejected:,}")
    return lines + (_statistics_lines(manifest, statistics) if whole else [_bins_line(statistics)])


def _bins_line(statistics: dict[str, Any]) -> str:
    counts = {name: statistics[f"{name}_counts"] for name in ("target_single", "target_dual")}
    used = (f"{name} {sum(map(bool, each))} of {len(each)}" for name, each in counts.items())
    return f"  bins in use: {', '.join(used)}"


def _statistics_lines(manifest: Manifest, statistics: dict[str, Any]) -> list[str]:
    lines = []
    for c, channel in enumerate(CHANNELS[manifest.colorspace]):
        line = f"  {channel}: stored mean {statistics['mean'][c]:6.2f}, std {statistics['std'][c]:6.2f} of 0…255"
        if manifest.colorspace == "rescaled_lab":
            line += f", constant in {statistics['constant_channels'][c]:,} images"
        lines.append(line)
    for target in ("target_single", "target_dual"):
        counts = statistics[f"{target}_counts"]
        lines.append(f"  {target}: {_live_text(counts)}  {histogram_text(counts)}")
    if statistics["label_counts"]:
        lines.append(f"  label: {min(statistics['label_counts']):,} to {max(statistics['label_counts']):,} images each")
    return lines


def _live_text(counts: Sequence[int]) -> str:
    share = np.array(counts) / max(sum(counts), 1)
    used = share[share > 0]
    perplexity = float(np.exp(-(used * np.log(used)).sum()))
    return f"{len(used)} of {len(counts)} bins in use, perplexity {perplexity:.1f}"


def histogram_text(counts: Sequence[int], columns: int = HISTOGRAM_COLUMNS) -> str:
    """Return a histogram of at most `columns` block characters; an empty bin stays blank.

    Examples
    --------
    >>> histogram_text([0, 1, 4, 8])
    ' ▁▄█'
    """
    groups = [int(part.sum()) for part in np.array_split(np.array(counts), min(columns, len(counts)))]
    highest = max(max(groups), 1)
    return "".join(BLOCKS[-(-count * (len(BLOCKS) - 1) // highest)] for count in groups)


def _sheet_rows(manifest: Manifest, split: str, count: int) -> list[list[Picture]]:
    rows: list[list[Picture]] = []
    for record in manifest.splits[split].shards:
        if record.count == 0 or len(rows) == count:
            continue
        with open_shard(manifest, split, record) as shard:
            stop = min(count - len(rows), record.count)
            data = {name: shard.read(name, 0, stop) for name in shard.datasets}
        rows += [_row(manifest, {name: values[i : i + 1] for name, values in data.items()}) for i in range(stop)]
    return rows


def _row(manifest: Manifest, data: dict[str, NDArray[Any]]) -> list[Picture]:
    space, target = manifest.colorspace, manifest.target
    values = values_from_image(data["image"], space, data.get("image_range"))
    value_range = data.get("target_range", fixed_range(space))
    decoded = values_from_bins(data["target_single"], data["target_dual"], value_range, target)
    single = np.repeat((data["target_single"][0] * (255 / (target.single_classes - 1)))[..., None], 3, axis=-1)
    return [
        _displayed(values, space),
        *(np.repeat(plane[..., None], 3, axis=-1) for plane in data["image"][0]),
        single.astype(np.uint8),
        _dual_picture(decoded, space),
        _displayed(decoded, space),
    ]


def _displayed(values: NDArray[np.float32], space: Colorspace) -> Picture:
    """(1, 3, H, W) in the units of the space -> sRGB (H, W, 3)."""
    pixels = values[0].transpose(1, 2, 0).astype(np.float64)
    return rgb_from_lab(pixels) if space != "rgb" else np.clip(pixels + 0.5, 0, 255).astype(np.uint8)


def _dual_picture(decoded: NDArray[np.float32], space: Colorspace) -> Picture:
    """Show the two other channels alone: the single one at the middle of its range."""
    shown = decoded.copy()
    shown[:, 0] = fixed_range(space)[0].mean()
    return _displayed(shown, space)


def _grid(rows: list[list[Picture]], titles: list[str], tile: int) -> Picture:
    step = tile + GAP
    sheet = np.full((HEADER + len(rows) * step + GAP, len(titles) * step + GAP, 3), PAPER, np.uint8)
    for column, title in enumerate(titles):
        draw_text(sheet, title, (GAP + column * step, HEADER - 8), INK)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            y, x = HEADER + r * step, GAP + c * step
            sheet[y : y + tile, x : x + tile] = _enlarged(picture, tile)
    return sheet


def _enlarged(picture: Picture, tile: int) -> Picture:
    """Repeat pixels to tile x tile, as every cell of a target map is to be seen."""
    height, width = picture.shape[:2]
    enlarged: Picture = picture[np.arange(tile) * height // tile][:, np.arange(tile) * width // tile]
    return enlarged
