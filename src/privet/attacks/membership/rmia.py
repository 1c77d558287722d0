"""RMIA: is the target surer of this record than models are on average, and by more than of other records?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privet.attacks.membership.shadow_matrix import Bools, Floats, ShadowMatrix, left_out
from privet.errors import ArgumentError, DataError

__all__ = ["RmiaScores", "rmia", "rmia_rotated"]

_LEAST = -700.0  # log-odds below which a probability counts as e^-700, for float64 has no much smaller one


@dataclass(frozen=True, eq=False)
class RmiaScores:
    """How much surer the target is of each record than models are on average.

    Attributes:
        log_ratio: log p(x | target) - log p(x), the score to rank by; (P,), rotated (K, P).
        p_value_share: the share of reference records whose ratio is at most the record's divided by gamma; of the same
            shape.
    """

    log_ratio: Floats
    p_value_share: Floats

    @property
    def ratio(self) -> Floats:
        """The likelihood ratio p(x | target) / p(x)."""
        ratio: Floats = np.exp(self.log_ratio)
        return ratio


def rmia(
    signals: NDArray[Any],
    membership: Bools,
    target: NDArray[Any],
    *,
    reference: Bools | None = None,
    gamma: float = 2.0,
    offline: float | None = None,
) -> RmiaScores:
    r"""Score each record by the target's probability of its label over that of models on average.

    .. math::
        r(x) = \frac{p(x \mid \theta)}{p(x)}, \quad
        p(x) = \frac{\bar p_{in}(x) + \bar p_{out}(x)}{2}, \quad
        s(x) = \frac{|\{z : r(x) / r(z) \ge \gamma\}|}{|\{z\}|}, \quad p = \frac{1}{1 + e^{-\phi}}

    Offline, without models trained on the record, :math:`p(x) = ((1 + a) \bar p_{out}(x) + 1 - a) / 2`. Of several
    queries the mean of log r is taken. The pairs are never formed: the ratios of the reference records are sorted once.

    Args:
        signals: scaled confidences of K shadows (K, P) or, of Q queries a record, (K, P, Q).
        membership: (K, P) bool; shadow k was trained on record p.
        target: the target's own signals (P,) or (P, Q).
        reference: (P,) bool; which records are compared with; None: all. It must not depend on what is to be found out,
            whether the target was trained on them.
        gamma: by which factor a record must be above another one, at least 1.
        offline: a in [0, 1]; None: online.

    Returns:
        The log ratios and the shares (P,); higher means "member".

    Raises:
        ArgumentError: if ``gamma`` or ``offline`` is out of range.
        DataError: if shapes do not fit together, a signal is NaN or infinite, the target is one of the shadows, a
            record has no IN or no OUT shadow, or there is no reference record.

    Example:
        >>> signals = np.array([[3.0, -1.0], [-1.0, 3.0]])
        >>> scores = rmia(signals, np.array([[True, False], [False, True]]), np.array([2.0, -1.0]))
        >>> scores.ratio.round(3), scores.p_value_share
        (array([1.442, 0.44 ]), array([0.5, 0. ]))

    References:
        Zarifzadeh, Liu, Shokri, "Low-cost high-power membership inference attacks", 2024, sections 2 and 3.
    """
    matrix = ShadowMatrix.checked(signals, membership)
    asked = matrix.target(target)
    matrix.need(0 if offline is not None else 1, 1)
    others = _checked(matrix, reference, gamma, offline)
    log_ratio = np.zeros(matrix.shape[1])
    for query in range(matrix.shape[2]):
        sums = _sums(matrix.signals[:, :, query], matrix.membership)
        log_ratio += _log_probability(asked[:, query]) - np.log(_average(sums, offline))
    log_ratio /= matrix.shape[2]
    return RmiaScores(log_ratio, _share(log_ratio, others, gamma))


def rmia_rotated(
    signals: NDArray[Any],
    membership: Bools,
    blocks: NDArray[Any],
    *,
    reference: Bools | None = None,
    gamma: float = 2.0,
    offline: float | None = None,
) -> RmiaScores:
    """Score each record with every shadow in turn as the target, its whole block left out of the average.

    Args:
        signals: as for :func:`rmia`.
        membership: as for :func:`rmia`.
        blocks: (K,) integers; shadows of one number are left out together (see
            :func:`~privet.attacks.membership.lira.lira_rotated`). At least two blocks.
        reference: as for :func:`rmia`.
        gamma: as for :func:`rmia`.
        offline: as for :func:`rmia`.

    Returns:
        The log ratios and the shares (K, P); row k are those of shadow k as the target.

    Raises:
        ArgumentError: as for :func:`rmia`.
        DataError: as for :func:`rmia`, also after any one block is left out; or if a block's IN shadows tell how many
            others there are.

    Example:
        >>> signals = np.array([[3.0, -1.0], [-1.0, 3.0], [2.0, 0.0], [0.0, 2.0]])
        >>> membership = np.array([[True, False], [False, True], [True, False], [False, True]])
        >>> (rmia_rotated(signals, membership, np.array([0, 0, 1, 1])).ratio > 1) == membership
        array([[ True,  True],
               [ True,  True],
               [ True,  True],
               [ True,  True]])
    """
    matrix = ShadowMatrix.checked(signals, membership)
    rows = matrix.blocks(blocks)
    matrix.need(0 if offline is not None else 1, 1, rows)
    others = _checked(matrix, reference, gamma, offline)
    log_ratio = np.zeros(matrix.shape[:2])
    for query in range(matrix.shape[2]):
        values = matrix.query(query)
        parts = [_sums(values[row], matrix.membership[row]) for row in rows]
        for row, rest in zip(rows, left_out(parts, np.add), strict=True):
            log_ratio[row] += _log_probability(values[row]) - np.log(_average(rest, offline))
    log_ratio /= matrix.shape[2]
    return RmiaScores(log_ratio, np.stack([_share(row, others, gamma) for row in log_ratio]))


def _checked(matrix: ShadowMatrix, reference: Bools | None, gamma: float, offline: float | None) -> Bools:
    """The reference records, if all arguments are within what is allowed."""
    if not (math.isfinite(gamma) and gamma >= 1.0):
        raise ArgumentError("gamma", gamma, "a finite number of at least 1")
    if offline is not None and not 0.0 <= offline <= 1.0:
        raise ArgumentError("offline", offline, "a number from 0 to 1, or None")
    records = matrix.shape[1]
    others = np.ones(records, np.bool_) if reference is None else np.asarray(reference)
    if others.dtype != np.bool_ or others.shape != (records,) or not others.any():
        raise DataError(
            f"reference is {others.dtype} of shape {others.shape}, {np.count_nonzero(others)} chosen; "
            f"give bool ({records},) with at least one record chosen."
        )
    return others


def _sums(phi: NDArray[Any], membership: Bools) -> Floats:
    """Of the probabilities: IN sum and count, OUT sum and count (4, P)."""
    sums = np.zeros((4, phi.shape[1]))
    sums[1] = membership.sum(0)
    sums[3] = len(membership) - sums[1]
    for row, inside in zip(phi, membership, strict=True):  # a row at a time stays in the cache
        p = np.maximum(row, _LEAST, dtype=np.float64)
        p = 1.0 / (1.0 + np.exp(-p))
        p_in = p * inside
        sums[0] += p_in
        p -= p_in  # exactly p or 0
        sums[2] += p
    return sums


def _average(sums: Floats, offline: float | None) -> Floats:
    outside = sums[2] / sums[3]
    if offline is not None:
        average: Floats = 0.5 * ((1.0 + offline) * outside + (1.0 - offline))
    else:
        average = 0.5 * (sums[0] / sums[1] + outside)
    return average


def _share(log_ratio: Floats, reference: Bools, gamma: float) -> Floats:
    others = np.sort(log_ratio[reference])
    share: Floats = np.searchsorted(others, log_ratio - math.log(gamma), side="right") / len(others)
    return share


def _log_probability(phi: Floats) -> Floats:
    phi = np.maximum(phi, _LEAST)
    log_probability: Floats = np.minimum(phi, 0.0) - np.log1p(np.exp(-np.abs(phi)))
    return log_probability
