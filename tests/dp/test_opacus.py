"""The same noise, clip norm, sampling and steps give what Opacus gives: gradients without noise, and RDP epsilon.

What Opacus gave is kept in ``tests/golden/by_opacus.json``; where it is installed, it is asked again.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.golden import by_opacus
from torch import Tensor, nn

from privet import accounting, dp
from privet.accounting.events import Event, NoSampling, Poisson
from privet.accounting.rdp import RDP
from privet.dp.per_example.engine import Engine
from privet.dp.per_example.reference import per_example_gradients
from privet.dp.step import Step

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "by_opacus.json").read_text())
B = GOLDEN["expected_batch_size"]


def case_name(case: dict[str, Any]) -> str:
    return f"{case['network']}-{case['max_grad_norm']:g}-{case['size']}"


def losses_of(model: nn.Module) -> Any:
    return lambda data: F.cross_entropy(model(data[0]), data[1], reduction="none")


def plan_of(max_grad_norm: float, dataset_size: int, steps: int = 1) -> dp.Plan:
    clipping = dp.FixedNorm(max_grad_norm)
    return dp.Plan(
        dataset_size=dataset_size, expected_batch_size=B, steps=steps, delta=1e-5, noise=1.0, clipping=clipping
    )


def released(model: nn.Module, max_grad_norm: float, data: tuple[Tensor, Tensor], size: int) -> Tensor:
    """The private gradient of one step on this batch, noise left out, in the order of the parameters."""
    engine, plan = Engine(model), plan_of(max_grad_norm, 1_000)
    flat = engine.flat()
    step = Step(plan, 0, plan.clipping.initial(1), engine.ranges, flat, None)
    step.add(engine.take(losses_of(model), data, size))
    step.finish()
    views = engine.views(flat)
    return torch.cat([views[name].flatten() for name, _ in model.named_parameters()])


def singles(model: nn.Module, data: tuple[Tensor, Tensor], size: int) -> Tensor:
    """Each example's gradient in a row, (size, numbers)."""
    found = per_example_gradients(model, losses_of(model), data, size)
    return torch.cat([found[name].flatten(1) for name, _ in model.named_parameters()], dim=1)


@pytest.mark.parametrize("case", GOLDEN["gradients"], ids=case_name)
def test_the_clipped_and_averaged_gradient_is_that_of_opacus(case: dict[str, Any]) -> None:
    model, (norm, size) = by_opacus.network(case["network"]), (case["max_grad_norm"], case["size"])
    data = by_opacus.batch(case["network"], size)
    theirs = torch.tensor(case["gradient"], dtype=torch.float64)
    ours = released(model, norm, data, size)
    each = singles(model, data, size)
    lengths = each.norm(dim=1)
    # Opacus clips to C / (norm + 1e-6), privet to C / norm: so far may they be apart, and no further
    apart = GOLDEN["clipping_epsilon"] * (norm / lengths)[lengths + GOLDEN["clipping_epsilon"] > norm].sum() / B
    assert (ours - theirs).norm() <= apart + 1e-10 * theirs.norm()
    factors = (norm / (lengths + GOLDEN["clipping_epsilon"])).clamp(max=1.0)
    torch.testing.assert_close((factors @ each) / B, theirs, rtol=1e-9, atol=1e-13)


def test_all_some_and_none_of_the_golden_examples_are_clipped() -> None:
    """Otherwise the law above would say little."""
    for kind in by_opacus.NETWORKS:
        lengths = singles(by_opacus.network(kind), by_opacus.batch(kind, 8), 8).norm(dim=1)
        shares = [float((lengths > norm).double().mean()) for norm in by_opacus.NORMS]
        assert shares[0] == 1.0
        assert 0.0 < shares[1] < 1.0
        assert shares[2] == 0.0


@pytest.mark.parametrize("case", GOLDEN["epsilons"], ids=str)
def test_rdp_epsilon_at_the_same_orders_is_that_of_opacus(case: dict[str, float]) -> None:
    rate = case["sampling_rate"]
    event = Event(case["noise_multiplier"], NoSampling() if rate == 1.0 else Poisson(rate), int(case["steps"]))
    upper = RDP(tuple(GOLDEN["orders"])).epsilon([event], case["delta"]).upper
    assert upper == pytest.approx(case["epsilon"], rel=1e-8)


@pytest.mark.parametrize("case", GOLDEN["epsilons"], ids=str)
def test_the_upper_end_that_is_quoted_is_no_larger(case: dict[str, float]) -> None:
    rate = case["sampling_rate"]
    event = Event(case["noise_multiplier"], NoSampling() if rate == 1.0 else Poisson(rate), int(case["steps"]))
    assert accounting.PLD().epsilon([event], case["delta"]).upper < case["epsilon"]


