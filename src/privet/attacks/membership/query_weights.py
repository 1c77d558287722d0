"""How much each query about a record tells: learned from the shadows alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import nnls

from privet.attacks.membership.shadow_matrix import Bools, Floats

__all__ = ["query_weights"]

_EXAMPLES = 16_000  # shadows times records that the weights are learned from
_RIDGE = 0.01


def query_weights(
    signals: NDArray[Any], membership: Bools, log_ratios: Callable[[NDArray[Any], Bools, Bools], Floats]
) -> Floats:
    r"""The weights with which the queries' log likelihood ratios tell best whether a shadow was trained on a record.

    .. math:: w = \arg\min_{w \ge 0} \tfrac12 w^T C w - w^T d

    with d the difference of the mean log ratios of IN and OUT shadows, and C their covariance within both (Fisher's
    discriminant without negative weights), with a hundredth of its mean diagonal added to the diagonal.

    The ratios of one half of each record's IN and OUT shadows (every other one) are computed from the other half, so
    that a fit never meets what it was fitted to, and its size does not tell which of them a shadow is.

    Args:
        signals: (K, P, Q).
        membership: (K, P).
        log_ratios: maps signals (K, P, Q), and which of them to fit with the record (K, P) and without it (K, P), to
            the log ratios of all (K, P, Q).

    Returns:
        (Q,), at least 0, of sum 1; all equal if the shadows are too few, or no query tells anything.
    """
    shadows, records, queries = signals.shape
    equal = np.full(queries, 1.0 / queries)
    inside = membership.sum(0)
    if queries == 1 or inside.min() < 2 or (shadows - inside).min() < 2:
        return equal
    some = np.unique(np.linspace(0, records - 1, min(records, max(_EXAMPLES // shadows, 1))).round().astype(np.intp))
    signals, membership = signals[:, some], membership[:, some]
    half = np.where(membership, membership.cumsum(0), (~membership).cumsum(0)) % 2 == 1
    ratios = np.where(
        half[:, :, None],
        log_ratios(signals, membership & ~half, ~membership & ~half),
        log_ratios(signals, membership & half, ~membership & half),
    )
    with_it, without = ratios[membership], ratios[~membership]
    covariance = 0.5 * (np.cov(with_it.T) + np.cov(without.T))
    size = float(np.trace(covariance)) / queries
    if not size > 0.0:
        return equal
    root = cholesky(covariance + _RIDGE * size * np.eye(queries))  # upper
    difference = with_it.mean(0) - without.mean(0)
    found, _ = nnls(root, solve_triangular(root, difference, trans="T"))
    weights: Floats = found / found.sum() if found.sum() > 0.0 else equal
    return weights
