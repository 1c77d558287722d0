"""One step: its noise and its event are made from one number, whatever is clipped how."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dp.training import Tied, data, gradient, law_equation, law_noise, mlp, plan, private_of, train
from torch import Tensor, nn

from privet.accounting import Event, NeighbouringRelation, joint_noise
from privet.dp import AdaptiveQuantile, FixedNorm, Plan, TestRun
from privet.dp.clipping import Clipped, ClippingState
from privet.dp.clipping_groups import Groups, PerLayer
from privet.dp.keystream import KeyStream
from privet.dp.noise import Noise
from privet.dp.per_example.engine import Engine
from privet.dp.step import Step, StepNoise
from privet.errors import PrivateTrainingError
from privet.schedules import ExponentialDecay

STRATEGIES = [
    FixedNorm(0.3),
    AdaptiveQuantile(0.3, count_noise_std=4.0),
    PerLayer(FixedNorm(0.3)),
    PerLayer(AdaptiveQuantile(0.3, count_noise_std=5.0)),
    Groups((("0",), FixedNorm(0.2)), (("2",), AdaptiveQuantile(0.7, count_noise_std=4.0))),
]


@pytest.mark.parametrize("make", [mlp, Tied])
@pytest.mark.parametrize("most", [None, 1, 3])
def test_the_gradient_is_the_clipped_sum_over_the_expected_size(make: Any, most: int | None) -> None:
    law_equation(make, most=most)


@pytest.mark.parametrize("most", [None, 2])
def test_noise_has_the_std_of_the_event(most: int | None) -> None:
    law_noise(most)


@given(
    z=st.floats(0.05, 5.0),
    count=st.floats(6.0, 50.0),
    norms=st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=2),
    replace=st.booleans(),
)
@settings(max_examples=60)
def test_what_is_drawn_adds_up_to_the_event(z: float, count: float, norms: list[float], replace: bool) -> None:
    strategy = Groups((("0",), FixedNorm(1.0)), (("2",), AdaptiveQuantile(1.0, count_noise_std=count)))
    relation = NeighbouringRelation.REPLACE_ONE if replace else NeighbouringRelation.ADD_OR_REMOVE_ONE
    case = plan(noise=z, clipping=strategy, relation=relation, expected_batch_size=64 if replace else 8)
    found = StepNoise.of(case, 3, ClippingState(tuple(norms)))
    factor = 2 if replace else 1
    parts = [std / (factor * norm) for std, norm in zip(found.gradient_stds, norms, strict=True)]
    parts += [std / (factor / 2) for std in found.count_stds]
    assert math.isclose(joint_noise(parts), z, rel_tol=1e-9)
    assert found.event == case.event(3)
    assert found.count_stds == (count,)


def test_counts_that_are_not_paid_for_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    case = plan(clipping=AdaptiveQuantile(1.0, count_noise_std=2.0))
    monkeypatch.setattr(Plan, "gradient_noise_multiplier", lambda plan, step, groups: plan.event(step).noise_multiplier)
    with pytest.raises(PrivateTrainingError, match="nothing was drawn"):
        StepNoise.of(case, 0, ClippingState((1.0,)))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_each_group_gets_noise_by_its_own_norm(strategy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a decaying noise: in every step the norms it was clipped to scale its noise, and move only then."""
    stds: list[float] = []
    original = Noise.normal_

    def normal_(noise: Noise, out: Tensor, std: float) -> None:
        stds.append(std)
        original(noise, out, std)

    monkeypatch.setattr(Noise, "normal_", normal_)
    case, model = plan(clipping=strategy, noise=ExponentialDecay(2.0, 0.1), steps=5), mlp()
    private = private_of(model, case)
    norms = [private.max_grad_norms]
    for batch in private.batches(data()):
        stds.clear()
        release = private.backward(lambda d: (model(d[0]) ** 2).sum(dim=1), batch)
        groups, counts = len(release.max_grad_norms), strategy.count_noise_stds(len(release.max_grad_norms), 8.0)
        assert release.max_grad_norms == norms[-1]
        assert private.max_grad_norms == release.clipping.max_grad_norms
        assert release.event.noise_multiplier == pytest.approx(2.0 * math.exp(-0.1 * release.step))
        z = case.gradient_noise_multiplier(release.step, groups)
        assert stds == pytest.approx([z * norm / 8 for norm in norms[-1]] + list(counts))
        parts = [std * 8 / norm for std, norm in zip(stds[:groups], norms[-1], strict=True)]
        assert joint_noise(parts + [2 * std for std in counts]) == pytest.approx(release.event.noise_multiplier)
        norms.append(private.max_grad_norms)
    counted = bool(strategy.count_noise_stds(len(norms[0]), 8.0))
    assert (len(set(norms)) > 1) is counted


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
@pytest.mark.parametrize("most", [1, 3])
def test_parts_give_the_same_as_the_whole(strategy: Any, most: int) -> None:
    """Seeded noise and samples: gradients and norms are equal to rounding, so the noise was drawn once."""
    found = []
    for physical in (None, most):
        model, case = mlp(), plan(clipping=strategy, steps=4)
        private = private_of(model, case, test_run=TestRun(3), max_physical_batch=physical)
        found.append((train(private, model), private.max_grad_norms))
    for whole, parts in zip(found[0][0], found[1][0], strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-6)
    assert found[0][1] == pytest.approx(found[1][1])


