r"""The composition of many discrete privacy losses, in the Fourier domain.

A composed loss S is a sum of independent losses on one lattice. Its hockey-stick divergence
:math:`\delta(\epsilon) = E[(1 - e^{\epsilon - S})_+]` is the integral of a known function, so by Parseval

.. math:: \delta(\epsilon) = \frac{1}{N} \sum_j \hat\mu_j\, \hat g_j(\epsilon) + P(S = \infty),
   \qquad \hat\mu_j = \prod_t F_t(\omega_j),\quad \omega_j = 2\pi j / (N h)

on a window of N lattice points of spacing h, where :math:`\hat g_j` is a geometric sum in closed form. No inverse
transform is needed, and only frequencies at which the product does not vanish: :math:`|\hat g_j| / N \le 1 / (2j)`, so
leaving out those above J changes delta by at most :math:`\sum_{j>J} |\hat\mu_j| / j`. What leaves the window is bounded
by Chernoff on the discrete moment generating function. Each of these terms, and one for rounding, is part of the error
that :meth:`ComposedLoss.delta` gives with its value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from privet.accounting.loss_cells import Atoms

__all__ = ["ComposedLoss", "Steps", "compose"]

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Integers = NDArray[np.int64]
Number = TypeVar("Number", np.float64, np.complex128)

_ROUND = 2.0**-53
_FEW_ROUNDINGS = 16.0 * _ROUND
_FFT_AT_MOST = 64  # loss distributions that are transformed whole; more are sampled
_DIRECT_AT_MOST = 4_000_000  # atoms x frequencies evaluated one by one
_AT_ONCE = 2_000_000
_NEGLIGIBLE = 1e-6  # of what may be lost: a cut that changes nothing to speak of, taken where it costs little
LARGEST_WINDOW = 2**21


@dataclass(frozen=True)
class Steps:
    """Which distribution each step has: a mixture of rows k (weight w) and k + 1 (weight 1 - w), ``count`` times.

    Attributes:
        row: k (M,).
        weight: w in [0, 1] (M,).
        count: how many steps (M,).
    """

    row: Integers
    weight: Floats
    count: Floats

    @property
    def mixed(self) -> bool:
        """True if some step is a proper mixture."""
        return bool((self.weight < 1.0).any())

    def mix(self, values: NDArray[Number]) -> NDArray[Number]:
        """Values by row (K, ...) as values by step (M, ...)."""
        if not self.mixed:
            return values[self.row]
        weight = self.weight.reshape(-1, *([1] * (values.ndim - 1)))
        following = values[np.minimum(self.row + 1, len(values) - 1)]
        mixed: NDArray[Number] = weight * values[self.row] + (1.0 - weight) * following
        return mixed


@dataclass(frozen=True)
class ComposedLoss:
    """The composed loss: a function that gives delta, and how far it may be off to either side.

    Attributes:
        spacing: of the lattice, h.
        start: the lattice index at which the window begins.
        size: lattice points in the window, N.
        spectrum: the product at frequencies j = 0 ... J (J + 1,).
        infinite: P(S = infinity).
        rounding: relative error of each entry of the spectrum (J + 1,).
        relative: relative error of delta, from rounding of the atoms' masses.
        outside: bound on what leaves the window, and on the frequencies left out.
        shift: how far rounding of the atoms' masses may have moved the composed loss: an error of the normal
            distribution function moves mass from one cell to the next.
    """

    spacing: float
    start: int
    size: int
    spectrum: Complexes
    infinite: float
    rounding: Floats
    relative: float
    outside: float
    shift: float

    def delta(self, epsilon: float) -> tuple[float, float]:
        """Delta of the lattice distribution at an epsilon, and a bound on the error of this number."""
        h = self.spacing
        first, end = max(int(np.floor(epsilon / h)) + 1, self.start), self.start + self.size
        if first >= end:
            return self.infinite, self.outside
        theta = (2.0 * np.pi / self.size) * np.arange(1, self.spectrum.size)
        at_first = np.exp(-2j * np.pi * _turns(first, self.size, theta.size))
        at_end = np.exp(-2j * np.pi * _turns(end, self.size, theta.size))
        start_gap, end_gap = np.exp(epsilon - first * h), np.exp(epsilon - end * h)
        g = (at_first - at_end) / -np.expm1(-1j * theta)
        g -= (start_gap * at_first - end_gap * at_end) / -np.expm1(-h - 1j * theta)
        g0 = (end - first) - (start_gap - end_gap) / -np.expm1(-h)
        # j stands for N - j as well, unless they are one and the same
        both = np.where(2 * np.arange(1, self.spectrum.size) == self.size, 1.0, 2.0)
        terms = np.concatenate(([g0], both * g)) / self.size
        value = float((self.spectrum * terms).real.sum()) + self.infinite
        error = float((np.abs(self.spectrum * terms) * self.rounding).sum()) + 32.0 * _ROUND
        return value, self.outside + error + self.relative * abs(value)


class WindowTooLargeError(Exception):
    """The window has more lattice points than fit; a wider spacing has fewer."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def compose(atoms: Atoms, spacing: float, steps: Steps, tail: float) -> ComposedLoss:
    """Compose the steps' losses.

    Args:
        atoms: K distributions on the lattice (K, n).
        spacing: of the lattice.
        steps: which of them each step has.
        tail: what may be lost beyond each end of the window, and what may be lost to frequencies left out.

    Raises:
        WindowTooLargeError: if the window has more than ``LARGEST_WINDOW`` points.
    """
    losses = (atoms.points * spacing).astype(np.float64)
    low, high = _window(atoms.masses, losses, steps, tail)
    if not high - low < spacing * 2.0**50:  # NaN and infinity as well
        raise WindowTooLargeError(2**50)
    start = int(np.floor(low / spacing))
    size = int(np.ceil(high / spacing)) - start + 2
    if size > LARGEST_WINDOW:
        raise WindowTooLargeError(size)
    steps_in_all = float(steps.count.sum())
    logarithm: Complexes | None = None
    relative = np.zeros(0)
    if len(atoms.masses) <= _FFT_AT_MOST and not steps.mixed:
        logarithm, relative, kept, dropped = _whole_spectrum(atoms, losses, size, spacing, steps, tail)
    else:
        kept, dropped = _sampled_cut(atoms, losses, size, spacing, steps, tail)
    if logarithm is None or kept * losses.size <= _DIRECT_AT_MOST:
        logarithm, relative = _direct(atoms, losses, _frequencies(kept, size, spacing), steps)
    missing = steps.count @ np.log1p(-steps.mix(atoms.infinite))
    spectrum = np.concatenate(([np.exp(missing)], np.exp(logarithm)))
    return ComposedLoss(
        spacing,
        start,
        size,
        spectrum.astype(np.complex128),
        float(-np.expm1(missing)),
        np.concatenate(([0.0], np.expm1(np.minimum(relative, 100.0)))) + _FEW_ROUNDINGS,
        steps_in_all * 8.0 * _ROUND,
        2.0 * tail + dropped,
        steps_in_all * losses.size * 8.0 * _ROUND,
    )


