"""Plans that fit a budget: the noise, the scale of a schedule, the number of steps, always on the safe side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

from privet.accounting.events import Event, Sampling, check_delta
from privet.accounting.pld import PLD
from privet.errors import AccountingError, ArgumentError

__all__ = ["largest_steps", "merged_events", "noise_multiplier", "schedule_scale"]

_CLOSE = 1e-4  # relative: how near below the target the answer must come
_RANGE = (1e-3, 1e6)


def merged_events(noise_multipliers: Sequence[float], sampling: Sampling) -> list[Event]:
    """One event for each run of equal noise multipliers, in order.

    Example:
        >>> from privet.accounting import NoSampling
        >>> [event.count for event in merged_events([2.0, 2.0, 1.5], NoSampling())]
        [2, 1]
    """
    return [Event(float(noise), sampling, sum(1 for _ in equal)) for noise, equal in groupby(noise_multipliers)]


def noise_multiplier(
    sampling: Sampling, steps: int, delta: float, target_epsilon: float, accountant: PLD | None = None
) -> float:
    """The smallest noise multiplier, to a relative 1e-4 of epsilon, at which ``steps`` releases stay within the target.

    Args:
        sampling: of each release.
        steps: how many releases, at least 1.
        delta: in (0, 1).
        target_epsilon: > 0.
        accountant: whose upper end counts.

    Returns:
        z with upper epsilon <= ``target_epsilon``.

    Raises:
        ArgumentError: if a value is out of range.
        AccountingError: if no noise multiplier from 0.001 to 1,000,000 meets the target.
    """
    return _smallest([Event(1.0, sampling, steps)], delta, target_epsilon, accountant or PLD())


def schedule_scale(
    noise_multipliers: Sequence[float],
    sampling: Sampling,
    delta: float,
    target_epsilon: float,
    accountant: PLD | None = None,
) -> float:
    """The smallest c, to a relative 1e-4 of epsilon, such that noise c z_t at step t stays within the target.

    Args:
        noise_multipliers: the shape of the schedule: z_t of every step.
        sampling: of each release.
        delta: in (0, 1).
        target_epsilon: > 0.
        accountant: whose upper end counts.

    Returns:
        c with upper epsilon <= ``target_epsilon``.

    Raises:
        ArgumentError: if a value is out of range, or there is no step.
        AccountingError: if no scale from 0.001 to 1,000,000 meets the target.
    """
    shape = merged_events(noise_multipliers, sampling)
    if not shape:
        raise ArgumentError("noise_multipliers", list(noise_multipliers), "the noise of at least one step")
    return _smallest(shape, delta, target_epsilon, accountant or PLD())


def largest_steps(
    fits: Callable[[int], bool],
    most: int,
) -> int:
    """The largest number of steps from 0 to ``most`` that fits: the last that does, never the first that does not.

    Args:
        fits: whether so many steps stay within the budget; more steps never fit where fewer do not.
        most: the largest number to try.
    """
    if most < 0:
        raise ArgumentError("most", most, "a number of at least 0")
    good, bad = 0, most + 1
    if fits(most):
        return most
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def _smallest(shape: Sequence[Event], delta: float, target: float, accountant: PLD) -> float:
    """The scale at which epsilon meets the target, found roughly first: log epsilon is nearly a line in log scale."""
    check_delta(delta)
    if not 0.0 < target < math.inf:
        raise ArgumentError("target_epsilon", target, "a finite number above 0")
    aim = math.log(target * (1.0 - _CLOSE / 2.0))

    def miss(x: float, events: Sequence[Event] = shape, by: PLD = accountant) -> float:
        scale = math.exp(x)
        scaled = [Event(scale * event.noise_multiplier, event.sampling, event.count) for event in events]
        return math.log(max(by.upper_epsilon(scaled, delta), 1e-300)) - aim

    rough, few = PLD(width=max(1e-3, accountant.width)), _summary(shape)
    x = _root(lambda x: miss(x, few, rough), 0.0, 0.1, 0.02, target)
    slope = (miss(x + 0.01, few, rough) - miss(x - 0.01, few, rough)) / 0.02
    at = miss(x)
    if not _meets(at, _CLOSE) and slope < 0.0:
        x -= at / slope  # one step of Newton with the rough slope is nearly always enough
        at = miss(x)
    if not _meets(at, _CLOSE):
        x = _root(miss, x, min(max(2.0 * abs(at), 1e-3), 0.1), _CLOSE, target)
    return math.exp(x)


def _summary(events: Sequence[Event]) -> list[Event]:
    """At most 48 events much like the given ones, to search with; nothing is certified with them."""
    ordered = sorted(events, key=lambda event: event.noise_multiplier)
    summary = []
    for part in range(48):
        chosen = ordered[part * len(ordered) // 48 : (part + 1) * len(ordered) // 48]
        count = sum(event.count for event in chosen)
        if count:
            precision = sum(event.count / event.noise_multiplier**2 for event in chosen) / count
            summary.append(Event(precision**-0.5, chosen[0].sampling, count))
    return summary


def _meets(miss: float, close: float) -> bool:
    """Whether log(epsilon / target) + close / 2 says that epsilon lies within ``close`` below the target."""
    return -close / 2.0 <= miss <= close / 4.0


def _root(miss: Callable[[float], float], x: float, step: float, close: float, target: float) -> float:
    """Where ``miss``, which falls, meets zero: brackets first, then false position with Illinois weights."""
    at = miss(x)
    if _meets(at, close):
        return x
    direction, ends = math.copysign(1.0, at), (math.log(_RANGE[0]), math.log(_RANGE[1]))
    while True:
        other = min(max(x + direction * step, ends[0]), ends[1])
        if other == x:
            raise AccountingError(
                f"no noise from {_RANGE[0]:g} to {_RANGE[1]:g} times the given one spends epsilon {target:g}; "
                "ask for another target, or for fewer steps."
            )
        at_other = miss(other)
        if (at_other > 0.0) != (at > 0.0):
            break
        x, at, step = other, at_other, 2.0 * step
    (low, above), (high, below) = ((x, at), (other, at_other)) if at > 0.0 else ((other, at_other), (x, at))
    share = [1.0, 1.0]  # an end that stays is trusted half as much each time
    while not _meets(below, close) and high - low > 1e-9:
        left, right = above * share[0], max(below * share[1], -1.0)  # epsilon 0 is no slope to follow
        x = (low * right - high * left) / (right - left)
        at = miss(x)
        if at > 0.0:
            low, above, share = x, at, [1.0, share[1] / 2.0]
        else:
            high, below, share = x, at, [share[0] / 2.0, 1.0]
    return high
