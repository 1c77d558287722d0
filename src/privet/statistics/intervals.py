"""Intervals that cover at the stated rate: for a share, for the area under a ROC, for a rate at a fixed rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import beta

from privet.errors import ArgumentError, SampleTooSmallError
from privet.statistics.estimate import Estimate, check_confidence
from privet.statistics.roc import ScoreBlocks, checked_scores

__all__ = ["RateAtRate", "auc_interval", "clopper_pearson", "tpr_at_fpr"]

Floats = NDArray[np.float64]
_FEWEST = 10
_CELLS_AT_ONCE = 4_000_000  # resampled weights held in memory at a time: 32 MB


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
    if not 0.0 < fpr < 1.0:
        raise ArgumentError("fpr", fpr, "a rate strictly between 0 and 1, such as 0.01")
    members = checked_scores("member scores", member_scores)
    non_members = checked_scores("non-member scores", non_member_scores)
    size = non_members.size
    allowed = min(int(np.floor(fpr * size * (1.0 + 1e-12))), size - 1)
    if allowed < 1:
        raise SampleTooSmallError(
            f"{size:,} non-members cannot show a false positive rate of {fpr:g}; at least {int(np.ceil(1 / fpr)):,} "
            f"can. Give more non-members, or ask for a rate of {1 / size:.2g} or more."
        )
    threshold = float(np.partition(non_members, size - 1 - allowed)[size - 1 - allowed])
    above = int(np.count_nonzero(non_members > threshold))
    tail = (1.0 - confidence) / 2.0
    high = float(beta.ppf(1.0 - tail, allowed + 1, size - allowed))
    realised = Estimate(above / size, clopper_pearson(above, size, confidence).low, high, confidence, size)
    tpr = clopper_pearson(int(np.count_nonzero(members > threshold)), members.size, confidence)
    return RateAtRate(fpr, tpr, realised, threshold, coarse=allowed < 10, reached=above > 0)


def auc_interval(
    member_scores: ArrayLike,
    non_member_scores: ArrayLike,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 1_000,
) -> Estimate:
    r"""The area under the ROC with an interval from the bootstrap and from a score method, whichever reaches further.

    Scores are sorted once into blocks of equal score; a resample is a draw of multinomial weights, and its area is

    .. math:: \frac{1}{MN} \sum_b m_b \Big(\sum_{c > b} n_c + \frac{n_b}{2}\Big)

    with :math:`m_b, n_b` the resampled members and non-members in block b, highest score first. Members and
    non-members are resampled apart. The bootstrap is too narrow for few records, for areas near 0 or 1 and for scores
    that are mostly tied, so the interval also holds the ends :math:`\theta` of Newcombe's method 5,

    .. math:: |\hat\theta - \theta| = z \sqrt{\frac{\theta (1 - \theta)}{MN}
       \left(1 + (\tfrac{M + N}{2} - 1)
       \left(\tfrac{1 - \theta}{2 - \theta} + \tfrac{\theta}{1 + \theta}\right)\right)}.

    Where members and non-members are separated without exception, the open end comes from Clopper-Pearson over
    min(M, N) disjoint pairs. The coverage is asymptotic; docs/statistics.md has it measured down to 10 records.

    Args:
        member_scores: (M,), M >= 10; higher means member.
        non_member_scores: (N,), N >= 10.
        seed: of the resampling, >= 0.
        confidence: in (0, 1).
        resamples: how many, at least 100.

    Returns:
        The area with its interval; ``n`` is min(M, N).

    Raises:
        ArgumentError: if ``resamples`` or ``confidence`` is out of range.
        DataError: if scores are empty, not a vector, or hold a NaN.
        SampleTooSmallError: if there are fewer than ten of either: no interval here covers as it says.

    References:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. Newcombe, "Confidence intervals for
        an effect size measure based on the Mann-Whitney statistic, part 2", 2006.
    """
    check_confidence(confidence)
    if resamples < 100:
        raise ArgumentError("resamples", resamples, "at least 100")
    if seed < 0:
        raise ArgumentError("seed", seed, "a whole number of at least 0")
    blocks = ScoreBlocks.of(member_scores, non_member_scores)
    members, non_members = blocks.counts()
    pairs = min(blocks.member_block.size, blocks.non_member_block.size)
    if pairs < _FEWEST:
        raise SampleTooSmallError(
            f"{blocks.member_block.size} members and {blocks.non_member_block.size} non-members are too few for an "
            f"interval of the ROC area that covers as it says; give at least {_FEWEST} of each."
        )
    value = float(_areas(members[None].astype(np.float64), non_members[None].astype(np.float64))[0])
    if value in (0.0, 1.0):
        return clopper_pearson(round(value) * pairs, pairs, confidence)
    generator = np.random.default_rng(seed)
    areas: list[Floats] = []
    chunk = max(1, _CELLS_AT_ONCE // blocks.scores.size)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        areas.append(_areas(_resampled(members, rows, generator), _resampled(non_members, rows, generator)))
    tail = (1.0 - confidence) / 2.0
    resampled = np.quantile(np.concatenate(areas), (tail, 1.0 - tail))
    low, high = _score_ends(value, blocks.member_block.size, blocks.non_member_block.size, -float(ndtri(tail)))
    return Estimate(value, min(float(resampled[0]), low), max(float(resampled[1]), high), confidence, pairs)


def _score_ends(area: float, members: int, non_members: int, z: float) -> tuple[float, float]:
    """Newcombe's method 5: the areas from which the one found is just z standard errors away."""

    def excess(theta: float) -> float:
        shape = (1.0 - theta) / (2.0 - theta) + theta / (1.0 + theta)
        variance = (
            theta * (1.0 - theta) / (members * non_members) * (1.0 + ((members + non_members) / 2.0 - 1.0) * shape)
        )
        return (area - theta) ** 2 - z**2 * variance

    return float(brentq(excess, 0.0, area)), float(brentq(excess, area, 1.0))


def _resampled(counts: NDArray[np.intp], rows: int, generator: np.random.Generator) -> Floats:
    size = int(counts.sum())
    return generator.multinomial(size, counts / size, size=rows).astype(np.float64)  # (rows, K)


def _areas(members: Floats, non_members: Floats) -> Floats:
    below = non_members.sum(1, keepdims=True) - np.cumsum(non_members, axis=1) + non_members / 2.0  # (rows, K)
    pairs: Floats = np.einsum("rk,rk->r", members, below)
    pairs /= members.sum(1) * non_members.sum(1)
    return pairs
