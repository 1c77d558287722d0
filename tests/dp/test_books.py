"""The books: a step is on the ledger before its noise, once for every draw, and never beyond the budget."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dp.forked import forked
from tests.dp.training import (
    Data,
    Loss,
    covers,
    data,
    law_ledger_covers_draws,
    loss_of,
    memory,
    mlp,
    plan,
    private_of,
    spent,
    train,
    watching,
)
from torch import Tensor, nn

from privet.accounting import Ledger, NeighbouringRelation, read_ledger
from privet.dp import Plan, TestRun, make_private
from privet.dp.books import Books
from privet.errors import BudgetExceededError, LedgerError, LedgerMismatchError
from privet.schedules import NoiseSchedule


def rising(step: int) -> float:
    return 0.5 + 0.1 * step


def falling(step: int) -> float:
    return 3.0 - 0.1 * step


RISING_AND_FALLING: list[NoiseSchedule] = [rising, falling]


class Broken(Exception):
    pass


@pytest.mark.parametrize("noise", RISING_AND_FALLING)
@pytest.mark.parametrize("failing", [0, 1, 2])
@pytest.mark.parametrize("ahead", [1, 3, 16])
def test_a_loss_that_fails_before_or_after_the_noise(noise: NoiseSchedule, failing: int, ahead: int) -> None:
    """Micro-batches of 2: noise is drawn after the first part's loss; part ``failing`` of each third batch fails."""
    case = plan(noise=noise, steps=8)

    def run(ledger: Ledger) -> None:
        model = mlp()
        private, parts, number = private_of(model, case, ledger=ledger, max_physical_batch=2, reserve_ahead=ahead), 0, 0
        private._check = lambda *_: None

        def sometimes(part: Any) -> Any:
            nonlocal parts
            parts += 1
            if number % 3 == 2 and parts == failing + 1:
                raise Broken
            return loss_of(model)(part)

        for batch in private.batches(data()):
            parts, number = 0, number + 1
            try:
                private.backward(sometimes, batch)
            except Broken:
                assert all(p.grad is None for p in model.parameters())
        assert private.step == 8

    drawn = law_ledger_covers_draws(run, case)
    ledger_drawn = len(drawn.multipliers)
    assert ledger_drawn == 8 if failing == 0 else ledger_drawn > 8


def failing_loss(model: nn.Module, call: int) -> Loss:
    """The loss of a model, that fails when it is called the ``call``-th time."""
    calls: list[int] = []

    def loss(part: Data) -> Tensor:
        calls.append(1)
        if len(calls) == call:
            raise Broken
        return loss_of(model)(part)

    return loss


