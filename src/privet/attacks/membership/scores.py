"""What every membership attack brings: a score for each record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privet.errors import DataError
from privet.statistics.roc import checked_scores

__all__ = ["MembershipScores"]


@dataclass(frozen=True, eq=False)
class MembershipScores:
    """The evidence of a membership attack: one score a record, higher meaning "member".

    An attack that learns scores only records that it did not learn from; ``member_rows`` and ``non_member_rows`` then
    say which of the given ones these are.

    Attributes:
        attack: the attack's name.
        members: scores of records that were trained on (m,); infinite ones are allowed, NaN is not.
        non_members: scores of records that were not (n,).
        member_rows: which of the given members the scores are about (m,), counted from 0, none twice; None: all, in
            order.
        non_member_rows: the same for the non-members (n,).

    Raises:
        DataError: if there are no scores on a side, they are not one number a record, one is NaN, or the rows do not
            fit them.

    Example:
        >>> MembershipScores("loss threshold", np.array([-0.1, -0.4]), np.array([-2.0])).members.mean()
        np.float64(-0.25)
    """

    attack: str
    members: NDArray[np.float64]
    non_members: NDArray[np.float64]
    member_rows: NDArray[np.intp] | None = None
    non_member_rows: NDArray[np.intp] | None = None

    def __post_init__(self) -> None:
        for side in ("member", "non_member"):
            scores = checked_scores(f"{self.attack}: {side.replace('_', '-')} scores", getattr(self, f"{side}s"))
            object.__setattr__(self, f"{side}s", scores)
            if (given := getattr(self, f"{side}_rows")) is not None:
                rows = np.asarray(given)
                fit = rows.shape == scores.shape and rows.dtype.kind in "iu"
                if not fit or rows.min() < 0 or len(np.unique(rows)) != len(rows):
                    raise DataError(
                        f"{self.attack}: {side}_rows are not {len(scores)} different row numbers; give one a score."
                    )
                object.__setattr__(self, f"{side}_rows", rows.astype(np.intp))
