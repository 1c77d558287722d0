"""What was found, as JSON, as tables and as a drawing. The upper end comes first, always."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal
from pathlib import Path

from rich.console import Console
from rich.table import Table

from privet import schedules
from privet.cli.budget.answer import Mark, Spent
from privet.errors import ArgumentError

__all__ = ["as_json", "check_plot", "print_tables", "write_plot"]


def as_json(spent: Spent) -> str:
    """One JSON object; an epsilon without a finite bound is null, since JSON has no infinity."""
    found: dict[str, object] = {
        "epsilon": {
            "pld": {"lower": _finite(spent.pld.lower), "upper": _finite(spent.pld.upper)},
            "rdp": _finite(spent.rdp.upper),
            "zcdp": _finite(spent.zcdp.upper),
        },
        "delta": spent.request.delta,
        "steps": spent.request.steps,
        "sampling_rate": spent.request.sampling_rate,
    }
    if spent.noise_scale is not None:
        found["noise_scale"] = spent.noise_scale
    return json.dumps(found, allow_nan=False)


def print_tables(spent: Spent, marks: Sequence[Mark]) -> None:
    """Print the headline, epsilon by accountant, and how it grows."""
    request = spent.request
    console = Console(highlight=False, markup=False)
    console.print(f"epsilon {spent.pld} at delta {request.delta:g}", style="bold", soft_wrap=True)
    console.print(
        f"{request.steps:,} steps ({request.steps * request.sampling_rate:,.2f} epochs), "
        f"sampling rate {request.sampling_rate:.6g} ({request.batch_size:,} of {request.population:,})",
        soft_wrap=True,
    )
    console.print(f"noise {schedules.describe(spent.noise)}", soft_wrap=True)
    if spent.noise_scale is not None:
        console.print(f"scaled by {spent.noise_scale!r} to stay within epsilon {request.target_epsilon:g}")
    console.print("data sets that differ by one record added or removed; Poisson sampling", soft_wrap=True)
    low = f"{math.floor(spent.pld.lower * 1e3) / 1e3:,.3f}"
    accountants = Table("accountant", "epsilon at most", "not below", "", title="by accountant", title_justify="left")
    accountants.add_row("pld", _up(spent.pld.upper), low, "the one to quote")
    accountants.add_row("rdp", _up(spent.rdp.upper), "", "")
    accountants.add_row("zcdp", _up(spent.zcdp.upper), "", "does not use sampling")
    accountants.add_row("pld", _up(spent.unamplified.upper), "", "as if not sampled")
    console.print(accountants)
    way = Table("epochs", "steps", "epsilon at most", title="on the way (pld)", title_justify="left")
    for mark in marks:
        way.add_row(f"{mark.epochs:,.2f}", f"{mark.steps:,}", _up(mark.epsilon))
    console.print(way)


def check_plot(path: Path) -> None:
    """An ArgumentError if no drawing can be written there; before any work."""
    if path.suffix.lower() != ".svg":
        raise ArgumentError("plot", str(path), "a file that ends in .svg")
    if not path.absolute().parent.is_dir():
        raise ArgumentError("plot", str(path), "a file in a folder that exists")


def write_plot(path: Path, spent: Spent, marks: Sequence[Mark]) -> None:
    """Draw epsilon over the epochs, as SVG whose text stays text. The dots are bounds; the line only joins them.

    Raises:
        ArgumentError: if epsilon has no finite bound, or the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    if not all(math.isfinite(mark.epsilon) for mark in marks):
        raise ArgumentError("plot", str(path), "a plan whose epsilon is finite", "This one has no bound to draw.")
    drawing = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "privet", "font.family": "sans-serif"}):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.plot([0.0, *(mark.epochs for mark in marks)], [0.0, *(mark.epsilon for mark in marks)], marker="o")
        axes.set(xlabel="epochs", ylabel=f"epsilon at most, at delta {spent.request.delta:g}", xlim=(0, None))
        axes.set_ylim(bottom=0.0)
        axes.grid(alpha=0.3)
        figure.savefig(drawing, format="svg", metadata={"Date": None, "Creator": None})
    try:
        path.write_bytes(drawing.getvalue())
    except OSError as error:
        raise ArgumentError("plot", str(path), "a file that can be written", f"{error.strerror}.") from error


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _up(value: float) -> str:
    """Rounded up: what is shown holds."""
    if not math.isfinite(value):
        return "unbounded"
    return f"{Decimal(value).quantize(Decimal('0.001'), ROUND_CEILING):,}"
