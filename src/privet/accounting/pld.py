"""The accountant of privacy loss distributions, made for runs in which every step has another noise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, erfc, erfinv

from privet.accounting.bound import Bound
from privet.accounting.events import (
    Event,
    NeighbouringRelation,
    TruncatedPoisson,
    check_delta,
    refuse_sampled_replacement,
)
from privet.accounting.gaussian import gaussian_delta, gaussian_epsilon
from privet.accounting.loss_cells import (
    GROWTH,
    SATURATED,
    TAIL,
    Atoms,
    lattice_spacing,
    loss_grid,
    lower_atoms,
    top_loss,
    upper_atoms,
)
from privet.accounting.rdp import RDP
from privet.accounting.spectrum import (
    LARGEST_WINDOW,
    ComposedLoss,
    Steps,
    WindowTooLargeError,
    compose,
    smallest_epsilon,
)
from privet.errors import AccountingError, ArgumentError, UnsupportedEventError

__all__ = ["PLD"]

Floats = NDArray[np.float64]
Groups = dict[float, tuple[Floats, Floats]]  # distinct noise multipliers and their counts, by sampling rate

_MANY = 64
_TOO_COARSE = 10.0
_HALF_ROOT = 0.5**1.5
_FELT = 0.01  # of delta, or of epsilon: from here on rounding is felt, and RDP may be tighter
_LARGE = 20.0  # an epsilon at which mixtures of far nodes are loose


@dataclass(frozen=True)
class PLD:
    r"""Epsilon from the composed privacy loss distribution, as a certified bracket.

    Each release is discretised from above (connect the dots) and from below (tangents), both with an error of second
    order, and composed in the Fourier domain, in the two directions "one record more" and "one record less" apart; the
    larger counts. T distinct noise multipliers need few distributions only: the total variation
    :math:`\theta = 2\Phi(1/(2z)) - 1` makes delta convex at every epsilon, so a level between two nodes is dominated by
    the mixture of the two that matches theta, each step with its own weight. See ``docs/accounting.md`` for the proof.
    A composition without sampling is computed exactly.

    Attributes:
        width: the width of the bracket that the discretisation aims at, in (0, 0.1]. It bounds nothing: the bracket
            does, whatever its width.
        nodes: distributions that stand for more distinct noise multipliers than that, at least 2 (upper end).
        lower_nodes: the same for the lower end, for which noise is rounded up; more of them bring it closer.

    Guarantees:
        Under add-or-remove-one for Poisson sampling, under the events' own relation without sampling; adaptive
        composition. Floating-point rounding of the arithmetic here is bounded and part of the bracket.

    Raises:
        ArgumentError: if a setting is out of range.

    Example:
        >>> from privet.accounting import Event, Poisson
        >>> print(PLD().epsilon([Event(1.1, Poisson(256 / 60_000), count=14_062)], delta=1e-5))
        <= 2.382 (not below 2.381)

    References:
        Doroshenko et al., "Connect the dots", 2022. Zhu, Dong and Wang, "Optimal accounting of differential privacy via
        characteristic function", 2022.
    """

    width: float = 1e-4
    nodes: int = 256
    lower_nodes: int = 1_536

    def __post_init__(self) -> None:
        if not 0.0 < self.width <= 0.1:
            raise ArgumentError("width", self.width, "a number above 0 and at most 0.1")
        if self.nodes < 2 or self.lower_nodes < 2:
            raise ArgumentError("nodes", (self.nodes, self.lower_nodes), "at least 2 of each")

    def epsilon(
        self,
        events: Sequence[Event],
        delta: float,
        relation: NeighbouringRelation = NeighbouringRelation.ADD_OR_REMOVE_ONE,
    ) -> Bound:
        """The bracket around epsilon at ``delta``.

        Args:
            events: what was released; none costs nothing.
            delta: in (0, 1).
            relation: the neighbouring relation to which the events' noise multipliers belong.

        Raises:
            ArgumentError: if ``delta`` is out of range.
            UnsupportedEventError: for truncated sampling, and for sampling under replace-one.
            AccountingError: if the two ends cross, which proves a fault in the computation.
        """
        groups = _groups(events, relation)
        if set(groups) == {1.0}:
            return gaussian_epsilon(delta, 1.0 / float(groups[1.0][0][0]))
        upper = self.upper_epsilon(events, delta, relation)
        if not groups:
            return Bound(0.0, upper)
        pair = self._compose(groups, delta, lower=True)
        if pair is None:
            return Bound(0.0, upper)
        lower, _ = smallest_epsilon(lambda epsilon: _low(pair, epsilon) >= delta, _highest(pair))
        return _bracket(lower - _shift(pair), upper)

    def upper_epsilon(
        self,
        events: Sequence[Event],
        delta: float,
        relation: NeighbouringRelation = NeighbouringRelation.ADD_OR_REMOVE_ONE,
    ) -> float:
        """The upper end alone, in half the time; arguments and errors as for :meth:`epsilon`.

        Where rounding is felt, or epsilon is large, the answer is that of :class:`RDP` if it is smaller.
        """
        check_delta(delta)
        groups = _groups(events, relation)
        if not groups:
            return 0.0
        if set(groups) == {1.0}:
            return gaussian_epsilon(delta, 1.0 / float(groups[1.0][0][0])).upper
        pair = self._compose(groups, delta, lower=False)
        if pair is None:
            return RDP().epsilon(events, delta, relation).upper
        highest = _highest(pair)
        if _high(pair, highest) > delta:
            return RDP().epsilon(events, delta, relation).upper
        _, upper = smallest_epsilon(lambda epsilon: _high(pair, epsilon) > delta, highest)
        if upper == 0.0:
            return 0.0
        upper += _shift(pair)
        coarse = max(_shift(pair) / upper, max(one.delta(upper)[1] for one in pair) / delta)
        if coarse > _FELT or upper > _LARGE:
            return min(upper, RDP().epsilon(events, delta, relation).upper)
        return upper

    def delta(
        self,
        events: Sequence[Event],
        epsilon: float,
        relation: NeighbouringRelation = NeighbouringRelation.ADD_OR_REMOVE_ONE,
        *,
        scale: float = 1e-6,
    ) -> Bound:
        """The bracket around delta at ``epsilon`` >= 0; ``scale`` is the size of delta that it should resolve."""
        if not 0.0 <= epsilon < np.inf:
            raise ArgumentError("epsilon", epsilon, "a finite number of at least 0")
        check_delta(scale)
        groups = _groups(events, relation)
        if not groups:
            return Bound(0.0, 0.0)
        if set(groups) == {1.0}:
            exact = gaussian_delta(epsilon, 1.0 / float(groups[1.0][0][0]))
            return Bound(exact, exact)
        above, below = self._compose(groups, scale, lower=False), self._compose(groups, scale, lower=True)
        if above is None or below is None:
            return Bound(0.0, 1.0)
        upper = min(_high(above, max(epsilon - _shift(above), 0.0)), 1.0)
        return _bracket(_low(below, epsilon + _shift(below)), upper)

    def trajectory(
        self,
        events: Sequence[Event],
        delta: float,
        steps: Sequence[int],
        relation: NeighbouringRelation = NeighbouringRelation.ADD_OR_REMOVE_ONE,
    ) -> list[Bound]:
        """Epsilon after each of the given numbers of steps, in the order of ``events``.

        Raises:
            ArgumentError: if a number of steps is negative or more than there are.
        """
        return [self.epsilon(first_steps(events, count), delta, relation) for count in steps]

    def _compose(self, groups: Groups, delta: float, *, lower: bool) -> tuple[ComposedLoss, ComposedLoss] | None:
        """Both directions, on the finest lattice that is worth it and fits; nothing where none does."""
        if not _in_reach(groups, delta):
            return None
        steps_in_all = sum(float(counts.sum()) for _, counts in groups.values())
        variance = sum(float(counts @ _variance(noise, rate)) for rate, (noise, counts) in groups.items())
        spacing = lattice_spacing(self.width, variance, steps_in_all, min(groups), 1.0 / LARGEST_WINDOW)
        while spacing < _TOO_COARSE:
            try:
                return self._compose_at(spacing, groups, delta, lower)
            except WindowTooLargeError as error:
                spacing *= 1.5 * error.size / LARGEST_WINDOW
        return None

    def _compose_at(
        self, spacing: float, groups: Groups, delta: float, lower: bool
    ) -> tuple[ComposedLoss, ComposedLoss]:
        steps_in_all = sum(float(counts.sum()) for _, counts in groups.values())
        tail = TAIL * delta
        high = _top_loss(groups, delta)
        low = min(-high if rate == 1.0 else float(np.log1p(-rate)) - 3.0 * spacing for rate in groups)
        # What wide cells cost averages out over many steps, not over a few.
        growth = GROWTH if steps_in_all > _MANY else GROWTH / 8.0
        points = loss_grid(spacing, growth, low, high)
        forward, reverse, rows, weights, counted = [], [], [], [], []
        offset = 0
        for rate, (noise, counts) in groups.items():
            nodes, row, weight, count = (
                _rounded_up(noise, counts, self.lower_nodes) if lower else _mixed(noise, counts, self.nodes)
            )
            one, other = (lower_atoms if lower else upper_atoms)(points, spacing, nodes, rate)
            forward.append(one)
            reverse.append(other)
            rows.append(row + offset)
            weights.append(weight)
            counted.append(count)
            offset += nodes.size
        steps = Steps(np.concatenate(rows), np.concatenate(weights), np.concatenate(counted))
        return compose(_stacked(forward), spacing, steps, tail), compose(_stacked(reverse), spacing, steps, tail)


def first_steps(events: Sequence[Event], count: int) -> list[Event]:
    """The events of the first ``count`` steps."""
    taken: list[Event] = []
    left = count
    for event in events:
        if left <= 0:
            break
        taken.append(Event(event.noise_multiplier, event.sampling, min(event.count, left)))
        left -= event.count
    if count < 0 or left > 0:
        raise ArgumentError("steps", count, f"a number from 0 to {sum(event.count for event in events)}")
    return taken


def _groups(events: Sequence[Event], relation: NeighbouringRelation) -> Groups:
    """Distinct noise multipliers, rising, and their counts, by sampling rate; unsampled releases merged into one."""
    counted: dict[float, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    precision = 0.0
    for event in events:
        if isinstance(event.sampling, TruncatedPoisson):
            raise UnsupportedEventError(
                f"{event.sampling} is not interpreted by PLD; use privet.accounting.Reference, or Poisson sampling."
            )
        rate = event.rate
        if rate == 1.0:
            precision += event.count * (1.0 / event.noise_multiplier) ** 2
        else:
            counted[rate][float(event.noise_multiplier)] += event.count
    if counted:
        refuse_sampled_replacement(relation)
    groups = {}
    for rate, noise in counted.items():
        levels = np.array(sorted(noise))
        groups[rate] = (levels, np.array([noise[level] for level in levels]))
    if precision > 0.0:
        groups[1.0] = (np.array([1.0 / np.sqrt(precision)]), np.ones(1))
    return groups


def _top_loss(groups: Groups, delta: float) -> float:
    """The loss above which all steps together have less mass than a truncation may cost."""
    mass = TAIL * delta / sum(float(counts.sum()) for _, counts in groups.values())
    return max(top_loss(float(noise.min()), rate, mass) for rate, (noise, _) in groups.items())


def _in_reach(groups: Groups, delta: float) -> bool:
    """Whether e^loss is a float: noise of a thirtieth of the sensitivity and less is left to RDP."""
    least = min(float(noise.min()) for noise, _ in groups.values())
    return least > 0.01 and _top_loss(groups, delta) < 700.0


def _variance(noise: Floats, rate: float) -> Floats:
    """About the variance of one release's loss; it decides the spacing, never a bound."""
    spread: Floats = rate**2 * np.expm1(np.minimum((1.0 / noise) ** 2, 50.0)) if rate < 1.0 else (1.0 / noise) ** 2
    return spread


