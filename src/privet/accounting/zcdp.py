"""Zero-concentrated differential privacy: one number, rho, that ignores sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from privet.accounting.bound import Bound
from privet.accounting.events import Event, NeighbouringRelation, check_delta
from privet.accounting.renyi import counts_of, epsilon_of_divergences, lowest
from privet.errors import ArgumentError

__all__ = ["ZCDP", "epsilon_of_rho"]

_MARGIN = 1.0 + 1e-12  # a handful of roundings


@dataclass(frozen=True)
class ZCDP:
    r"""The accountant by zero-concentrated differential privacy. It does not use sampling.

    .. math:: \rho = \sum_i n_i / (2 z_i^2)

    A sampled run is accounted as if every record took part in every step, so the answer is far above those of the other
    accountants. It is still valid: which records are sampled does not depend on the data, given the others' draw the
    outputs for neighbours are mixtures with the same weights of pairs that are equal or differ by one unsampled
    release, and a Renyi divergence is quasi-convex. That holds for Poisson sampling under both neighbouring relations.
    It does not hold for a truncated sample, in which one record displaces another, and those are refused.

    Guarantees:
        The upper end holds for both neighbouring relations. There is no lower end.

    Example:
        >>> from privet.accounting import Event, NoSampling
        >>> round(ZCDP().epsilon([Event(10.0, NoSampling(), count=100)], delta=1e-5).upper, 4)
        4.7284

    References:
        Bun and Steinke, "Concentrated differential privacy", 2016.
    """

    def epsilon(
        self,
        events: Sequence[Event],
        delta: float,
        relation: NeighbouringRelation = NeighbouringRelation.ADD_OR_REMOVE_ONE,
    ) -> Bound:
        """The epsilon of all events together.

        Args:
            events: what was released, in any order.
            delta: in (0, 1).
            relation: which data sets are told apart; noise multipliers are relative to its sensitivity.

        Returns:
            A bound whose lower end is 0.

        Raises:
            ArgumentError: if delta is out of range.
            UnsupportedEventError: if a sample was truncated.
        """
        return Bound(0.0, epsilon_of_rho(self.rho(events), delta))

    def rho(self, events: Sequence[Event]) -> float:
        """The sum of count / (2 z^2) over the events.

        Raises:
            UnsupportedEventError: if a sample was truncated.
        """
        try:
            return math.fsum(0.5 * count / z / z for (_, z), count in counts_of(events, "zCDP").items())
        except OverflowError:
            return math.inf


def epsilon_of_rho(rho: float, delta: float) -> float:
    r"""The smallest epsilon known to follow from rho.

    The minimum over real orders alpha > 1 of the Renyi conversion with :math:`D_\alpha = \rho \alpha`; below
    :math:`\rho + 2 \sqrt{\rho \log(1/\delta)}`, which drops two terms of it.

    Args:
        rho: at least 0; infinity gives infinity.
        delta: in (0, 1).

    Raises:
        ArgumentError: if a value is out of range.

    Example:
        >>> round(epsilon_of_rho(0.5, 1e-5), 4)
        4.7284

    References:
        Canonne, Kamath, Steinke, "The discrete Gaussian for differential privacy", 2020, proposition 12, corollary 13.
    """
    delta = check_delta(delta)
    if not rho >= 0.0:
        raise ArgumentError("rho", rho, "a number of at least 0")
    if rho == 0.0 or math.isinf(rho):
        return rho

    def at(log_excess: float) -> float:
        order = np.array([1.0 + max(math.exp(log_excess), 1e-12)])  # apart from 1 in floating point
        return float(epsilon_of_divergences(order, rho * order, delta)[0])

    # The loose conversion is lowest at alpha - 1 = sqrt(log(1/delta) / rho); the terms it drops move that by little.
    guess = 0.5 * (math.log(-math.log(delta)) - math.log(rho))
    grid = guess + np.arange(-8.0, 8.5, 0.25)
    start = float(min(grid, key=at))
    _, found = lowest(at, start - 0.25, start + 0.25, width=1e-7)
    return min(found, at(-30.0)) * _MARGIN