@given(st.lists(st.sampled_from(["step", "leave", "fail early", "fail late", "resume"]), max_size=14), st.booleans())
@settings(max_examples=40)
def test_whatever_happens_the_ledger_covers_every_draw(actions: list[str], up: bool) -> None:
    case = plan(noise=rising if up else falling, steps=30)

    def run(ledger: Ledger) -> None:
        model = mlp()
        private = private_of(model, case, ledger=ledger, max_physical_batch=2, reserve_ahead=4)
        private._check = lambda *_: None
        batches, states = private.batches(data()), [private.state_dict()]
        for action in ["step", *actions]:
            if action == "leave":
                batches.close()  # type: ignore[attr-defined]
                batches = private.batches(data())
            elif action == "resume":  # from an early checkpoint, the old training still about
                model = mlp()
                private = private_of(
                    model, case, ledger=ledger, resume=states[len(states) // 2], max_physical_batch=2, reserve_ahead=4
                )
                private._check = lambda *_: None
                batches = private.batches(data())
            else:
                loss = failing_loss(model, {"fail early": 1, "fail late": 2}.get(action, 0))
                with suppress(Broken):
                    private.backward(loss, next(batches))
                states.append(private.state_dict())
        del batches

    law_ledger_covers_draws(run, case)


def test_a_training_that_was_resumed_gives_nothing_back() -> None:
    """It cannot know what the other one drew; to close it, or forget it, is fine."""
    case, model, other = plan(steps=40), mlp(), mlp()

    def run(ledger: Ledger) -> None:
        old = private_of(model, case, ledger=ledger)
        train(old, model, steps=16)
        new = private_of(other, case, ledger=ledger, resume=old.state_dict())
        train_some = new.batches(data())
        for _ in range(3):
            new.backward(loss_of(other), next(train_some))
        before = spent(ledger)
        old.close()
        assert spent(ledger) == before

    law_ledger_covers_draws(run, case)


def test_two_trainings_do_not_draw_on_one_reservation() -> None:
    case, model, other, ledger = plan(), mlp(), mlp(), memory(plan())
    old = private_of(model, case, ledger=ledger)
    batches = old.batches(data())
    old.backward(loss_of(model), next(batches))
    private_of(other, case, ledger=ledger, resume=old.state_dict())
    with pytest.raises(LedgerError, match="resumed by another"):
        old.backward(loss_of(model), next(batches))


def test_a_forked_process_draws_nothing(tmp_path: Path) -> None:
    """What the parent reserved is the parent's: both would release a step that the ledger counts once."""
    case, model = plan(), mlp()
    private = make_private(model, case, ledger=tmp_path / "ledger")
    batches = private.batches(data())
    private.backward(loss_of(model), next(batches))

    def child() -> bytes:
        private._books.before_noise(private.step)  # PyTorch's own backward pass may hang in a forked process
        return b"drew"

    assert b"LedgerError" in forked(child)
    private.backward(loss_of(model), next(batches))
    private.close()


def test_steps_reserved_for_another_part_of_the_schedule_are_given_back() -> None:
    case, ledger = plan(noise=rising), memory(plan())
    books = Books(ledger, ledger.begin_run(case.digest), case, ahead=6)
    for step in (0, 1, 2, 0, 1):
        books.before_noise(step)
    books.settle()
    assert spent(ledger) == sorted(rising(step) for step in (0, 1, 2, 0, 1))


def test_a_step_beyond_the_plan_is_refused() -> None:
    case, ledger = plan(steps=2), memory(plan())
    books = Books(ledger, ledger.begin_run(case.digest), case, ahead=6)
    books.before_noise(0)
    books.before_noise(1)
    with pytest.raises(BudgetExceededError):
        books.before_noise(2)
    assert len(spent(ledger)) == 2


def brute_force(case: Plan, spent_before: list[Any]) -> int:
    steps = 0
    while steps < case.total_steps and case.upper_epsilon([*spent_before, *case.events(0, steps + 1)]) <= case.budget:  # type: ignore[operator]
        steps += 1
    return steps


@pytest.mark.parametrize(("noise", "ahead"), [(1.1, 1), (1.1, 100), (lambda step: 1.5 * 0.8 ** (step // 6), 4)])
def test_the_budget_ends_training_at_the_last_step_that_fits(noise: Any, ahead: int) -> None:
    case, model = plan(noise=noise, steps=30, budget_epsilon=2.0), mlp()
    private = private_of(model, case, reserve_ahead=ahead)
    right = brute_force(case, [])
    assert 1 < right < 30
    with watching(private.ledger, case) as drawn:
        assert len(train(private, model)) == private.step == right
    assert max(map(len, drawn.on_ledger)) == right  # nor is more ever reserved
    assert len(spent(private.ledger)) == private.step
    assert private.spent().epsilon.upper <= 2.0
    kept = [p.clone() for p in model.parameters()]
    with pytest.raises(BudgetExceededError, match="Nothing was drawn"):
        next(private.batches(data()))
    assert all(bool((a == b).all()) for a, b in zip(kept, model.parameters(), strict=True))
    statement = private.statement()
    assert not statement.whole_plan
    assert statement.epsilon == private.spent().epsilon


def test_two_runs_share_a_budget() -> None:
    case, ledger = plan(steps=60, budget_epsilon=2.5), memory(plan())
    models = mlp(), mlp()
    first, second = (private_of(model, case, ledger=ledger, reserve_ahead=2) for model in models)
    train(first, models[0], steps=4)
    before = list(ledger.events())
    assert len(train(second, models[1])) == brute_force(case, before)
    assert second.spent().epsilon == first.spent().epsilon
    assert case.upper_epsilon(ledger.events()) <= 2.5
    with pytest.raises(BudgetExceededError):
        train(first, models[0])
    assert [run.reserved for run in ledger.contents().runs] == [4, second.step]


def test_runs_that_take_turns_stay_within_the_budget() -> None:
    case, ledger = plan(steps=60, budget_epsilon=2.5), memory(plan())
    models = mlp(), mlp()
    runs = [private_of(model, case, ledger=ledger, reserve_ahead=3) for model in models]
    loops = [run.batches(data()) for run in runs]
    with watching(ledger, case) as drawn, suppress(BudgetExceededError, StopIteration):
        for number in itertools.count():
            run, loop, model = runs[number % 2], loops[number % 2], models[number % 2]
            run.backward(loss_of(model), next(loop))
    assert covers(spent(ledger), drawn.multipliers)
    assert case.upper_epsilon(ledger.events()) <= 2.5


@pytest.mark.parametrize(("relation", "unit"), [(NeighbouringRelation.REPLACE_ONE, "example"), (None, "patient")])
def test_a_ledger_about_something_else_is_refused(relation: Any, unit: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    Ledger.create(path, relation or NeighbouringRelation.ADD_OR_REMOVE_ONE, unit).close()
    opened = Ledger.in_memory(relation or NeighbouringRelation.ADD_OR_REMOVE_ONE, unit)
    for ledger in (path, opened):
        with pytest.raises(LedgerMismatchError, match="does not add up"):
            make_private(mlp(), plan(), ledger=ledger)
    Ledger.open(path).close()  # it is not held


@pytest.mark.parametrize("is_open", [False, True])
def test_a_ledger_that_was_cut_back_is_refused(is_open: bool, tmp_path: Path) -> None:
    path, early, model = tmp_path / "ledger", tmp_path / "early", mlp()
    private = make_private(model, plan(), ledger=path)
    shutil.copy(path, early)
    train(private, model, steps=3)
    state = private.state_dict()
    private.close()
    opened = Ledger.open(early) if is_open else memory(plan())
    with opened, pytest.raises(LedgerMismatchError, match="cut off"):
        make_private(model, plan(), ledger=opened if is_open else early, resume=state)
    with pytest.raises(LedgerError):
        make_private(model, plan(), ledger=tmp_path / "none", resume=state)
    assert not (tmp_path / "none").exists()
    make_private(model, plan(), ledger=path, resume=state).close()


def test_test_runs_and_private_runs_do_not_share_a_ledger() -> None:
    for first, second in ((TestRun(1), None), (None, TestRun(1))):
        ledger = memory(plan())
        private_of(mlp(), plan(), ledger=ledger, test_run=first)
        with pytest.raises(LedgerMismatchError, match="ledger of its own"):
            private_of(mlp(), plan(), ledger=ledger, test_run=second)


def test_a_ledger_that_cannot_be_written_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case, model, ledger = plan(), mlp(), memory(plan())
    private = private_of(model, case, ledger=ledger, reserve_ahead=2)
    batches = private.batches(data())
    with watching(ledger, case) as drawn:
        for _ in range(2):
            private.backward(loss_of(model), next(batches))

        def full(data: bytes) -> int:
            raise OSError("no space")

        monkeypatch.setattr(ledger._file, "write", full)
        for _ in range(2):  # the second time the ledger refuses at once
            batch = next(batches)
            with pytest.raises(LedgerError):
                private.backward(loss_of(model), batch)
        assert len(drawn.multipliers) == 2
    assert all(p.grad is None for p in model.parameters())
    assert covers(spent(ledger), drawn.multipliers)


def test_lost_reservations_stay_spent() -> None:
    case, model, ledger = plan(steps=20), mlp(), memory(plan())
    private = private_of(model, case, ledger=ledger, reserve_ahead=8)
    batches = private.batches(data())
    for _ in range(3):
        private.backward(loss_of(model), next(batches))
    state = private.state_dict()
    other = mlp()
    again = private_of(other, case, ledger=ledger, resume=state, reserve_ahead=8)  # the first one never said a word
    assert again.step == 3
    assert len(train(again, other)) == 17
    assert len(spent(ledger)) == 8 + 17
    assert ledger.contents().unconfirmed == 8
    assert again.spent().epsilon.upper > case.epsilon().upper
    assert again.spent().steps == 20


def test_lost_reservations_count_in_the_budget() -> None:
    case, model, ledger = plan(steps=60, budget_epsilon=2.5), mlp(), memory(plan())
    private = private_of(model, case, ledger=ledger, reserve_ahead=5)
    batches = private.batches(data())
    private.backward(loss_of(model), next(batches))
    other = mlp()
    again = private_of(other, case, ledger=ledger, resume=private.state_dict())
    train(again, other)
    assert again.step == brute_force(case, []) - 4
    assert case.upper_epsilon(ledger.events()) <= 2.5


KILLED = """
import os, sys, torch
from privet.dp import make_private
from privet.dp.noise import Noise
from tests.dp.training import data, loss_of, mlp, plan
original = Noise.normal_
def normal_(noise, out, std):
    original(noise, out, std)
    os.write(1, b"x")  # one for each draw, whatever comes
Noise.normal_ = normal_
torch.set_num_threads(1)
model = mlp()
private = make_private(model, plan(steps=100_000, noise=30.0), ledger=sys.argv[1], reserve_ahead=int(sys.argv[2]))
private._check = lambda *_: None
for batch in private.batches(data()):
    private.backward(loss_of(model), batch)
"""


@pytest.mark.parametrize(("ahead", "after"), [(1, 40), (7, 100)])
def test_killed_at_any_moment_the_ledger_says_no_less_than_was_drawn(ahead: int, after: int, tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", KILLED, str(path), str(ahead)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.path.join(root, "src")])}  # noqa: PTH118
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        drawn = len(process.stdout.read(after))
        process.send_signal(signal.SIGKILL)
        drawn += len(process.stdout.read())
    assert drawn >= after
    contents = read_ledger(path)
    assert drawn <= contents.reserved <= drawn + ahead