def test_the_norm_follows_the_quantile() -> None:
    model, case = mlp(), plan(clipping=AdaptiveQuantile(50.0, learning_rate=1.0, count_noise_std=2.0), steps=20)
    private = private_of(model, case)
    train(private, model)
    assert private.max_grad_norms[0] < 5.0  # every gradient was below 50


def stepped(records: tuple[Tensor, Tensor], norm: float = 0.5) -> tuple[Tensor, tuple[float, ...]]:
    """A step without noise on all these records, parts of 2."""
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    model.load_state_dict(mlp().state_dict())
    case = plan(clipping=AdaptiveQuantile(norm, count_noise_std=3.0))
    engine = Engine(model)
    flat = engine.flat()
    step = Step(case, 0, ClippingState((norm,)), engine.ranges, flat, None)
    for start in range(0, len(records[0]), 2):
        part = records[0][start : start + 2], records[1][start : start + 2]
        step.add(
            engine.take(lambda d: nn.functional.cross_entropy(model(d[0]), d[1], reduction="none"), part, len(part[0]))
        )
    return flat, step.finish().clipping.max_grad_norms


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("rows", [[0], [1, 4], [0, 1, 2, 3, 4, 5, 6]])
def test_examples_that_are_not_finite_are_taken_out(poison: float, rows: list[int]) -> None:
    inputs, labels = data(7, scale=2.0)
    spoiled = inputs.clone()
    spoiled[rows] = poison
    keep = [row for row in range(7) if row not in rows]
    found, norms = stepped((spoiled, labels))
    wanted, _ = stepped((inputs[keep], labels[keep])) if keep else (torch.zeros_like(found), ())
    assert bool(found.isfinite().all())
    if poison != 3e38:  # that one saturates and may have a gradient that is finite
        torch.testing.assert_close(found, wanted)
    below = stepped((inputs, labels))[1]
    assert norms[0] >= below[0] or len(keep) == 7  # counted as above the norm


def test_a_taken_out_example_counts_as_one_above() -> None:
    inputs, labels = data(4)
    spoiled = inputs.clone()
    spoiled[0] = math.nan
    assert stepped((spoiled, labels), 0.05)[1] == stepped((inputs, labels), 0.05)[1]  # every other one is above, too


def test_a_gradient_that_is_not_finite_does_not_get_out() -> None:
    engine, case = Engine(nn.Linear(2, 1)), plan()
    step = Step(case, 0, ClippingState((1.0,)), engine.ranges, engine.flat(), Noise(KeyStream.seeded(1, "step")))
    step._flat[3] = math.nan
    with pytest.raises(PrivateTrainingError, match="not finite"):
        step.finish()


def test_a_huge_sum_of_finite_numbers_is_finite() -> None:
    engine = Engine(nn.Linear(2, 1))
    step = Step(plan(), 0, ClippingState((1.0,)), engine.ranges, engine.flat(), Noise(KeyStream.seeded(1, "step")))
    step._flat[:] = 3e38
    assert step.finish().event == Event(1.0, plan().sampling)


def test_an_empty_step_is_noise_alone() -> None:
    model = nn.Linear(300, 40)
    private = private_of(model, plan(expected_batch_size=1, steps=40))
    called = []
    records = torch.zeros(64, 300), torch.zeros(64)
    for batch in private.batches(records):
        if not batch.empty:
            private.backward(lambda d: model(d[0]).sum(dim=1), batch)
            continue
        release = private.backward(lambda d: called.append(1), batch)  # type: ignore[arg-type,return-value]
        assert not called
        assert abs(float(gradient(model).square().mean().sqrt()) - 1.0) < 6 / math.sqrt(2 * 12_040)
        assert release.event == Event(1.0, private.plan.sampling)
        return
    pytest.fail("no empty batch in 40 draws: once in 10^16")


@pytest.mark.parametrize("factor", [1.0, -0.01, math.nan])
def test_a_strategy_that_does_not_clip_is_refused(factor: float) -> None:
    class Loose(FixedNorm):
        def clip(self, state: ClippingState, norms: Tensor) -> Clipped:
            return Clipped(torch.full_like(norms, factor), torch.zeros(0, dtype=torch.float64))

    model = mlp()
    with pytest.raises(PrivateTrainingError, match=r"Loose\.clip gave factors"):
        train(private_of(model, plan(clipping=Loose(0.1), expected_batch_size=32)), model)
    assert all(parameter.grad is None for parameter in model.parameters())
