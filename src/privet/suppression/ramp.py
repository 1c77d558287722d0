"""When masks grow and how far: a cubic ramp of sparsity over the steps of a training."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from privet.errors import ArgumentError

__all__ = ["Ramp", "masked_count", "whole"]

_MOST_UPDATES = 1_000


@dataclass(frozen=True)
class Ramp:
    r"""Sparsity as a function of the step, with the steps at which masks are brought up to it.

    .. math:: s(t) = s_1 + (s_0 - s_1) \left(1 - \frac{t - t_0}{t_1 - t_0}\right)^3, \quad t_0 \le t \le t_1

    It rises steeply first, while many weights matter little, and is flat at the end. Before :math:`t_0` nothing is
    masked; after :math:`t_1` the sparsity stays :math:`s_1`.

    Attributes:
        start: the first step of the ramp :math:`t_0`, from 1; its sparsity is :math:`s_0`.
        end: the last step :math:`t_1`, at least ``start``; its sparsity is :math:`s_1`.
        updates: at how many steps masks grow, both ends included, evenly spread; one is at ``end``.
        sparsity_start: :math:`s_0`, the share of weights masked at ``start``, 0 <= s_0 <= s_1.
        sparsity_end: :math:`s_1`, below 1.

    Example:
        >>> ramp = Ramp(start=11, end=20, updates=10, sparsity_start=0.0, sparsity_end=0.8)
        >>> [round(ramp.sparsity(step), 3) for step in (10, 11, 14, 20, 25)]
        [0.0, 0.0, 0.563, 0.8, 0.8]

    References:
        M. Zhu, S. Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", 2017,
        equation 1 (the ramp).
    """

    start: int
    end: int
    updates: int
    sparsity_start: float
    sparsity_end: float

    @classmethod
    def over(
        cls,
        *,
        start_epoch: Any,
        end_epoch: Any,
        steps_per_epoch: Any,
        updates: Any = None,
        sparsity_start: Any = 0.0,
        sparsity_end: Any = 0.95,
    ) -> Ramp:
        """The ramp from the first step of one epoch to the last step of another.

        Args:
            start_epoch: counted from 1.
            end_epoch: not before ``start_epoch``; its last step ends the ramp.
            steps_per_epoch: optimizer steps in an epoch, at least 1.
            updates: how often masks grow, 1 to the number of steps of the ramp; None for every step, 1,000 at most.
            sparsity_start: in [0, 1).
            sparsity_end: in [0, 1), not below ``sparsity_start``.

        Raises:
            ArgumentError: an argument is outside what is allowed.

        Example:
            >>> Ramp.over(start_epoch=3, end_epoch=2, steps_per_epoch=100)
            Traceback (most recent call last):
            privet.errors.ArgumentError: end_epoch = 2 is not allowed; give an epoch not before start_epoch = 3.
        """
        first = whole("start_epoch", start_epoch)
        last = whole("end_epoch", end_epoch)
        if last < first:
            raise ArgumentError("end_epoch", end_epoch, f"an epoch not before start_epoch = {first}")
        steps = whole("steps_per_epoch", steps_per_epoch)
        start, end = (first - 1) * steps + 1, last * steps
        length = end - start + 1
        times = min(length, _MOST_UPDATES) if updates is None else whole("updates", updates)
        if times > length:
            raise ArgumentError("updates", updates, f"at most {length:,}, as many as the ramp has steps")
        low, high = _share("sparsity_start", sparsity_start), _share("sparsity_end", sparsity_end)
        if low > high:
            raise ArgumentError(
                "sparsity_start", sparsity_start, f"a share not above sparsity_end = {high:g}", "Masks never shrink."
            )
        return cls(start, end, times, low, high)

    def sparsity(self, step: int) -> float:
        """The share of weights to be masked after ``step``, counted from 1."""
        if step < self.start:
            return 0.0
        if step >= self.end:
            return self.sparsity_end
        left = 1.0 - (step - self.start) / (self.end - self.start)
        return self.sparsity_end + (self.sparsity_start - self.sparsity_end) * (left * left * left)

    def updates_at(self, step: int) -> bool:
        """Whether masks grow after ``step``: one of t_0 + floor(u (t_1 - t_0) / (updates - 1)), u = 0, 1, ..."""
        if not self.start <= step <= self.end:
            return False
        if self.updates == 1:
            return step == self.end
        length, gaps = self.end - self.start, self.updates - 1
        number = -(-(step - self.start) * gaps // length)  # the first update not before this step
        return self.start + number * length // gaps == step


def masked_count(sparsity: float, weights: int, minimum_kept: int = 0) -> int:
    """How many of ``weights`` are masked: floor(s n), but no more than leave ``minimum_kept``.

    The sparsity counts as the decimal that it is written as: 0.29 of 100 weights are 29, where the product of floats
    is 28.999....

    Args:
        sparsity: s, in [0, 1).
        weights: n.
        minimum_kept: in 0 ... n.

    Example:
        >>> masked_count(0.29, 100), masked_count(0.95, 150, minimum_kept=10)
        (29, 140)
    """
    numerator, denominator = Decimal(str(sparsity)).as_integer_ratio()
    return min(numerator * weights // denominator, weights - minimum_kept)


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least ``least``, of whatever type.

    Raises:
        ArgumentError: it is none, or smaller.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ArgumentError(name, value, f"a whole number of at least {least}")
    return number


def _share(name: str, value: Any) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | np.floating | np.integer)
        or not 0.0 <= value < 1.0
    ):
        raise ArgumentError(name, value, "a share of the weights, at least 0 and below 1")
    return float(str(value))  # of float32, too, the decimal that it is written as
