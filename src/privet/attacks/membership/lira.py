"""LiRA: is what the target says about a record likelier of models trained on it, or of models that were not?"""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from privet.attacks.membership.shadow_matrix import Bools, Floats, Moments, ShadowMatrix, left_out
from privet.output_form import OutputForm

__all__ = ["Variance", "lira", "lira_rotated"]

_ENOUGH = 32  # shadows from which on each record's own variance is steadier than the shared one is wrong


class Variance(Enum):
    """Whose variance a record's signals are taken to have."""

    PER_RECORD = "per record"
    SHARED = "shared"


def lira(
    signals: NDArray[Any],
    membership: Bools,
    target: NDArray[Any],
    *,
    variance: Variance | None = None,
    offline: bool = False,
    form: OutputForm = OutputForm(),  # noqa: B008
) -> Floats:
    """LiRA."""
    matrix = ShadowMatrix.checked(signals, membership)
    asked = matrix.target(target)
    chosen = _variance(matrix, variance)
    least = 2 if chosen is Variance.PER_RECORD else 1
    matrix.need(0 if offline else least, least)
    score = np.zeros(matrix.shape[1])
    for query in range(matrix.shape[2]):
        values = matrix.query(query)
        outside = Moments.of(values, ~matrix.membership)
        inside = None if offline else Moments.of(values, matrix.membership)
        score += _score(asked[:, query], inside, outside, chosen)
    return score / matrix.shape[2]


def lira_rotated(
    signals: NDArray[Any],
    membership: Bools,
    blocks: NDArray[Any],
    *,
    variance: Variance | None = None,
    offline: bool = False,
    form: OutputForm = OutputForm(),  # noqa: B008
) -> Floats:
    """LiRA with every shadow as the target."""
    matrix = ShadowMatrix.checked(signals, membership)
    rows = matrix.blocks(blocks)
    chosen = _variance(matrix, variance)
    least = 2 if chosen is Variance.PER_RECORD else 1
    matrix.need(0 if offline else least, least, rows)
    score = np.zeros(matrix.shape[:2])
    for query in range(matrix.shape[2]):
        values = matrix.query(query)
        outside = left_out([Moments.of(values[row], ~matrix.membership[row]) for row in rows], Moments.merged)
        inside = left_out([Moments.of(values[row], matrix.membership[row]) for row in rows], Moments.merged)
        for index, row in enumerate(rows):
            score[row] += _score(values[row], None if offline else inside[index], outside[index], chosen)
    return score / matrix.shape[2]


def _variance(matrix: ShadowMatrix, variance: Variance | None) -> Variance:
    if variance is None:
        return Variance.PER_RECORD if matrix.shape[0] >= _ENOUGH else Variance.SHARED
    return variance


def _score(value: Floats, inside: Moments | None, outside: Moments, variance: Variance) -> Floats:
    if inside is None:
        score: Floats = -log_ndtr((outside.mean - value) / np.sqrt(_spread(outside, variance)))
        return score
    return _log_density(value, inside, variance) - _log_density(value, outside, variance)


def _log_density(value: Floats, moments: Moments, variance: Variance) -> Floats:
    spread = _spread(moments, variance)
    log_density: Floats = -0.5 * ((value - moments.mean) ** 2 / spread + np.log(spread))
    return log_density


def _spread(moments: Moments, variance: Variance) -> Floats:
    own = moments.squares / np.maximum(moments.count - 1, 1)
    shared = moments.squares.sum() / max(int((moments.count - 1).sum()), 1)
    return np.maximum(own if variance is Variance.PER_RECORD else np.full_like(own, shared), 1e-12)
