"""The pictures of a report, drawn by `sbtrain.pictures.figures`: each returns one ``<svg>`` element.

All are as wide as a phone's screen, so that their letters keep the size of the text around.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sbtrain.pictures.figures import PALETTE, as_svg, new_figure, plain

if TYPE_CHECKING:
    from sbtrain.pictures.figures import Axes

#: Inches; 72 points each, and a point is shown as about one pixel.
WIDTH, HEIGHT = 5.2, 3.5
#: Points of a curve up to which each is marked.
FEW = 30
#: Classes that a map has a legend for, and its columns.
MOST_NAMED, LEGEND_COLUMNS = 40, 3
#: Told apart without color.
MARKERS, DASHES = "os^Dv<>p", ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1, 1, 1)))


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve: x and y (n,), and where there are intervals their half-widths (n,)."""

    name: str
    x: Sequence[float] | NDArray[np.float64]
    y: Sequence[float] | NDArray[np.float64]
    half_width: Sequence[float] | None = None
    published: str = ""
    """Marker of a published curve."""
    control: bool = False
    color: int = 0


def few_shot_chart(lines: Sequence[Line], ticks: dict[float, str], label: str) -> str:
    """Draw top-1 in % over labels a class, on a logarithmic axis with `ticks`; bands are 95 % intervals."""
    figure, (axes,) = new_figure(WIDTH, HEIGHT)
    axes.set_xscale("log", base=2)
    for line in lines:
        _curve(axes, line)
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.set_xlabel("labels a class")
    axes.set_ylabel("top-1 %")
    axes.set_ylim(0, min(axes.get_ylim()[1], 100))  # an interval may reach beyond, an accuracy may not
    _legend(axes, len(lines))
    return as_svg(figure, label)


def curves_chart(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    label: str,
    alarms: Sequence[float] = (),
    level: float | None = None,
    shown: Sequence[float] = (),
) -> str:
    """Draw values over steps; a vertical line at each alarm, a horizontal one at `level`; the axis reaches to all `shown`."""
    figure, (axes,) = new_figure(WIDTH, HEIGHT)
    for number, line in enumerate(lines):
        axes.plot(line.x, line.y, color=PALETTE[line.color % len(PALETTE)], linestyle=DASHES[number % len(DASHES)],
                  linewidth=1.4, label=plain(line.name), marker=_marker(line))  # fmt: skip
    for step in alarms:
        axes.axvline(step, color=PALETTE[1], linewidth=1, linestyle=(0, (2, 2)))
    if level is not None:
        axes.axhline(level, color=PALETTE[7], linewidth=0.9, linestyle=(0, (1, 2)))
    if len(steps := {float(x) for line in lines for x in line.x}) == 1:
        axes.set_xticks(list(steps), [f"{step:,.0f}" for step in steps])
    if shown:
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, *shown), max(high, *shown))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if len(lines) > 1:
        _legend(axes, len(lines))
    return as_svg(figure, label)


def layers_chart(layers: Sequence[str], lines: Sequence[Line], label: str) -> str:
    """Draw top-1 in % by layer: lines with intervals as bars at each layer."""
    figure, (axes,) = new_figure(WIDTH, HEIGHT)
    for line in lines:
        _curve(axes, line)
    axes.set_xticks(range(len(layers)), [plain(layer) for layer in layers])
    if len(layers) > 6:  # names side by side would touch
        axes.tick_params(axis="x", labelsize=7.5)
    axes.set_ylabel("top-1 %")
    axes.set_ylim(bottom=0)
    _legend(axes, len(lines))
    return as_svg(figure, label)


def confusion_chart(shares: NDArray[np.float64], names: Sequence[str], label: str) -> str:
    """Draw the share of each true class (rows) that each class is predicted for (columns), (Q, Q) in [0, 1]."""
    figure, (axes,) = new_figure(WIDTH, WIDTH * 0.94)
    # One blue, more or less transparent: it reads on light and on dark.
    pixels = np.zeros((*shares.shape, 4))
    pixels[...] = *(int(PALETTE[0][i : i + 2], 16) / 255 for i in (1, 3, 5)), 1
    pixels[..., 3] = shares
    axes.imshow(pixels, interpolation="none")
    axes.grid(visible=False)
    if len(names) <= 30:
        axes.set_xticks(range(len(names)), [plain(name)[:16] for name in names], rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), [plain(name)[:16] for name in names], fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return as_svg(figure, label)


def map_chart(points: NDArray[np.float32], labels: NDArray[np.int64], names: Sequence[str], label: str) -> str:
    """Draw points (n, 2) by class, with a legend where there are few classes."""
    classes = np.unique(labels)
    named = len(classes) <= MOST_NAMED
    rows = -(-len(classes) // LEGEND_COLUMNS) if named else 0
    figure, (axes,) = new_figure(WIDTH, WIDTH * 0.85 + 0.19 * rows)
    for number, c in enumerate(classes):
        mine = points[labels == c]
        axes.scatter(mine[:, 0], mine[:, 1], s=7, alpha=0.6, linewidths=0, color=PALETTE[number % len(PALETTE)],
                     marker=MARKERS[number // len(PALETTE) % len(MARKERS)], label=plain(names[c][:18]))  # fmt: skip
    if named:  # below the points: a name among them would seem to be that of whatever it stands at
        figure.legend(loc="outside lower left", ncols=LEGEND_COLUMNS, fontsize=8, markerscale=1.8, handletextpad=0.1,
                      columnspacing=0.8, borderaxespad=0, frameon=False)  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    return as_svg(figure, label)


def _marker(line: Line) -> str:
    if len(line.x) == 1:  # a curve that is a point is to be seen
        return "o"
    return "." if len(line.x) <= FEW else ""


def _curve(axes: Axes, line: Line) -> None:
    if line.published:
        axes.plot(line.x, line.y, color=PALETTE[7], linestyle=(0, (1, 1.5)), marker=line.published, markersize=5, linewidth=1.4,
                  label=plain(line.name))  # fmt: skip
        return
    color = PALETTE[line.color % len(PALETTE)]
    style: dict[str, Any] = {"linestyle": DASHES[1] if line.control else "-", "markersize": 4.5, "linewidth": 1.6}
    if line.control:
        style["markerfacecolor"] = "none"
    axes.plot(line.x, line.y, color=color, marker=MARKERS[line.color % len(MARKERS)], label=plain(line.name), **style)
    if line.half_width is not None:
        y, half = np.asarray(line.y, float), np.asarray(line.half_width, float)
        axes.fill_between(line.x, np.maximum(y - half, 0), y + half, color=color, alpha=0.16, linewidth=0)


def _legend(axes: Axes, lines: int) -> None:
    # Above the axes, where it hides no point.
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1 if lines < 3 else 2, fontsize=8.5, borderaxespad=0.2,
                frameon=False, columnspacing=1.5)  # fmt: skip
