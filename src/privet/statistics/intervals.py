"""Intervals that cover at the stated rate: for a share, and for a rate at a fixed rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

from privet.errors import ArgumentError, SampleTooSmallError
from privet.statistics.estimate import Estimate, check_confidence
from privet.statistics.roc import checked_scores

__all__ = ["RateAtRate", "allowed_above", "checked_rate", "clopper_pearson", "threshold_at", "tpr_at_fpr"]

Floats = NDArray[np.float64]


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Estimate:
    r"""The exact interval of a share of independent trials.

    .. math:: [B_{\alpha/2}(k, n - k + 1),\; B_{1 - \alpha/2}(k + 1, n - k)]

    with :math:`B_q(a, b)` the q-quantile of the beta distribution.

    Args:
        successes: k, 0 <= k <= n.
        trials: n >= 1.
        confidence: 1 - alpha, in (0, 1).

    Returns:
        k / n with its interval, which covers with probability at least ``confidence``.

    Raises:
        ArgumentError: if a count or the confidence is out of range.

    Example:
        >>> print(clopper_pearson(0, 100))
        0.000 [0.000, 0.036]

    References:
        Clopper and Pearson, "The use of confidence or fiducial limits", 1934.
    """
    check_confidence(confidence)
    for name, count in (("successes", successes), ("trials", trials)):
        if int(count) != count:
            raise ArgumentError(name, count, "a whole number")
    if trials < 1:
        raise ArgumentError("trials", trials, "at least 1")
    if not 0 <= successes <= trials:
        raise ArgumentError("successes", successes, f"a count from 0 to trials = {trials}")
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(beta.ppf(1.0 - tail, successes + 1, trials - successes))
    return Estimate(successes / trials, low, high, confidence, trials)


@dataclass(frozen=True)
class RateAtRate:
    """A true positive rate at a stated false positive rate, and the false positive rate that was realised.

    Attributes:
        asked: the false positive rate asked for.
        tpr: share of members above the threshold, with its interval.
        fpr: share of non-members above the threshold, with the interval of the true rate of this threshold.
        threshold: the rule is "member if score > threshold".
        coarse: True where fewer than ten non-members lie above the threshold that was asked for: read with care.
        reached: False where no threshold has so small a rate, because more non-members than that share the top score;
            the rates are then those of accusing nobody.
    """

    asked: float
    tpr: Estimate
    fpr: Estimate
    threshold: float
    coarse: bool
    reached: bool


def tpr_at_fpr(
    member_scores: ArrayLike, non_member_scores: ArrayLike, fpr: float, confidence: float = 0.95
) -> RateAtRate:
    r"""The true positive rate at a false positive rate, valid for the way the threshold was found.

    The threshold t is the (k+1)-th largest of the N non-member scores, k = floor(fpr N). Members had no part in
    choosing it, so given t their share above it is binomial and Clopper-Pearson is exact. The true false positive rate
    of the rule "score > t" is the exceedance of an order statistic,

    .. math:: 1 - F(X_{(N-k)}) \sim \mathrm{Beta}(k + 1, N - k),

    exactly for continuous scores; with ties it is stochastically no larger, so the upper end stays valid.
    No record is lost to a split, and no threshold is chosen on the members it is judged by.

    Args:
        member_scores: (M,), M >= 1; higher means member.
        non_member_scores: (N,), N >= 1 / fpr.
        fpr: the false positive rate, in (0, 1).
        confidence: of each of the two intervals, in (0, 1).

    Returns:
        Both rates with their intervals, and the threshold.

    Raises:
        SampleTooSmallError: if N < 1 / fpr: such a rate cannot be measured with so few non-members.
        DataError: if scores are empty, not a vector, or hold a NaN.

    Guarantees:
        Members and non-members are independent samples and no record's score depends on another record of the sample.

    References:
        David and Nagaraja, "Order Statistics", 2003, section 2.1.
    """
    check_confidence(confidence)
    checked_rate(fpr)
    members = checked_scores("member scores", member_scores)
    non_members = checked_scores("non-member scores", non_member_scores)
    size = non_members.size
    threshold, allowed = threshold_at(non_members, fpr)
    above = int(np.count_nonzero(non_members > threshold))
    tail = (1.0 - confidence) / 2.0
    high = float(beta.ppf(1.0 - tail, allowed + 1, size - allowed))
    realised = Estimate(above / size, clopper_pearson(above, size, confidence).low, high, confidence, size)
    tpr = clopper_pearson(int(np.count_nonzero(members > threshold)), members.size, confidence)
    return RateAtRate(fpr, tpr, realised, threshold, coarse=allowed < 10, reached=above > 0)


def checked_rate(fpr: float) -> float:
    """Return ``fpr`` if it is a false positive rate that can be asked for.

    Raises:
        ArgumentError: if it does not lie strictly between 0 and 1.
    """
    if not 0.0 < fpr < 1.0:
        raise ArgumentError("fpr", fpr, "a rate strictly between 0 and 1, such as 0.01")
    return float(fpr)


def allowed_above(fpr: float, size: int) -> int:
    """Return k = floor(fpr N): how many of ``size`` non-members may lie above the threshold; 1/3 of 3 is 1.

    Raises:
        SampleTooSmallError: if it is none, so that the rate cannot be measured with so few.
    """
    allowed = min(int(np.floor(fpr * size * (1.0 + 1e-12))), size - 1)
    if allowed < 1:
        raise SampleTooSmallError(
            f"{size:,} non-members cannot show a false positive rate of {fpr:g}; at least {int(np.ceil(1 / fpr)):,} "
            f"can. Give more non-members, or ask for a rate of {1 / size:.2g} or more."
        )
    return allowed


def threshold_at(non_members: Floats, fpr: float) -> tuple[float, int]:
    """The (k+1)-th largest of N non-member scores, and k = floor(fpr N); ``non_members`` is a vector without NaN."""
    allowed = allowed_above(fpr, non_members.size)
    place = non_members.size - 1 - allowed
    return float(np.partition(non_members, place)[place]), allowed
