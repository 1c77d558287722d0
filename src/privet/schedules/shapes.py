"""Shapes of noise: each a frozen value that gives the noise multiplier of a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from privet.schedules.checks import check_count, check_decay, check_ends, check_noise, last_step, number_at

__all__ = [
    "Constant",
    "Cosine",
    "Floor",
    "Linear",
    "NoiseSchedule",
    "Scaled",
    "Staircase",
]

NoiseSchedule = Callable[[int], float]
"""Step t = 0 ... T-1 -> noise multiplier (noise std / sensitivity). No data enters: it would be an unpaid release."""


@dataclass(frozen=True)
class Constant:
    r"""The same noise at every step.

    .. math:: \sigma_t = \sigma

    Attributes:
        sigma: noise multiplier, finite and above 0.

    Raises:
        ArgumentError: if a value is out of range, as for every shape.

    Example:
        >>> Constant(1.1)(41)
        1.1
    """

    sigma: float

    def __post_init__(self) -> None:
        check_noise("sigma", self.sigma)

    def __call__(self, step: int) -> float:
        """The noise multiplier at ``step``, t >= 0."""
        check_count("step", step, low=0)
        return float(self.sigma)


@dataclass(frozen=True)
class Staircase:
    r"""Constant over windows of steps, multiplied by a factor from each window to the next.

    .. math:: \sigma_t = \sigma_0 f^{\lfloor t / k \rfloor}

    Attributes:
        start: sigma_0, finite and above 0.
        factor: f, finite and above 0; above 1 the noise grows.
        every: k, steps in a window, at least 1.

    Example:
        >>> stairs = Staircase(2.0, 0.5, every=100)
        >>> stairs(99), stairs(100)
        (2.0, 1.0)
    """

    start: float
    factor: float
    every: int

    def __post_init__(self) -> None:
        check_noise("start", self.start)
        check_noise("factor", self.factor)
        check_count("every", self.every)

    @classmethod
    def reaching(cls, start: float, end: float, steps: int, every: int) -> Staircase:
        """The stairs down whose noise is ``end``, at most ``start``, in the window of step ``steps`` - 1.

        Example:
            >>> Staircase.reaching(2.0, 0.5, steps=250, every=100)
            Staircase(start=2.0, factor=0.5, every=100)
        """
        check_count("every", every)
        moves = last_step(steps) // every
        check_decay(start, end, moves, f"all {steps:,} steps lie in one window of {every:,}")
        return cls(start, (end / start) ** (1.0 / max(moves, 1)), every)

    def __call__(self, step: int) -> float:
        """The noise multiplier at ``step``, t >= 0."""
        check_count("step", step, low=0)
        try:
            return self.start * self.factor ** (step // self.every)
        except OverflowError:
            return math.inf


@dataclass(frozen=True)
class Linear:
    r"""A straight line, down or up, then held.

    .. math:: \sigma_t = \sigma_0 + (\sigma_{T-1} - \sigma_0) \min(t / (T - 1), 1)

    Attributes:
        start: sigma_0, finite and above 0.
        end: sigma at t = ``steps`` - 1 and after it, finite and above 0.
        steps: T, at least 1; with one step, ``end`` is ``start``.

    Example:
        >>> Linear(2.0, 1.0, steps=5)(2)
        1.5
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check_line(self.start, self.end, self.steps)

    def __call__(self, step: int) -> float:
        """The noise multiplier at ``step``, t >= 0."""
        return _between(self.start, self.end, _share(step, self.steps))


@dataclass(frozen=True)
class Cosine:
    r"""Half a period of a cosine, down or up, then held.

    .. math:: \sigma_t = \sigma_0 + (\sigma_{T-1} - \sigma_0) (1 - \cos(\pi \min(t / (T - 1), 1))) / 2

    Attributes:
        start: sigma_0, finite and above 0.
        end: sigma at t = ``steps`` - 1 and after it, finite and above 0.
        steps: T, at least 1; with one step, ``end`` is ``start``.

    Example:
        >>> Cosine(2.0, 1.0, steps=5)(2)
        1.5
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check_line(self.start, self.end, self.steps)

    def __call__(self, step: int) -> float:
        """The noise multiplier at ``step``, t >= 0."""
        return _between(self.start, self.end, (1.0 - math.cos(math.pi * _share(step, self.steps))) / 2.0)


@dataclass(frozen=True)
class Floor:
    r"""Another schedule, but never below a floor.

    .. math:: \sigma'_t = \max(\sigma_t, m)

    Attributes:
        schedule: what is held up.
        at_least: m, finite and above 0.

    Example:
        >>> Floor(Staircase(2.0, 0.5, every=100), at_least=0.5)(1_000)
        0.5
    """

    schedule: NoiseSchedule
    at_least: float

    def __post_init__(self) -> None:
        check_noise("at_least", self.at_least)

    def __call__(self, step: int) -> float:
        """The noise multiplier at ``step``, t >= 0."""
        value = number_at(self.schedule, step)
        return float(self.at_least) if value < self.at_least else value  # NaN passes through, to be refused


@dataclass(frozen=True)
class Scaled:
    r"""Another schedule, multiplied: for callables of your own, whose parameters :func:`scaled` cannot see.

    .. math:: \sigma'_t = c \, \sigma_t

    Attributes:
        schedule: what is multiplied.
        factor: c, finite and above 0.

    Example:
        >>> Scaled(lambda step: 1.0 + step, 0.5)(3)
        2.0
    """

    schedule: NoiseSchedule
    factor: float

    def __post_init__(self) -> None:
        check_noise("factor", self.factor)

    def __call__(self, step: int) -> float:
        """The noise multiplier at ``step``, t >= 0."""
        return self.factor * number_at(self.schedule, step)


def _check_line(start: float, end: float, steps: int) -> None:
    check_ends(start, end, last_step(steps), "there is one step only")


def _share(step: int, steps: int) -> float:
    check_count("step", step, low=0)
    return step / (steps - 1) if step < steps - 1 else 1.0


def _between(start: float, end: float, share: float) -> float:
    """From the nearer end, so that both ends, and a line between equal ends, are exact."""
    return start + (end - start) * share if share <= 0.5 else end - (end - start) * (1.0 - share)
