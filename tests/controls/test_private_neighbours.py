r"""Two data sets that differ by one record, told apart by what is released: as well as the event says, and no better.

A release is projected to :math:`s` so that :math:`s \sim \mathcal N(0, 1)` on one data set and
:math:`\mathcal N(1 / z, 1)` on the other; both the standard deviation and the shift then say z. Each estimate has to
lie within 4.5 standard errors of what the event says: a false alarm in 150,000 for each of the two.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.dp.training import memory
from torch import Tensor, nn

from privet.dp import AdaptiveQuantile, FixedNorm, Plan, TestRun, make_private
from privet.dp.clipping import ClippingState
from privet.dp.keystream import KeyStream
from privet.dp.noise import Noise
from privet.dp.per_example.engine import Engine
from privet.dp.step import Step

Draws = NDArray[np.float64]


def law_noise_is(multiplier: float, without: Draws, shifted: Draws) -> None:
    """Noise and shift, in units of the sensitivity, agree with a noise multiplier."""
    for draws in (without, shifted):
        assert abs(draws.std() / multiplier - 1) < 4.5 / math.sqrt(2 * len(draws))
    error = multiplier * math.sqrt(1 / len(without) + 1 / len(shifted))
    assert abs(shifted.mean() - without.mean() - 1) < 4.5 * error


def law_told_apart(multiplier: float, without: Draws, shifted: Draws) -> None:
    """The best test by one draw errs as often as two normal distributions of distance 1/z overlap."""
    middle = (without.mean() + shifted.mean()) / 2
    right = (np.mean(without < middle) + np.mean(shifted >= middle)) / 2
    wanted = 0.5 * (1 + math.erf(1 / (2 * multiplier) / math.sqrt(2)))
    assert abs(right - wanted) < 4.5 * math.sqrt(0.25 / (2 * len(without)))


def product(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda inputs: model(inputs).flatten()  # the gradient of an example is its input


AXES = 32  # neighbours, each with a record more whose gradient lies along an axis of its own


def releases(records: Tensor, draws: int, noise: Noise) -> tuple[Draws, float]:
    """Every number of many private gradients of one batch, and the noise multiplier of their events."""
    plan = Plan(dataset_size=50, expected_batch_size=5, delta=1e-3, noise=1.4, steps=draws, clipping=FixedNorm(0.3))
    model = nn.Linear(AXES, 1, bias=False)
    engine, found = Engine(model), np.empty((draws, AXES))
    flat, state = engine.flat(), ClippingState((0.3,))
    for number in range(draws):
        if number % 100 == 0:  # the forward and backward pass is the same each time
            gradients = engine.take(product(model), records, len(records))
        step = Step(plan, number, state, engine.ranges, flat, noise)
        step.add(gradients)
        event = step.finish().event
        found[number] = flat[:AXES]
    return found * 5 / 0.3, event.noise_multiplier


@pytest.fixture(scope="module")
def many() -> tuple[float, Draws, Draws]:
    """100,000 draws of each, 32 by a step: a number of a release is what one neighbour of its own changes.

    Clipping takes examples one by one, so the 32 records more, each along its own axis, may be there together.
    """
    noise = Noise(KeyStream.seeded(1, "neighbours"))
    generator = torch.Generator().manual_seed(1)
    scales = torch.tensor([0.0, 1e-3, 0.01, 1.0, 50.0])
    others = torch.randn(5, AXES, generator=generator) * scales.unsqueeze(1)  # (5, AXES), not clipped and clipped
    without, multiplier = releases(others, 100_000 // AXES, noise)
    shifted, _ = releases(torch.cat([others, 1e4 * torch.eye(AXES)]), 100_000 // AXES, noise)
    centre = without.mean(axis=0)  # the others' sum, the same on both sides
    return multiplier, (without - centre).ravel(), (shifted - centre).ravel()


def test_neighbours_are_told_apart_as_the_event_says(many: tuple[float, Draws, Draws]) -> None:
    multiplier, without, shifted = many
    law_noise_is(multiplier, without, shifted)
    law_told_apart(multiplier, without, shifted)


@pytest.mark.parametrize("factor", [2 / 3, 3 / 2])
def test_another_noise_is_rejected(many: tuple[float, Draws, Draws], factor: float) -> None:
    multiplier, without, shifted = many
    for law in (law_noise_is, law_told_apart):
        with pytest.raises(AssertionError):
            law(multiplier * factor, without, shifted)


def adaptive_run(plan: Plan, records: Tensor, seed: int) -> tuple[Draws, Draws]:
    """What is seen of a whole training at fixed weights: of each step the clip norm's next value and the gradient."""
    model = nn.Linear(1, 1, bias=False)
    run = make_private(model, plan, ledger=memory(plan), reserve_ahead=plan.total_steps, test_run=TestRun(seed))
    gradients, norms = [], [run.max_grad_norms[0]]
    with run:
        for batch in run.batches(records):
            run.backward(product(model), batch)
            assert model.weight.grad is not None
            gradients.append(model.weight.grad.item())
            norms.append(run.max_grad_norms[0])
    assert [event.count for event in run.ledger.events()] == [plan.total_steps]
    return np.array(gradients), np.array(norms)


def joint(seed: int, others: Tensor, records: Tensor, z: float = 1.0) -> Draws:
    """Gradient and count of each step as one number, with all that is public and all other records taken away."""
    deviation, size = 1.0, len(records)
    strategy = AdaptiveQuantile(1.0, learning_rate=0.05, count_noise_std=deviation)
    plan = Plan(
        dataset_size=size, expected_batch_size=size, delta=1e-3, noise=z, steps=2_000, clipping=strategy
    )  # every record takes part
    gradients, norms = adaptive_run(plan, records, seed)
    clip, moved = norms[:-1], np.log(norms[1:] / norms[:-1])
    length = others.abs().flatten().double().numpy()
    sums = gradients * size - np.minimum(length, clip[:, None]).sum(axis=1)  # the others' gradients are above 0
    fractions = 0.5 - moved / 0.05
    counts = (fractions - 0.5) * size - ((length <= clip[:, None]) - 0.5).sum(axis=1)
    by_gradient = 1 / z**2 - 1 / (2 * deviation) ** 2  # of 1 / z^2
    return z**2 * (by_gradient * sums / clip - counts / (2 * deviation**2))


def test_adaptive_clipping_end_to_end() -> None:
    """2,000 whole steps by make_private on each of two neighbours; what is released of the counts is paid for."""
    others = torch.linspace(0.2, 3.0, 20).unsqueeze(1)
    without = joint(1, others, others)
    shifted = joint(2, others, torch.cat([others, torch.tensor([[1e5]])]))
    law_noise_is(1.0, without, shifted)
    for factor in (2 / 3, 3 / 2):
        with pytest.raises(AssertionError):
            law_noise_is(factor, without, shifted)
