"""Decays with a rate, and the rate that reaches a noise at the last step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from privet.schedules.checks import check_count, check_decay, check_noise, check_rate, last_step

__all__ = ["ExponentialDecay", "StepDecay", "TimeDecay"]


@dataclass(frozen=True)
class TimeDecay:
    r"""Decay by the inverse of time.

    .. math:: \sigma_t = \sigma_0 / (1 + r t)

    Attributes:
        start: sigma_0, finite and above 0.
        rate: r, finite and at least 0.

    Example:
        >>> TimeDecay(2.0, 0.5)(2)
        1.0
    """

    start: float
    rate: float

    def __post_init__(self) -> None:
        check_noise("start", self.start)
        check_rate(self.rate)

    @classmethod
    def reaching(cls, start: float, end: float, steps: int) -> TimeDecay:
        """The decay whose noise is ``end``, at most ``start``, at the last of ``steps`` steps, t = ``steps`` - 1.

        Example:
            >>> TimeDecay.reaching(2.0, 0.5, steps=4)
            TimeDecay(start=2.0, rate=1.0)
        """
        last = last_step(steps)
        check_decay(start, end, last, "there is one step only")
        return cls(start, (start - end) / end / max(last, 1))

    def __call__(self, step: int) -> float:
        """The noise multiplier at ``step``, t >= 0."""
        check_count("step", step, low=0)
        return self.start / (1.0 + self.rate * step)


@dataclass(frozen=True)
class StepDecay:
    r"""Decay by the same share at every step.

    .. math:: \sigma_t = \sigma_0 (1 - r)^t

    Attributes:
        start: sigma_0, finite and above 0.
        rate: r, at least 0 and below 1.

    Example:
        >>> round(StepDecay(2.0, 0.5)(2), 12)
        0.5
    """

    start: float
    rate: float

    def __post_init__(self) -> None:
        check_noise("start", self.start)
        check_rate(self.rate, below=1.0)

    @classmethod
    def reaching(cls, start: float, end: float, steps: int) -> StepDecay:
        """The decay whose noise is ``end``, at most ``start``, at the last of ``steps`` steps, t = ``steps`` - 1.

        Example:
            >>> round(StepDecay.reaching(2.0, 0.5, steps=3).rate, 12)
            0.5
        """
        last = last_step(steps)
        check_decay(start, end, last, "there is one step only")
        return cls(start, -math.expm1((math.log(end) - math.log(start)) / max(last, 1)))

    def __call__(self, step: int) -> float:
        """The noise multiplier at ``step``, t >= 0."""
        check_count("step", step, low=0)
        return self.start * math.exp(step * math.log1p(-self.rate))  # 1 - r would lose the digits of a small r


@dataclass(frozen=True)
class ExponentialDecay:
    r"""Exponential decay.

    .. math:: \sigma_t = \sigma_0 e^{-r t}

    Attributes:
        start: sigma_0, finite and above 0.
        rate: r, finite and at least 0.

    Example:
        >>> round(ExponentialDecay(2.0, 1e-4)(10_000), 6)
        0.735759
    """

    start: float
    rate: float

    def __post_init__(self) -> None:
        check_noise("start", self.start)
        check_rate(self.rate)

    @classmethod
    def reaching(cls, start: float, end: float, steps: int) -> ExponentialDecay:
        """The decay whose noise is ``end``, at most ``start``, at the last of ``steps`` steps, t = ``steps`` - 1.

        Example:
            >>> round(ExponentialDecay.reaching(2.0, 0.6, steps=10_000)(9_999), 12)
            0.6
        """
        last = last_step(steps)
        check_decay(start, end, last, "there is one step only")
        return cls(start, (math.log(start) - math.log(end)) / max(last, 1))

    def __call__(self, step: int) -> float:
        """The noise multiplier at ``step``, t >= 0."""
        check_count("step", step, low=0)
        return self.start * math.exp(-self.rate * step)
