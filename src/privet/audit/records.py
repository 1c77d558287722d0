"""Which records stand out: every record by its score, with the false positive rate at which it is caught."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privet.errors import ArgumentError, DataError
from privet.statistics import Estimate, clopper_pearson
from privet.statistics.roc import checked_scores

if TYPE_CHECKING:
    from privet.audit.result import AuditResult

__all__ = ["Record", "Records", "rank_records", "records_of"]


@dataclass(frozen=True)
class Record:
    """One record and what it takes to catch it.

    Attributes:
        row: its place among the members, or among the non-members, as they were given.
        is_member: True if the model was trained on it.
        score: the attack's score, higher meaning "member".
        caught_at: the share of non-members that score as high or higher: the false positive rate of an attacker who
            lowers the threshold just far enough to call this record a member.
    """

    row: int
    is_member: bool
    score: float
    caught_at: Estimate


@dataclass(frozen=True, eq=False)
class Records:
    """Records ordered by one attack's score, the highest first; of equal scores, the order they were given in.

    Attributes:
        attack: the attack that scored them.
        rows: each record's place in its own set as given, (n,).
        is_member: (n,) bool.
        scores: (n,), falling.
        above: how many non-members score as high or higher, (n,); a non-member counts itself.
        members: how many members were scored in all, M.
        non_members: how many non-members were scored in all, N.
        confidence: of each record's interval by itself, in (0, 1).
    """

    attack: str
    rows: NDArray[np.intp]
    is_member: NDArray[np.bool_]
    scores: NDArray[np.float64]
    above: NDArray[np.intp]
    members: int
    non_members: int
    confidence: float

    def __len__(self) -> int:
        return int(self.rows.size)

    def __iter__(self) -> Iterator[Record]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, place: int) -> Record:
        caught = clopper_pearson(int(self.above[place]), self.non_members, self.confidence)
        return Record(int(self.rows[place]), bool(self.is_member[place]), float(self.scores[place]), caught)

    def top(self, count: int) -> Records:
        """The members that stand out most.

        Some member always scores highest, also where nothing leaks: compare with :meth:`expected_by_chance`.

        Args:
            count: how many, at least 1; fewer come back if there are fewer members.

        Returns:
            Members alone, the highest score first.

        Raises:
            ArgumentError: if ``count`` is not a whole number of at least 1.
        """
        if count < 1 or int(count) != count:
            raise ArgumentError("count", count, "a whole number of at least 1")
        chosen = np.flatnonzero(self.is_member)[: int(count)]
        return Records(
            self.attack,
            self.rows[chosen],
            self.is_member[chosen],
            self.scores[chosen],
            self.above[chosen],
            self.members,
            self.non_members,
            self.confidence,
        )

    def expected_by_chance(self, place: int) -> float:
        r"""How many members would score as high as this record if members scored like non-members.

        .. math:: M \frac{a + 1}{N + 1}

        with a of the N non-members at or above the score.
        """
        return float(self.members * (self.above[place] + 1) / (self.non_members + 1))


def records_of(result: AuditResult) -> Records:
    """The records of an audit, ranked by its headline attack; each interval at the confidence of the audit."""
    scores = result.attack(result.headline).scores
    return rank_records(
        scores.attack,
        scores.members,
        scores.non_members,
        member_rows=scores.member_rows,
        non_member_rows=scores.non_member_rows,
        confidence=result.confidence,
    )


def rank_records(
    attack: str,
    member_scores: ArrayLike,
    non_member_scores: ArrayLike,
    *,
    member_rows: ArrayLike | None = None,
    non_member_rows: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Records:
    """Order records by score and count, for each, the non-members at or above it.

    Members have no part in the count, so for a member it is binomial given the score and its Clopper-Pearson interval
    is exact. Ties count against the attacker. The interval is each record's own, not joint over all of them.

    Args:
        attack: the attack's name.
        member_scores: (M,), M >= 1; higher means member.
        non_member_scores: (N,), N >= 1.
        member_rows: (M,) which of the given members were scored; None: all, in order.
        non_member_rows: (N,) likewise.
        confidence: of each interval, in (0, 1).

    Returns:
        All M + N records, the highest score first.

    Raises:
        DataError: if scores are empty, not a vector, or hold a NaN, or rows and scores differ in number.

    Example:
        >>> records = rank_records("loss threshold", [3.0, 0.5], [2.0, 1.0])
        >>> [(record.row, record.caught_at.value) for record in records.top(2)]
        [(0, 0.0), (1, 1.0)]
    """
    members = checked_scores("member scores", member_scores)
    non_members = checked_scores("non-member scores", non_member_scores)
    scores = np.concatenate((members, non_members))
    order = np.argsort(-scores, kind="stable")
    below = np.searchsorted(np.sort(non_members), scores, side="left")
    rows = np.concatenate(
        (_rows("member_rows", member_rows, members.size), _rows("non_member_rows", non_member_rows, non_members.size))
    )
    is_member = np.arange(scores.size) < members.size
    above = non_members.size - below
    return Records(
        attack,
        rows[order],
        is_member[order],
        scores[order],
        above[order],
        int(members.size),
        int(non_members.size),
        confidence,
    )


def _rows(name: str, rows: ArrayLike | None, size: int) -> NDArray[np.intp]:
    if rows is None:
        return np.arange(size)
    given = np.asarray(rows)
    if given.shape != (size,) or given.dtype.kind not in "iu":
        raise DataError(
            f"{name} are {given.dtype} of shape {given.shape}; give one whole number for each of the {size} scores."
        )
    return given.astype(np.intp)
