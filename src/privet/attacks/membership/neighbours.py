"""What records alike say about one of which few shadows are known: means and variances drawn together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privet.attacks.membership.shadow_matrix import Floats, Moments

__all__ = ["LEAST_VARIANCE", "Fit", "fit_among_neighbours", "groups_of"]

LEAST_VARIANCE = 1e-4
"""No record's log-odds are taken to vary less than this: a hundredth is a quarter of a percent of a probability."""

_GROUPS, _LEAST_RECORDS = 20, 100
_PRIOR = 16.0  # so many shadows' worth of the group's variance are added to a record's own


@dataclass(frozen=True, eq=False)
class Fit:
    """Mean and variance of each record's signals, with it in training or not, each (P,)."""

    mean_in: Floats
    variance_in: Floats
    mean_out: Floats
    variance_out: Floats


def fit_among_neighbours(inside: Moments, outside: Moments) -> Fit:
    r"""Draw each record's fit towards that of records of about the same centre (empirical Bayes).

    With centre :math:`c = (\bar x_{in} + \bar x_{out}) / 2`, step :math:`d = \bar x_{in} - \bar x_{out}` and its
    variance :math:`e = s^2_{in}/n_{in} + s^2_{out}/n_{out}`, where :math:`s^2` is the variance within records of the
    group,

    .. math::
        d' = \bar d + \frac{t}{t + e} (d - \bar d), \qquad t = \max(0, \overline{(d - \bar d)^2 - e}), \qquad
        v = \frac{16 s^2 + \sum (x - \bar x)^2}{16 + n - 1} \left(1 + \frac1n\right)

    with bars over d and t for means over the group. The means are :math:`c \pm d'/2`.

    Args:
        inside: moments of the shadows trained on each record, at least one each.
        outside: those of the others.
    """
    centre, step = 0.5 * (inside.mean + outside.mean), inside.mean - outside.mean
    group = groups_of(centre)
    within_in, within_out = _within(inside, outside, step, group)
    error = within_in / inside.count + within_out / outside.count
    usual = _mean(step, group)
    spread = np.maximum(_mean((step - usual) ** 2 - error, group), 0.0)
    half = 0.5 * (usual + spread / (spread + error) * (step - usual))
    return Fit(centre + half, _variance(inside, within_in), centre - half, _variance(outside, within_out))


def groups_of(centre: Floats) -> NDArray[np.intp]:
    """Up to 20 groups by rank, of at least 50 records where there are so many; equal records are in one group."""
    centre = centre.round(6)  # so that means of equal signals are equal in whatever order they were added
    groups = min(_GROUPS, max(len(centre) // _LEAST_RECORDS, 1))
    ordered = np.sort(centre)
    least = len(centre) / groups / 2.0
    edges, before = [], 0
    for rank in range(1, groups):
        edge = ordered[len(centre) * rank // groups]
        below = int(np.searchsorted(ordered, edge))
        if below - before >= least and len(centre) - below >= least:
            edges.append(edge)
            before = below
    group: NDArray[np.intp] = np.searchsorted(np.array(edges), centre, side="right")
    return group


def _within(inside: Moments, outside: Moments, step: Floats, group: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Variances within records, pooled over each group; between records where none has two shadows of a kind."""
    found = []
    for moments in (inside, outside):
        free = np.bincount(group, moments.count - 1)
        with np.errstate(invalid="ignore"):  # 0 / 0: no record of the group has two shadows of this kind
            found.append(np.where(free > 0, np.bincount(group, moments.squares) / free, np.nan))
    between = np.bincount(group, (step - _mean(step, group)) ** 2)
    expected = np.bincount(group, 1.0 / inside.count + 1.0 / outside.count)
    first, second = found
    pooled_in = np.where(np.isnan(first), second, first)
    pooled_out = np.where(np.isnan(second), first, second)
    last = between / np.maximum(expected, np.finfo(np.float64).tiny)
    pooled = [np.where(np.isnan(each), last, each) for each in (pooled_in, pooled_out)]
    return np.maximum(pooled[0], LEAST_VARIANCE)[group], np.maximum(pooled[1], LEAST_VARIANCE)[group]


def _variance(moments: Moments, within: Floats) -> Floats:
    own: Floats = (_PRIOR * within + moments.squares) / (_PRIOR + moments.count - 1)
    return own * (1.0 + 1.0 / moments.count)


def _mean(values: Floats, group: NDArray[np.intp]) -> Floats:
    """Each record's group's mean (P,)."""
    mean: Floats = (np.bincount(group, values) / np.maximum(np.bincount(group), 1))[group]
    return mean
