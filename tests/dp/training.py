"""Small private trainings, and the laws that any of them obeys; the sabotage tests hold faults against these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privet.accounting import Ledger, read_ledger
from privet.dp import AdaptiveQuantile, FixedNorm, Plan, Private, TestRun, make_private
from privet.dp.noise import Noise
from privet.dp.per_example.reference import per_example_gradients

SIZE = 64
Data = tuple[Tensor, Tensor]
Loss = Callable[[Data], Tensor]


def plan(**changed: Any) -> Plan:
    settings: dict[str, Any] = {"dataset_size": SIZE, "expected_batch_size": 8, "steps": 12, "delta": 1e-3}
    return Plan(**{**settings, "noise": 1.0, **changed})


def data(size: int = SIZE, scale: float = 1.0) -> Data:
    generator = torch.Generator().manual_seed(7)
    return scale * torch.randn(size, 6, generator=generator), torch.randint(3, (size,), generator=generator)


def mlp() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


class Tied(nn.Module):
    """One layer, called twice: the norm of its gradient has a cross term."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.layer = nn.Linear(6, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(self.layer(inputs).tanh())[:, :3]


def loss_of(model: nn.Module) -> Loss:
    return lambda part: F.cross_entropy(model(part[0]), part[1], reduction="none")


def memory(plan: Plan) -> Ledger:
    return Ledger.in_memory(plan.relation, plan.unit)


def private_of(model: nn.Module, plan: Plan, **named: Any) -> Private:
    return make_private(model, plan, **{"ledger": memory(plan), **named})


def train(private: Private, model: nn.Module, records: Data | None = None, steps: int = 10**9) -> list[Tensor]:
    """Take some steps at fixed weights; the flat private gradients."""
    found: list[Tensor] = []
    for batch in private.batches(data() if records is None else records):
        private.backward(loss_of(model), batch)
        found.append(gradient(model))
        if len(found) == steps:
            break
    return found


def gradient(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None])


def spent(ledger: Ledger) -> list[float]:
    """The noise multiplier of every step that the ledger counts, in rising order."""
    return sorted(event.noise_multiplier for event in ledger.events() for _ in range(event.count))


@dataclass
class Drawn:
    """The noise multipliers of gradient noise that was really drawn, and what the ledger said just then."""

    multipliers: list[float] = field(default_factory=list)
    on_ledger: list[list[float]] = field(default_factory=list)


@contextmanager
def watching(ledger: Ledger, plan: Plan, norm: float = 1.0) -> Iterator[Drawn]:
    """Watch every draw of gradient noise; one group, clipped to ``norm``."""
    drawn, original = Drawn(), Noise.normal_

    def normal_(noise: Noise, out: Tensor, std: float) -> None:
        if out.dtype == torch.float32:  # counts are drawn in float64
            drawn.multipliers.append(std * plan.expected_batch_size / norm)
            drawn.on_ledger.append(spent(ledger))
        original(noise, out, std)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Noise, "normal_", normal_)
        yield drawn


def covers(events: Sequence[float], drawn: Sequence[float]) -> bool:
    """Whether each draw has an event of its own that claims no more noise than was drawn."""
    ordered = sorted(drawn)
    return len(events) >= len(drawn) and all(a <= b * (1 + 1e-9) for a, b in zip(events, ordered, strict=False))


def law_ledger_covers_draws(run: Callable[[Ledger], None], plan: Plan, ledger: Ledger | None = None) -> Drawn:
    """Whatever ``run`` does, at every draw and at the end the ledger holds it."""
    ledger = memory(plan) if ledger is None else ledger
    with watching(ledger, plan) as drawn:
        run(ledger)
    assert drawn.multipliers
    for count, events in enumerate(drawn.on_ledger, 1):
        assert covers(events, drawn.multipliers[:count])
    assert covers(spent(ledger), drawn.multipliers)
    return drawn


