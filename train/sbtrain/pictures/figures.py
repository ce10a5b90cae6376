"""The only door to matplotlib: figures as SVG that follow a page's light or dark colors, and pixels as PNG."""

from __future__ import annotations

import hashlib
import html
import io
import re
import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sbformat.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure

#: Distinct in light, in dark and to color-blind readers: M. Okabe and K. Ito, "Color Universal Design", 2008.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#7F7F7F")
#: Drawn in this color, replaced by the text color of the page around: nothing else in a figure has it.
_INK = "#010203"
_SVG = {"svg.fonttype": "none", "svg.hashsalt": "sbtrain", "font.family": "sans-serif"}


def new_figure(width: float = 6.4, height: float = 4.0, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure of `width` x `height` inches, and its axes row by row.

    Raises
    ------
    ConfigError
        matplotlib is missing.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("pictures need matplotlib. Install it: pip install 'splitbrain[report]'") from error
    style = {
        "axes.edgecolor": _INK, "axes.labelcolor": _INK, "text.color": _INK, "xtick.color": _INK, "ytick.color": _INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.13, "grid.color": _INK,
        "grid.linewidth": 0.6, "axes.axisbelow": True,
        "legend.frameon": False, "figure.facecolor": "none",
        "axes.facecolor": "none", "savefig.facecolor": "none", "svg.fonttype": "none", "font.size": 10,
    }  # fmt: skip
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        every = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for axes in every:
        axes.set_prop_cycle(color=PALETTE)
    return figure, every


def as_svg(figure: Figure, label: str = "") -> str:
    """Return the figure as an ``<svg>`` element to put into a page: texts stay texts, and take the page's color and font.

    Parameters
    ----------
    figure : Figure
    label : str
        What it shows, for those who cannot see it.
    """
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context(_SVG), warnings.catch_warnings():
        # The reader's fonts draw the texts: that the one they were measured in lacks a letter does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=metadata, transparent=True)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    # Rules for every element would be rules for the page's own.
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = svg.replace("'sans-serif'", "inherit")
    for number, color in enumerate(PALETTE):  # a page may name lighter ones for the dark
        svg = svg.replace(f": {color.lower()}", f": var(--chart-{number}, {color})")
    # Its size in points would not shrink on a phone; the viewBox alone does.
    head, rest = svg.split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)
    said = f' role="img" aria-label="{html.escape(label)}"' if label else ""
    style = ' style="fill:currentColor;stroke-linejoin:round;stroke-linecap:butt"'
    return f"{head}{said}{style}>{_own_names(rest)}".strip()


def _own_names(svg: str) -> str:
    """Make names that the figure refers to differ from those of other figures on a page; drop all others."""
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    prefix = f"f{hashlib.sha256(svg.encode()).hexdigest()[:8]}-"
    svg = re.sub(r' id="([^"]+)"', lambda name: f' id="{prefix}{name[1]}"' if name[1] in used else "", svg)
    return re.sub(r'(url\(|href=")#', rf"\1#{prefix}", svg)


def plain(text: str) -> str:
    """Return `text` as matplotlib has to be given it to draw its letters: dollars would begin a formula."""
    return text.replace("\\$", "$").replace("$", r"\$")


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return uint8 (H, W, 3) as a PNG file."""
    try:
        from matplotlib.image import imsave
    except ImportError as error:
        raise ConfigError("pictures need matplotlib. Install it: pip install 'splitbrain[report]'") from error
    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(pixels), format="png")
    return file.getvalue()
