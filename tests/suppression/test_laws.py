"""What holds after every step, with every dense optimizer of torch.optim."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.suppression.training import BATCHES, batches, network, one_step, suppression_of, train, zeros
from torch import Tensor, nn, optim

from privet.errors import DivergedError
from privet.suppression import Layer, Suppression
from privet.suppression.bounds import add_noise
from privet.suppression.ramp import masked_count

Make = Callable[[Iterable[nn.Parameter]], optim.Optimizer]
STEPS = 5 * BATCHES
OPTIMIZERS: dict[str, Make] = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "SGD, one by one": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, foreach=False),
    "SGD, maximize": lambda p: optim.SGD(p, lr=0.01, momentum=0.9, maximize=True),
    "Adam": lambda p: optim.Adam(p, lr=0.01),
    "Adam, amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.1),
    "Adam, fused": lambda p: optim.Adam(p, lr=0.01, fused=True),
    "AdamW": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "Adamax": lambda p: optim.Adamax(p, lr=0.01),
    "NAdam": lambda p: optim.NAdam(p, lr=0.01),
    "RAdam": lambda p: optim.RAdam(p, lr=0.01),
    "Adadelta": lambda p: optim.Adadelta(p, lr=1.0),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.1, initial_accumulator_value=0.1),
    "Adafactor": lambda p: optim.Adafactor(p, lr=0.01),
    "ASGD": lambda p: optim.ASGD(p, lr=0.1, t0=0),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "Rprop": lambda p: optim.Rprop(p, lr=0.01),
    "LBFGS": lambda p: optim.LBFGS(p, lr=0.1, max_iter=4),
    "LBFGS, line search": lambda p: optim.LBFGS(p, line_search_fn="strong_wolfe", max_iter=4),
}
KNOWN = {name.partition(",")[0] for name in OPTIMIZERS} | {"Muon", "SparseAdam", "Optimizer"}


def test_the_table_has_every_optimizer_of_torch() -> None:
    there = {name for name in optim.__all__ if isinstance(getattr(optim, name), type)}
    assert there - KNOWN == set()


def model_and_optimizer(name: str) -> tuple[nn.Module, optim.Optimizer]:
    if name == "Muon":  # of matrices alone
        torch.manual_seed(0)
        model: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(36, 10, bias=False), nn.Linear(10, 3, bias=False))
        return model, optim.Muon(model.parameters(), lr=0.02)
    model = network()
    return model, OPTIMIZERS[name](model.parameters())


@pytest.mark.parametrize("name", [*OPTIMIZERS, "Muon"])
def test_masks_follow_the_ramp_never_return_and_hold_in_weights_gradients_and_memory(name: str) -> None:
    model, optimizer = model_and_optimizer(name)
    suppression = suppression_of(model, optimizer, updates=9)
    weights = {key: value for key, value in model.named_parameters() if value.dim() > 1}
    masks = {key: torch.zeros_like(value, dtype=torch.bool) for key, value in weights.items()}
    share = 0.0

    def look(step: int) -> None:
        nonlocal share
        share = suppression.ramp.sparsity(step) if suppression.ramp.updates_at(step) else share
        now = suppression.state_dict()["masked"]
        for key, value in weights.items():
            count = masked_count(share, value.numel())
            assert int(now[key].sum()) == count
            assert bool((value[now[key]] == 0).all())
            assert not torch.signbit(value[now[key]]).any()
            assert bool((masks[key] <= now[key]).all())
            masks[key] = now[key]
            for kept in optimizer.state.get(value, {}).values():
                if isinstance(kept, Tensor) and kept.shape == value.shape and name != "Rprop":  # step sizes
                    assert bool((kept[now[key]].abs() <= 1e-8).all())  # Adamax adds that before it takes the largest

    train(model, optimizer, suppression, STEPS, look)
    assert all(value.isfinite().all() for value in model.parameters())
    assert {key: float(mask.float().mean()) for key, mask in zeros(model).items()} == pytest.approx(
        {key: masked_count(0.9, value.numel()) / value.numel() for key, value in weights.items()}
    )
    for value in weights.values():
        if value.grad is not None:
            key = next(key for key, one in weights.items() if one is value)
            assert bool((value.grad[masks[key]] == 0).all()) or name.startswith("LBFGS")


def law_bounds(kept: int, clip: float, bound: float, noise: float, sparsity: float, seed: int) -> None:
    model = network(seed)
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    noisy: dict[str, Any] = {"noise_std": noise, "noise_from": 0.5} if noise else {}
    rule = Layer("0", minimum_kept=kept, lower_clip=clip, upper_bound=bound, **noisy)
    suppression = suppression_of(
        model,
        optimizer,
        layers=[rule, "3.weight"],
        sparsity_end=sparsity,
        updates=7,
        generator=torch.Generator().manual_seed(seed) if noise else None,
    )
    weight = model.get_parameter("0.weight")

    def look(step: int) -> None:
        masked = suppression.state_dict()["masked"]["0.weight"]
        assert int((~masked).sum()) >= kept
        assert bool((weight[masked] == 0).all())
        if len(suppression.report().history):
            sizes = weight.detach()[~masked].abs()
            assert float(sizes.min()) >= torch.tensor(clip)
            assert float(sizes.max()) <= torch.tensor(bound)

    train(model, optimizer, suppression, STEPS, look)
    assert int((model.get_parameter("5.weight") == 0).sum()) == 0


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 36),
    st.floats(1e-6, 0.5) | st.just(0.0),
    st.floats(0.6, 2.0),
    st.floats(0, 0.2),
    st.floats(0, 0.95),
    st.integers(0, 1_000),
)
def test_floors_and_bounds_hold_after_every_step(
    kept: int, clip: float, bound: float, noise: float, sparsity: float, seed: int
) -> None:
    law_bounds(kept, clip, bound, noise, sparsity, seed)


def test_noise_reaches_large_kept_weights_alone_and_has_the_scale_it_is_given() -> None:
    """10,000 draws: the standard deviation is within 4.5 standard errors (0.007) of 0.1; a false alarm in 10^5 runs."""
    weight = nn.Parameter(torch.cat((torch.full((10_000,), 5.0), torch.linspace(0.01, 3.0, 10_000))).reshape(2, -1))
    model = nn.Module()
    model.weight = weight
    optimizer = optim.SGD([weight], lr=0.0)
    generator = torch.Generator().manual_seed(0)
    suppression = Suppression(
        model,
        optimizer,
        layers=[Layer("weight", noise_std=0.1)],
        start_epoch=1,
        end_epoch=1,
        steps_per_epoch=1,
        sparsity_end=0.25,
        generator=generator,
    )
    before = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    suppression.step()
    noise = (weight.detach() - before)[0]
    assert float(noise.std()) == pytest.approx(0.1, abs=4.5 * 0.1 / (2 * 10_000) ** 0.5)
    assert float(noise.mean()) == pytest.approx(0.0, abs=4.5 * 0.1 / 100)
    small = weight.detach()[1]
    assert torch.equal(small[5_000:], before[1][5_000:])  # kept, below three quarters of 5
    assert bool((small[:5_000] == 0).all())


def test_gradients_accumulate_and_a_norm_of_them_counts_what_is_used() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    suppression = suppression_of(model, optimizer, start_epoch=1, end_epoch=1)
    source = batches()
    for _ in range(2 * BATCHES):
        optimizer.zero_grad()
        for _ in range(3):
            inputs, labels = next(source)
            nn.functional.cross_entropy(model(inputs), labels).backward()
        used = torch.stack([value.grad[value != 0].norm() for value in model.parameters() if value.grad is not None])
        total = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        if suppression.report().masked:
            assert float(total) == pytest.approx(float(used.norm()), rel=1e-5)
        optimizer.step()
        suppression.step()
    assert suppression.report().sparsity == pytest.approx(0.9, abs=0.01)


def test_gradients_written_by_hand_are_masked_before_the_step() -> None:
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    suppression = suppression_of(model, optimizer, start_epoch=1, end_epoch=1)
    train(model, optimizer, suppression, BATCHES)
    masked = suppression.state_dict()["masked"]["3.weight"]
    weight = model.get_parameter("3.weight")
    for change in (lambda: setattr(weight, "grad", torch.ones_like(weight)), lambda: weight.grad.add_(1.0)):
        change()
        optimizer.step()
        assert bool((optimizer.state[weight]["exp_avg"][masked] == 0).all())
        assert bool((weight[masked] == 0).all())


def test_gradients_that_stay_while_masks_grow_are_masked_anew() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    suppression = suppression_of(model, optimizer, start_epoch=1, end_epoch=1)
    source = batches()
    for _ in range(BATCHES):
        one_step(model, optimizer, next(source))
        suppression.step()
        optimizer.step()  # with the gradient of before
        for name, mask in suppression.state_dict()["masked"].items():
            assert bool((model.get_parameter(name)[mask] == 0).all())


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
def test_weights_moved_by_others_are_zero_again_after_the_step(make: Any) -> None:
    model = network()
    optimizer = make(model.parameters(), lr=0.01)
    suppression = suppression_of(model, optimizer, start_epoch=1, end_epoch=1)
    train(model, optimizer, suppression, BATCHES)
    source = batches(1)
    for _ in range(3):
        one_step(model, optimizer, next(source))
        for value in model.parameters():
            value.data.add_(torch.randn_like(value))
        suppression.step()
        assert suppression.report().sparsity == pytest.approx(
            sum(int(zero.sum()) for zero in zeros(model).values()) / suppression.report().weights
        )


def test_nothing_over_nothing_does_not_stay() -> None:
    """Adam without epsilon: 0 / 0 for a weight without gradient and memory."""
    torch.manual_seed(0)
    model = nn.Linear(20, 3)
    optimizer = optim.Adam(model.parameters(), lr=0.01, eps=0.0)
    suppression = suppression_of(model, optimizer)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(torch.randn(8, 20)).square().mean().backward()
        optimizer.step()
        assert bool(model.weight.isfinite().all())
        suppression.step()
        assert bool(model.weight.isfinite().all())
    assert int((model.weight == 0).sum()) == 54


class Drifting(optim.SGD):
    """An optimizer of the user's own that moves every weight."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for group in self.param_groups:
            for value in group["params"]:
                value.data.add_(0.01)