def law_equation(make: Callable[[], nn.Module] = mlp, norm: float = 0.5, most: int | None = None) -> None:
    """Without noise the step is the sum of clipped single-example gradients over the expected batch size."""
    model = make()
    case = plan(clipping=AdaptiveQuantile(norm, count_noise_std=3.0))
    records = data(scale=3.0)
    private = private_of(model, case, test_run=TestRun(1, noise=False), max_physical_batch=most)
    private._check = lambda *_: None  # it sees some faults, too; here the step alone is looked at
    batches = private.batches(records)
    batch = next(batches)
    while batch.size < 3:
        private.backward(loss_of(model), batch)
        batch = next(batches)
    indices = batch._indices
    norm = private.max_grad_norms[0]
    private.backward(loss_of(model), batch)
    chosen = records[0][indices], records[1][indices]
    singles = per_example_gradients(model, loss_of(model), chosen, len(indices))
    flat = torch.cat([values.flatten(1) for values in singles.values()], dim=1).double()
    norms = flat.norm(dim=1)
    assert bool((norms > norm).any())
    wanted = (flat * (norm / norms).clamp(max=1).unsqueeze(1)).sum(dim=0) / case.expected_batch_size
    torch.testing.assert_close(gradient(model).double(), wanted, rtol=1e-5, atol=1e-7)


def law_noise(most: int | None = None, multiplier: float = 1.3) -> None:
    """Around the noiseless gradient the released one has std z C / B: 5 standard errors, a false alarm in 10^6."""
    model, case = nn.Linear(400, 50), plan(clipping=FixedNorm(0.5), steps=1, noise=multiplier)
    records = torch.randn(SIZE, 400, generator=torch.Generator().manual_seed(1)), torch.zeros(SIZE, dtype=torch.int64)
    released = []
    for noise in (True, False):
        with private_of(model, case, test_run=TestRun(5, noise), max_physical_batch=most) as private:
            released += train(private, model, records)
    difference = (released[0] - released[1]).double()
    found = float(difference.square().mean().sqrt()) * 8 / 0.5
    assert abs(found / 1.3 - 1) < 5 / np.sqrt(2 * len(difference))


def law_reserved_before_noise(path: Path) -> None:
    """At every draw of noise, what is on the disk counts it."""
    case, model = plan(steps=5), mlp()
    ledger = Ledger.create(path, case.relation, case.unit)
    original, seen = Noise.normal_, []

    def normal_(noise: Noise, out: Tensor, std: float) -> None:
        seen.append(read_ledger(path).reserved)
        original(noise, out, std)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Noise, "normal_", normal_)
        train(private_of(model, case, ledger=ledger, reserve_ahead=2), model)
    ledger.close()
    assert len(seen) == 5
    assert all(count >= draws for draws, count in enumerate(seen, 1))


def law_poisson() -> None:
    """Sizes are binomial; two records meet, and a record comes again at once, as chance has it: 5 standard errors."""
    case, model, draws = plan(steps=800), nn.Linear(6, 3), 800
    private, together, sizes = private_of(model, case, reserve_ahead=draws), torch.zeros(SIZE, SIZE), []
    private._check = lambda *_: None
    before, again = torch.zeros(SIZE), 0.0
    for batch in private.batches(data()):
        member = torch.bincount(batch._indices, minlength=SIZE).float()
        assert float(member.max()) <= 1
        together += torch.outer(member, member)
        again += float(member @ before)
        before = member
        sizes.append(batch.size)
        private.backward(loss_of(model), batch)
    rate = 8 / SIZE
    assert abs(np.mean(sizes) - 8) < 5 * np.sqrt(SIZE * rate * (1 - rate) / draws)
    assert abs(np.var(sizes) / (SIZE * rate * (1 - rate)) - 1) < 5 * np.sqrt(2 / draws)
    assert abs(again - (draws - 1) * SIZE * rate**2) < 5 * np.sqrt(2 * draws * SIZE * rate**2)
    pairs = together[~torch.eye(SIZE, dtype=torch.bool)]
    assert float((pairs - draws * rate**2).abs().max()) < 6 * np.sqrt(draws * rate**2)


def law_resume_draws_anew(test_run: TestRun | None) -> None:
    """No number of noise that was drawn before a resume comes again after it."""
    case, ledger, model = plan(steps=6, expected_batch_size=1e-9 + 1), memory(plan()), nn.Linear(60, 30)
    records = torch.zeros(SIZE, 60), torch.zeros(SIZE, dtype=torch.int64)  # gradients in the bias only
    private = private_of(model, case, ledger=ledger, test_run=test_run, reserve_ahead=4)
    state, before = private.state_dict(), torch.stack(train(private, model, records, steps=3))[:, :1800]
    private.close()
    again = private_of(model, case, ledger=ledger, test_run=test_run, resume=state)
    after = torch.stack(train(again, model, records, steps=3))[:, :1800]
    assert not np.intersect1d(before.numpy(), after.numpy()).size > 20  # some of 5,400 float32 agree by chance
