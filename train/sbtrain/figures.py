"""The only door to matplotlib: figures as SVG that follow a page's light or dark colors, and pixels as PNG."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sbformat.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Distinct in light, in dark and to color-blind readers: M. Okabe and K. Ito, "Color Universal Design", 2008.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#7F7F7F")
#: Drawn in this color, replaced by the text color of the page around: nothing else in a figure has it.
_INK = "#010203"


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
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.2, "grid.color": _INK,
        "legend.frameon": False, "figure.facecolor": "none",
        "axes.facecolor": "none", "savefig.facecolor": "none", "svg.fonttype": "none", "font.size": 10,
    }  # fmt: skip
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        every = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for axes in every:
        axes.set_prop_cycle(color=PALETTE)
    return figure, every


def as_svg(figure: Figure) -> str:
    """Return the figure as an ``<svg>`` element to put into a page: texts stay texts, and take the page's color."""
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sbtrain", "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    # Its size in points would not shrink on a phone; the viewBox alone does.
    return re.sub(
        r'(<svg[^>]*?) height="[^"]*"([^>]*?) width="[^"]*"|(<svg[^>]*?) width="[^"]*"([^>]*?) height="[^"]*"',
        r"\1\2\3\4",
        svg,
        count=1,
    )


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return uint8 (H, W, 3) as a PNG file."""
    try:
        from matplotlib.image import imsave
    except ImportError as error:
        raise ConfigError("pictures need matplotlib. Install it: pip install 'splitbrain[report]'") from error
    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(pixels), format="png")
    return file.getvalue()
