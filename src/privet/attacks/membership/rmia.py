"""RMIA: is the target surer of this record than models are on average, compared with other records?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privet.attacks.membership.shadow_matrix import Bools, Floats, ShadowMatrix, left_out

__all__ = ["RmiaScores", "rmia", "rmia_rotated"]


@dataclass(frozen=True, eq=False)
class RmiaScores:
    """Scores.

    Attributes:
        ratio: the score to rank by: p(x | target) / p(x).
        p_value_share: the share of reference records that x beats by a factor gamma.
        log_ratio: its logarithm.
    """

    log_ratio: Floats
    p_value_share: Floats

    @property
    def ratio(self) -> Floats:
        """The likelihood ratio."""
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
    """RMIA."""
    matrix = ShadowMatrix.checked(signals, membership)
    asked = matrix.target(target)
    log_ratio = np.zeros(matrix.shape[1])
    for query in range(matrix.shape[2]):
        sums = _sums(_sigmoid(matrix.query(query)), matrix.membership)
        log_ratio += _log_sigmoid(asked[:, query]) - np.log(_average(sums, offline))
    log_ratio /= matrix.shape[2]
    return RmiaScores(log_ratio, _share(log_ratio, reference, gamma))


def rmia_rotated(
    signals: NDArray[Any],
    membership: Bools,
    blocks: NDArray[Any],
    *,
    reference: Bools | None = None,
    gamma: float = 2.0,
    offline: float | None = None,
) -> RmiaScores:
    """RMIA with every shadow as the target."""
    matrix = ShadowMatrix.checked(signals, membership)
    rows = matrix.blocks(blocks)
    log_ratio = np.zeros(matrix.shape[:2])
    for query in range(matrix.shape[2]):
        values = matrix.query(query)
        parts = [_sums(_sigmoid(values[row]), matrix.membership[row]) for row in rows]
        for row, rest in zip(rows, left_out(parts, np.add), strict=True):
            log_ratio[row] += _log_sigmoid(values[row]) - np.log(_average(rest, offline))
    log_ratio /= matrix.shape[2]
    return RmiaScores(log_ratio, np.stack([_share(row, reference, gamma) for row in log_ratio]))


def _sums(p: Floats, membership: Bools) -> Floats:
    """IN sum, IN count, OUT sum, OUT count (4, P)."""
    inside, outside = np.where(membership, p, 0.0).sum(0), np.where(membership, 0.0, p).sum(0)
    count = membership.sum(0)
    return np.stack([inside, count, outside, len(membership) - count])


def _average(sums: Floats, offline: float | None) -> Floats:
    outside = sums[2] / sums[3]
    if offline is not None:
        average: Floats = 0.5 * ((1.0 + offline) * outside + (1.0 - offline))
    else:
        average = 0.5 * (sums[0] / sums[1] + outside)
    return average


def _share(log_ratio: Floats, reference: Bools | None, gamma: float) -> Floats:
    others = np.sort(log_ratio if reference is None else log_ratio[reference])
    share: Floats = np.searchsorted(others, log_ratio - np.log(gamma), side="right") / len(others)
    return share


def _sigmoid(phi: Floats) -> Floats:
    p: Floats = np.exp(_log_sigmoid(phi))
    return p


def _log_sigmoid(phi: Floats) -> Floats:
    p: Floats = -np.logaddexp(0.0, -phi)
    return p
