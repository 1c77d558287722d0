"""From Renyi divergences to (epsilon, delta): the one conversion that RDP and zCDP share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from privet.accounting.events import Event, NoSampling, Poisson
from privet.errors import UnsupportedEventError

__all__ = ["counts_of", "epsilon_of_divergences", "lowest"]

Floats = NDArray[np.float64]

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def epsilon_of_divergences(orders: Floats, divergences: Floats, delta: float) -> Floats:
    r"""The epsilon that each Renyi divergence allows at a delta.

    .. math:: \varepsilon = D_\alpha + \log\frac{\alpha - 1}{\alpha} - \frac{\log\delta + \log\alpha}{\alpha - 1}

    clipped at 0. It is 0 as well where the total variation distance is at most delta:
    by :math:`D_1 \le D_\alpha` it is at most :math:`\sqrt{D_\alpha / 2}` and :math:`\sqrt{1 - e^{-D_\alpha}}`.

    Args:
        orders: alpha > 1.
        divergences: D_alpha >= 0 of the whole composition, in both directions; of the shape of ``orders``.
        delta: in (0, 1).

    Returns:
        A valid epsilon for each order; any of them may be used, so the smallest.

    Example:
        >>> float(epsilon_of_divergences(np.array([10.0]), np.array([1.0]), 1e-5)[0].round(6))
        1.918011

    References:
        Canonne, Kamath, Steinke, "The discrete Gaussian for differential privacy", 2020, proposition 12.
        Balle, Barthe, Gaboardi, Hsu, Sato, "Hypothesis testing interpretations and Renyi differential privacy", 2020.
        Pinsker's inequality; Bretagnolle and Huber, 1979.
    """
    epsilon = divergences + np.log1p(-1.0 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1.0)
    variation = np.minimum(np.sqrt(divergences / 2.0), np.sqrt(-np.expm1(-divergences)))
    return np.where(variation <= delta, 0.0, np.maximum(epsilon, 0.0))


def lowest(value: Callable[[float], float], low: float, high: float, *, width: float) -> tuple[float, float]:
    """Where a function with one valley is lowest in an interval, and how low it is there.

    Golden section. What it returns was evaluated, so it is a valid bound wherever any argument gives one.

    Args:
        value: the function.
        low: the left end.
        high: the right end.
        width: stop when the interval is no wider.

    Example:
        >>> round(lowest(lambda x: (x - 1.0) ** 2, 0.0, 3.0, width=1e-6)[0], 5)
        1.0
    """
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = value(left), value(right)
    while high - low > width:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = value(right)
    return (left, at_left) if at_left <= at_right else (right, at_right)


def counts_of(events: Sequence[Event], accountant: str) -> dict[tuple[float, float], int]:
    """How often each pair (sampling rate, noise multiplier) occurs, sorted; no sampling has the rate 1.

    Args:
        events: what was released.
        accountant: who asks, for the message.

    Raises:
        UnsupportedEventError: if a sample was truncated.
    """
    counts: dict[tuple[float, float], int] = {}
    for event in events:
        match event.sampling:
            case NoSampling():
                rate = 1.0
            case Poisson(rate=rate):
                pass
            case _:
                raise UnsupportedEventError(
                    f"{accountant} cannot account for {event.sampling}: in a truncated sample one record can displace "
                    "another, which its analysis does not cover. Use the accountant Reference."
                )
        key = (float(rate), float(event.noise_multiplier))
        counts[key] = counts.get(key, 0) + event.count
    return dict(sorted(counts.items()))
