"""Who is exposed more than others: the attack within each group of records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privet.errors import ArgumentError, DataError
from privet.statistics import Estimate, auc_interval, clopper_pearson, tpr_at_fpr
from privet.statistics.estimate import check_confidence

if TYPE_CHECKING:
    from privet.attacks.membership import MembershipScores
    from privet.audit.result import AuditResult

__all__ = ["FEWEST", "SLICE_RATE", "Slice", "checked_columns", "slice_scores", "slices_of"]

FEWEST = 20
"""Members, and non-members, that a group needs before anything is said about it."""

SLICE_RATE = 0.01
"""The false positive rate, on all non-members, whose threshold judges every group."""

_MOST_GROUPS = 1_000
_TESTS = 2  # of each group: the area, and the rate at a rate
_KINDS = "one plain value a record: whole numbers, text or truth values"


@dataclass(frozen=True)
class Slice:
    """What the attack does within one group.

    Attributes:
        column: the property that makes the group.
        group: its value.
        members: how many members of the group were scored.
        non_members: how many non-members of the group were scored.
        auc: the area under the ROC within the group; None where the group is too small.
        tpr: the share of the group's members above the threshold set on all non-members; None where the group is too
            small, or all non-members together have no such threshold.
        fpr: the share of the group's non-members above the same threshold; None where ``tpr`` is.
    """

    column: str
    group: str
    members: int
    non_members: int
    auc: Estimate | None
    tpr: Estimate | None
    fpr: Estimate | None

    @property
    def too_few(self) -> bool:
        """True where the group has fewer than 20 members or non-members, and nothing is said about it."""
        return self.auc is None

    @property
    def leaks(self) -> bool:
        """True where chance, corrected over all groups, does not explain what the attack finds in this one."""
        by_area = self.auc is not None and self.auc.low > 0.5
        by_rate = self.tpr is not None and self.fpr is not None and self.tpr.low > self.fpr.high
        return by_area or by_rate


def checked_columns(columns: object, members: int, non_members: int) -> dict[str, NDArray[Any]]:
    """Check, before any work, the properties by which an audit is to be split.

    Args:
        columns: name -> one value (a whole number, text or truth value) for each record: the M members first, then the
            N non-members; or a pair (values of the members, values of the non-members).
        members: M.
        non_members: N.

    Returns:
        One vector (M + N,) for each name, in the order given.

    Raises:
        ArgumentError: if this is no mapping, a name is not text, or a column has more than 1,000 different values.
        DataError: if a column has another length, holds NaN, or holds what is no plain value.

    Example:
        >>> checked_columns({"class": ([0, 1], [1, 0])}, 2, 2)["class"]
        array([0, 1, 1, 0])
    """
    if not isinstance(columns, Mapping):
        raise ArgumentError("slices", columns, "a mapping from a name to one value a record, such as {'class': labels}")
    checked = {}
    for name, given in columns.items():
        if not isinstance(name, str) or not name.strip():
            raise ArgumentError("slices", name, "a name, as text, for each column")
        checked[name] = _checked_column(f"slices[{name!r}]", given, members, non_members)
    return checked


def _checked_column(name: str, given: Any, members: int, non_members: int) -> NDArray[Any]:
    if isinstance(given, tuple) and len(given) == 2 and not any(np.isscalar(part) for part in given):
        ours, theirs = (_plain(name, part) for part in given)
        if (ours.size, theirs.size) != (members, non_members):
            raise DataError(
                f"{name} has {ours.size} values for the members and {theirs.size} for the non-members; there are "
                f"{members} and {non_members}. Give one value for each."
            )
        values = _plain(name, np.concatenate((ours, theirs)))
    else:
        values = _plain(name, given)
    if values.size != members + non_members:
        raise DataError(
            f"{name} has {values.size} values for {members + non_members} records; give one for each: the {members} "
            f"members first, then the {non_members} non-members."
        )
    if (distinct := np.unique(values).size) > _MOST_GROUPS:
        raise ArgumentError(
            name, f"{distinct:,} different values", f"at most {_MOST_GROUPS:,}", "Sort the values into a few ranges."
        )
    return values


def _plain(name: str, given: Any) -> NDArray[Any]:
    try:
        values = np.asarray(given)
        if values.dtype.kind == "O" and all(isinstance(value, str) for value in values.ravel()):
            values = values.astype(np.str_)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name} cannot be read ({error}); give {_KINDS}.") from None
    if values.dtype.kind not in "biufU" or values.ndim != 1:
        raise DataError(f"{name} is {values.dtype} of shape {values.shape}; give {_KINDS}.")
    if values.dtype.kind == "f" and not np.isfinite(values.astype(np.float64)).all():
        raise DataError(f"{name} holds NaN or infinity; give those records a value of their own.")
    return values


def slices_of(result: AuditResult) -> tuple[Slice, ...]:
    """What the headline attack of an audit finds in each group; see :func:`slice_scores`."""
    scores = result.attack(result.headline).scores
    columns = {name: (values[: result.members], values[result.members :]) for name, values in result.columns.items()}
    return slice_scores(scores, columns, confidence=result.confidence)


def slice_scores(
    scores: MembershipScores,
    columns: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    fpr: float = SLICE_RATE,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Slice, ...]:
    r"""Judge an attack within each group, with one threshold for all and one correction over all.

    The threshold is the attacker's: set once on all non-members, for whoever accuses does not know the group. Given it,
    the shares of a group's members and non-members above it have Clopper-Pearson intervals. With G groups that are
    large enough, in all columns together, and two tests each, every interval is made at confidence

    .. math:: 1 - \frac{1 - c}{2 G},

    so that the whole table raises a false alarm with probability at most 1 - c. Which groups are judged depends on
    their sizes alone.

    Args:
        scores: of the attack.
        columns: name -> values of all given members and of all given non-members.
        fpr: the false positive rate that sets the threshold, in (0, 1).
        confidence: c, of the whole table, in (0, 1).
        seed: of the bootstrap of the areas.

    Returns:
        One for each value of each column, in order; groups of fewer than 20 members or non-members say so.

    Raises:
        ArgumentError: if ``confidence`` or ``fpr`` is out of range.

    References:
        Dunn, "Multiple comparisons among means", 1961. Clopper and Pearson, 1934.
    """
    check_confidence(confidence)
    groups = [group for name, values in columns.items() for group in _groups(name, values, scores)]
    enough = sum(min(members.size, non_members.size) >= FEWEST for *_, members, non_members in groups)
    each = 1.0 - (1.0 - confidence) / (_TESTS * max(enough, 1))
    threshold = _threshold(scores, fpr)
    return tuple(_slice(*group, threshold, each, seed) for group in groups)


_Group = tuple[str, str, NDArray[np.float64], NDArray[np.float64]]


def _groups(name: str, values: tuple[ArrayLike, ArrayLike], scores: MembershipScores) -> list[_Group]:
    """The scores of members and non-members of each group."""
    members, non_members = (np.asarray(part) for part in values)
    if scores.member_rows is not None:
        members = members[scores.member_rows]
    if scores.non_member_rows is not None:
        non_members = non_members[scores.non_member_rows]
    return [
        (name, _written(value), scores.members[members == value], scores.non_members[non_members == value])
        for value in np.unique(np.concatenate((members, non_members)))
    ]


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, np.floating) else str(value)


def _threshold(scores: MembershipScores, fpr: float) -> float | None:
    """The threshold at this rate on all non-members; None where they are too few or too tied to have one."""
    if scores.non_members.size * fpr * (1.0 + 1e-12) < 1.0:
        return None
    rate = tpr_at_fpr(scores.members, scores.non_members, fpr)
    return rate.threshold if rate.reached else None


def _slice(
    column: str,
    group: str,
    members: NDArray[np.float64],
    non_members: NDArray[np.float64],
    threshold: float | None,
    confidence: float,
    seed: int,
) -> Slice:
    if min(members.size, non_members.size) < FEWEST:
        return Slice(column, group, members.size, non_members.size, None, None, None)
    tpr = fpr = None
    if threshold is not None:
        tpr, fpr = (
            clopper_pearson(int(np.count_nonzero(part > threshold)), part.size, confidence)
            for part in (members, non_members)
        )
    auc = auc_interval(members, non_members, seed=seed, confidence=confidence)
    return Slice(column, group, members.size, non_members.size, auc, tpr, fpr)
