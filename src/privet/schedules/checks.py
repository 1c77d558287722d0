"""What a schedule may be made of and may answer, checked before any work."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import TypeGuard

from privet.errors import ArgumentError

__all__ = ["check_count", "check_decay", "check_ends", "check_noise", "check_rate", "last_step", "number_at"]


def check_noise(name: str, value: object) -> None:
    """An ArgumentError if ``value`` is no noise multiplier."""
    if not (_is_number(value) and 0.0 < value < math.inf):
        raise ArgumentError(name, value, "a finite number above 0")


def check_rate(value: object, below: float = math.inf) -> None:
    """An ArgumentError if ``value`` is not in [0, below)."""
    if not (_is_number(value) and 0.0 <= value < below):
        limit = f" and below {below:g}" if below < math.inf else ", finite"
        raise ArgumentError("rate", value, f"a number of at least 0{limit}")


def check_count(name: str, value: object, low: int = 1) -> None:
    """An ArgumentError if ``value`` is not a whole number of at least ``low``."""
    # Above 2**53 a float no longer tells one step from the next.
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= 2**53:
        raise ArgumentError(name, value, f"a whole number from {low} to 2**53")


def last_step(steps: int) -> int:
    """The last of ``steps`` steps that begin with 0."""
    check_count("steps", steps)
    return steps - 1


def check_ends(start: float, end: float, moves: int, where: str) -> None:
    """An ArgumentError if a path of ``moves`` moves cannot lead from ``start`` to ``end``."""
    check_noise("start", start)
    check_noise("end", end)
    if moves == 0 and end != start:
        raise ArgumentError("end", end, f"the start, {start!r}, as {where}")


def check_decay(start: float, end: float, moves: int, where: str) -> None:
    """As :func:`check_ends`, and an ArgumentError if the path would lead up."""
    check_ends(start, end, moves, where)
    if end > start:
        raise ArgumentError("end", end, f"at most the start, {start!r}", "Linear and Cosine can also grow.")


def number_at(schedule: Callable[[int], object], step: int) -> float:
    """What ``schedule`` answers at ``step``; an ArgumentError if it is no number at all."""
    value = schedule(step)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentError(f"schedule({step})", value, "a finite number above 0", "A schedule returns a Python float.")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True
