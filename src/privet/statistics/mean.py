"""The mean of independent numbers with an interval."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from privet.errors import DataError, SampleTooSmallError
from privet.statistics.estimate import Estimate, check_confidence

__all__ = ["mean_interval"]

_FEWEST = 5


def mean_interval(
    values: ArrayLike, confidence: float = 0.95, *, least: float = -math.inf, most: float = math.inf
) -> Estimate:
    r"""The mean of independent values with Student's interval, :math:`\bar x \pm t_{n-1} s / \sqrt n`.

    Args:
        values: (n,), n >= 5, independent draws of one quantity.
        confidence: in (0, 1).
        least: below which no value can be; the interval ends there.
        most: above which no value can be.

    Returns:
        The mean with its interval.

    Raises:
        ArgumentError: ``confidence`` is out of range.
        DataError: the values are no list of finite numbers, or one is below ``least`` or above ``most``.
        SampleTooSmallError: there are fewer than 5.

    Guarantees:
        Exact for normal values; for others the coverage nears ``confidence`` as n grows (docs/statistics.md).

    Example:
        >>> print(mean_interval([0.2, 0.3, 0.1, 0.4, 0.25]))
        0.250 [0.111, 0.389]

    References:
        Student, "The probable error of a mean", 1908.
    """
    check_confidence(confidence)
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise DataError(f"values of shape {numbers.shape}, or with NaN or infinity; give a list of finite numbers.")
    if not bool(((numbers >= least) & (numbers <= most)).all()):
        raise DataError(f"values from {numbers.min():g} to {numbers.max():g}; give values from {least:g} to {most:g}.")
    if len(numbers) < _FEWEST:
        raise SampleTooSmallError(f"{len(numbers)} values; an interval of their mean takes at least {_FEWEST}.")
    mean = float(numbers.mean())
    reach = (
        float(stdtrit(len(numbers) - 1, 0.5 + confidence / 2.0)) * float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    )
    return Estimate(mean, max(mean - reach, least), min(mean + reach, most), confidence, len(numbers))
