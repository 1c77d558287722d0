"""The books of a run: its steps are on the ledger before their noise is drawn, and within the budget."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from privet.accounting.calibration import largest_steps
from privet.accounting.ledger import Ledger
from privet.accounting.run import Run
from privet.dp.plan import Plan
from privet.errors import BudgetExceededError, LedgerError, LedgerMismatchError

__all__ = ["NOT_PRIVATE", "Books", "open_ledger"]

NOT_PRIVATE = "NOT PRIVATE: test run"


def open_ledger(
    ledger: str | Path | Ledger, plan: Plan, expect_head: str | None = None, *, test_run: bool = False
) -> Ledger:
    """The ledger of a run: given, opened, or made where there is no file yet.

    Raises:
        LedgerMismatchError: it is about another neighbouring relation or another privacy unit; or a head is expected
            that it never had; or it holds test runs and this is none, or the other way round.
        LedgerError: it cannot be opened or made.
    """
    if isinstance(ledger, Ledger):
        opened = ledger
    elif Path(ledger).exists() or expect_head is not None:
        opened = Ledger.open(ledger, expect_head=expect_head)
    else:
        return Ledger.create(ledger, plan.relation, plan.unit)
    try:
        if expect_head is not None:
            opened.check_head(expect_head)
        _check_ledger(opened, plan, test_run)
    except BaseException:
        if opened is not ledger:
            opened.close()
        raise
    return opened


def _check_ledger(ledger: Ledger, plan: Plan, test_run: bool) -> None:
    found, wanted = (ledger.relation, ledger.unit), (plan.relation, plan.unit)
    if found != wanted:
        raise LedgerMismatchError(
            f"{ledger.name} is about {found[0].value} of the unit {found[1]!r}, the plan about {wanted[0].value} of "
            f"{wanted[1]!r}; what was spent under one does not add up with the other. Use a ledger of its own."
        )
    if any((run.description == NOT_PRIVATE) is not test_run for run in ledger.contents().runs):
        others = "private runs, and this is a test run" if test_run else "test runs, and this is a private run"
        raise LedgerMismatchError(
            f"{ledger.name} holds {others}; a test run protects nobody, so the two do not add up. Use a ledger of its "
            "own."
        )


class Books:
    """Reserves the steps of one run ahead, block by block, and says how many the budget allows.

    Args:
        ledger: holds what was spent, by this run and by others.
        run: this one.
        plan: its steps.
        ahead: how many steps are reserved at once; a crash costs at most so many that were not drawn.
    """

    def __init__(self, ledger: Ledger, run: Run, plan: Plan, ahead: int) -> None:
        """See the class."""
        self.ledger, self.run = ledger, run
        self._plan, self._ahead = plan, ahead
        self._drawn = run.reserved  # in the ledger's own count of this run
        self._covered = 0  # steps of the plan that are reserved and not drawn, from ``_next`` on
        self._next = 0
        self._known = ("", 0)  # head of the ledger, and the step of the plan that the budget allows to reach

    def last_allowed(self, step: int) -> int:
        """The step of the plan before which training has to stop, seen from ``step``.

        Raises:
            BudgetExceededError: not even ``step`` fits the budget.
        """
        plan, head = self._plan, self.ledger.head
        if plan.budget is None:
            return plan.total_steps
        if self._known[0] != head:
            start = step + self._covered  # the ledger counts these already
            budget, spent = plan.budget, self.ledger.events()

            def fits(more: int) -> bool:
                return plan.upper_epsilon([*spent, *plan.events(start, start + more)]) <= budget

            allowed = start + _last_that_fits(fits, plan.total_steps - start)
            self._known = (head, allowed)
            if allowed <= step < plan.total_steps:
                now = plan.upper_epsilon(spent)
                raise BudgetExceededError(
                    f"{self.ledger.name} says epsilon {now:.4g} is spent at delta {plan.delta:g}; one more step of "
                    f"this plan would exceed its budget of {budget:g}. Nothing was drawn. All runs on a ledger "
                    "add up: for other records use another ledger; for these, plan with a larger budget, or stop here."
                )
        return self._known[1]

    def is_exhausted(self, step: int) -> bool:
        """Whether the budget allows no step from ``step`` on."""
        try:
            return self.last_allowed(step) <= step
        except BudgetExceededError:
            return True

    def before_noise(self, step: int) -> None:
        """Have ``step`` on the disk; only when this returns may its noise be drawn.

        Raises:
            BudgetExceededError: it does not fit the budget.
            LedgerError: it could not be recorded; or the run was taken up by another training.
        """
        self.run.confirm(self.run.settled)  # writes nothing; a forked process may not draw what its parent reserved
        if self._is_taken_over():
            raise LedgerError(
                f"{self.ledger.name}: run {self.run.id} was resumed by another training in this process. Nothing was "
                "drawn. Go on with that one."
            )
        if self._covered and step != self._next:
            self.settle()  # the steps reserved may have more noise than the one that comes
        allowed = self.last_allowed(step)
        if self._covered == 0:
            if step >= allowed:
                raise BudgetExceededError(f"step {step:,} does not fit the budget, or the plan has ended before it.")
            self._reserve(step, allowed)
        self._drawn += 1
        self._covered, self._next = self._covered - 1, step + 1
        if not 0 <= self._covered == self.run.reserved - self._drawn:
            raise LedgerError(f"{self.ledger.name}: step {step:,} is not on it. Nothing was drawn. Please report this.")

    def _reserve(self, step: int, allowed: int) -> None:
        self.run.confirm(self._drawn)
        stop = min(step + self._ahead, allowed)
        reserved = self.run.reserve(self._plan.events(step, stop))
        self._known = (self.ledger.head, allowed)
        self._drawn, self._covered = reserved.start, stop - step

    def settle(self) -> None:
        """Record what was drawn, and give back what was reserved here and will not be.

        Of a run that another training took up nothing is given back: what that one drew cannot be known here.
        """
        taken_over, covered = self._is_taken_over(), self._covered
        self._covered, self._known = 0, ("", 0)
        if taken_over:
            return
        self.run.confirm(self._drawn)
        if covered:
            self.run.release(self._drawn)

    def _is_taken_over(self) -> bool:
        return self.run.settled > self._drawn or self.run.reserved != self._drawn + self._covered


def _last_that_fits(fits: Callable[[int], bool], most: int) -> int:
    """Looked for from below: what is far beyond the budget may take long to account for."""
    known = cache(fits)
    reach = max(1, most // 16)
    while reach < most and known(reach):
        reach *= 2
    return largest_steps(lambda more: more == 0 or known(more), min(reach, most))
