r"""Running sums over the steps of an open-ended run, on a lattice, nodes and a window laid out in advance.

The composed loss is kept as the sum, over the steps, of the logarithms of their transforms at the frequencies that
matter, and of their cumulants at the rates of the Chernoff bound. A step adds one mixture of two nodes to both. The
layout is for a run somewhat longer than the present one, and says when it does not serve any longer: other noise, or a
sum beyond the window.

What is left out stays bounded: no transform is larger than 1 in modulus, so the frequencies left out, once small
enough, only fall as steps are added. The cumulants are compared with the window after every step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, erfinv

from privet.accounting.loss_cells import (
    GROWTH,
    SATURATED,
    TAIL,
    Atoms,
    lattice_spacing,
    loss_grid,
    top_loss,
    upper_atoms,
)
from privet.accounting.spectrum import (
    LARGEST_WINDOW,
    ComposedLoss,
    Steps,
    WindowTooLargeError,
    _sampled_cut,
    _transform_less_one,
    _window,
)

__all__ = ["AHEAD", "Layout", "lay_out"]

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

AHEAD: Final = 1.3  # a layout serves until the run is so many times as long
_ROUND: Final = 2.0**-53
_WIDER = 1.25  # the nodes reach so far beyond the noise seen
_NODE_GAP = 0.01  # relative gap of total variation between nodes; the excess is of second order in it
_MOST_NODES = 256
_MOST_FREQUENCIES = 8_192


@dataclass(frozen=True)
class Side:
    """One direction: what never changes for the nodes of a layout, and the running sums over the steps.

    Attributes:
        spacing: of the lattice.
        start: where the window begins.
        size: its lattice points.
        ends: the smallest and the largest loss of a step, not counting infinity.
        atoms_each: atoms of a node's distribution.
        tail: what may lie beyond each end of the window.
        less_one: transforms of the nodes less one (K, J).
        generating: moment generating functions of the nodes at the rates (K, R).
        infinite: mass of the nodes at infinite loss (K,).
        rates: of the Chernoff bound, for the upper end positive, for the lower negative (R,).
        left_out: bound on the frequencies left out.
        logarithm: of the product over the steps (J,).
        relative: error of the product, relative (J,).
        cumulant: of the sum of the steps (R,).
        missing: logarithm of the probability that the sum is finite.
        count: steps.
    """

    spacing: float
    start: int
    size: int
    ends: tuple[float, float]
    atoms_each: int
    tail: float
    less_one: Complexes
    generating: Floats
    infinite: Floats
    rates: Floats
    left_out: float
    logarithm: Complexes
    relative: Floats
    cumulant: Floats
    missing: float
    count: float

    def after(self, steps: Steps) -> Side:
        """The same with these steps more; each is a mixture of two nodes with its own weight."""
        logarithm, drift = _logarithm(self.less_one, steps)
        total = self.logarithm + logarithm
        cumulant: Floats = self.cumulant + steps.count @ np.log(steps.mix(self.generating))
        return replace(
            self,
            logarithm=total,
            # Adding up commits a rounding error of each partial sum.
            relative=self.relative + 16.0 * _ROUND * drift + 2.0 * _ROUND * np.abs(total),
            cumulant=cumulant,
            missing=self.missing + float(steps.count @ np.log1p(-steps.mix(self.infinite))),
            count=self.count + float(steps.count.sum()),
        )

    @property
    def covered(self) -> bool:
        """Whether the sum leaves the window with at most the probability allowed."""
        bound = (self.cumulant - np.log(self.tail)) / self.rates
        high = min(float(bound[self.rates > 0.0].min()), self.count * self.ends[1])
        low = max(float(bound[self.rates < 0.0].max()), self.count * self.ends[0])
        return self.spacing * self.start <= low and high <= self.spacing * (self.start + self.size - 1)

    def composed(self) -> ComposedLoss:
        """The composed loss of all steps so far."""
        return ComposedLoss(
            self.spacing,
            self.start,
            self.size,
            np.concatenate(([np.exp(self.missing)], np.exp(self.logarithm))),
            float(-np.expm1(self.missing)),
            np.concatenate(([0.0], self.relative)) + 32.0 * _ROUND,
            self.count * 8.0 * _ROUND,
            2.0 * self.tail + self.left_out,
            self.count * self.atoms_each * 8.0 * _ROUND,
        )


@dataclass(frozen=True)
class Layout:
    """Nodes, by rising total variation (K,), and both directions."""

    variation: Floats
    forward: Side
    reverse: Side

    def after(self, noise: float, count: int) -> Layout | None:
        """With ``count`` steps more, or None where the layout does not serve any longer."""
        theta = _variation(np.array([noise]))
        if not self.variation[0] < theta[0] < self.variation[-1]:
            return None
        steps = _placed(self.variation, theta, np.array([float(count)]))
        forward, reverse = self.forward.after(steps), self.reverse.after(steps)
        return replace(self, forward=forward, reverse=reverse) if forward.covered and reverse.covered else None


def _variation(noise: Floats) -> Floats:
    """Total variation of N(0, z^2) and N(1, z^2), in which delta is convex at every epsilon."""
    theta: Floats = erf(0.5**1.5 / noise)
    return theta


def _placed(variation: Floats, theta: Floats, counts: Floats) -> Steps:
    """Each step as the mixture of its neighbouring nodes that matches its variation, a hair towards less noise."""
    row = np.clip(np.searchsorted(variation, theta, side="right") - 1, 0, variation.size - 2)
    gap = variation[row + 1] - variation[row]
    weight = np.clip((variation[row + 1] - theta - 4e-15 * variation[row + 1]) / gap - 1e-12, 0.0, 1.0)
    return Steps(row.astype(np.int64), weight, counts)


def lay_out(rate: float, delta: float, width: float, counted: dict[float, int]) -> Layout | None:
    """A layout for these steps and the next, or None where the arithmetic does not reach."""
    noise = np.array(sorted(counted))
    counts = np.array([float(counted[level]) for level in noise])
    lowest, highest = float(noise[0]) / _WIDER, float(noise[-1]) * _WIDER
    total, tail = AHEAD * float(counts.sum()), TAIL * delta
    if not (lowest > SATURATED and (high := top_loss(lowest, rate, tail / total)) < 700.0):
        return None
    ends = _variation(np.array([highest, lowest]))
    number = int(np.clip(np.ceil(np.log(ends[1] / ends[0]) / _NODE_GAP), 8, _MOST_NODES))
    levels = 0.5**1.5 / erfinv(np.linspace(ends[0], ends[1], number))
    variation = _variation(levels)
    variance = AHEAD * float(counts @ (rate**2 * np.expm1(np.minimum(noise**-2.0, 50.0))))
    spacing = lattice_spacing(width, variance, total, rate, 1.0 / LARGEST_WINDOW)
    steps = _placed(variation, _variation(noise), counts)
    while True:
        points = loss_grid(spacing, GROWTH, float(np.log1p(-rate)) - 3.0 * spacing, high)
        try:
            forward, reverse = (
                _begin(atoms, spacing, steps, tail) for atoms in upper_atoms(points, spacing, levels, rate)
            )
        except WindowTooLargeError as error:
            spacing *= 1.5 * error.size / LARGEST_WINDOW
            continue
        if forward is None or reverse is None or not (forward.covered and reverse.covered):
            return None
        return Layout(variation, forward, reverse)


def _begin(atoms: Atoms, spacing: float, steps: Steps, tail: float) -> Side | None:
    """One direction with the steps so far in it; the window has room for more."""
    losses = (atoms.points * spacing).astype(np.float64)
    low, high = _window(atoms.masses, losses, replace(steps, count=AHEAD * steps.count), tail)
    # With the present count as well: the lower end of a growing sum may rise.
    low = min(low, _window(atoms.masses, losses, steps, tail)[0])
    margin = 0.05 * (high - low)
    start = int(np.floor((low - margin) / spacing))
    size = int(np.ceil((high + margin) / spacing)) - start + 2
    size |= 1  # an even window would have a frequency that is its own conjugate
    if size > LARGEST_WINDOW:
        raise WindowTooLargeError(size)
    kept, dropped = _sampled_cut(atoms, losses, size, spacing, steps, tail / 2.0)
    if kept > _MOST_FREQUENCIES:
        return None
    less_one = _transform_less_one(atoms, losses, (2.0 * np.pi / (size * spacing)) * np.arange(1.0, kept + 1.0))
    # The samples bound the modulus from above; now that it is known, fewer frequencies are needed.
    logarithm, _ = _logarithm(less_one, steps)
    beyond = np.cumsum((np.exp(logarithm.real) / np.arange(1.0, kept + 1.0))[::-1])[::-1]
    kept = max(int(np.argmax(np.append(beyond, 0.0) <= tail / 2.0)), 1)
    dropped += 1.001 * float(np.append(beyond, 0.0)[kept])
    most = float(np.abs(losses).max())
    positive = np.geomspace(min(0.05, 300.0 / most), 600.0 / most, 48)
    rates = np.concatenate((positive, -positive))
    empty = Side(
        spacing=spacing,
        start=start,
        size=size,
        ends=(float(losses[0]), float(losses[-1])),
        atoms_each=losses.size,
        tail=tail,
        less_one=np.ascontiguousarray(less_one[:, :kept]),
        generating=atoms.masses @ np.exp(np.outer(losses, rates)),
        infinite=atoms.infinite,
        rates=rates,
        left_out=dropped,
        logarithm=np.zeros(kept, dtype=np.complex128),
        relative=np.zeros(kept),
        cumulant=np.zeros(rates.size),
        missing=0.0,
        count=0.0,
    )
    return empty.after(steps)


def _logarithm(less_one: Complexes, steps: Steps) -> tuple[Complexes, Floats]:
    """Logarithm of the product over steps, and the sum of the terms' sizes relative to their transforms (J,)."""
    by_step = steps.mix(less_one)  # (M, J)
    real, imaginary = by_step.real, by_step.imag
    with np.errstate(divide="ignore"):
        square = np.maximum(2.0 * real + real**2 + imaginary**2, -1.0)
        modulus = np.maximum(0.5 * np.log1p(square), -800.0)
    logarithm: Complexes = steps.count @ modulus + 1j * (steps.count @ np.arctan2(imaginary, 1.0 + real))
    drift: Floats = steps.count @ (np.abs(by_step) / np.maximum(np.exp(modulus), 1e-3)) + 1.0
    return logarithm, drift
