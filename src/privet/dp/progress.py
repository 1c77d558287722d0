"""How far a private training is, in released values only: steps, clip norm, epsilon spent and left."""

from __future__ import annotations

import math
import textwrap
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from privet.accounting.events import Event
from privet.accounting.pld import PLD
from privet.dp.plan import Plan
from privet.dp.statement import Statement

__all__ = ["Outlook", "Reached", "Show", "announce", "shown", "wrapped"]

_MARKS = 40
_QUICK = PLD(width=0.01, nodes=8)  # a percent or so above the headline's, in a tenth of the time


@dataclass(frozen=True)
class Reached:
    """Where a private training is. Nothing in it looked at the data but through the noise.

    Attributes:
        step: steps taken.
        total_steps: of the plan.
        epoch: passes over the data that are complete, counted in expected batches.
        max_grad_norms: what the next step clips each group to.
        epsilon: not more is spent by now, with all that the ledger held before; computed at some steps and, between
            them, that of the next.
        delta: of the plan.
        budget: what may be spent, if there is a limit.
        test_run: whether the run is seeded, so that it protects nobody.
    """

    step: int
    total_steps: int
    epoch: int
    max_grad_norms: tuple[float, ...]
    epsilon: float
    delta: float
    budget: float | None
    test_run: bool

    @property
    def left(self) -> float | None:
        """What of the budget is left at least."""
        return None if self.budget is None else max(self.budget - self.epsilon, 0.0)

    def __str__(self) -> str:
        low, high = min(self.max_grad_norms), max(self.max_grad_norms)
        norms = f"{low:.3g}" if low == high else f"{low:.2g}..{high:.2g}"
        left = "" if self.left is None else f" ({_down(self.left)} left)"
        return f"{'TEST ' if self.test_run else ''}clip {norms}  eps <= {_up(self.epsilon)}{left}"


class Outlook:
    """Epsilon over the course of a run, bounded from above at some steps and looked up at all.

    Args:
        plan: what is run.
        spent: what the ledger held when it began, or was taken up again.
        start: the step it begins with.
    """

    def __init__(self, plan: Plan, spent: Sequence[Event], start: int) -> None:
        """Choose the steps; each is computed when it is reached."""
        self._plan, self._spent, self._start = plan, list(spent), start
        more = plan.total_steps - start
        shares = [(mark / _MARKS) for mark in range(1, _MARKS + 1)]
        shares += [2.0**-power for power in range(6, 12)]
        self._marks = sorted({start + max(1, math.ceil(more * share)) for share in shares} | {start, plan.total_steps})
        self._known: dict[int, float] = {}

    def upper(self, step: int) -> float:
        """Epsilon after ``step`` steps of the plan is not above this."""
        mark = self._marks[bisect_left(self._marks, step)]
        if mark not in self._known:
            plan, events = self._plan, [*self._spent, *self._plan.events(self._start, mark)]
            if isinstance(plan.accountant, PLD):
                found = _QUICK.upper_epsilon(events, plan.delta, plan.relation) if events else 0.0
            else:
                found = plan.upper_epsilon(events) if events else 0.0
            self._known[mark] = found if plan.budget is None else min(found, plan.budget)
        return self._known[mark]


Show = Callable[[Reached], None]


@contextmanager
def shown(progress: bool | Show, total_steps: int) -> Iterator[Show | None]:
    """Show a bar while inside; nothing where ``progress`` is false or the error output is no terminal.

    Args:
        progress: whether to show a bar, or what is called instead after every step.
        total_steps: of the plan.

    Yields:
        What to call after every step, or None if nobody looks.

    Example:
        >>> with shown(False, 10) as show:
        ...     show is None
        True
    """
    if not isinstance(progress, bool):
        yield progress
        return
    console = Console(stderr=True)
    if not progress or not (console.is_terminal or console.is_jupyter):
        yield None
        return
    columns = (
        TextColumn("step {task.completed:,.0f}/{task.total:,.0f}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, expand=True) as bar:
        task = bar.add_task("", total=total_steps)
        yield lambda reached: bar.update(task, completed=reached.step, description=str(reached))


def announce(statement: Statement) -> None:
    """Print a statement where the bar was, if there was one."""
    console = Console(stderr=True)
    if console.is_terminal or console.is_jupyter:
        print(wrapped(statement, console.width), file=console.file)


def wrapped(statement: Statement, width: int) -> str:
    """A statement in lines of at most ``width`` characters, its texts in a column of their own."""
    margin = " " * 14
    lines = (
        textwrap.fill(line, max(width, 40), subsequent_indent=margin, break_long_words=False, break_on_hyphens=False)
        for line in str(statement).splitlines()
    )
    return "\n".join(lines)


def _up(value: float) -> str:
    """Rounded up: what is shown holds."""
    return f"{math.ceil(value * 1e3) / 1e3:.3f}" if math.isfinite(value) else "unbounded"


def _down(value: float) -> str:
    return f"{math.floor(value * 1e3) / 1e3:.3f}"
