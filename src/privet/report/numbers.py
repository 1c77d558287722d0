"""Write an estimate so that its digits never say more, or less, than its interval does."""

from __future__ import annotations

import math
from dataclasses import dataclass

from privet.statistics import Estimate

__all__ = ["Written", "write_estimate"]

_MOST_DIGITS = 6


@dataclass(frozen=True)
class Written:
    """An estimate as text: ``value``, and the ends ``low`` and ``high`` of its interval."""

    value: str
    low: str
    high: str

    def __str__(self) -> str:
        return f"{self.value} ({self.low}–{self.high})"


def write_estimate(
    estimate: Estimate, *, percent: bool = False, chance: float | None = None, digits: int | None = None
) -> Written:
    """Write a value and its interval; ends are rounded outwards, and stay on the side of chance they are on.

    Args:
        estimate: the value and its interval.
        percent: True for a share written as a percentage; then the sign stands behind the value and the upper end.
        chance: where a guess without information would stand; an end beyond it is never written as if it touched it.
        digits: decimals at least; None: 3, and for percentages 1, or 2 where the whole interval is below 2%.

    Returns:
        The three as text.

    Example:
        >>> print(write_estimate(Estimate(0.0712, 0.0494, 0.0991, 0.95, 10_000), percent=True))
        7.1% (4.9–10.0%)
        >>> print(write_estimate(Estimate(0.52, 0.5002, 0.541, 0.95, 500), chance=0.5))
        0.5200 (0.5002–0.5410)
    """
    factor = 100.0 if percent else 1.0
    value, low, high = (factor * number for number in (estimate.value, estimate.low, estimate.high))
    if digits is None:
        digits = (2 if high < 2.0 else 1) if percent else 3
    while chance is not None and digits < _MOST_DIGITS and _touches(low, high, factor * chance, digits):
        digits += 1
    sign = "%" if percent else ""
    return Written(
        f"{value:.{digits}f}{sign}",
        f"{_outward(low, digits, -1):.{digits}f}",
        f"{_outward(high, digits, 1):.{digits}f}{sign}",
    )


def _touches(low: float, high: float, chance: float, digits: int) -> bool:
    """Whether rounding would bring an end to the other side of chance."""
    return (low > chance >= _outward(low, digits, -1)) or (high < chance <= _outward(high, digits, 1))


def _outward(end: float, digits: int, direction: int) -> float:
    steps = end * 10.0**digits
    near = round(steps)
    if abs(steps - near) < 1e-6:  # a short decimal, but for the last bits
        return float(near / 10.0**digits)
    return float((math.floor(steps) if direction < 0 else math.ceil(steps)) / 10.0**digits)