@pytest.fixture
def opacus() -> Any:
    found = pytest.importorskip("opacus")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield found


@pytest.mark.usefixtures("opacus")
def test_opacus_still_gives_the_golden_numbers() -> None:
    assert by_opacus.orders_of_opacus() == GOLDEN["orders"]
    for case, values in zip(GOLDEN["epsilons"], by_opacus.CASES, strict=True):
        assert by_opacus.epsilon_by_opacus(*values) == pytest.approx(case["epsilon"], rel=1e-9)
    for case in GOLDEN["gradients"]:
        again = by_opacus.clipped_by_opacus(case["network"], case["max_grad_norm"], case["size"])
        assert again == pytest.approx(case["gradient"], rel=1e-9, abs=1e-13)


def test_three_steps_of_training_end_at_the_same_weights(opacus: Any) -> None:
    """Both loops as a user writes them: every record in every step, sigma 0 there and noise left out here."""
    kind, norm, steps = "convolutional", 0.5, 3
    data = by_opacus.batch(kind, B)
    theirs = by_opacus.network(kind)
    engine = opacus.PrivacyEngine(accountant="rdp")
    wrapped, optimizer, loader = engine.make_private(
        module=theirs,
        optimizer=torch.optim.SGD(theirs.parameters(), lr=0.5, momentum=0.9),
        data_loader=torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=B),
        noise_multiplier=0.0,
        max_grad_norm=norm,
    )
    for _ in range(steps):
        for inputs, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(wrapped(inputs), labels).backward()
            optimizer.step()

    ours = by_opacus.network(kind)
    plan = plan_of(norm, B, steps)
    ledger = accounting.Ledger.in_memory(plan.relation, plan.unit)
    private = dp.make_private(ours, plan, ledger=ledger, test_run=dp.TestRun(seed=0, noise=False))
    sgd = torch.optim.SGD(ours.parameters(), lr=0.5, momentum=0.9)
    for batch in private.batches(data):
        private.backward(losses_of(ours), batch)
        sgd.step()

    start = by_opacus.network(kind)
    for mine, other, first in zip(ours.parameters(), theirs.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
        assert not torch.equal(mine, first)
    assert list(ours.state_dict()) == list(start.state_dict())
    assert list(wrapped.state_dict()) == [f"_module.{key}" for key in start.state_dict()]
    history = [(1.0, rate, count) for _, rate, count in engine.accountant.history]
    engine.accountant.history = history
    spent = RDP(tuple(GOLDEN["orders"])).epsilon(ledger.events(), plan.delta).upper
    assert spent == pytest.approx(engine.get_epsilon(plan.delta), rel=1e-9)


def test_what_the_page_says_of_the_sampling_rate(opacus: Any) -> None:
    """Opacus rounds 1 / rate up to whole steps of an epoch, and the batch size with it."""
    model = nn.Linear(1, 1)
    data = torch.utils.data.TensorDataset(torch.zeros(60_000, 1))
    engine = opacus.PrivacyEngine()
    _, optimizer, loader = engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=torch.utils.data.DataLoader(data, batch_size=512),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
    )
    assert (loader.sample_rate, len(loader), optimizer.expected_batch_size) == (1 / 118, 118, 508)
    plan = dp.Plan(dataset_size=60_000, expected_batch_size=512, epochs=1, delta=1e-6, noise=1.0)
    assert (plan.sampling_rate, plan.total_steps) == (512 / 60_000, 118)


def test_what_the_page_says_of_clipping_by_layers(opacus: Any) -> None:
    """Equal norms: the noise on every number is z sqrt(groups) C in both."""
    from opacus.optimizers import DPPerLayerOptimizer

    from privet.dp.clipping_groups import PerLayer
    from privet.dp.step import StepNoise

    model, z, norm = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 2, bias=False)), 1.3, 0.7
    optimizer = DPPerLayerOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), noise_multiplier=z, max_grad_norm=[norm] * 2, expected_batch_size=B
    )
    plan = dp.Plan(
        dataset_size=1_000,
        expected_batch_size=B,
        steps=1,
        delta=1e-5,
        noise=z,
        clipping=PerLayer(dp.FixedNorm(norm)),
    )
    stds = StepNoise.of(plan, 0, plan.clipping.initial(2)).gradient_stds
    assert stds == pytest.approx([optimizer.noise_multiplier * optimizer.max_grad_norm] * 2)
