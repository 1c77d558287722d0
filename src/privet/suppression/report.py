"""How much is masked: numbers, a table for a terminal, a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from privet.atomic_file import check_destination, replacing
from privet.errors import ArgumentError

__all__ = ["LayerSparsity", "SparsityReport"]

_FORMATS = ("png", "svg", "pdf")
_DASHES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class LayerSparsity:
    """One layer's weights.

    Attributes:
        name: of the parameter.
        weights: how many there are.
        masked: how many are masked.
        smallest: the smallest magnitude of a kept weight.
        largest: the largest.
    """

    name: str
    weights: int
    masked: int
    smallest: float
    largest: float

    @classmethod
    @torch.no_grad()
    def of(cls, name: str, weights: Tensor, masked: Tensor) -> LayerSparsity:
        """Measure ``weights``, of which ``masked`` (bool, of the same shape) are masked."""
        kept = weights[~masked].abs()
        low, high = (float(kept.min()), float(kept.max())) if kept.numel() else (0.0, 0.0)
        return cls(name, weights.numel(), int(masked.count_nonzero()), low, high)

    @property
    def sparsity(self) -> float:
        """The share that is masked, in [0, 1]."""
        return self.masked / self.weights


@dataclass(frozen=True)
class SparsityReport:
    """What a suppression masked, a layer and in all, now and over time. It says nothing about privacy.

    ``print(report)`` writes text, ``rich.print(report)`` a table.

    Attributes:
        step: how many steps were counted.
        layers: the layers as they are now.
        history: a row an update: its step, then how many weights of each layer were masked after it.

    Example:
        >>> report = SparsityReport(7, (LayerSparsity("fc.weight", 40, 30, 0.1, 0.9),), ((5, 20), (7, 30)))
        >>> print(report)
        step 7: 30 of 40 weights masked (75.0%)
          fc.weight  30 of 40 (75.0%)
        >>> report.over_time()
        {'all layers': ((5, 0.5), (7, 0.75)), 'fc.weight': ((5, 0.5), (7, 0.75))}
    """

    step: int
    layers: tuple[LayerSparsity, ...]
    history: tuple[tuple[int, ...], ...]

    @property
    def weights(self) -> int:
        """How many weights the layers have."""
        return sum(layer.weights for layer in self.layers)

    @property
    def masked(self) -> int:
        """How many of them are masked."""
        return sum(layer.masked for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """The share of all weights of the layers that is masked, in [0, 1]."""
        return self.masked / self.weights

    def over_time(self) -> dict[str, tuple[tuple[int, float], ...]]:
        """Sparsity after each update: (step, share) pairs of all layers together and of each."""
        series = {"all layers": tuple((row[0], sum(row[1:]) / self.weights) for row in self.history)}
        for index, layer in enumerate(self.layers, start=1):
            series[layer.name] = tuple((row[0], row[index] / layer.weights) for row in self.history)
        return series

    def __str__(self) -> str:
        lines = [f"step {self.step:,}: {self.masked:,} of {self.weights:,} weights masked ({self.sparsity:.1%})"]
        name = max(len(layer.name) for layer in self.layers)
        most, all_ = (
            max(len(f"{value:,}") for value in values)
            for values in zip(*((layer.masked, layer.weights) for layer in self.layers), strict=True)
        )
        lines += [
            f"  {layer.name:{name}}  {layer.masked:{most},} of {layer.weights:{all_},} ({layer.sparsity:.1%})"
            for layer in self.layers
        ]
        return "\n".join(lines)

    def __rich__(self) -> Table:
        table = Table(
            title=f"Suppressed weights after step {self.step:,}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False
        )
        table.add_column("layer", no_wrap=True)
        for column in ("weights", "masked", "sparsity", "least kept", "most kept"):
            table.add_column(column, justify="right")
        for layer in self.layers:
            numbers = (f"{layer.weights:,}", f"{layer.masked:,}", f"{layer.sparsity:.1%}")
            table.add_row(layer.name, *numbers, f"{layer.smallest:.3g}", f"{layer.largest:.3g}")
        table.add_section()
        table.add_row("all", f"{self.weights:,}", f"{self.masked:,}", f"{self.sparsity:.1%}", "", "")
        return table

    def plot(self, path: str | Path) -> None:
        """Draw sparsity over the steps, a line a layer.

        Args:
            path: ends in ``.png``, ``.svg`` or ``.pdf``; written over where it exists, in one step.

        Raises:
            ArgumentError: the path has another ending, or no update was made yet.
            FileWriteError: the file cannot be written.
        """
        kind = Path(path).suffix.removeprefix(".").lower()
        if kind not in _FORMATS:
            raise ArgumentError("path", str(path), "a file whose name ends in .png, .svg or .pdf")
        if not self.history:
            raise ArgumentError("step", self.step, "a step of the ramp or after it", "Nothing was masked yet.")
        destination = check_destination("path", path)
        figure = self._figure()
        with replacing(destination) as file:
            figure.savefig(file, format=kind, dpi=150)

    def _figure(self) -> Any:
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter

        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for index, (name, points) in enumerate(self.over_time().items()):
            steps, shares = zip(*((0, 0.0), *points, (self.step, points[-1][1])), strict=True)
            wide = {"linewidth": 3, "color": "black"} if index == 0 else {"linestyle": _DASHES[(index - 1) % 4]}
            axes.step(steps, shares, where="post", label=name, **wide)
        axes.set(xlabel="optimizer step", ylabel="weights masked", xlim=(0, None), ylim=(0, 1))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=9, loc="lower right")
        return figure