def test_an_optimizer_of_ones_own_cannot_bring_them_back() -> None:
    model = network()
    optimizer = Drifting(model.parameters(), lr=0.1)
    suppression = suppression_of(model, optimizer, start_epoch=1, end_epoch=1)
    source = batches()
    for _ in range(2 * BATCHES):
        one_step(model, optimizer, next(source))
        before = suppression.state_dict()["masked"]
        for name, mask in before.items():
            assert bool((model.get_parameter(name)[mask] == 0).all())  # without suppression.step(), too
        suppression.step()


@pytest.mark.parametrize("schedule", ["cosine", "one cycle"])
def test_any_learning_rate_schedule(schedule: str) -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler: Any = optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    if schedule == "one cycle":
        scheduler = optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=STEPS)
    suppression = suppression_of(model, optimizer)
    train(model, optimizer, suppression, STEPS - 1, lambda step: scheduler.step())
    assert suppression.report().sparsity == pytest.approx(0.9, abs=0.01)


def test_bfloat16_and_float64_and_channels_last() -> None:
    for dtype in (torch.bfloat16, torch.float64):
        model = network().to(dtype)
        model = model.to(memory_format=torch.channels_last)
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        suppression = suppression_of(model, optimizer)
        source = ((inputs.to(dtype), labels) for inputs, labels in batches())
        train(model, optimizer, suppression, STEPS, source=source)
        assert suppression.report().sparsity == pytest.approx(0.9, abs=0.01)
        assert all(int(zero.sum()) > 0 for zero in zeros(model).values())


