"""Label-only: how many of a record's shifted copies the target labels right, beside models trained on it or not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privet.attacks.membership.shadow_matrix import Bools, Floats, ShadowMatrix

__all__ = ["label_only", "label_only_rotated"]


def label_only(votes: NDArray[Any], membership: Bools, target: NDArray[Any], *, offline: bool = False) -> Floats:
    """Label-only."""
    matrix = ShadowMatrix.checked(votes, membership)
    asked = matrix.target(target)
    return _score(asked, *_counts(matrix, np.arange(matrix.shape[0])))


def label_only_rotated(
    votes: NDArray[Any], membership: Bools, blocks: NDArray[Any], *, offline: bool = False
) -> Floats:
    """Label-only with every shadow as the target."""
    matrix = ShadowMatrix.checked(votes, membership)
    total = _counts(matrix, np.arange(matrix.shape[0]))
    score = np.zeros(matrix.shape[:2])
    for row in matrix.blocks(blocks):
        rest = [whole - part for whole, part in zip(total, _counts(matrix, row), strict=True)]
        score[row] = _score(matrix.signals[row].astype(np.float64), *rest)
    return score


def _counts(matrix: ShadowMatrix, rows: NDArray[np.intp]) -> list[Floats]:
    votes, membership = matrix.signals[rows], matrix.membership[rows][:, :, None]
    inside, number = (votes * membership).sum(0), membership.sum(0)
    return [inside, number, votes.sum(0) - inside, len(rows) - number]


def _score(votes: Floats, right_in: Floats, count_in: Floats, right_out: Floats, count_out: Floats) -> Floats:
    p_in, p_out = (right_in + 1.0) / (count_in + 2.0), (right_out + 1.0) / (count_out + 2.0)
    ratio = np.where(votes > 0.5, np.log(p_in / p_out), np.log((1.0 - p_in) / (1.0 - p_out)))
    mean: Floats = ratio.mean(-1)
    return mean
