"""Epsilon over the course of a run whose plan is known."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from privet.accounting.bound import Bound
from privet.accounting.events import Event, NeighbouringRelation, check_delta
from privet.accounting.monitor import Accountant
from privet.accounting.pld import PLD, first_steps
from privet.errors import ArgumentError

__all__ = ["Trajectory"]


@dataclass(frozen=True)
class Trajectory:
    """Epsilon after any step of a run whose plan is known: computed at some steps, looked up at all.

    Epsilon only grows, so the upper end at a later step and the lower end at an earlier one hold. At the marks
    themselves the bracket is the accountant's.

    Attributes:
        marks: numbers of steps, rising, from 0 to that of the run.
        lower: the lower ends there.
        upper: the upper ends there.

    Example:
        >>> from privet.accounting.events import Poisson
        >>> trajectory = Trajectory.of([Event(1.1, Poisson(0.01), count=1_000)], delta=1e-5, marks=8)
        >>> print(trajectory.at(1_000))
        <= 1.516 (not below 1.515)
        >>> trajectory.at(900).upper <= trajectory.at(1_000).upper
        True
    """

    marks: tuple[int, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    @classmethod
    def of(
        cls,
        events: Sequence[Event],
        delta: float,
        accountant: Accountant | None = None,
        relation: NeighbouringRelation = NeighbouringRelation.ADD_OR_REMOVE_ONE,
        marks: int = 64,
    ) -> Self:
        """Compute it.

        Args:
            events: the plan, in order.
            delta: in (0, 1).
            accountant: PLD if not given; asked once a mark.
            relation: to which the events' noise multipliers belong.
            marks: about how many, at least 2; a third of them geometric, the rest evenly.

        Raises:
            ArgumentError: if a value is out of range.
        """
        check_delta(delta)
        if marks < 2:
            raise ArgumentError("marks", marks, "a whole number of at least 2")
        total = sum(event.count for event in events)
        even = np.linspace(0, total, marks - marks // 3)
        early = np.geomspace(1.0, max(even[1], 1.0), marks // 3)
        chosen = sorted({min(int(mark), total) for mark in np.round(np.concatenate((even, early)))})
        by = accountant or PLD()
        bounds = [by.epsilon(first_steps(events, mark), delta, relation) for mark in chosen]
        lower = np.maximum.accumulate([bound.lower for bound in bounds])
        upper = np.minimum.accumulate([bound.upper for bound in bounds][::-1])[::-1]
        return cls(tuple(chosen), tuple(lower.tolist()), tuple(upper.tolist()))

    def at(self, step: int) -> Bound:
        """Epsilon after the first ``step`` steps.

        Raises:
            ArgumentError: if there are not so many steps.
        """
        if not 0 <= step <= self.marks[-1]:
            raise ArgumentError("step", step, f"a whole number from 0 to {self.marks[-1]}")
        following, before = bisect_left(self.marks, step), bisect_right(self.marks, step) - 1
        return Bound(self.lower[before], self.upper[following])