Nodes = tuple[Floats, NDArray[np.int64], Floats, Floats]


def _mixed(noise: Floats, counts: Floats, nodes: int) -> Nodes:
    """Nodes evenly in total variation; each level is the mixture of its two neighbours that matches its own."""
    if noise.size <= nodes:
        return noise, np.arange(noise.size, dtype=np.int64), np.ones(noise.size), counts
    theta, rest = _variation(noise)
    if noise[0] > SATURATED:
        levels = _HALF_ROOT / erfinv(np.linspace(theta.min(), theta.max(), nodes))
        levels[0], levels[-1] = noise[-1], noise[0]
    else:
        levels = np.geomspace(noise[-1], noise[0], nodes)
    # Rounding must not leave a level outside: the ends are moved, and a little weight, towards less noise.
    levels *= 1.0 - 1e-14
    row = np.clip(np.searchsorted(-levels, -noise, side="right") - 1, 0, nodes - 2)
    grid, grid_rest = _variation(levels)
    with np.errstate(invalid="ignore", divide="ignore"):
        low = theta < 0.5
        gap = np.where(low, grid[row + 1] - grid[row], grid_rest[row] - grid_rest[row + 1])
        weight = np.where(low, grid[row + 1] - theta, rest - grid_rest[row + 1]) / gap
        weight -= 1e-12 + 4e-15 * np.where(low, grid[row + 1], grid_rest[row]) / gap
    weight = np.clip(np.where(np.isfinite(weight), weight, 0.0), 0.0, 1.0)
    return levels, row.astype(np.int64), weight, counts


