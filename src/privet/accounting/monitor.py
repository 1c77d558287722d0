"""The privacy monitor: what is spent, what would be, and a stop before the budget is exceeded; upper ends decide."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Protocol

from privet.accounting.bound import Bound
from privet.accounting.calibration import largest_steps, merged_events
from privet.accounting.events import Event, NeighbouringRelation, Poisson, Sampling, check_delta
from privet.accounting.pld import PLD, first_steps
from privet.errors import ArgumentError, BudgetExceededError

__all__ = ["Accountant", "Monitor", "SpendingContents", "SpendingRecord", "suggest_epochs", "suggest_steps"]

_MOST = 10_000_000


class SpendingRecord(Protocol):
    """What says what was spent, such as :class:`privet.accounting.Ledger`."""

    @property
    def relation(self) -> NeighbouringRelation:
        """Which neighbours the noise multipliers of its events are about."""

    def events(self) -> Sequence[Event]:
        """Everything that counts as spent."""


class SpendingContents(Protocol):
    """The same as plain data, such as :class:`privet.accounting.LedgerContents`."""

    @property
    def relation(self) -> NeighbouringRelation:
        """Which neighbours the noise multipliers of its events are about."""

    @property
    def events(self) -> Sequence[Event]:
        """Everything that counts as spent."""


class Accountant(Protocol):
    """What interprets events: :class:`PLD`, :class:`RDP`, :class:`ZCDP`, or one's own."""

    def epsilon(self, events: Sequence[Event], delta: float, relation: NeighbouringRelation = ...) -> Bound:
        """The bracket around epsilon at ``delta``."""


@dataclass(frozen=True)
class Monitor:
    """A record of what was spent, and a budget.

    Nothing is kept here: each answer is about what the record says when it is asked.

    Attributes:
        ledger: a :class:`Ledger`, its contents, or anything with ``events`` and ``relation``.
        delta: in (0, 1).
        target_epsilon: the budget, > 0; None for no budget.
        accountant: whose answers count; its upper end decides.

    Raises:
        ArgumentError: if a value is out of range.

    Example:
        >>> from privet.accounting import Ledger, NeighbouringRelation
        >>> ledger = Ledger.in_memory(NeighbouringRelation.ADD_OR_REMOVE_ONE, unit="example")
        >>> step = Event(1.1, Poisson(0.01))
        >>> monitor = Monitor(ledger, delta=1e-5, target_epsilon=1.0)
        >>> steps = ledger.begin_run("plan").reserve([step] * 100)
        >>> print(monitor.spent())
        <= 0.550 (not below 0.549)
        >>> monitor.steps_left(step)
        321
    """

    ledger: SpendingRecord | SpendingContents
    delta: float
    target_epsilon: float | None = None
    accountant: Accountant = field(default_factory=PLD)

    def __post_init__(self) -> None:
        check_delta(self.delta)
        if self.target_epsilon is not None:
            _check_target(self.target_epsilon)
        if not hasattr(self.ledger, "events") or not isinstance(
            getattr(self.ledger, "relation", None), NeighbouringRelation
        ):
            raise ArgumentError("ledger", self.ledger, "a Ledger, its contents, or what has events and a relation")

    def spent(self) -> Bound:
        """What the record says now."""
        return self.accountant.epsilon(self._events(), self.delta, self.ledger.relation)

    def would_spend(self, events: Event | Sequence[Event]) -> Bound:
        """What it will say after these releases as well; nothing is recorded."""
        after = [*self._events(), *_sequence(events)]
        return self.accountant.epsilon(after, self.delta, self.ledger.relation)

    def check(self, events: Event | Sequence[Event]) -> float:
        """Refuse releases that would overspend; call it before they are reserved.

        Returns:
            The upper end of epsilon after them.

        Raises:
            BudgetExceededError: if that is above the budget.
            ArgumentError: if there is no budget.
        """
        target, coming = self._target(), _sequence(events)
        upper = self._upper(coming)
        if upper <= target:
            return upper
        total = sum(event.count for event in coming)
        fitting = largest_steps(lambda steps: self._upper(first_steps(coming, steps)) <= target, total - 1)
        raise BudgetExceededError(
            f"{total:,} more {'step' if total == 1 else 'steps'} would spend epsilon {_up(upper)} at delta "
            f"{self.delta:g}; the budget is {target:g}. Of them {fitting:,} still {'fits' if fitting == 1 else 'fit'}: "
            "stop there, or plan a run with more noise or fewer steps."
        )

    def steps_left(self, event: Event, most: int = _MOST) -> int:
        """The largest number of such releases, at most ``most``, that the budget still allows: the last that fits.

        Args:
            event: one release; its count is not used.
            most: where the search ends.

        Raises:
            ArgumentError: if there is no budget, or ``most`` is negative.
        """
        target = self._target()

        def fits(steps: int) -> bool:
            return self._upper([replace(event, count=steps)]) <= target

        return _last_that_fits(fits, most)

    def _events(self) -> tuple[Event, ...]:
        events = self.ledger.events
        return tuple(events() if callable(events) else events)

    def _target(self) -> float:
        if self.target_epsilon is None:
            raise ArgumentError("target_epsilon", None, "a finite number above 0", "Without a budget nothing is left.")
        return self.target_epsilon

    def _upper(self, coming: Sequence[Event]) -> float:
        return _upper(self.accountant, [*self._events(), *coming], self.delta, self.ledger.relation)


