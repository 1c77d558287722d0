"""How an audit is to be done: the numbers that a caller may set, checked before any work."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from privet.audit.limits import check_planted_share, check_whole
from privet.errors import ArgumentError
from privet.statistics.estimate import check_confidence

__all__ = ["MOST_SHADOWS", "Terms", "seconds_of"]

MOST_SHADOWS = 256
"""To so many shadow models a fleet grows on its own."""

_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Terms:
    """How the audit is to be done.

    Attributes:
        confidence: of all intervals together, in (0, 1).
        seed: of everything drawn, >= 0.
        planted_share: how many of the members the planted leak is about, from 0.001 to 0.5.
        shadows: how many shadow models, at least 2.
        until: shadow models are added until the pooled rate's interval is no wider than this, in (0, 1).
        seconds: within which the audit is to end; None: as long as it takes.

    Raises:
        ArgumentError: one of them is out of range.
    """

    confidence: float = 0.95
    seed: int = 0
    planted_share: float = 0.05
    shadows: int = 16
    until: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        check_planted_share(self.planted_share)
        check_whole("seed", self.seed, 0)
        check_whole("shadows", self.shadows, 2)
        until: object = self.until
        if until is not None and not (isinstance(until, int | float) and 0.0 < until < 1.0):
            raise ArgumentError("until", self.until, "the width of an interval, between 0 and 1, such as 0.01")


def seconds_of(time_limit: Any) -> float | None:
    """A time limit in seconds.

    Args:
        time_limit: seconds as a number, or text with a unit: "90s", "10min", "10m", "2h"; None for no limit.

    Raises:
        ArgumentError: it is none of these, or not above 0.

    Example:
        >>> seconds_of("10min"), seconds_of(90)
        (600.0, 90.0)
    """
    if time_limit is None:
        return None
    seconds = math.nan
    if isinstance(time_limit, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", time_limit.lower())
        if found and (found[2] or "s") in _UNITS:
            seconds = float(found[1]) * _UNITS[found[2] or "s"]
    elif isinstance(time_limit, int | float) and not isinstance(time_limit, bool):
        seconds = float(time_limit)
    if not 0.0 < seconds < math.inf:
        raise ArgumentError("time_limit", time_limit, "seconds above 0, or text such as '90s', '10min' or '2h'")
    return seconds
