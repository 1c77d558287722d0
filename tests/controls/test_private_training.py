"""Faults planted in the private step and its books are caught by the laws that its tests rest on."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.dp import training as law
from torch import Tensor

from privet.accounting import Run
from privet.dp import TestRun
from privet.dp.books import Books
from privet.dp.keystream import KeyStream
from privet.dp.noise import Noise
from privet.dp.per_example.engine import Gradients
from privet.dp.per_example.linear import LinearUse
from privet.dp.per_example.tape import Tape
from privet.dp.per_example.use import Room
from privet.dp.private import Private
from privet.dp.sampling import PoissonSampler
from privet.dp.step import Step


def scaled_noise(factor: float) -> Callable[[Noise, Tensor, float], None]:
    def normal_(noise: Noise, out: Tensor, std: float, original: Any = Noise.normal_) -> None:
        original(noise, out, std)
        out.mul_(factor)

    return normal_


def noise_for_each_part(step: Step, gradients: Gradients, original: Any = Step.add) -> Tensor:
    more = torch.empty_like(step._flat)
    if step._noise is not None:
        step._noise.normal_(more, step._sigma.gradient_stds[0] / step._plan.expected_batch_size)
        step._flat += more
    factors: Tensor = original(step, gradients)
    return factors


def without_one_layer(use: LinearUse, room: Room, original: Any = LinearUse.squared_norms) -> list[Tensor]:
    found: list[Tensor] = original(use, room)
    return [torch.zeros_like(one) for one in found] if use.parts[0].slot.name.startswith("0.") else found


def mean(gradients: Gradients, flat: Tensor, weights: Tensor, original: Any = Gradients.add_to) -> None:
    original(gradients, flat, weights / weights.shape[1])


def realised(step: Step, gradients: Gradients, original: Any = Step.add) -> Tensor:
    real = gradients.squared_norms.shape[1]
    before = step._flat.clone()
    factors: Tensor = original(step, gradients)
    step._flat.copy_(before + (step._flat - before) * (step._plan.expected_batch_size / real))
    return factors


def without_cross_terms(tape: Tape) -> None:
    for use in tape._waiting:
        for part, squares in zip(use.parts, use.squared_norms(tape._room), strict=True):
            tape.squares[part.slot.group] += squares
    tape._waiting = []


def late(books: Books, step: int, original: Any = Books.before_noise) -> None:
    """On the ledger one step later."""
    if step:
        original(books, step - 1)


def of_a_fixed_size(sampler: PoissonSampler) -> Tensor:
    return torch.randperm(law.SIZE)[:8]


def shuffled(sampler: PoissonSampler, orders: dict[int, list[Tensor]] = {}) -> Tensor:  # noqa: B006
    left = orders.setdefault(id(sampler), [])
    if not left:
        left.append(torch.randperm(law.SIZE))
    order = left.pop()
    taken = min(int(torch.binomial(torch.tensor(64.0), torch.tensor(1 / 8))), len(order))
    left.extend([order[taken:]] if taken < len(order) else [])
    return order[:taken]


def same_key(private: Private, purpose: str) -> KeyStream:
    return KeyStream.seeded(1, purpose)


MLP, TIED = law.law_equation, partial(law.law_equation, law.Tied)
PARTS, RESUME = partial(law.law_noise, most=2), partial(law.law_resume_draws_anew, TestRun(1))
FAULTS: dict[str, tuple[type, str, Any, Callable[[], None]]] = {
    "noise dropped": (Noise, "normal_", scaled_noise(0.0), law.law_noise),
    "noise sigma over B": (Noise, "normal_", scaled_noise(1 / 8), law.law_noise),
    "noise per micro-batch": (Step, "add", noise_for_each_part, PARTS),
    "clip skipped on one layer": (LinearUse, "squared_norms", without_one_layer, MLP),
    "mean instead of sum": (Gradients, "add_to", mean, MLP),
    "realised batch size": (Step, "add", realised, MLP),
    "tied weight without its cross term": (Tape, "finish", without_cross_terms, TIED),
    "sample of a fixed size": (PoissonSampler, "draw", of_a_fixed_size, law.law_poisson),
    "shuffled batches": (PoissonSampler, "draw", shuffled, law.law_poisson),
    "noise reused after resume": (Private, "_stream", same_key, RESUME),
}


@pytest.mark.parametrize("law_holds", {id(row[3]): row[3] for row in FAULTS.values()}.values())
def test_the_true_code_obeys(law_holds: Callable[[], None]) -> None:
    law_holds()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, method, fault, law_holds = FAULTS[name]
    monkeypatch.setattr(owner, method, fault)
    with pytest.raises(AssertionError) as caught:
        law_holds()
    assert caught.traceback[-1].path.name in ("training.py", "_comparison.py")  # by the law, not by a crash


def test_secret_noise_is_not_reused() -> None:
    law.law_resume_draws_anew(None)


def test_the_ledger_comes_first(tmp_path: Path) -> None:
    law.law_reserved_before_noise(tmp_path / "ledger")


@pytest.mark.parametrize("fault", [lambda books, step: None, late])
def test_a_ledger_that_comes_late_is_caught(fault: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Books, "before_noise", fault)
    with pytest.raises(AssertionError):
        law.law_reserved_before_noise(tmp_path / "ledger")


def test_steps_given_back_that_were_drawn_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(ledger: law.Ledger) -> None:
        model = law.mlp()
        law.train(law.private_of(model, law.plan(), ledger=ledger), model, steps=3)

    law.law_ledger_covers_draws(run, law.plan())
    release = Run.release
    monkeypatch.setattr(Run, "confirm", lambda run, step: None)
    monkeypatch.setattr(Run, "release", lambda run, step: release(run, step - 1))
    with pytest.raises(AssertionError):
        law.law_ledger_covers_draws(run, law.plan())


def test_less_noise_than_the_event_says_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(ledger: law.Ledger) -> None:
        model = law.mlp()
        law.train(law.private_of(model, law.plan(), ledger=ledger), model, steps=3)

    init: Any = Step.__init__

    def lower(step: Step, plan: Any, number: int, *rest: Any) -> None:
        init(step, law.plan(noise=0.99), number, *rest)

    monkeypatch.setattr(Step, "__init__", lower)
    with pytest.raises(AssertionError):
        law.law_ledger_covers_draws(run, law.plan())
