"""Drawings: matplotlib draws, the page's own style sheet colours, so that they follow light and dark."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privet.errors import ArgumentError
from privet.statistics import RocCurve

if TYPE_CHECKING:  # matplotlib is loaded by whoever draws, not by whoever writes numbers
    from matplotlib.figure import Figure

__all__ = ["Curve", "Line", "line_figure", "picture", "roc_figure"]

# Stand-in colours, each replaced by a variable of the style sheet once the drawing is text.
_INK, _MUTED, _LINE = "#010101", "#020202", "#030303"
_SERIES = tuple(f"#0a0a{number:02x}" for number in range(1, 7))
_DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = (
    "-",
    (0, (6, 2)),
    (0, (2, 2)),
    (0, (8, 2, 2, 2)),
    "-",
    (0, (4, 4)),
)
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _LINE: "--line"} | {
    colour: f"--series-{number}" for number, colour in enumerate(_SERIES, start=1)
}


@dataclass(frozen=True)
class Curve:
    """A ROC and its name in the legend."""

    name: str
    roc: RocCurve


@dataclass(frozen=True)
class Line:
    """Values over steps or epochs, and their name in the legend."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]


def line_figure(lines: Sequence[Line], x_label: str, y_label: str) -> str:
    """Draw lines on plain axes that begin at zero, as inline SVG.

    Args:
        lines: 1 to 6 of them, each with as many xs as ys.
        x_label: what runs along, with its unit.
        y_label: what is shown, with its unit.

    Raises:
        ArgumentError: if there are no lines or more than six.
    """
    _check_series("lines", [line.name for line in lines])
    with _style():
        figure, axes = _axes(x_label, y_label)
        for line, colour, dashes in zip(lines, _SERIES, _DASHES, strict=False):
            axes.plot(line.xs, line.ys, color=colour, linewidth=2, linestyle=dashes, label=line.name)
        axes.set(xlim=(0.0, None), ylim=(0.0, None))
        return _drawn(figure, axes, "upper left")


def roc_figure(curves: Sequence[Curve], smallest: float) -> str:
    """Draw ROC curves on log axes as inline SVG.

    Small false positive rates matter most, as an accusation that is right one time in two harms nobody's privacy but
    one that is right 99 times in 100 does; log axes show them.

    Args:
        curves: 1 to 6 of them.
        smallest: where both axes begin, in (0, 1): one over the number of non-members, or a little less.

    Returns:
        SVG text whose colours are variables of the page's style sheet.

    Raises:
        ArgumentError: if there are no curves or more than six, or ``smallest`` is out of range.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    _check_series("curves", [curve.name for curve in curves])
    if not 0.0 < smallest < 1.0:
        raise ArgumentError("smallest", smallest, "a rate strictly between 0 and 1")
    with _style():
        figure, axes = _axes("non-members accused (false positive rate)", "members found (true positive rate)")
        axes.set(xscale="log", yscale="log", xlim=(smallest, 1.0), ylim=(smallest, 1.0))
        coin = [smallest, 1.0]
        axes.plot(coin, coin, color=_MUTED, linewidth=1, linestyle=(0, (1, 3)), label="a coin flip")
        for curve, colour, dashes in zip(curves, _SERIES, _DASHES, strict=False):
            xs, ys = _points(curve.roc, smallest)
            axes.plot(xs, ys, color=colour, linewidth=2, linestyle=dashes, label=curve.name)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(10))
            axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g}%"))
            axis.set_minor_formatter(NullFormatter())
        return _drawn(figure, axes, "lower right")  # no curve worth drawing runs below the coin


def _check_series(name: str, names: list[str]) -> None:
    if not 1 <= len(names) <= len(_SERIES):
        raise ArgumentError(name, names, f"1 to {len(_SERIES)} {name}")


def _style() -> AbstractContextManager[None]:
    from matplotlib import rc_context

    return rc_context({"svg.fonttype": "none", "svg.hashsalt": "privet", "font.size": 11, "font.family": "sans-serif"})


def _axes(x_label: str, y_label: str) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(x_label, color=_INK)
    axes.set_ylabel(y_label, color=_INK)
    axes.tick_params(which="both", color=_LINE, labelcolor=_MUTED)
    axes.grid(color=_LINE, linewidth=0.8)
    for spine in axes.spines.values():
        spine.set_color(_LINE)
    axes.set_axisbelow(True)
    return figure, axes


def _drawn(figure: Figure, axes: Any, legend: str) -> str:
    axes.legend(frameon=False, labelcolor=_INK, loc=legend, handlelength=2.6, fontsize=10)
    text = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    return _inline(text.getvalue())


def _points(roc: RocCurve, smallest: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The curve as drawn, evenly on a log axis and held below the plot where it is zero.

    Two thresholds are joined straight: tossing a coin between their rules gives any rate between them.
    """
    dense = np.geomspace(smallest, 1.0, 400)
    return dense, np.maximum(np.interp(dense, roc.false_positive_rates, roc.true_positive_rates), smallest / 10.0)


def _inline(svg: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'\s(?:xmlns|xmlns:xlink)="[^"]*"', "", svg, count=2)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.replace("xlink:href", "href")


def picture(pixels: NDArray[np.floating]) -> str:
    """A small image as a PNG in a ``data:`` address.

    Args:
        pixels: (H, W) or (C, H, W) with C of 1 or 3, values in [0, 1].

    Raises:
        ArgumentError: if the shape is another.
    """
    from PIL import Image  # comes with matplotlib

    array = np.asarray(pixels)
    if array.ndim == 3 and array.shape[0] in (1, 3):
        array = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] != 3):
        raise ArgumentError("pixels", np.asarray(pixels).shape, "an image (H, W), (1, H, W) or (3, H, W)")
    png = io.BytesIO()
    Image.fromarray(np.rint(np.clip(array, 0.0, 1.0) * 255.0).astype(np.uint8)).save(png, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode("ascii")
