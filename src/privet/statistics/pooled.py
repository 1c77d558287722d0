r"""Rates over several models at once, whose scores are not independent: clustered by record and by model.

A record has a score from every model, and a model scores every record; two scores that share either are correlated.
The pigeonhole bootstrap draws records and models apart, each with replacement, and weighs the score of record p by
model t by :math:`w_t w_p`. Every rate here is a ratio of sums over the table of scores, so that all resamples are
matrix products: with :math:`W_T` the drawn models (R, T) and :math:`W_P` the drawn records (R, P), the sums of a table
A (T, P) are the row sums of :math:`(W_T A) \circ W_P`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit
from scipy.stats import beta

from privet.errors import DataError, SampleTooSmallError
from privet.statistics.area import check_resampling, drawn_rows, logit_ends, score_ends
from privet.statistics.estimate import Estimate, check_confidence
from privet.statistics.intervals import RateAtRate, checked_rate, clopper_pearson, threshold_at
from privet.statistics.roc import checked_scores

__all__ = ["pooled_auc", "pooled_tpr_at_fpr"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_FEWEST_MODELS = 4
_FEWEST_RECORDS = 10
_CELLS_AT_ONCE = 4_000_000


def pooled_auc(
    scores: ArrayLike, membership: ArrayLike, *, seed: int, confidence: float = 0.95, resamples: int = 1_000
) -> Estimate:
    r"""The area under the ROC of the scores of several models, with an interval clustered by record and model.

    Scores are sorted once. Each score has a placement v: of a member, the share of non-member scores below it (half
    of those equal); of a non-member, the share of member scores above it. A resample's area is

    .. math:: \frac{\sum_{\text{member}} w_t w_p v_{tp}}{\sum_{\text{member}} w_t w_p}
       + \frac{\sum_{\text{non-member}} w_t w_p v_{tp}}{\sum_{\text{non-member}} w_t w_p} - \hat\theta,

    the resampled area up to a term that falls as 1 / (scores). The pigeonhole bootstrap counts what is neither of the
    record nor of the model three times; its ends are drawn in to the variance clustered two ways, and out by Student's
    t, because models are few. The interval also holds the ends of the score method of :func:`auc_interval` at the
    sizes at which independent scores would vary as much.

    Args:
        scores: (T, P), T >= 4 models and P >= 10 records; higher means member.
        membership: (T, P) bool, True where model t was trained on record p.
        seed: of the resampling, >= 0.
        confidence: in (0, 1).
        resamples: how many, at least 100.

    Returns:
        The area with its interval; ``n`` is P, the number of records.

    Raises:
        ArgumentError: if ``resamples``, ``seed`` or ``confidence`` is out of range.
        DataError: if scores are no table or hold a NaN, or if the membership is no bool table of their shape.
        SampleTooSmallError: if there are fewer than 4 models, 10 records, 10 member or 10 non-member scores.

    Guarantees:
        Records are an independent sample, and so are models given the records; docs/statistics.md has the coverage
        measured for few models that differ strongly.

    Example:
        >>> generator = np.random.default_rng(0)
        >>> member = np.stack([half := generator.random(100) < 0.5, ~half] * 4)
        >>> print(pooled_auc(generator.normal(size=(8, 100)) + member, member, seed=0))
        0.793 [0.739, 0.844]

    References:
        Owen, "The pigeonhole bootstrap", 2007. Cameron, Gelbach and Miller, "Robust inference with multiway
        clustering", 2011. DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated
        receiver operating characteristic curves", 1988.
    """
    check_confidence(confidence)
    check_resampling(seed, resamples)
    table, member = _checked_table(scores, membership)
    placed = _placements(table, member)
    value = float(placed[member].mean())
    members = int(member.sum())
    non_members = member.size - members
    if value in (0.0, 1.0):
        pairs = min(int(member.any(0).sum()), int((~member).any(0).sum()))
        return clopper_pearson(round(value) * pairs, pairs, confidence)
    areas = _areas(_Draw(len(table), table.shape[1], resamples, seed=seed), placed, member)
    tail = (1.0 - confidence) / 2.0
    reach = _reach((placed - value) * np.where(member, 1.0 / members, 1.0 / non_members), tail)
    low, high = logit_ends(areas, value, tail, 0.5 / (members * non_members), reach)
    size = _matching_size(value, members, non_members, reach * float(areas.std())) or 1.0 / len(table)
    score = score_ends(value, members * size, non_members * size, -float(ndtri(tail)))
    return Estimate(value, min(low, score[0]), max(high, score[1]), confidence, table.shape[1])


def pooled_tpr_at_fpr(
    scores: ArrayLike,
    membership: ArrayLike,
    fpr: float,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 1_000,
) -> RateAtRate:
    r"""The true positive rate at a false positive rate over several models, clustered by record and model.

    The threshold is the (k+1)-th largest of all N non-member scores, k = floor(fpr N). The shares above it have a
    variance V, clustered as in :func:`pooled_auc`, and are hence worth as many independent scores as

    .. math:: n^* = \min\Big(n, \frac{\hat p (1 - \hat p)}{V}\Big),

    and their intervals are those of :func:`tpr_at_fpr` with n* scores in place of n, k scaled alike, or the
    bootstrap's own, whichever reach further. A share of 0 or 1 has no variance to go by: n* is the number of records.

    Args:
        scores: (T, P), T >= 4 models and P >= 10 records; higher means member.
        membership: (T, P) bool, True where model t was trained on record p.
        fpr: the false positive rate, in (0, 1).
        seed: of the resampling, >= 0.
        confidence: of each of the two intervals, in (0, 1).
        resamples: how many, at least 100.

    Returns:
        Both rates with their intervals and the threshold; ``n`` is P, the number of records. ``coarse`` is True where
        fewer than ten independent non-member scores' worth lie above the threshold that was asked for.

    Raises:
        ArgumentError: if ``fpr``, ``resamples``, ``seed`` or ``confidence`` is out of range.
        DataError: if scores are no table or hold a NaN, or if the membership is no bool table of their shape.
        SampleTooSmallError: if there are fewer than 4 models, 10 records, 10 member or 10 non-member scores, or fewer
            than 1 / fpr non-member scores.

    References:
        Owen, "The pigeonhole bootstrap", 2007. Korn and Graubard, "Confidence intervals for proportions with small
        expected number of positive counts estimated from survey data", 1998.
    """
    check_confidence(confidence)
    check_resampling(seed, resamples)
    checked_rate(fpr)
    table, member = _checked_table(scores, membership)
    threshold, allowed = threshold_at(table[~member], fpr)
    above = table > threshold
    draw = _Draw(len(table), table.shape[1], resamples, seed=seed)
    tail = (1.0 - confidence) / 2.0
    tpr, _ = _share_interval(draw, above, member, tail)
    fpr_found, effective = _share_interval(draw, above, ~member, tail, allowed)
    worth = allowed * effective / int((~member).sum())
    return RateAtRate(fpr, tpr, fpr_found, threshold, coarse=worth < 10, reached=fpr_found.value > 0)


class _Draw:
    """Resamples of the models and records of a table, as weights: how often each was drawn."""

    def __init__(self, models: int, records: int, resamples: int, *, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.models = _weights(models, resamples, generator)  # (R, T)
        self.records = _weights(records, resamples, generator)  # (R, P)

    def share(self, part: NDArray[np.floating] | Bools, whole: Bools) -> Floats:
        """The weighted sum of ``part`` over that of ``whole``, both (T, P), in each resample (R,); NaN for 0 of 0."""
        parts, wholes = self._sums(part), self._sums(whole)
        return np.divide(parts, wholes, out=np.full_like(parts, np.nan), where=wholes > 0)

    def _sums(self, table: NDArray[np.floating] | Bools) -> Floats:
        sums = np.zeros(self.models.shape[0])
        chunk = max(1, _CELLS_AT_ONCE // self.models.shape[0])
        for start in range(0, table.shape[1], chunk):
            columns = slice(start, start + chunk)
            over_models = self.models @ table[:, columns].astype(np.float32)  # (R, chunk)
            sums += np.einsum("rp,rp->r", over_models, self.records[:, columns], dtype=np.float64)
        return sums


def _weights(size: int, resamples: int, generator: np.random.Generator) -> NDArray[np.float32]:
    weights = np.empty((resamples, size), dtype=np.float32)
    chunk = max(1, _CELLS_AT_ONCE // size)
    for start in range(0, resamples, chunk):
        for row, drawn in enumerate(drawn_rows(size, min(chunk, resamples - start), generator), start):
            weights[row] = np.bincount(drawn, minlength=size)
    return weights


def _share_interval(
    draw: _Draw, above: Bools, of: Bools, tail: float, allowed: int | None = None
) -> tuple[Estimate, float]:
    """The share of the scores ``of`` that lie ``above``, and how many independent scores it is worth.

    ``allowed``: how many the threshold was to leave above it, where it was found among these very scores.
    """
    count, records = int(of.sum()), above.shape[1]
    value = int((above & of).sum()) / count
    shares = _known(draw.share(above & of, of))
    reach = _reach((above - value) * of, tail)
    variance = float(shares.var()) * reach**2
    worth = min(float(count), value * (1.0 - value) / variance) if variance > 0 else float(min(count, records))
    low = float(beta.ppf(tail, value * worth, (1.0 - value) * worth + 1.0)) if value > 0 else 0.0
    most = value if allowed is None else allowed / count
    high = float(beta.ppf(1.0 - tail, most * worth + 1.0, (1.0 - most) * worth)) if most < 1 else 1.0
    ends = logit_ends(shares, value, tail, 0.5 / count, reach)
    return Estimate(value, min(low, ends[0]), max(high, ends[1]), 1.0 - 2.0 * tail, records), worth


def _reach(influence: NDArray[np.floating], tail: float) -> float:
    """How much wider (or narrower) an interval of the sum of ``influence`` (T, P) is to be than its resamples are.

    With A the sum of squares of the models' totals, B of the records' and C of the cells, resamples have the variance
    A + B + C; the sum has A T/(T-1) + B P/(P-1) - C, and no less than any of its terms. Models are few: Student's t
    stands for the normal, at Satterthwaite's degrees of freedom.
    """
    models, records = influence.shape
    by_model = float((influence.sum(1) ** 2).sum())
    by_record = float((influence.sum(0) ** 2).sum())
    single = float((influence**2).sum())
    if single == 0.0:
        return 1.0
    between_models, between_records = by_model * models / (models - 1), by_record * records / (records - 1)
    whole = max(between_models + between_records - single, between_models, between_records, single)
    uncertain = between_models**2 / (models - 1) + between_records**2 / (records - 1)
    freedom = whole**2 / uncertain if uncertain > 0.0 else float((models - 1) * (records - 1))
    student = float(stdtrit(freedom, 1.0 - tail) / -ndtri(tail))
    return student * float(np.sqrt(whole / (by_model + by_record + single)))


def _checked_table(scores: ArrayLike, membership: ArrayLike) -> tuple[Floats, Bools]:
    shape = np.shape(scores)
    if len(shape) != 2:
        raise DataError(f"scores have shape {shape}; give a table (T, P): models by records.")
    table = checked_scores("scores", np.ravel(scores)).reshape(shape)
    member = np.asarray(membership)
    if member.dtype != np.bool_ or member.shape != shape:
        raise DataError(
            f"membership is {member.dtype} of shape {member.shape}; give bool of the scores' shape {shape}, "
            "True where a model was trained on a record."
        )
    models, records = shape
    if models < _FEWEST_MODELS or records < _FEWEST_RECORDS:
        raise SampleTooSmallError(
            f"{models} models and {records} records are too few to tell how rates vary between them; "
            f"give at least {_FEWEST_MODELS} models and {_FEWEST_RECORDS} records."
        )
    count = int(member.sum())
    if min(count, member.size - count) < _FEWEST_RECORDS:
        raise SampleTooSmallError(
            f"{count:,} member and {member.size - count:,} non-member scores are too few; "
            f"give at least {_FEWEST_RECORDS} of each."
        )
    return table, member


def _placements(table: Floats, member: Bools) -> Floats:
    """Of a member, the share of non-member scores below its score; of a non-member, that of member scores above."""
    placed = _share_below(np.sort(table[~member]), table)
    placed[~member] = 1.0 - _share_below(np.sort(table[member]), table[~member])
    return placed


def _areas(draw: _Draw, placed: Floats, member: Bools) -> Floats:
    areas = draw.share(placed * member, member) + draw.share(placed * ~member, ~member)
    return _known(areas) - float(placed[member].mean())


def _known(resampled: Floats) -> Floats:
    """Resamples that drew scores of both kinds."""
    return resampled[~np.isnan(resampled)]


def _share_below(ordered: Floats, scores: Floats) -> Floats:
    """The share of ``ordered`` scores below each of ``scores``, those equal counted half."""
    places = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    shares: Floats = places / (2.0 * ordered.size)
    return shares


def _matching_size(area: float, members: int, non_members: int, deviation: float) -> float:
    """The share of the scores (at most 1) at which independent scores have this deviation of the area; 0: none does."""
    if deviation == 0.0:
        return 0.0
    shape = (1.0 - area) / (2.0 - area) + area / (1.0 + area)
    spread = area * (1.0 - area) / deviation**2
    # spread = s^2 M N / (1 + (s (M + N) / 2 - 1) shape), quadratic in s
    a, b, c = float(members) * non_members, spread * shape * (members + non_members) / 2.0, spread * (1.0 - shape)
    return min(1.0, (b + float(np.sqrt(b * b + 4.0 * a * c))) / (2.0 * a))