def suggest_steps(
    noise_multiplier_of_step: Callable[[int], float],
    sampling: Sampling,
    delta: float,
    target_epsilon: float,
    most: int = _MOST,
    accountant: Accountant | None = None,
) -> int:
    """The largest number of steps of a schedule that stays within the budget: the last that fits.

    Args:
        noise_multiplier_of_step: a schedule: z of step 0, 1, ...; it may be asked for up to twice as many steps as fit.
        sampling: of each step.
        delta: in (0, 1).
        target_epsilon: > 0.
        most: where the search ends.
        accountant: PLD if not given.

    Raises:
        ArgumentError: if a value is out of range.

    Example:
        >>> suggest_steps(lambda step: 1.1, Poisson(0.01), delta=1e-5, target_epsilon=1.0)
        421
    """
    check_delta(delta)
    target, by = _check_target(target_epsilon), accountant or PLD()
    return _last_that_fits(lambda steps: _plan(noise_multiplier_of_step, steps, sampling, delta, by) <= target, most)


def suggest_epochs(
    noise_multiplier_of_step: Callable[[int], float],
    population: int,
    batch_size: int,
    delta: float,
    target_epsilon: float,
    most: int = 10_000,
    accountant: Accountant | None = None,
) -> int:
    r"""The largest number of whole epochs of :math:`T = \lceil E N / B \rceil` steps that stays within the budget.

    Args:
        noise_multiplier_of_step: a schedule: z of step 0, 1, ...
        population: N records.
        batch_size: B, expected records in a Poisson sample, 1 to N.
        delta: in (0, 1).
        target_epsilon: > 0.
        most: where the search ends.
        accountant: PLD if not given.

    Raises:
        ArgumentError: if a value is out of range.

    Example:
        >>> suggest_epochs(lambda step: 1.1, 60_000, 256, delta=1e-5, target_epsilon=1.0)
        11
    """
    check_delta(delta)
    target, by = _check_target(target_epsilon), accountant or PLD()
    _check_count("population", population)
    _check_count("batch_size", batch_size)
    if batch_size > population:
        raise ArgumentError("batch_size", batch_size, f"at most the population, {population:,}")
    if delta >= 1.0 / population:
        raise ArgumentError("delta", delta, f"a number below one over the population, {1.0 / population:g}")
    sampling = Poisson(batch_size / population)

    def fits(epochs: int) -> bool:
        steps = -(-epochs * population // batch_size)
        return _plan(noise_multiplier_of_step, steps, sampling, delta, by) <= target

    return _last_that_fits(fits, most)


def _plan(noise: Callable[[int], float], steps: int, sampling: Sampling, delta: float, by: Accountant) -> float:
    events = merged_events([noise(step) for step in range(steps)], sampling)
    return _upper(by, events, delta, NeighbouringRelation.ADD_OR_REMOVE_ONE)


def _upper(by: Accountant, events: Sequence[Event], delta: float, relation: NeighbouringRelation) -> float:
    if isinstance(by, PLD):
        return by.upper_epsilon(events, delta, relation)  # in half the time
    return by.epsilon(events, delta, relation).upper


def _last_that_fits(fits: Callable[[int], bool], most: int) -> int:
    """The last number from 0 to ``most`` that fits, looked for from below: what is far beyond it may take long."""
    known = cache(fits)
    reach = 1
    while reach < most and known(reach):
        reach *= 2
    return largest_steps(lambda number: number == 0 or known(number), min(reach, most))


def _sequence(events: Event | Sequence[Event]) -> tuple[Event, ...]:
    chosen = (events,) if isinstance(events, Event) else tuple(events)
    if not all(isinstance(event, Event) for event in chosen):
        raise ArgumentError("events", events, "an Event or a sequence of them")
    return chosen


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(name, value, "a whole number of at least 1")


def _check_target(target: float) -> float:
    if not 0.0 < target < math.inf:
        raise ArgumentError("target_epsilon", target, "a finite number above 0")
    return float(target)


def _up(epsilon: float) -> str:
    """Rounded up, so that it never reads as if it fitted."""
    return f"{math.ceil(epsilon * 1e4) / 1e4:.4f}" if math.isfinite(epsilon) else "without bound"
