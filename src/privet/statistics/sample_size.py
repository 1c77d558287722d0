"""How many records a finding takes: the smallest rate a sample can show, and the sample that shows a leak."""

from __future__ import annotations

import math

from scipy.special import bdtrc, betaincinv

from privet.errors import ArgumentError
from privet.statistics.estimate import check_confidence
from privet.statistics.intervals import allowed_above, checked_rate

__all__ = ["power_to_find", "records_needed", "smallest_fpr"]

_MOST = 10**9


def smallest_fpr(non_members: int) -> float:
    """The smallest false positive rate that so many non-members can show: 1 / N.

    Args:
        non_members: N >= 2.

    Returns:
        The smallest ``fpr`` that :func:`tpr_at_fpr` accepts with N non-members.

    Raises:
        ArgumentError: if N < 2.

    Example:
        >>> smallest_fpr(2_000)
        0.0005
    """
    if non_members < 2:
        raise ArgumentError("non_members", non_members, "at least 2")
    return 1.0 / non_members


def power_to_find(members: int, non_members: int, share: float, fpr: float, confidence: float = 0.95) -> float:
    r"""The probability that a leak is found: that the lower end of the TPR lies above the upper end of the FPR.

    With M members, of which a share s lies above the threshold of :func:`tpr_at_fpr`,

    .. math:: P(X \ge c), \quad X \sim \mathrm{Bin}(M, s), \quad
       c = \min\{x : B_{\alpha/2}(x, M - x + 1) > B_{1 - \alpha/2}(k + 1, N - k)\}.

    Args:
        members: M >= 1.
        non_members: N >= 1 / fpr.
        share: the true positive rate s of the leak at this threshold, in (0, 1].
        fpr: the false positive rate, in (0, 1).
        confidence: 1 - alpha, of each of the two intervals, in (0, 1).

    Returns:
        The power, in [0, 1].

    Raises:
        ArgumentError: if an argument is out of range.
        SampleTooSmallError: if N < 1 / fpr.

    Example:
        >>> round(power_to_find(2_000, 2_000, share=0.03, fpr=0.01), 2)
        0.99
    """
    check_confidence(confidence)
    checked_rate(fpr)
    if members < 1:
        raise ArgumentError("members", members, "at least 1")
    if not 0.0 < share <= 1.0:
        raise ArgumentError("share", share, "a rate above 0 and at most 1, such as 0.05")
    tail = (1.0 - confidence) / 2.0
    allowed = allowed_above(fpr, non_members)
    limit = float(betaincinv(allowed + 1, non_members - allowed, 1.0 - tail))
    low, high = 0, members + 1  # a count of ``low`` is not enough; ``members + 1`` stands for none that is
    while high - low > 1:
        middle = (low + high) // 2
        if betaincinv(middle, members - middle + 1, tail) > limit:
            high = middle
        else:
            low = middle
    if high > members:
        return 0.0
    return float(bdtrc(high - 1, members, share)) if share < 1.0 else 1.0


def records_needed(
    share: float, fpr: float, confidence: float = 0.95, power: float = 0.8, *, per_side: bool = True
) -> int:
    """How many members, and as many non-members, find a leak with the asked power.

    A leak is found where the lower end of the true positive rate lies above the upper end of the false positive rate,
    both by :func:`tpr_at_fpr`.

    Args:
        share: the true positive rate of the leak at this false positive rate, in (fpr, 1].
        fpr: the false positive rate, in (0, 1).
        confidence: of each of the two intervals, after any correction over attacks, in (0, 1).
        power: the probability with which the leak is to be found, in (0, 1).
        per_side: count the members alone; otherwise members and non-members together.

    Returns:
        The number, a multiple of the 1 / fpr non-members that one false positive takes, rounded up.

    Raises:
        ArgumentError: if an argument is out of range, if the share is not above the false positive rate, or so little
            that a thousand million records would not find it.

    Example:
        >>> records_needed(share=0.05, fpr=0.01)
        500
    """
    check_confidence(confidence)
    checked_rate(fpr)
    if not fpr < share <= 1.0:
        raise ArgumentError("share", share, f"a true positive rate above the false positive rate {fpr:g}, at most 1")
    if not 0.0 < power < 1.0:
        raise ArgumentError("power", power, "a probability strictly between 0 and 1, such as 0.8")

    def size(allowed: int) -> int:
        return math.ceil(allowed / fpr * (1.0 - 1e-12))

    def enough(allowed: int) -> bool:
        return power_to_find(size(allowed), size(allowed), share, fpr, confidence) >= power

    high = 1
    while not enough(high):
        high *= 2
        if size(high) > _MOST:
            raise ArgumentError(
                "share",
                share,
                "a true positive rate further above the false positive rate",
                f"More than {_MOST:,} records would be needed to tell it from {fpr:g}.",
            )
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return size(high) * (1 if per_side else 2)
