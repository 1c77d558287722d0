"""LiRA: is what the target says about a record likelier of models trained on it, or of models that were not?"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from privet.attacks.membership.likelihoods import (
    cell_of,
    normal_log_density,
    normal_log_mass,
    student_log_density,
    student_log_mass,
    unit_of,
)
from privet.attacks.membership.neighbours import LEAST_VARIANCE, Fit, fit_among_neighbours
from privet.attacks.membership.query_weights import query_weights
from privet.attacks.membership.shadow_matrix import Bools, Floats, Moments, ShadowMatrix, left_out
from privet.errors import ArgumentError
from privet.output_form import OutputForm

__all__ = ["Variance", "lira", "lira_rotated"]

_EVERYTHING = OutputForm()


class Variance(Enum):
    """Where the law of a record's signals comes from.

    * ``PER_RECORD``: a normal law of the record's own mean and variance; steady from some 64 shadows on.
    * ``SHARED``: a normal law of the record's own mean and one variance within records for all of them.
    * ``NEIGHBOURS``: Student's law with four degrees of freedom; mean and variance are drawn towards those of records
      whose signals are about as high, the more the fewer shadows there are, and a signal above the mean of models
      trained on the record counts as that mean, for being surer than they are is no evidence against membership.
    """

    PER_RECORD = "per record"
    SHARED = "shared"
    NEIGHBOURS = "neighbours"


def lira(
    signals: NDArray[Any],
    membership: Bools,
    target: NDArray[Any],
    *,
    variance: Variance | None = None,
    offline: bool = False,
    form: OutputForm = _EVERYTHING,
) -> Floats:
    r"""Score each record by the likelihood ratio of what the target says about it.

    .. math:: s(x) = \sum_q w_q \log \frac{f(\phi_q \mid \text{trained on } x)}{f(\phi_q \mid \text{not})}

    The weights are 1/Q, but with ``NEIGHBOURS`` they are learned from the shadows (Fisher's discriminant, at least 0),
    for a mean over queries that tell less than the record itself is worse than asking once.

    Offline, without models trained on the record: :math:`s(x) = -\frac1Q \sum_q \log(1 - \Phi(z_q))`,
    :math:`z = (\phi - \mu_{out}) / \sigma_{out}`.

    Where the target's probabilities are rounded, f is the probability of the cell :math:`[p - u/2, p + u/2]` in
    log-odds, with open ends at 0 and 1, and offline the tail begins at the cell's lower end. The laws may come from
    shadows behind the same defense or from their full answers, which the attacker has: the latter is as strong or a
    little stronger. No variance is taken to be below 10^-4.

    Args:
        signals: scaled confidences of K shadows (K, P) or, of Q queries a record, (K, P, Q).
        membership: (K, P) bool; shadow k was trained on record p.
        target: the target's own signals (P,) or (P, Q).
        variance: whose law a record's signals follow; None: ``NEIGHBOURS``, offline ``SHARED``. With 8
            shadows of an over-fitted MLP that finds most of what one variance a record finds with 64: docs/attacks.md.
        offline: use only shadows that were not trained on the record.
        form: what the target lets out.

    Returns:
        (P,); higher means "member".

    Raises:
        ArgumentError: if ``NEIGHBOURS`` is asked for offline, or the form answers labels alone.
        DataError: if shapes do not fit together, a signal is NaN or infinite, the target is one of the shadows, or a
            record has no IN or no OUT shadow (with ``PER_RECORD`` fewer than two).

    Example:
        >>> signals = np.array([[3.0, 1.0], [1.0, 4.0], [3.2, 0.8], [0.9, 4.1]])
        >>> membership = np.array([[True, False], [False, True], [True, False], [False, True]])
        >>> lira(signals, membership, np.array([3.1, 0.9])) > 0
        array([ True, False])

    References:
        Carlini, Chien, Nasr, Song, Terzis, Tramer, "Membership inference attacks from first principles", 2022,
        sections V and VI. Efron and Morris, "Stein's estimation rule and its competitors", 1973, for ``NEIGHBOURS``.
    """
    matrix = ShadowMatrix.checked(signals, membership)
    asked = matrix.target(target)
    chosen = _chosen(matrix, variance, offline)
    unit = unit_of(form)
    weights = _weights(matrix.signals, matrix.membership, chosen, unit)
    score = np.zeros(matrix.shape[1])
    for query in np.flatnonzero(weights).tolist():
        values = matrix.query(query)
        outside = Moments.of(values, ~matrix.membership)
        inside = None if offline else Moments.of(values, matrix.membership)
        score += weights[query] * _score(asked[:, query], inside, outside, chosen, unit)
    return score


def lira_rotated(
    signals: NDArray[Any],
    membership: Bools,
    blocks: NDArray[Any],
    *,
    targets: NDArray[Any] | None = None,
    variance: Variance | None = None,
    offline: bool = False,
    form: OutputForm = _EVERYTHING,
) -> Floats:
    """Score each record with every shadow in turn as the target, its whole block left out of the fit.

    Within a block the memberships complete each other: if only the shadow itself were left out, the number of IN
    shadows that remain would tell whether it was trained on the record.

    Args:
        signals: as for :func:`lira`.
        membership: as for :func:`lira`.
        blocks: (K,) integers; shadows of one number are left out together. At least two blocks.
        targets: what each shadow says as the target, of the shape of ``signals``: its answers behind the defense, where
            ``signals`` are its full ones; None: ``signals``.
        variance: as for :func:`lira`.
        offline: as for :func:`lira`.
        form: as for :func:`lira`.

    Returns:
        (K, P); row k are the scores of shadow k as the target, to be compared with ``membership[k]``.

    Raises:
        ArgumentError: as for :func:`lira`.
        DataError: as for :func:`lira`, also after any one block is left out; or if a block's IN shadows tell how many
            others there are.

    Example:
        >>> signals = np.array([[3.0, 1.0], [1.0, 4.0], [3.2, 0.8], [0.9, 4.1]])
        >>> membership = np.array([[True, False], [False, True], [True, False], [False, True]])
        >>> (lira_rotated(signals, membership, np.array([0, 0, 1, 1])) > 0) == membership
        array([[ True,  True],
               [ True,  True],
               [ True,  True],
               [ True,  True]])
    """
    matrix = ShadowMatrix.checked(signals, membership)
    asked = matrix if targets is None else matrix.alike(targets)
    rows = matrix.blocks(blocks)
    chosen = _chosen(matrix, variance, offline, rows)
    unit = unit_of(form)
    score = np.zeros(matrix.shape[:2])
    weights = [_weights(*matrix.without(row), chosen, unit) for row in rows]
    for query in range(matrix.shape[2]):
        values = matrix.query(query)
        outside = left_out([Moments.of(values[row], ~matrix.membership[row]) for row in rows], Moments.merged)
        inside = left_out([Moments.of(values[row], matrix.membership[row]) for row in rows], Moments.merged)
        answers = asked.query(query)
        for index, row in enumerate(rows):
            one = _score(answers[row], None if offline else inside[index], outside[index], chosen, unit)
            score[row] += weights[index][query] * one
    return score


def _chosen(
    matrix: ShadowMatrix, variance: Variance | None, offline: bool, rotated: list[NDArray[np.intp]] | None = None
) -> Variance:
    """The variance to use, if every record has the shadows it needs."""
    if variance is None:
        variance = Variance.SHARED if offline else Variance.NEIGHBOURS
    elif not isinstance(variance, Variance):
        raise ArgumentError("variance", variance, "Variance.PER_RECORD, SHARED or NEIGHBOURS, or None")
    if offline and variance is Variance.NEIGHBOURS:
        raise ArgumentError("variance", variance, "Variance.PER_RECORD or SHARED where offline=True")
    least = 2 if variance is Variance.PER_RECORD else 1
    matrix.need(0 if offline else least, least, rotated or ())
    return variance


def _weights(signals: NDArray[Any], membership: Bools, variance: Variance, unit: float | None) -> Floats:
    if variance is not Variance.NEIGHBOURS:
        return np.full(signals.shape[2], 1.0 / signals.shape[2])

    def log_ratios(signals: NDArray[Any], inside: Bools, outside: Bools) -> Floats:
        found = np.empty(signals.shape)
        for query in range(signals.shape[2]):
            values = signals[:, :, query].astype(np.float64)
            fits = Moments.of(values, inside), Moments.of(values, outside)
            found[:, :, query] = _score(values, *fits, variance, unit)
        return found

    return query_weights(signals, membership, log_ratios)


def _score(value: Floats, inside: Moments | None, outside: Moments, variance: Variance, unit: float | None) -> Floats:
    """Scores (..., P) of the target's signals (..., P)."""
    if inside is None:
        from_here = value if unit is None else cell_of(value, unit)[0]
        score: Floats = -log_ndtr((outside.mean - from_here) / np.sqrt(_variance(outside, variance)))
        return score
    if variance is Variance.NEIGHBOURS:
        fit = fit_among_neighbours(inside, outside)
        return _log_ratio(
            value, fit, unit, student_log_density, student_log_mass, np.maximum(fit.mean_in, fit.mean_out)
        )
    fit = Fit(inside.mean, _variance(inside, variance), outside.mean, _variance(outside, variance))
    return _log_ratio(value, fit, unit, normal_log_density, normal_log_mass)


def _log_ratio(
    value: Floats,
    fit: Fit,
    unit: float | None,
    log_density: Callable[[Floats], Floats],
    log_mass: Callable[[Floats, Floats], Floats],
    most: Floats | None = None,
) -> Floats:
    """Log of the likelihood with the record over that without it; what lies above ``most`` is moved down to it."""
    scale_in, scale_out = np.sqrt(fit.variance_in), np.sqrt(fit.variance_out)
    if unit is None:
        value = value if most is None else np.minimum(value, most)
        density_in, density_out = (value - fit.mean_in) / scale_in, (value - fit.mean_out) / scale_out
        return log_density(density_in) - log_density(density_out) + np.log(scale_out / scale_in)
    low, high = cell_of(value, unit)
    if most is not None:  # a cell without upper end holds everything surer already
        down = np.where(np.isinf(high), 0.0, np.minimum(most - value, 0.0))
        low, high = low + down, high + down
    mass_in = log_mass((low - fit.mean_in) / scale_in, (high - fit.mean_in) / scale_in)
    return mass_in - log_mass((low - fit.mean_out) / scale_out, (high - fit.mean_out) / scale_out)


def _variance(moments: Moments, variance: Variance) -> Floats:
    """Each record's own variance, or one within all records; where none has two shadows, between the records."""
    if variance is Variance.PER_RECORD:
        return np.maximum(moments.squares / (moments.count - 1), LEAST_VARIANCE)
    free = int((moments.count - 1).sum())
    shared = float(moments.squares.sum()) / free if free else float(np.var(moments.mean))
    return np.full_like(moments.mean, max(shared, LEAST_VARIANCE))
