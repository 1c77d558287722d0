"""The monitor refuses by the upper end, counts what is spent, and suggests the last number that fits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privet.accounting import (
    PLD,
    RDP,
    ZCDP,
    Bound,
    Event,
    Ledger,
    NeighbouringRelation,
    NoSampling,
    Poisson,
    calibration,
)
from privet.accounting import monitor as monitor_module
from privet.accounting import trajectory as trajectory_module
from privet.accounting.calibration import merged_events
from privet.accounting.monitor import Monitor, suggest_epochs, suggest_steps
from privet.accounting.trajectory import Trajectory
from privet.errors import ArgumentError, BudgetExceededError, UnsupportedEventError

ADD_OR_REMOVE, REPLACE = NeighbouringRelation.ADD_OR_REMOVE_ONE, NeighbouringRelation.REPLACE_ONE
STEP = Event(1.1, Poisson(0.01))


@dataclass(frozen=True)
class PricedSteps:
    """Each release costs 1 / z, known to a fifth above and below: an accountant whose answers are seen by eye."""

    asked: list[NeighbouringRelation] = field(default_factory=list)

    def epsilon(self, events: Sequence[Event], delta: float, relation: NeighbouringRelation = ADD_OR_REMOVE) -> Bound:
        self.asked.append(relation)
        cost = sum(event.count / event.noise_multiplier for event in events)
        return Bound(0.8 * cost, 1.2 * cost)


@dataclass(frozen=True)
class Record:
    spent: tuple[Event, ...] = ()
    relation: NeighbouringRelation = ADD_OR_REMOVE

    def events(self) -> tuple[Event, ...]:
        return self.spent


def law_what_is_spent_counts(make: Callable[..., Monitor]) -> None:
    one = make(Record((Event(1.0, NoSampling(), count=3),)), 1e-5, 10.0, PricedSteps())
    assert one.would_spend(Event(1.0, NoSampling(), count=2)).upper == pytest.approx(6.0)
    assert one.would_spend([]) == one.spent()


def law_the_upper_end_decides(make: Callable[..., Monitor]) -> None:
    # six releases: lower 4.8, upper 7.2; five: upper 6.0
    one = make(Record((Event(1.0, NoSampling(), count=3),)), 1e-5, 6.0, PricedSteps())
    assert one.check(Event(1.0, NoSampling(), count=2)) == pytest.approx(6.0)
    with pytest.raises(BudgetExceededError):
        one.check(Event(1.0, NoSampling(), count=3))


def law_the_last_that_fits(make: Callable[..., Monitor]) -> None:
    for target, left in (
        (6.0, 2),
        (5.99, 1),
        (7.19, 2),
        (3.6, 0),
        (1.0, 0),
        (3.6 + 1.2 * 64, 64),
        (3.6 + 1.2 * 65, 65),
    ):
        one = make(Record((Event(1.0, NoSampling(), count=3),)), 1e-5, target * (1 + 1e-12), PricedSteps())
        assert one.steps_left(Event(1.0, NoSampling())) == left, target
        assert suggest_steps(
            lambda _: 1.0, NoSampling(), 1e-5, target * (1 + 1e-12), accountant=PricedSteps()
        ) == left + (3 if target >= 3.6 else 0)


LAWS = (law_what_is_spent_counts, law_the_upper_end_decides, law_the_last_that_fits)


@pytest.mark.parametrize("law", LAWS)
def test_the_monitor_keeps_the_law(law: Callable[[Callable[..., Monitor]], None]) -> None:
    law(Monitor)


class ForgetsWhatIsSpent(Monitor):
    def would_spend(self, events: Event | Sequence[Event]) -> Bound:
        return self.accountant.epsilon(monitor_module._sequence(events), self.delta, self.ledger.relation)


class ForgetsItWhenChecking(Monitor):
    def _upper(self, coming: Sequence[Event]) -> float:
        return self.accountant.epsilon(coming, self.delta, self.ledger.relation).upper


class ComparesTheLowerEnd(Monitor):
    def _upper(self, coming: Sequence[Event]) -> float:
        return self.accountant.epsilon([*self._events(), *coming], self.delta, self.ledger.relation).lower


class SuggestsTheFirstThatExceeds(Monitor):
    def steps_left(self, event: Event, most: int = 10**7) -> int:
        return super().steps_left(event, most) + 1


@pytest.mark.parametrize(
    ("law", "broken"),
    [
        (law_what_is_spent_counts, ForgetsWhatIsSpent),
        (law_the_upper_end_decides, ForgetsItWhenChecking),
        (law_the_last_that_fits, ForgetsItWhenChecking),
        (law_the_upper_end_decides, ComparesTheLowerEnd),
        (law_the_last_that_fits, SuggestsTheFirstThatExceeds),
        (law_the_last_that_fits, ComparesTheLowerEnd),
    ],
)
def test_the_law_catches_a_broken_monitor(law: Callable[[type], None], broken: type) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        law(broken)


def test_the_law_catches_a_search_that_returns_the_first_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        monitor_module, "largest_steps", lambda fits, most: min(calibration.largest_steps(fits, most) + 1, most)
    )
    with pytest.raises(AssertionError):
        law_the_last_that_fits(Monitor)


@pytest.mark.parametrize("accountant", [PLD(), RDP(), ZCDP()], ids=["pld", "rdp", "zcdp"])
def test_the_suggestion_fits_and_one_more_does_not(accountant: PLD | RDP | ZCDP) -> None:
    target = 40.0 if isinstance(accountant, ZCDP) else 1.0

    def noise(step: int) -> float:
        return 2.0 - 1.2 * min(step, 400) // 40 / 10

    def upper(steps: int) -> float:
        return accountant.epsilon(merged_events([noise(t) for t in range(steps)], Poisson(0.01)), 1e-5).upper

    steps = suggest_steps(noise, Poisson(0.01), 1e-5, target, accountant=accountant)
    assert upper(steps) <= target < upper(steps + 1)

    ledger = Ledger.in_memory(ADD_OR_REMOVE, unit="example")
    ledger.begin_run("plan").reserve([Event(2.0, Poisson(0.01), count=30)])
    one = Monitor(ledger, 1e-5, target, accountant)
    left = one.steps_left(STEP)
    assert left >= 1
    assert one.check(Event(1.1, Poisson(0.01), count=left)) <= target
    with pytest.raises(BudgetExceededError, match=rf"{left + 1:,} more steps .* Of them {left:,} still fit"):
        one.check(Event(1.1, Poisson(0.01), count=left + 1))


def test_epochs_are_whole_and_a_partial_last_step_counts() -> None:
    # 10 records in batches of 4: epochs of 3, 5, 8, 10 steps, upper ends 3.6, 6, 9.6, 12
    for target, epochs in ((3.59, 0), (3.61, 1), (5.99, 1), (6.01, 2), (9.59, 2), (9.61, 3), (12.01, 4)):
        assert suggest_epochs(lambda _: 1.0, 10, 4, 1e-5, target, accountant=PricedSteps()) == epochs, target
    assert suggest_epochs(lambda _: 1.0, 10, 4, 1e-5, 1e6, most=7, accountant=PricedSteps()) == 7


def test_a_run_stopped_by_the_monitor_never_exceeds_and_wastes_no_step() -> None:
    ledger = Ledger.in_memory(ADD_OR_REMOVE, unit="example")
    one, run = Monitor(ledger, 1e-5, 0.5), ledger.begin_run("plan")
    left, taken = one.steps_left(Event(1.3, Poisson(0.02))), 0
    while one.would_spend(Event(1.3, Poisson(0.02))).upper <= 0.5:
        one.check(Event(1.3, Poisson(0.02)))
        run.reserve(Event(1.3, Poisson(0.02)))
        taken += 1
    assert taken == left
    with pytest.raises(BudgetExceededError) as refused:
        one.check(Event(1.3, Poisson(0.02)))
    assert one.spent().upper <= 0.5 < one.would_spend(Event(1.3, Poisson(0.02))).upper
    assert one.steps_left(Event(1.3, Poisson(0.02))) == 0
    assert "0 still fit" in str(refused.value)
    assert "the budget is 0.5" in str(refused.value)


def test_the_relation_of_the_record_reaches_the_accountant() -> None:
    asked = PricedSteps()
    one = Monitor(Record(relation=REPLACE), 1e-5, 5.0, asked)
    one.spent(), one.would_spend(STEP), one.check(STEP), one.steps_left(STEP)
    assert set(asked.asked) == {REPLACE}
    with pytest.raises(UnsupportedEventError):
        Monitor(Record(relation=REPLACE), 1e-5, 5.0).check(STEP)


def test_a_ledger_and_its_contents_say_the_same() -> None:
    ledger = Ledger.in_memory(ADD_OR_REMOVE, unit="example")
    run = ledger.begin_run("plan")
    run.reserve([STEP] * 50)
    run.confirm(10)  # reserved is spent, confirmed or not
    both = Monitor(ledger, 1e-5), Monitor(ledger.contents(), 1e-5)
    assert both[0].spent() == both[1].spent() == PLD().epsilon([Event(1.1, Poisson(0.01), count=50)], 1e-5)
    run.reserve([STEP] * 50)
    assert both[0].spent().lower > both[1].spent().upper  # one is read anew, the other is what it was


@pytest.mark.parametrize(
    "call",
    [
        lambda: Monitor(Record(), 0.0),
        lambda: Monitor(Record(), 1e-5, 0.0),
        lambda: Monitor(Record(), 1e-5, float("nan")),
        lambda: Monitor([STEP], 1e-5),  # type: ignore[arg-type]
        lambda: Monitor(Record(), 1e-5).check(STEP),
        lambda: Monitor(Record(), 1e-5).steps_left(STEP),
        lambda: Monitor(Record(), 1e-5, 1.0).steps_left(STEP, most=-1),
        lambda: Monitor(Record(), 1e-5, 1.0).check([1.1]),  # type: ignore[list-item]
        lambda: suggest_steps(lambda _: 1.0, Poisson(0.1), 1e-5, -1.0),
        lambda: suggest_steps(lambda _: 0.0, Poisson(0.1), 1e-5, 1.0),
        lambda: suggest_epochs(lambda _: 1.0, 100, 101, 1e-5, 1.0),
        lambda: suggest_epochs(lambda _: 1.0, 100, 0, 1e-5, 1.0),
        lambda: suggest_epochs(lambda _: 1.0, 100, 10, 0.01, 1.0),
        lambda: Trajectory.of([STEP], 1.0),
        lambda: Trajectory.of([STEP], 1e-5, marks=1),
        lambda: Trajectory.of([STEP], 1e-5).at(2),
        lambda: Trajectory.of([STEP], 1e-5).at(-1),
    ],
)
def test_what_is_out_of_range_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ArgumentError):
        call()


def law_both_ends_hold_at_every_step(events: Sequence[Event], marks: int) -> None:
    trajectory = Trajectory.of(events, 1e-5, PricedSteps(), marks=marks)
    noise = [event.noise_multiplier for event in events for _ in range(event.count)]
    truth = np.concatenate(([0.0], np.cumsum(1.0 / np.array(noise)))) if noise else np.zeros(1)
    for step, cost in enumerate(truth):
        bound = trajectory.at(step)
        assert bound.lower <= 0.8 * cost + 1e-9, step
        assert bound.upper >= 1.2 * cost - 1e-9, step
    for mark in trajectory.marks:
        assert trajectory.at(mark).upper == pytest.approx(1.2 * truth[mark])
    assert trajectory.marks[0] == 0
    assert trajectory.marks[-1] == len(noise)


@settings(max_examples=40)
@given(
    st.lists(st.builds(Event, st.floats(0.5, 4.0), st.just(NoSampling()), st.integers(1, 90)), max_size=6),
    st.integers(2, 70),
)
def test_a_trajectory_holds_at_every_step(events: list[Event], marks: int) -> None:
    law_both_ends_hold_at_every_step(events, marks)


def test_the_law_catches_the_upper_end_of_the_mark_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        trajectory_module, "bisect_left", lambda marks, step: trajectory_module.bisect_right(marks, step) - 1
    )
    with pytest.raises(AssertionError):
        law_both_ends_hold_at_every_step([Event(1.0, NoSampling(), count=500)], 16)


def test_a_trajectory_of_a_decaying_run_brackets_the_accountant() -> None:
    events = [Event(float(z), Poisson(0.02)) for z in np.geomspace(2.0, 0.9, 300)]
    trajectory = Trajectory.of(events, 1e-5, marks=12)
    for step in (0, 1, 7, 133, 299, 300):
        exact, found = PLD().epsilon(events[:step], 1e-5), trajectory.at(step)
        assert found.lower <= exact.upper
        assert exact.lower <= found.upper
    assert trajectory.at(300) == PLD().epsilon(events, 1e-5)