def _variation(noise: Floats) -> tuple[Floats, Floats]:
    """Total variation of the unsampled Gaussian, 2 Phi(1 / (2 z)) - 1, and what it lacks to 1; no digits are lost."""
    return erf(_HALF_ROOT / noise), erfc(_HALF_ROOT / noise)


def _rounded_up(noise: Floats, counts: Floats, nodes: int) -> Nodes:
    """Noise rounded up to nodes evenly in its logarithm: less is spent than was."""
    if noise.size > nodes:
        levels = np.geomspace(noise[0], noise[-1] * (1.0 + 1e-12), nodes)
        place = np.minimum(np.searchsorted(levels, noise), nodes - 1)
        binned = np.bincount(place, counts, nodes)
        noise, counts = levels[binned > 0], binned[binned > 0].astype(np.float64)
    return noise, np.arange(noise.size, dtype=np.int64), np.ones(noise.size), counts


def _stacked(parts: list[Atoms]) -> Atoms:
    masses = np.concatenate([part.masses for part in parts])
    return Atoms(parts[0].points, masses, np.concatenate([part.infinite for part in parts]))


def _bracket(lower: float, upper: float) -> Bound:
    """The two ends, made apart from one another: where they cross, one of them is wrong, and neither may be shown."""
    if lower > upper + 1e-9 * max(1.0, upper):
        raise AccountingError(
            f"the lower end {lower!r} lies above the upper end {upper!r}: this is a fault of the accountant, not of "
            "the events. Use RDP for now, and report these events."
        )
    return Bound(min(max(lower, 0.0), upper), upper)


def _high(pair: tuple[ComposedLoss, ComposedLoss], epsilon: float) -> float:
    return max(value + error for value, error in (one.delta(epsilon) for one in pair))


def _low(pair: tuple[ComposedLoss, ComposedLoss], epsilon: float) -> float:
    return max(value - error for value, error in (one.delta(epsilon) for one in pair))


def _shift(pair: tuple[ComposedLoss, ComposedLoss]) -> float:
    return max(one.shift for one in pair)


def _highest(pair: tuple[ComposedLoss, ComposedLoss]) -> float:
    return max(0.0, *(one.spacing * (one.start + one.size) for one in pair))
