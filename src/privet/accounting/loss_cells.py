r"""The privacy loss of one Poisson-subsampled Gaussian release, as atoms on a lattice that bound it from either side.

The pair is :math:`P = (1-q) N(0, z^2) + q N(1, z^2)` against :math:`Q = N(0, z^2)`; its loss at x is
:math:`L = \log(1 - q + q e^{(2x-1)/(2z^2)})`. Its hockey-stick divergence h(u) = P(L > log u) - u Q(L > log u) is
convex in u = e^epsilon, and what lies above (below) it everywhere composes to something above (below).

*Upper*: the chords of h between lattice points (connect the dots). A cell's mass goes to its two ends so that its P and
its Q are kept. *Lower*: tangents at the cells' midpoints, cut where they pass lattice points, the lower of the two
neighbours at each. Both errors are of second order in the width of a cell, and cells widen in proportion to the loss.

All functions take K noise multipliers at once and give one row each. Masses are of the direction P against Q at loss l;
the other direction has mass e^{-l} times as large at loss -l.

References:
    Doroshenko, Ghazi, Kamath, Kumar and Manurangsi, "Connect the dots: tighter discrete approximations of privacy loss
    distributions", 2022. Zhu, Dong and Wang, "Optimal accounting of differential privacy via characteristic function",
    2022, theorem 10 (dominating pairs compose) and section 4 (the two directions under Poisson sampling).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

__all__ = [
    "GROWTH",
    "SATURATED",
    "TAIL",
    "Atoms",
    "lattice_spacing",
    "loss_grid",
    "lower_atoms",
    "top_loss",
    "upper_atoms",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

GROWTH = 0.006  # width of a cell over its loss: the relative error of the variance is its square over six
SATURATED = 0.15  # noise below which the total variation is 1 to three digits and more
TAIL = 1e-7  # of delta: what each truncation may cost
_COARSEST = 0.02
_CELLS_TO_EDGE = 16.0
_FINEST = 1e-12


@dataclass(frozen=True)
class Atoms:
    """K loss distributions with atoms at shared lattice points, and the mass that each has at infinite loss.

    Attributes:
        points: rising lattice indices (n,); atom i has the loss points[i] * spacing.
        masses: (K, n), >= 0.
        infinite: mass at infinite loss (K,).
    """

    points: Integers
    masses: Floats
    infinite: Floats


def top_loss(noise_multiplier: float, rate: float, mass: float) -> float:
    """The loss above which the smallest of the noise multipliers has at most ``mass`` under P."""
    quantile = -float(ndtri(min(max(mass / rate, 1e-300), 0.4)))
    x = max(quantile * noise_multiplier + 1.0, -float(ndtri(min(max(mass, 1e-300), 0.4))) * noise_multiplier)
    exponent = (2.0 * x - 1.0) / (2.0 * noise_multiplier**2)
    return float(np.logaddexp(np.log1p(-rate), np.log(rate) + exponent)) if rate < 1.0 else exponent


def lattice_spacing(width: float, variance: float, steps: float, rate: float, finest: float) -> float:
    """The spacing at which a bracket is about ``width`` wide; it decides how tight a bound is, never whether it holds.

    Args:
        width: of the bracket.
        variance: of the composed loss, roughly.
        steps: how many releases.
        rate: the smallest sampling rate; the smallest loss, log(1 - q), must not fall between two lattice points.
        finest: a lattice need not be finer.
    """
    spacing = min(float(np.sqrt(width * min(1.0, np.sqrt(variance)) / steps)), _COARSEST)
    return max(min(spacing, max(rate / _CELLS_TO_EDGE, finest)), _FINEST)


def loss_grid(spacing: float, growth: float, low: float, high: float) -> Integers:
    """Lattice indices from below ``low`` to above ``high``: cells one wide near zero, then ``growth`` of the loss."""
    positive, point, top = [0], 0, max(-low, high) / spacing
    while point < top:
        point += max(1, int(growth * point))
        positive.append(point)
    half = np.array(positive, dtype=np.int64)
    both = np.concatenate((-half[:0:-1], half))
    first = max(int(np.searchsorted(both, low / spacing, side="right")) - 1, 0)
    last = min(int(np.searchsorted(both, high / spacing)), both.size - 1)
    return both[first : last + 1]


def upper_atoms(points: Integers, spacing: float, noise: Floats, rate: float) -> tuple[Atoms, Atoms]:
    """Atoms above the truth, in the directions P against Q and Q against P.

    Args:
        points: from :func:`loss_grid` (n,).
        spacing: of the lattice.
        noise: noise multipliers (K,).
        rate: sampling rate q in (0, 1].
    """
    losses = (points * spacing).astype(np.float64)
    q_mass, shifted = _cell_masses(losses, noise, rate)  # (K, n + 1), the first and last cell without end
    p_mass = (1.0 - rate) * q_mass + rate * shifted
    # A cell [a, b] keeps its P and its Q: (P - e^a Q) / (1 - e^{a-b}) goes to b and the rest to a.
    excess = rate * shifted[:, 1:-1] - q_mass[:, 1:-1] * _ratio_less_rest(losses[:-1], rate)
    to_right = np.clip(excess / -np.expm1(-np.diff(losses)), 0.0, p_mass[:, 1:-1])
    masses = np.zeros((noise.size, points.size))
    masses[:, :-1] += p_mass[:, 1:-1] - to_right
    masses[:, 1:] += to_right
    masses[:, 0] += p_mass[:, 0]
    forward = Atoms(points, masses, p_mass[:, -1])
    reverse = masses * np.exp(-losses)
    reverse[:, -1] += q_mass[:, -1]
    leftover = np.maximum(q_mass[:, 0] - np.exp(-losses[0]) * p_mass[:, 0], 0.0)
    return forward, Atoms(-points[::-1], np.ascontiguousarray(reverse[:, ::-1]), leftover)


def lower_atoms(points: Integers, spacing: float, noise: Floats, rate: float) -> tuple[Atoms, Atoms]:
    """Atoms below the truth, in both directions; arguments as in :func:`upper_atoms`.

    Write l_i for the loss at point i, m_i for the midpoints, and P_i, Q_i for the masses between m_{i-1} and m_i. The
    tangents of h at m_{i-1} and m_i differ at l_i by D_i = e^{l_i} Q_i - P_i. Taking the lower one at every point gives
    a function below h with kinks at lattice points, whose masses follow from its slopes. Where it is not convex (cells
    wider than the density changes), its convex hull is taken, which is lower still. A row for which this leaves nothing
    tells nothing: all its mass at loss 0.
    """
    losses = (points * spacing).astype(np.float64)
    q_mass, shifted = _cell_masses((losses[1:] + losses[:-1]) / 2.0, noise, rate)  # (K, n), one cell about each point
    p_mass = (1.0 - rate) * q_mass + rate * shifted
    ratio = _ratio_less_rest(losses, rate)
    gap = q_mass * ratio - rate * shifted  # D
    rows, columns = np.arange(noise.size), np.arange(points.size)
    # Left of the first kink h is 1 - u, right of the last it is 0: what lies beyond is one cell each.
    q_left, s_left = np.cumsum(q_mass, 1), np.cumsum(shifted, 1)
    q_right, s_right = (np.cumsum(part[:, ::-1], 1)[:, ::-1] for part in (q_mass, shifted))
    gap_left, gap_right = q_left * ratio - rate * s_left, q_right * ratio - rate * s_right
    p_left, p_right = (1 - rate) * q_left + rate * s_left, (1 - rate) * q_right + rate * s_right
    first = np.argmax((gap_left >= 0.0) & (q_left > _EDGE), axis=1)
    last = points.size - 1 - np.argmax(((gap_right <= 0.0) & (p_right > _TAIL))[:, ::-1], axis=1)
    outside = (columns < first[:, None]) | (columns > last[:, None])
    p_mass, gap = np.where(outside, 0.0, p_mass), np.where(outside, 0.0, gap)
    p_mass[rows, first], gap[rows, first] = p_left[rows, first], gap_left[rows, first]
    p_mass[rows, last], gap[rows, last] = p_right[rows, last], gap_right[rows, last]
    widths = np.diff(losses)
    bend = np.minimum(0.0, gap[:, 1:]) + np.maximum(0.0, gap[:, :-1])
    masses = p_mass + gap
    masses[:, :-1] += bend / np.expm1(widths)
    masses[:, 1:] -= bend / -np.expm1(-widths)
    masses = np.where(outside, 0.0, masses)
    _tell_nothing(masses, first >= last, losses)
    masses = _convex_hull(masses, losses)
    none = np.zeros(noise.size)
    reverse = np.ascontiguousarray((masses * np.exp(-losses))[:, ::-1])
    return Atoms(points, masses, none), Atoms(-points[::-1], reverse, none)


_EDGE = 1e-9  # of Q: what lies left of the first kink; the density is steepest there
_TAIL = 1e-30  # of P: what lies right of the last one


def _ratio_less_rest(losses: Floats, rate: float) -> Floats:
    """e^l - (1 - q), without cancellation near l = 0."""
    less: Floats = np.expm1(losses) + rate
    return less


def _cell_masses(edges: Floats, noise: Floats, rate: float) -> tuple[Floats, Floats]:
    """Mass of N(0, z^2) and of N(1, z^2) between consecutive losses, and beyond both ends: each (K, edges + 1)."""
    with np.errstate(divide="ignore"):
        # x at loss l: z^2 log((e^l - 1 + q) / q) + 1/2, minus infinity at or below the smallest loss log(1 - q)
        log_ratio = edges if rate == 1.0 else np.log1p(np.maximum(np.expm1(edges) / rate, -1.0))
    sigma = noise[:, None]
    ends = np.full((noise.size, 1), np.inf)
    x = np.concatenate((-ends, sigma * log_ratio + 0.5 / sigma, ends), axis=1)  # in units of z
    return _gaps(x), _gaps(x - 1.0 / sigma)


def _gaps(x: Floats) -> Floats:
    """Normal mass between consecutive x, each difference taken in the tail in which it is exact."""
    below, above = ndtr(x), ndtr(-x)
    left, right = x[:, :-1], x[:, 1:]
    mass = np.where(right <= 0.0, below[:, 1:] - below[:, :-1], above[:, :-1] - above[:, 1:])
    astride: Floats = np.where((left < 0.0) & (right > 0.0), 1.0 - below[:, :-1] - above[:, 1:], mass)
    return astride


def _tell_nothing(masses: Floats, rows: NDArray[np.bool_], losses: Floats) -> None:
    """Put all mass of these rows at loss 0, which is below every pair of distributions."""
    masses[rows] = 0.0
    masses[rows, int(np.flatnonzero(losses == 0.0)[0])] = 1.0


def _convex_hull(masses: Floats, losses: Floats) -> Floats:
    """Spread each negative mass over its neighbours, keeping P and Q, until there is none.

    A negative mass is a point where the function lies above the chord of its neighbours; the chord replaces it.
    """
    columns = np.arange(losses.size)
    active = np.ones(masses.shape, dtype=bool)
    while True:
        negative = (masses < 0.0) & active
        if not negative.any():
            return masses
        before = np.maximum.accumulate(np.where(active, columns, -1), axis=1)
        after = np.minimum.accumulate(np.where(active, columns, losses.size)[:, ::-1], axis=1)[:, ::-1]
        row, column = np.nonzero(negative[:, 1:-1])
        column += 1
        left, right = before[row, column - 1], after[row, column + 1]
        heads = (left >= 0) & (right < losses.size)
        heads &= ~negative[row, np.maximum(left, 0)]  # of a run of negative masses, the leftmost
        if not heads.any():  # negative at an edge: no neighbour to share with
            _tell_nothing(masses, np.asarray(negative.any(axis=1)), losses)
            continue
        row, column, left, right = row[heads], column[heads], left[heads], right[heads]
        mass = masses[row, column]
        to_right = mass * np.expm1(losses[left] - losses[column]) / np.expm1(losses[left] - losses[right])
        masses[row, column] = 0.0
        active[row, column] = False
        np.add.at(masses, (row, left), mass - to_right)
        np.add.at(masses, (row, right), to_right)
