"""The one door to dp-accounting: an independent accountant, and the one for truncated samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from privet.accounting.bound import Bound
from privet.accounting.events import (
    Event,
    NeighbouringRelation,
    NoSampling,
    Poisson,
    TruncatedPoisson,
    check_delta,
)
from privet.accounting.rdp import RDP
from privet.errors import AccountingError, ArgumentError

__all__ = ["Reference", "reference_epsilon"]

_MOST_CELLS = 3e7
_ADD_OR_REMOVE_ONE = NeighbouringRelation.ADD_OR_REMOVE_ONE


@dataclass(frozen=True)
class Reference:
    """The accountant of dp-accounting: a privacy loss distribution on a uniform grid, rounded pessimistically.

    Slower than the others where noise levels differ: each distinct event is convolved on its own. It is the only one
    that knows truncated samples.

    Attributes:
        interval: the cell of the grid, > 0. The answer is above the truth by about ``interval`` for each 1e4 steps.

    Guarantees:
        The upper end holds for both neighbouring relations, under replace-one provided that one record contributes at
        most half the sensitivity (true of clipped vectors and of centred counts). dp-accounting does not bound the
        rounding of its Fourier transforms; delta is lowered by 1e-14, and by 1e-15 for each sampled step, to cover it.
        There is no lower end.

    Example:
        >>> from privet.accounting import Event, TruncatedPoisson
        >>> event = Event(1.0, TruncatedPoisson(0.01, cap=120, population=10_000), count=10)
        >>> round(Reference().epsilon([event], delta=1e-5).upper, 2)
        2.2

    References:
        Doroshenko et al., "Connect the dots: tighter discrete approximations of privacy loss distributions", 2022.
        Ganesh, "Tight privacy accounting for truncated Poisson sampling", 2025.
    """

    interval: float = 1e-4

    def __post_init__(self) -> None:
        if not 0.0 < self.interval < math.inf:
            raise ArgumentError("interval", self.interval, "a finite number above 0")

    def epsilon(
        self,
        events: Sequence[Event],
        delta: float,
        relation: NeighbouringRelation = _ADD_OR_REMOVE_ONE,
    ) -> Bound:
        """The epsilon of all events together.

        Args:
            events: what was released, in any order.
            delta: in (0, 1).
            relation: which data sets are told apart; see :func:`reference_epsilon`.

        Returns:
            A bound whose lower end is 0; infinite where delta is too small for the grid.

        Raises:
            ArgumentError: if delta is out of range.
            AccountingError: if the grid would not fit into memory.
        """
        sampled = sum(event.count for event in events if not isinstance(event.sampling, NoSampling))
        supported = check_delta(delta) - (1e-14 + 1e-15 * sampled)
        if not events:
            return Bound(0.0, 0.0)
        if supported <= 0.0:
            return Bound(0.0, math.inf)
        return Bound(0.0, reference_epsilon(events, supported, relation, self.interval))


def reference_epsilon(
    events: Sequence[Event],
    delta: float,
    relation: NeighbouringRelation = _ADD_OR_REMOVE_ONE,
    interval: float = 1e-4,
    *,
    optimistic: bool = False,
) -> float:
    """What dp-accounting answers, unchanged.

    dp-accounting divides the noise by the norm of one record's contribution under every relation, and doubles the
    sensitivity by itself under replace-one. Here z is relative to the relation's sensitivity; so under replace-one, 2 z
    is handed over, except for truncated samples, whose z is relative to one contribution already.

    Args:
        events: what was released, in any order.
        delta: in (0, 1).
        relation: which data sets are told apart.
        interval: the cell of the grid.
        optimistic: round down, for a lower estimate; not for truncated samples.

    Raises:
        ArgumentError: if delta or the interval is out of range.
        AccountingError: if the grid would not fit into memory, or an optimistic answer is asked for a truncated sample.
    """
    delta = check_delta(delta)
    if not 0.0 < interval < math.inf:
        raise ArgumentError("interval", interval, "a finite number above 0")
    counts: dict[Event, int] = {}
    for event in events:
        kind = replace(event, count=1)
        counts[kind] = counts.get(kind, 0) + event.count
    _check_size(counts, interval)
    from dp_accounting.pld import privacy_loss_distribution as pld  # here: it takes half a second

    composed = pld.identity(interval, pessimistic_estimate=not optimistic)
    for event, count in sorted(counts.items(), key=repr):
        composed = composed.compose(_distribution(pld, event, count, relation, interval, optimistic))
    return float(composed.get_epsilon_for_delta(delta))


def _distribution(
    pld: Any, event: Event, count: int, relation: NeighbouringRelation, interval: float, optimistic: bool
) -> Any:
    from dp_accounting import NeighboringRelation as Theirs

    replaced = relation is NeighbouringRelation.REPLACE_ONE
    theirs = Theirs.REPLACE_ONE if replaced else Theirs.ADD_OR_REMOVE_ONE
    per_contribution = event.noise_multiplier * (2.0 if replaced else 1.0)
    common = {"value_discretization_interval": interval, "neighboring_relation": theirs}
    match event.sampling:
        case NoSampling():  # n releases are one with a noise smaller by sqrt(n)
            z = per_contribution / math.sqrt(count)
            return pld.from_gaussian_mechanism(z, pessimistic_estimate=not optimistic, **common)
        case Poisson(rate):
            one = pld.from_gaussian_mechanism(
                per_contribution, pessimistic_estimate=not optimistic, sampling_prob=rate, **common
            )
        case TruncatedPoisson(rate, cap, population):
            if optimistic:
                raise AccountingError(
                    "dp-accounting has no optimistic answer for truncated samples; ask for the other one."
                )
            one = pld.from_truncated_subsampled_gaussian_mechanism(
                population, rate, cap, event.noise_multiplier, **common
            )
    return one.self_compose(count)


def _check_size(counts: dict[Event, int], interval: float) -> None:
    """Refuse what would need more cells than memory has; the reach of the losses is about that of RDP's epsilon."""
    alike = []
    for event, count in counts.items():
        match event.sampling:
            case TruncatedPoisson(rate=rate):
                alike.append(Event(event.noise_multiplier / 2.0, Poisson(rate), count))
            case _:
                alike.append(replace(event, count=count))
    cells = 2.0 * RDP().epsilon(alike, 1e-15).upper / interval if alike else 0.0
    if cells > _MOST_CELLS:
        raise AccountingError(
            f"dp-accounting would need about {cells:.2g} cells of {interval}; at most {_MOST_CELLS:.0e} fit. "
            "Give a larger interval, or use the accountant PLD or RDP."
        )
