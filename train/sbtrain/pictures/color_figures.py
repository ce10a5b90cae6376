"""The color-space figures: which bins of a and b hold colors at all, and which of them images use.

Axes: n x n joint bins.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sbformat
from sbformat.colorimetry import linear_from_lab, rgb_from_lab
from sbformat.durable import make_folder, write_atomically
from sbformat.schema import CHANNELS, LAB_RANGE, TargetSpec
from sbtrain.pictures.color_bins import SpaceBins, bin_squares, bins_in_gamut, check_spaces
from sbtrain.pictures.figures import PALETTE, as_png, as_svg, new_figure
from sbtrain.run_folder import data_record
from sbtrain.runtime import RunError

#: matplotlib's, which only `sbtrain.pictures.figures` may name.
Figure = Any
Axes = Any

FORMAT = "sbtrain-reconstruct"
VERSION = 1
NAME = "reconstruct-colors"

_NAMES = {"rgb": "RGB", "lab": "Lab", "rescaled_lab": "re-scaled Lab"}
_LINES = dict(zip(_NAMES, (PALETTE[1], PALETTE[0], PALETTE[2]), strict=True))
#: Points across the picture of the gamut.
_SIDE = 200
_DPI = 130


def draw_bins(spaces: list[SpaceBins], folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Draw gamut and use of bins into ``colors/`` of `folder`, the numbers into ``reconstruct-colors.json`` beside.

    Each figure is there as PNG and as SVG, whose lines and texts take the color of the page that it is put into.

    Raises
    ------
    ConfigError
        The color spaces were cut into other numbers of bins, or matplotlib is missing.
    RunError
        The folder cannot be written.
    """
    check_spaces(spaces)
    target = next((s.manifest.target for s in spaces if s.colorspace == "lab"), spaces[0].manifest.target)
    in_gamut = int(bins_in_gamut(target).sum())
    drawn = {
        "gamut": (_gamut_figure(spaces, target), _gamut_caption(spaces, target, in_gamut)),
        "used": (_used_figure(spaces), _used_caption(spaces)),
    }
    record = {
        "format": FORMAT,
        "version": VERSION,
        "kind": "colors",
        "figures": [
            {"file": f"colors/{name}.png", "svg": f"colors/{name}.svg", "caption": caption}
            for name, (_, caption) in drawn.items()
        ],
        "gamut": {"bins": target.dual_classes, "in_gamut": in_gamut},
        "spaces": {s.colorspace: _numbers(s) for s in spaces},
        "data": {s.colorspace: {name: data_record(s.manifest, name) for name in s.splits} for s in spaces},
        "versions": {"sbtrain": sbformat.__version__, "numpy": np.__version__},
    }
    try:
        make_folder(folder / "colors")
        for name, (figure, caption) in drawn.items():
            write_atomically(folder / "colors" / f"{name}.svg", as_svg(figure, caption).encode())
            write_atomically(folder / "colors" / f"{name}.png", as_png(_pixels(figure)))
            say(str(folder / "colors" / f"{name}.png"))
        write_atomically(folder / f"{NAME}.json", (json.dumps(record, indent=1) + "\n").encode())
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error}). Make room, or choose another --out") from error
    return record


def _numbers(space: SpaceBins) -> dict[str, Any]:
    single, dual = space.single.to_json(), space.dual.to_json()
    return {"splits": list(space.splits), "images": space.images, "single": single, "dual": dual}


# ---------------------------------------------------------------------------------------------------------- gamut


def _gamut_figure(spaces: list[SpaceBins], target: TargetSpec) -> Figure:
    figure, (axes,) = new_figure(5.6, 5.8)
    (a_low, a_high), (b_low, b_high) = LAB_RANGE[1:]
    axes.imshow(
        _plane(), extent=(a_low, a_high, b_low, b_high), origin="lower", interpolation="nearest", aspect="equal"
    )
    squares, inside = bin_squares(target), bins_in_gamut(target)
    ink = axes.xaxis.label.get_color()
    for chosen, alpha, width in ((squares[~inside], 0.25, 0.5), (squares[inside], 1.0, 0.8)):
        x, y = _outlines(chosen)
        axes.plot(x, y, color=ink, alpha=alpha, linewidth=width)
    lab = next((s for s in spaces if s.colorspace == "lab"), None)
    if lab is not None:
        share = lab.dual.counts / lab.dual.counts.sum()
        used, center = share > 0, squares[:, :2] + squares[:, 2:] / 2
        # The area of a dot is a bin's share; the least is still seen.
        axes.scatter(center[used, 0], center[used, 1], s=np.maximum(900 * share[used], 1.5), color=ink, zorder=3)
    axes.set(xlabel="a: green to red", ylabel="b: blue to yellow")
    axes.grid(visible=False)
    return figure


