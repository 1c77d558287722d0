"""The receiver operating characteristic of scores, with ties moved as blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privet.errors import ArgumentError, DataError

__all__ = ["RocCurve", "ScoreBlocks", "checked_scores", "roc_curve"]

Floats = NDArray[np.float64]


def checked_scores(name: str, scores: ArrayLike) -> Floats:
    """Return scores as a float64 vector (N,), N >= 1.

    Infinite scores are allowed: they order like any other. NaN has no place in an order.

    Raises:
        DataError: if the scores are empty, not one-dimensional, not numbers, or hold a NaN.
    """
    try:
        values = np.asarray(scores)
        if values.dtype.kind not in "biuf":
            raise TypeError(f"of type {values.dtype}")
        values = values.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name} are not real numbers ({error}); give one real score a record.") from None
    if values.ndim != 1 or values.size == 0:
        raise DataError(f"{name} have shape {values.shape}; give a vector (N,) of at least one score.")
    if np.isnan(values).any():
        first = int(np.flatnonzero(np.isnan(values))[0])
        raise DataError(f"{name}[{first}] is NaN; give a score that can be ordered, or leave the record out.")
    return values


@dataclass(frozen=True)
class ScoreBlocks:
    """Members and non-members sorted into blocks of equal score, highest first.

    Attributes:
        scores: the distinct scores, falling (K,).
        member_block: the block of each member (M,), integers in 0 ... K-1.
        non_member_block: the block of each non-member (N,), integers in 0 ... K-1.
    """

    scores: Floats
    member_block: NDArray[np.intp]
    non_member_block: NDArray[np.intp]

    @classmethod
    def of(cls, member_scores: ArrayLike, non_member_scores: ArrayLike) -> ScoreBlocks:
        """Sort once; every later question is a sum over blocks."""
        members = checked_scores("member scores", member_scores)
        non_members = checked_scores("non-member scores", non_member_scores)
        distinct, block = np.unique(np.concatenate((members, non_members)), return_inverse=True)
        block = distinct.size - 1 - block
        return cls(distinct[::-1], block[: members.size], block[members.size :])

    def counts(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Members and non-members in each block, each (K,)."""
        size = self.scores.size
        return np.bincount(self.member_block, minlength=size), np.bincount(self.non_member_block, minlength=size)


@dataclass(frozen=True)
class RocCurve:
    """True against false positive rates of the rule "member if score >= threshold".

    Attributes:
        false_positive_rates: rising from 0 to 1 (K + 1,).
        true_positive_rates: rising from 0 to 1 (K + 1,).
        thresholds: falling from +infinity (K + 1,).
    """

    false_positive_rates: Floats
    true_positive_rates: Floats
    thresholds: Floats

    @property
    def auc(self) -> float:
        r"""The area under the curve, :math:`P(S_+ > S_-) + P(S_+ = S_-) / 2`."""
        return float(np.trapezoid(self.true_positive_rates, self.false_positive_rates))

    def tpr_at(self, fpr: float) -> float:
        """The largest true positive rate among thresholds whose false positive rate is at most ``fpr``.

        Nothing is interpolated: a rate between two thresholds belongs to no rule that was measured.
        """
        if not 0.0 <= fpr <= 1.0:
            raise ArgumentError("fpr", fpr, "a rate from 0 to 1")
        last = int(np.searchsorted(self.false_positive_rates, fpr, side="right")) - 1
        return float(self.true_positive_rates[last])


def roc_curve(member_scores: ArrayLike, non_member_scores: ArrayLike) -> RocCurve:
    """The ROC of an attack whose higher score means "member".

    Records of one score pass the threshold together, so the order in which they are given never matters.

    Args:
        member_scores: scores of records that were trained on (M,), M >= 1.
        non_member_scores: scores of records that were not (N,), N >= 1.

    Returns:
        The curve, with a point at the origin and one after each block of equal scores.

    Raises:
        DataError: if scores are empty, not a vector, or hold a NaN.

    Example:
        >>> roc_curve([9.0, 5.0], [9.0, 5.0]).auc
        0.5

    References:
        Fawcett, "An introduction to ROC analysis", 2006, section 5 (equally scored instances).
    """
    blocks = ScoreBlocks.of(member_scores, non_member_scores)
    members, non_members = blocks.counts()
    return RocCurve(
        np.concatenate(([0.0], np.cumsum(non_members) / blocks.non_member_block.size)),
        np.concatenate(([0.0], np.cumsum(members) / blocks.member_block.size)),
        np.concatenate(([np.inf], blocks.scores)),
    )
