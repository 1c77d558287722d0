"""Two attacks on the same records compared: how many times as many members one finds as the other."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privet.errors import ArgumentError, DataError, SampleTooSmallError
from privet.statistics.area import check_resampling, drawn_rows
from privet.statistics.estimate import Estimate, check_confidence
from privet.statistics.intervals import allowed_above, checked_rate
from privet.statistics.roc import checked_scores

__all__ = ["tpr_ratio"]

Floats = NDArray[np.float64]
_FEWEST = 10
_DRAWS_AT_ONCE = 2_000_000


def tpr_ratio(
    a: tuple[ArrayLike, ArrayLike],
    b: tuple[ArrayLike, ArrayLike],
    fpr: float,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 1_000,
) -> Estimate:
    r"""The ratio of two attacks' true positive rates at a false positive rate, by a paired bootstrap.

    .. math:: \rho = \frac{\mathrm{TPR}_a(\mathrm{fpr})}{\max(\mathrm{TPR}_b(\mathrm{fpr}),\; 1 / M)}

    A resample draws members and non-members, the same records for both attacks, and finds both thresholds anew, each
    the (k+1)-th largest of the drawn non-member scores, k = floor(fpr N). An attack that finds nobody is taken, for the
    value and the lower end, to have found one member: 0 / 0 counts against a, and nothing is infinitely better. For
    the upper end it is taken at its word: its ratio is infinite.

    The lower end is the one to build on. The upper end is too low more often than stated where the attacks differ:
    docs/statistics.md has both measured.

    Args:
        a: member scores (M,) and non-member scores (N,) of the first attack, M >= 10 and N >= 1 / fpr.
        b: those of the second attack, of the same records in the same order.
        fpr: the false positive rate, in (0, 1).
        seed: of the resampling, >= 0.
        confidence: in (0, 1).
        resamples: how many: at least 100, and ten or more beyond each end, 20 / (1 - confidence).

    Returns:
        The ratio with its interval, whose upper end can be infinite; ``n`` is M.

    Raises:
        ArgumentError: if ``fpr``, ``seed``, ``confidence`` or ``resamples`` is out of range.
        DataError: if scores are empty, not a vector, hold a NaN, or differ in number between the attacks.
        SampleTooSmallError: if N < 1 / fpr or M < 10.

    Example:
        >>> generator = np.random.default_rng(0)
        >>> members, non_members = generator.normal(size=(2, 2_000))
        >>> strong, weak = (members + 2.0, non_members), (members + 1.0, non_members)
        >>> print(tpr_ratio(strong, weak, 0.01, seed=0))
        4.338 [3.458, 5.271]

    References:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 10.
    """
    check_confidence(confidence)
    check_resampling(seed, resamples)
    checked_rate(fpr)
    tail = (1.0 - confidence) / 2.0
    if resamples * tail * (1.0 + 1e-9) < _FEWEST:
        fewest = math.ceil(_FEWEST / tail * (1.0 - 1e-9))
        raise ArgumentError("resamples", resamples, f"at least {fewest:,} for a confidence of {confidence:g}")
    first, second = _checked_pair("a", a), _checked_pair("b", b)
    members, non_members = first[0].size, first[1].size
    if (members, non_members) != (second[0].size, second[1].size):
        raise DataError(
            f"a has scores of {members:,} members and {non_members:,} non-members, b of {second[0].size:,} and "
            f"{second[1].size:,}; give both attacks' scores of the same records, in the same order."
        )
    if members < _FEWEST:
        raise SampleTooSmallError(f"{members} members are too few to compare attacks; give at least {_FEWEST}.")
    allowed = allowed_above(fpr, non_members)
    one = 1.0 / members
    value = _rate(first, allowed) / max(_rate(second, allowed), one)
    above, below = _resampled_rates(first, second, allowed, resamples, np.random.default_rng(seed))
    low = float(np.quantile(above / np.maximum(below, one), tail, method="lower"))
    at_its_word = np.full(resamples, np.inf)
    np.divide(above, below, out=at_its_word, where=below > 0)
    high = float(np.quantile(at_its_word, 1.0 - tail, method="higher"))
    return Estimate(value, min(low, value), max(high, value), confidence, members)


Pair = tuple[Floats, Floats]


def _checked_pair(name: str, scores: tuple[ArrayLike, ArrayLike]) -> Pair:
    members, non_members = scores
    return checked_scores(f"{name}: member scores", members), checked_scores(f"{name}: non-member scores", non_members)


def _rate(scores: Pair, allowed: int) -> float:
    """The share of members above the (k+1)-th largest non-member score."""
    members, non_members = scores
    place = non_members.size - 1 - allowed
    return float((members > np.partition(non_members, place)[place]).mean())


def _resampled_rates(
    first: Pair, second: Pair, allowed: int, resamples: int, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Both attacks' rates in resamples of the same records, each with its own new threshold; each (R,)."""
    members, non_members = first[0].size, first[1].size
    place = non_members - 1 - allowed
    rates = np.empty((2, resamples))
    chunk = max(1, _DRAWS_AT_ONCE // (members + non_members))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn_members, drawn = drawn_rows(members, rows, generator), drawn_rows(non_members, rows, generator)
        for attack, (member_scores, non_member_scores) in enumerate((first, second)):
            thresholds = np.partition(non_member_scores[drawn], place, axis=1)[:, place, None]  # (rows, 1)
            rates[attack, start : start + rows] = (member_scores[drawn_members] > thresholds).mean(1)
    return rates[0], rates[1]