@cache
def _plane() -> NDArray[np.uint8]:
    """Draw the plane of a and b, each at the lightness nearest to 65 at which it is a color: RGBA, clear elsewhere."""
    a, b = np.meshgrid(*(np.linspace(*ends, _SIDE) for ends in LAB_RANGE[1:]))
    pixels = np.zeros((_SIDE, _SIDE, 4), np.uint8)
    for L in sorted(range(1, 100, 2), key=lambda lightness: -abs(lightness - 65)):
        lab = np.stack([np.full_like(a, L), a, b], axis=-1)
        linear = linear_from_lab(lab)
        inside = ((linear >= 0) & (linear <= 1)).all(axis=-1)
        pixels[inside, :3], pixels[inside, 3] = rgb_from_lab(lab[inside]), 255
    return pixels


def _outlines(squares: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return one line around all squares (n, 4), broken between them."""
    x, y, width, height = squares.T
    gap = np.full_like(x, np.nan)
    across, up = np.stack([x, x + width, x + width, x, x, gap]), np.stack([y, y, y + height, y + height, y, gap])
    return across.T.ravel(), up.T.ravel()


def _gamut_caption(spaces: list[SpaceBins], target: TargetSpec, in_gamut: int) -> str:
    text = (
        f"The plane of a and b, each color as light as it comes nearest to L = 65. {in_gamut} of {target.dual_classes} "
        f"joint bins hold a color of sRGB (drawn strong); no image can use the others."
    )
    lab = next((s for s in spaces if s.colorspace == "lab"), None)
    if lab is None:
        return text
    return (
        f"{text} Dots: the bins that cells of the Lab shards use, {lab.dual.used} of them; area by share of all cells."
    )


# ------------------------------------------------------------------------------------------------------ bins in use


def _used_figure(spaces: list[SpaceBins]) -> Figure:
    figure, (left, right) = new_figure(9.2, 4.9, columns=2)
    for space in spaces:
        name, color = _NAMES[space.colorspace], _LINES[space.colorspace]
        dual = np.sort(space.dual.counts)[::-1] / space.dual.counts.sum()
        dual = dual[dual > 0]
        label = f"{name}: {len(dual)} used, effectively {space.dual.effective:.3g}"
        left.plot(np.arange(1, len(dual) + 1), 100 * dual, color=color, label=label, drawstyle="steps-mid")
        single = space.single.counts / space.single.counts.sum()
        label = f"{name}, {CHANNELS[space.colorspace][0]}: effectively {space.single.effective:.3g}"
        style = "--" if space.colorspace == "rescaled_lab" else "-"  # its L lies on that of Lab
        right.plot((np.arange(single.size) + 0.5) / single.size, 100 * single, style, color=color, label=label)
    for axes, bins in ((left, spaces[0].dual.counts.size), (right, spaces[0].single.counts.size)):
        ink = axes.xaxis.label.get_color()
        axes.axhline(100 / bins, color=ink, linestyle=":", linewidth=1, label=f"all {bins} equally frequent")
    left.set(title="joint bins of the other two channels", xlabel="bins, commonest first", ylabel="cells in the bin, %")
    left.set_yscale("log")
    left.yaxis.set_major_formatter("{x:g}")
    right.set(title="bins of the single channel", xlabel="place in the channel's range", ylim=(0, None))
    _legends(left, right)
    return figure


def _legends(*every: Axes) -> None:
    for axes in every:
        ink = axes.xaxis.label.get_color()
        axes.title.set_color(ink)
        axes.legend(fontsize=8, labelcolor=ink, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14))


def _used_caption(spaces: list[SpaceBins]) -> str:
    parts = [
        f"{_NAMES[s.colorspace]}: {s.dual.used} of {s.dual.counts.size} joint bins used, as many as "
        f"{s.dual.effective:.1f} equally frequent ones (entropy {s.dual.entropy:.2f} of {np.log(s.dual.counts.size):.2f} nats)"
        for s in spaces
    ]
    return (
        f"Which bins the target maps of {spaces[0].images:,} images use. {'; '.join(parts)}. The entropy is the loss of a "
        f"network that knows how frequent each bin is, and nothing else."
    )


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    file = io.BytesIO()
    figure.savefig(file, format="rgba", dpi=_DPI, facecolor="white")
    width, height = (round(side * _DPI) for side in figure.get_size_inches())
    return np.frombuffer(file.getvalue(), np.uint8).reshape(height, width, 4)[..., :3]
