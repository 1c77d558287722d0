"""Label-only: which copies of a record the target labels right, beside models trained on it or not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privet.attacks.membership.query_weights import query_weights
from privet.attacks.membership.shadow_matrix import Bools, Floats, ShadowMatrix
from privet.errors import DataError

__all__ = ["label_only", "label_only_rotated"]


def label_only(votes: NDArray[Any], membership: Bools, target: NDArray[Any]) -> Floats:
    r"""Score each record by the likelihood ratio of which queries about it the target answers with its right label.

    .. math::
        s(x) = \sum_q w_q \log \frac{P(v_q \mid \text{trained on } x)}{P(v_q \mid \text{not})}, \qquad
        P(\text{right} \mid \cdot) = \frac{\text{right answers} + 1}{\text{shadows} + 2}

    The weights w are learned from the shadows (Fisher's discriminant, at least 0), for answers about shifted copies
    tell less than that about the record itself, and mostly the same. Whether the label is right tells little without
    the shadows: hard records are answered wrongly, trained on or not.

    Args:
        votes: (K, P) or (K, P, Q) of 0 and 1, or bool: shadow k gave query q about record p its right label.
        membership: (K, P) bool; shadow k was trained on record p.
        target: the target's own votes (P,) or (P, Q).

    Returns:
        (P,); higher means "member".

    Raises:
        DataError: if shapes do not fit together, a vote is neither 0 nor 1, or a record has no IN or no OUT shadow.

    Example:
        >>> votes = np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
        >>> membership = np.array([[True, False], [False, True], [True, False], [False, True]])
        >>> label_only(votes, membership, np.array([1, 0])).round(3)
        array([ 1.099, -1.099])

    References:
        Choquette-Choo, Tramer, Carlini, Papernot, "Label-only membership inference attacks", 2021.
    """
    matrix = _checked(votes, membership)
    asked = matrix.target(target)
    _refuse_no_votes("target", asked)
    matrix.need(1, 1)
    weights = query_weights(matrix.signals, matrix.membership, _log_ratios)
    return _score(asked, _counts(matrix.signals, matrix.membership), weights)


def label_only_rotated(votes: NDArray[Any], membership: Bools, blocks: NDArray[Any]) -> Floats:
    """Score each record with every shadow in turn as the target, its whole block left out.

    Args:
        votes: as for :func:`label_only`.
        membership: as for :func:`label_only`.
        blocks: (K,) integers; shadows of one number are left out together (see
            :func:`~privet.attacks.membership.lira.lira_rotated`). At least two blocks.

    Returns:
        (K, P); row k are the scores of shadow k as the target.

    Raises:
        DataError: as for :func:`label_only`, also after any one block is left out; or if a block's IN shadows tell how
            many others there are.

    Example:
        >>> votes = np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
        >>> membership = np.array([[True, False], [False, True], [True, False], [False, True]])
        >>> label_only_rotated(votes, membership, np.array([0, 0, 1, 1]))[0].round(3)
        array([ 0.693, -0.693])
    """
    matrix = _checked(votes, membership)
    rows = matrix.blocks(blocks)
    matrix.need(1, 1, rows)
    total = _counts(matrix.signals, matrix.membership)
    score = np.zeros(matrix.shape[:2])
    for row in rows:
        counts = total - _counts(matrix.signals[row], matrix.membership[row])  # whole numbers: exact
        weights = query_weights(*matrix.without(row), _log_ratios)
        score[row] = _score(matrix.signals[row], counts, weights)
    return score


def _checked(votes: NDArray[Any], membership: Bools) -> ShadowMatrix:
    matrix = ShadowMatrix.checked(votes, membership)
    _refuse_no_votes("votes", matrix.signals)
    return ShadowMatrix(matrix.signals.astype(np.bool_), matrix.membership)


def _refuse_no_votes(name: str, votes: NDArray[Any]) -> None:
    wrong = (votes != 0) & (votes != 1)
    if wrong.any():
        raise DataError(
            f"{name}: {votes[wrong][0]} is no vote; give 1 where a query was answered with its right label, else 0."
        )


def _counts(votes: NDArray[np.bool_], inside: Bools, outside: Bools | None = None) -> Floats:
    """Right answers and shadows with the record, then without it (4, P, Q)."""
    outside = ~inside if outside is None else outside
    found = np.empty((4, *votes.shape[1:]))
    for index, chosen in ((0, inside), (2, outside)):
        found[index] = (votes & chosen[:, :, None]).sum(0)
        found[index + 1] = chosen.sum(0)[:, None]
    return found


def _log_ratios(votes: NDArray[np.bool_], inside: Bools, outside: Bools) -> Floats:
    counts = _counts(votes, inside, outside)
    return np.where(votes, *_tables(counts))


def _score(votes: NDArray[Any], counts: Floats, weights: Floats) -> Floats:
    score: Floats = np.where(votes, *_tables(counts)) @ weights
    return score


def _tables(counts: Floats) -> tuple[Floats, Floats]:
    """Log likelihood ratios of a right and of a wrong answer, each (P, Q)."""
    right_in, in_, right_out, out = counts
    fair = np.log((out + 2.0) / (in_ + 2.0))
    return np.log((right_in + 1.0) / (right_out + 1.0)) + fair, np.log(
        (in_ - right_in + 1.0) / (out - right_out + 1.0)
    ) + fair
