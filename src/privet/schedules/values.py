"""A schedule as the numbers that a plan runs on."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

from privet.errors import ArgumentError
from privet.schedules.checks import check_count, check_noise, number_at
from privet.schedules.decays import ExponentialDecay, StepDecay, TimeDecay
from privet.schedules.shapes import Constant, Cosine, Floor, Linear, NoiseSchedule, Scaled, Staircase

__all__ = ["digest", "evaluate", "scaled", "steps_for"]


def evaluate(schedule: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """The noise multiplier of every step t = 0 ... ``steps`` - 1.

    A plan calls the schedule once for each step, then runs on, accounts for and digests these numbers.

    Args:
        schedule: step -> noise multiplier; one of the shapes or a callable of your own.
        steps: T, at least 1.

    Raises:
        ArgumentError: if a value is no finite number above 0; step and value are named.

    Example:
        >>> evaluate(lambda step: 2.0 - step / 4, 3)
        (2.0, 1.75, 1.5)
    """
    check_count("steps", steps)
    if not callable(schedule):
        raise ArgumentError("schedule", schedule, "a callable: step -> noise multiplier")
    values = tuple(number_at(schedule, step) for step in range(steps))
    for step, value in enumerate(values):
        if not 0.0 < value < math.inf:
            raise ArgumentError(f"schedule({step})", value, "a finite number above 0", "A floor keeps a decay above 0.")
    return values


def digest(values: Sequence[float]) -> str:
    """SHA-256 over the exact bits of the values, as little-endian float64, in hexadecimal.

    Two schedules that agree at every step have one digest, whatever they are called.

    Example:
        >>> digest([1.0, 2.0])[:16]
        'dc91ce9a50ddc828'
    """
    return hashlib.sha256(struct.pack(f"<{len(values)}d", *values)).hexdigest()


def scaled(schedule: NoiseSchedule, factor: float) -> NoiseSchedule:
    r"""The same shape with every value multiplied, floors too.

    .. math:: \sigma'_t = c \, \sigma_t

    A floor is part of the shape. Were it left where it is, the scale that meets a target would bend the curve, and no
    scale below a certain one would change anything at all.

    Args:
        schedule: a shape, which stays that shape, or a callable of your own, which becomes :class:`Scaled`.
        factor: c, finite and above 0.

    Raises:
        ArgumentError: if a value leaves the range of a float.

    Example:
        >>> scaled(Floor(Constant(1.0), at_least=0.5), 2.0)
        Floor(schedule=Constant(sigma=2.0), at_least=1.0)
    """
    check_noise("factor", factor)
    match schedule:
        case Constant(sigma):
            return Constant(sigma * factor)
        case TimeDecay(start) | StepDecay(start) | ExponentialDecay(start) | Staircase(start):
            return replace(schedule, start=start * factor)
        case Linear(start, end) | Cosine(start, end):
            return replace(schedule, start=start * factor, end=end * factor)
        case Floor(inner, at_least):
            return Floor(scaled(inner, factor), at_least * factor)
        case Scaled(inner, before):
            return Scaled(inner, before * factor)
        case _:
            return Scaled(schedule, factor)


def steps_for(epochs: float | Fraction | Decimal, population: int, batch_size: int) -> int:
    r"""How many steps make so many epochs; a last, partial one counts.

    .. math:: T = \lceil E N / B \rceil

    Computed exactly. A float stands for its shortest decimal form: ``0.1`` is 1/10, ``0.1 * 3`` is
    0.30000000000000004; ``Fraction(3, 10)`` says what was meant.

    Args:
        epochs: E, finite and above 0.
        population: N records, at least 1.
        batch_size: B, expected records in a batch, 1 to N.

    Raises:
        ArgumentError: if a value is out of range.

    Example:
        >>> steps_for(20, 60_000, 256)
        4688
    """
    check_count("population", population)
    check_count("batch_size", batch_size)
    if batch_size > population:
        raise ArgumentError("batch_size", batch_size, f"at most the population, {population:,}")
    if isinstance(epochs, bool) or not isinstance(epochs, int | float | Fraction | Decimal):
        raise ArgumentError("epochs", epochs, "a finite number above 0")
    try:
        exact = Fraction(repr(float(epochs))) if isinstance(epochs, float) else Fraction(epochs)
    except (ValueError, OverflowError) as error:  # NaN, infinity
        raise ArgumentError("epochs", epochs, "a finite number above 0") from error
    if exact <= 0:
        raise ArgumentError("epochs", epochs, "a finite number above 0")
    return math.ceil(exact * population / batch_size)