def test_a_model_that_is_converted_midway_goes_on() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    suppression = suppression_of(model, optimizer)
    train(model, optimizer, suppression, 2 * BATCHES)
    before = suppression.report().masked
    model.double()
    source = ((inputs.double(), labels) for inputs, labels in batches())
    train(model, optimizer, suppression, 3 * BATCHES, source=source)
    assert before < suppression.report().masked
    assert suppression.report().masked == sum(int(zero.sum()) for zero in zeros(model).values())


def test_a_scaler_that_skips_steps_goes_with_it() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    suppression = suppression_of(model, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1_000)  # the first steps overflow
    source = batches()
    for _ in range(STEPS):
        inputs, labels = next(source)
        optimizer.zero_grad()
        scaler.scale(nn.functional.cross_entropy(model(inputs), labels)).backward()
        scaler.step(optimizer)
        scaler.update()
        suppression.step()
    assert all(bool(value.isfinite().all()) for value in model.parameters())
    assert suppression.report().masked == sum(int(zero.sum()) for zero in zeros(model).values())


def test_an_update_that_fails_changes_nothing() -> None:
    """The second layer diverged; the first is not masked further either."""
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    suppression = suppression_of(model, optimizer, start_epoch=1, end_epoch=2)
    train(model, optimizer, suppression, 4)
    weights = model.get_parameter("3.weight").data.view(-1)
    weights[weights.abs().argmax()] = float("nan")  # one that is kept
    before, state = model[0].weight.detach().clone(), str(suppression.state_dict())
    with pytest.raises(DivergedError):
        suppression.step()
    assert torch.equal(before, model[0].weight)
    assert str(suppression.state_dict()) == state


@pytest.mark.parametrize(("noise_from", "reached"), [(0.0, 3), (0.5, 2), (0.9, 1)])
def test_noise_begins_where_it_is_told_and_draws_for_every_weight(noise_from: float, reached: int) -> None:
    weights = torch.tensor([1.0, 0.6, 0.1, 5.0])
    masked = torch.tensor([False, False, False, True])
    generator = torch.Generator().manual_seed(0)
    add_noise(found := weights.clone(), masked, Layer("0", noise_std=0.1, noise_from=noise_from), generator)
    assert int((found != weights).sum()) == reached
    whole = torch.Generator().manual_seed(0)
    noise = torch.randn(4, generator=whole)
    assert torch.allclose(found[0], weights[0] + 0.1 * noise[0])
    assert torch.equal(generator.get_state(), whole.get_state())


def test_bounds_wait_for_the_first_update() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    rule = Layer("0", upper_bound=0.01)
    suppression = suppression_of(model, optimizer, layers=[rule], start_epoch=1, end_epoch=1, updates=1)
    largest = []
    train(
        model, optimizer, suppression, BATCHES, lambda step: largest.append(float(model[0].weight.detach().abs().max()))
    )
    assert min(largest[:-1]) > 0.01 >= largest[-1]


def test_lbfgs_keeps_its_history_where_nothing_new_is_masked() -> None:
    model, optimizer = model_and_optimizer("LBFGS")
    suppression = suppression_of(model, optimizer, sparsity_start=0.5, sparsity_end=0.5)
    source = batches()
    kept = []
    for _ in range(4 * BATCHES):
        one_step(model, optimizer, next(source))
        suppression.step()
        kept.append(bool(optimizer.state))
    assert kept.count(False) == 1
