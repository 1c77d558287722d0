"""A number with its interval: the only form in which leakage leaves the library."""

from __future__ import annotations

import math
from dataclasses import dataclass

from privet.errors import ArgumentError

__all__ = ["Estimate", "check_confidence"]


def check_confidence(confidence: float) -> float:
    """Return ``confidence`` if it lies strictly between 0 and 1.

    Raises:
        ArgumentError: if it does not.
    """
    if not 0.0 < confidence < 1.0:
        raise ArgumentError("confidence", confidence, "a number strictly between 0 and 1, such as 0.95")
    return float(confidence)


@dataclass(frozen=True)
class Estimate:
    """A measured value, the interval around it and what it rests on.

    Attributes:
        value: the point estimate.
        low: the lower end of the interval.
        high: the upper end of the interval.
        confidence: the probability with which the procedure that made [low, high] covers the true value, in (0, 1).
        n: how many independent observations the value rests on.

    Raises:
        ArgumentError: if not ``low <= value <= high``, if an end is NaN, or if ``n`` is not positive.

    Example:
        >>> print(Estimate(0.071, low=0.049, high=0.099, confidence=0.95, n=10_000))
        0.071 [0.049, 0.099]
    """

    value: float
    low: float
    high: float
    confidence: float
    n: int

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if any(math.isnan(end) for end in (self.value, self.low, self.high)):
            raise ArgumentError("estimate", (self.value, self.low, self.high), "numbers that are not NaN")
        if not self.low <= self.value <= self.high:
            raise ArgumentError("estimate", (self.low, self.value, self.high), "ends with low <= value <= high")
        if self.n < 1:
            raise ArgumentError("n", self.n, "at least one observation")

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"