def _turns(index: int, size: int, count: int) -> Floats:
    """(index j mod size) / size for j = 1 ... count, exactly reduced."""
    reduced: Floats = (np.arange(1, count + 1, dtype=np.int64) * (index % size) % size) / size
    return reduced


def _window(masses: Floats, losses: Floats, steps: Steps, tail: float) -> tuple[float, float]:
    """Ends beyond which the sum lies with probability at most ``tail`` each, by Chernoff."""
    most = float(np.abs(losses).max())
    rates = np.geomspace(min(0.05, 300.0 / most), 600.0 / most, 48)

    def cumulant(signed: Floats) -> Floats:
        generating = masses @ np.exp(np.outer(losses, signed))  # (K, rates)
        result: Floats = steps.count @ np.log(steps.mix(generating))
        return result

    high = float(((cumulant(rates) - np.log(tail)) / rates).min())
    low = -float(((cumulant(-rates) - np.log(tail)) / rates).min())
    total = float(steps.count.sum())
    return max(low, total * losses[0]), min(high, total * losses[-1])


def _whole_spectrum(
    atoms: Atoms, losses: Floats, size: int, spacing: float, steps: Steps, tail: float
) -> tuple[Complexes | None, Floats, int, float]:
    """Logarithms of the product at every frequency that matters, their errors, how many do, and a bound on the rest.

    Distributions are transformed whole, those that spread most first, until their product shows that few frequencies
    can matter; of the others these few alone are looked at, and there are no logarithms then.
    """
    counts = np.bincount(steps.row, steps.count, len(atoms.masses))
    spread = counts * (atoms.masses @ losses**2 - (atoms.masses @ losses) ** 2)
    order = [int(row) for row in np.argsort(-spread) if counts[row] > 0.0]
    place = atoms.points % size
    logarithm = np.zeros(size // 2, dtype=np.complex128)
    floor = 8.0 * np.log2(size) * _ROUND
    magnitude, relative = np.zeros(size // 2), np.zeros(size // 2)
    for done, row in enumerate(order, 1):
        transform = np.conj(np.fft.rfft(np.bincount(place, atoms.masses[row], size)))[1 : size // 2 + 1]
        magnitude += counts[row] * np.log(np.minimum(np.abs(transform) + floor, 1.0))
        modulus = np.maximum(np.abs(transform), floor)
        logarithm += counts[row] * (np.log(modulus) + 1j * np.angle(transform))
        relative += counts[row] * floor / modulus
        if done < len(order) and done & (done - 1) == 0:  # 1, 2, 4, ... transforms
            few, beyond = _kept(magnitude, 1e-3 * _NEGLIGIBLE * tail)
            if few < size // 2 and few * losses.size * 8 <= _DIRECT_AT_MOST:
                rest = Atoms(atoms.points, atoms.masses[order[done:]], atoms.infinite[order[done:]])
                direct = np.abs(1.0 + _transform_less_one(rest, losses, _frequencies(few, size, spacing)))
                magnitude = magnitude[:few] + counts[order[done:]] @ np.log(np.minimum(direct + floor, 1.0))
                kept, dropped = _kept(magnitude, tail)
                return None, relative, max(kept, 1), dropped + beyond
    kept, dropped = _kept(magnitude, tail)
    kept = max(kept, 1)
    return logarithm[:kept], relative[:kept], kept, dropped


def _kept(magnitude: Floats, limit: float) -> tuple[int, float]:
    """How many of the frequencies j = 1 ... J to keep, and the sum of |product| / j over the others, <= limit."""
    beyond = np.cumsum((np.exp(magnitude) / np.arange(1, magnitude.size + 1))[::-1])[::-1]
    kept = int(np.count_nonzero(beyond > limit))
    return kept, float(beyond[kept]) if kept < magnitude.size else 0.0


def _frequencies(count: int, size: int, spacing: float) -> Floats:
    frequencies: Floats = (2.0 * np.pi / (size * spacing)) * np.arange(1, count + 1, dtype=np.float64)
    return frequencies


def _sampled_cut(
    atoms: Atoms, losses: Floats, size: int, spacing: float, steps: Steps, tail: float
) -> tuple[int, float]:
    r"""How many frequencies to keep, and a bound on what the rest adds.

    Between sampled frequencies the squared modulus :math:`|F|^2 = E \cos(\omega D)`, D the difference of two
    independent losses, changes by at most :math:`E \min(|D|, \omega D^2) \le \min(\sqrt{2 v}, 2 v \omega)` a unit,
    v the variance.
    A mixture's modulus is at most the larger of its two rows'.
    """
    masses = atoms.masses
    lowest, highest = 2.0 * np.pi / (size * spacing), np.pi / spacing
    mean = masses @ losses
    variance = np.maximum(masses @ losses**2 - mean**2, 0.0)
    typical = float(steps.count @ steps.mix(variance) / steps.count.sum())
    turn = min(max(2.0 / np.sqrt(2.0 * typical), 2.0 * lowest), highest)
    samples = np.unique(
        np.concatenate(
            (
                np.geomspace(lowest, turn, 2 + int(np.log(turn / lowest) / 0.03)),
                np.linspace(turn, highest, 2 + int((highest - turn) / (0.6 / np.sqrt(2.0 * typical)))),
            )
        )
    )
    square = np.abs(1.0 + _transform_less_one(atoms, losses, samples)) ** 2
    width, upper = np.diff(samples), samples[1:]
    slope = np.minimum(np.sqrt(2.0 * variance)[:, None], 2.0 * variance[:, None] * upper)
    bound = np.minimum(np.maximum(square[:, 1:], square[:, :-1]) + slope * width / 2.0, 1.0)  # (K, intervals)
    if steps.mixed:
        bound = np.maximum(bound, bound[np.minimum(np.arange(len(bound)) + 1, len(bound) - 1)])
    counts = np.bincount(steps.row, steps.count, len(masses))
    product = np.exp(0.5 * counts @ np.log(np.maximum(bound, 1e-300)))
    place = samples / lowest
    added = product * (np.log(place[1:] / place[:-1]) + 1.0 / place[:-1])
    beyond = np.cumsum(added[::-1])[::-1]
    if beyond[-1] > tail:
        return size // 2, 0.0
    enough, negligible = (int(np.argmax(beyond <= limit)) for limit in (tail, max(_NEGLIGIBLE * tail, beyond[-1])))
    chosen = negligible if place[negligible] <= 2.0 * place[enough] else enough
    return min(int(np.ceil(place[chosen])), size // 2), float(beyond[chosen])


def _direct(atoms: Atoms, losses: Floats, frequencies: Floats, steps: Steps) -> tuple[Complexes, Floats]:
    """Logarithms of the product at given frequencies, and the relative error of the product there.

    F - 1 is off by a few rounding errors of the sum of p_i |e^{i w l_i} - 1|, which is at most sqrt(2 |Re(F - 1)|).
    Where F is nearly 0 that is all of it, so its modulus is never taken for less than such an error.
    """
    less_one = steps.mix(_transform_less_one(atoms, losses, frequencies))
    real, imaginary = less_one.real, less_one.imag
    size = np.maximum(np.hypot(1.0 + real, imaginary), _FEW_ROUNDINGS)
    squared_less_one = np.maximum(2.0 * real + real**2 + imaginary**2, -0.9)  # exact where F is nearly 1
    modulus = np.where(np.hypot(real, imaginary) < 0.5, 0.5 * np.log1p(squared_less_one), np.log(size))
    logarithm = steps.count @ modulus + 1j * (steps.count @ np.arctan2(imaginary, 1.0 + real))
    off = _FEW_ROUNDINGS * np.minimum(1.0, np.sqrt(2.0 * np.abs(real)) + np.abs(less_one))
    return logarithm, steps.count @ (off / size)


def _transform_less_one(atoms: Atoms, losses: Floats, frequencies: Floats) -> Complexes:
    """F(w) - 1 = sum_i p_i (e^{i w l_i} - 1) - (mass at infinity), (K, frequencies), exact where F is nearly 1."""
    masses, missing = atoms.masses, -atoms.infinite[:, None]
    result = np.empty((len(masses), frequencies.size), dtype=np.complex128)
    width = max(1, _AT_ONCE // losses.size)
    for begin in range(0, frequencies.size, width):
        half = np.outer(losses, frequencies[begin : begin + width] / 2.0)
        sine = np.sin(half)
        result.real[:, begin : begin + width] = missing - 2.0 * (masses @ sine**2)
        result.imag[:, begin : begin + width] = 2.0 * (masses @ (sine * np.cos(half)))
    return result


def smallest_epsilon(above: Callable[[float], bool], highest: float) -> tuple[float, float]:
    """The two ends of an interval of width 1e-9 at which ``above`` changes from True to False."""
    if not above(0.0):
        return 0.0, 0.0
    low, high = 0.0, highest
    while high - low > 1e-9 * max(1.0, high):
        middle = (low + high) / 2.0
        low, high = (middle, high) if above(middle) else (low, middle)
    return low, high
