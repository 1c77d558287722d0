"""Faults planted in suppression are caught by the laws that its tests rest on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tests.suppression import test_laws as laws
from tests.suppression import test_layers, test_mask, test_private, test_ramp, test_resume
from torch import Tensor, optim

from privet.suppression import Layer, Ramp, Suppression
from privet.suppression import suppression as room
from privet.suppression.enforcement import Enforcement, _Arrival
from privet.suppression.mask import Mask


def nothing(*given: Any, **named: Any) -> None:
    return None


def largest(mask: Mask, weights: Tensor, count: int) -> Tensor:
    places = mask.kept.reshape(-1).nonzero().reshape(-1)
    sizes = weights.detach().reshape(-1)[places].abs()
    return places[sizes.topk(max(count - mask.count, 0)).indices]


def last_of_equals(mask: Mask, weights: Tensor, count: int) -> Tensor:
    places = mask.kept.reshape(-1).nonzero().reshape(-1).flip(0)
    sizes = weights.detach().reshape(-1)[places].abs().float()
    return places[sizes.sort(stable=True).indices[: max(count - mask.count, 0)]]


def one_more(mask: Mask, weights: Tensor, count: int, original: Any = Mask.smallest) -> Tensor:
    found: Tensor = original(mask, weights, min(count + 1, weights.numel() - 1) if count else 0)
    return found


def anew(mask: Mask, indices: Tensor, original: Any = Mask.add) -> None:
    """As many as before, but others: those of an update that forgets the one before it."""
    if mask.count and len(indices):
        before = int(mask.masked.reshape(-1).nonzero()[0])
        mask.kept.view(-1)[before] = 1
        mask.count -= 1
        after = mask.kept.view(-1).nonzero().reshape(-1)
        indices = torch.cat((indices, after[(after != before) & ~torch.isin(after, indices)][:1]))
    original(mask, indices)


def straight(ramp: Ramp, step: int) -> float:
    if step < ramp.start or step >= ramp.end:
        return 0.0 if step < ramp.start else ramp.sparsity_end
    share = (step - ramp.start) / (ramp.end - ramp.start)
    return ramp.sparsity_start + (ramp.sparsity_end - ramp.sparsity_start) * share


def every_step(ramp: Ramp, step: int) -> bool:
    return ramp.start <= step <= ramp.end


def from_zero(ramp: Ramp, step: int, original: Any = Ramp.updates_at) -> bool:
    return bool(original(ramp, step + 1))


def as_float(mask: Mask, values: Tensor) -> None:
    with torch.no_grad():
        values.mul_(mask.kept)  # -0 of a negative, NaN of a NaN


def scaled(factor: float) -> Any:
    def add_noise(
        weights: Tensor, masked: Tensor, rule: Layer, generator: torch.Generator, original: Any = room.add_noise
    ) -> None:
        original(weights, masked, Layer("0", noise_std=factor * rule.noise_std, noise_from=rule.noise_from), generator)

    return add_noise


def on_all(weights: Tensor, masked: Tensor, rule: Layer, generator: torch.Generator) -> None:
    with torch.no_grad():
        weights.add_(torch.randn(weights.shape, generator=generator) * rule.noise_std)


def half_bounded(weights: Tensor, rule: Layer, original: Any = room.hold) -> None:
    original(weights, Layer("0", upper_bound=rule.upper_bound))


def without(name: str) -> Any:
    def load_state_dict(suppression: Suppression, state: Any, original: Any = Suppression.load_state_dict) -> None:
        original(suppression, state | {name: suppression.state_dict()[name]})

    return load_state_dict


def without_history(suppression: Suppression, state: Any, original: Any = Suppression.load_state_dict) -> None:
    original(suppression, state)
    suppression._history = []


def not_released(suppression: Suppression, original: Any = Suppression.step) -> None:
    original(suppression)
    suppression._released = True


def follow(name: str) -> Callable[[], None]:
    return partial(laws.test_masks_follow_the_ramp_never_return_and_hold_in_weights_gradients_and_memory, name)


def through_a_file() -> None:
    test_resume.test_through_a_file_of_torch("Adam", "model first")


def ties() -> None:
    test_mask.test_any_size_is_the_same_case(torch.bfloat16, 9_999)


def moved_by_others() -> None:
    laws.test_weights_moved_by_others_are_zero_again_after_the_step(optim.SGD)


BOUNDS = partial(laws.law_bounds, 10, 0.2, 0.6, 0.2, 0.9, 0)
CLEARED = partial(test_mask.test_what_is_cleared_is_plus_zero_and_the_rest_is_untouched, torch.float32)
NOISE = laws.test_noise_reaches_large_kept_weights_alone_and_has_the_scale_it_is_given
FAULTS: dict[str, tuple[Any, str, Any, Callable[[], None]]] = {
    "gradients pass as they arrive": (
        _Arrival,
        "__call__",
        nothing,
        laws.test_gradients_accumulate_and_a_norm_of_them_counts_what_is_used,
    ),
    "gradients written by hand pass": (
        _Arrival,
        "look_at",
        nothing,
        laws.test_gradients_written_by_hand_are_masked_before_the_step,
    ),
    "weights are not cleared after a step": (
        Enforcement,
        "_after",
        nothing,
        laws.test_an_optimizer_of_ones_own_cannot_bring_them_back,
    ),
    "weights are cleared by the optimizer's hook alone": (Enforcement, "clear_weights", nothing, moved_by_others),
    "weights are left where they were": (
        Enforcement,
        "_look_again",
        lambda enforcement, original=Enforcement._look_again: enforcement._weights or original(enforcement),
        laws.test_a_model_that_is_converted_midway_goes_on,
    ),
    "the optimizer remembers": (room, "forget", nothing, follow("Adam")),
    "LBFGS remembers": (
        room,
        "forget",
        nothing,
        lambda: follow("LBFGS")() or follow("LBFGS, line search")() or test_lbfgs_begins_anew(),
    ),
    "the largest are masked": (Mask, "smallest", largest, ties),
    "of equals the last": (Mask, "smallest", last_of_equals, ties),
    "one too many": (Mask, "smallest", one_more, follow("SGD")),
    "masks come back": (Mask, "add", anew, follow("SGD")),
    "cleared by a product": (Mask, "clear", as_float, CLEARED),
    "a straight ramp": (Ramp, "sparsity", straight, test_ramp.test_it_is_the_cubic_and_never_falls),
    "updates at every step": (
        Ramp,
        "updates_at",
        every_step,
        test_ramp.test_updates_are_as_many_as_said_evenly_spread_and_the_last_is_at_the_end,
    ),
    "a step early": (
        Ramp,
        "updates_at",
        from_zero,
        test_ramp.test_updates_are_as_many_as_said_evenly_spread_and_the_last_is_at_the_end,
    ),
    "rounded up": (
        room,
        "masked_count",
        lambda share, weights, kept: min(-int(-share * weights // 1), weights - kept),
        follow("SGD"),
    ),
    "no minimum": (
        room,
        "masked_count",
        lambda share, weights, kept, original=room.masked_count: original(share, weights),
        BOUNDS,
    ),
    "no bounds": (room, "hold", nothing, BOUNDS),
    "no lower clip": (room, "hold", half_bounded, BOUNDS),
    "noise of two thirds": (room, "add_noise", scaled(2 / 3), NOISE),
    "noise of three halves": (room, "add_noise", scaled(3 / 2), NOISE),
    "noise on small weights": (room, "add_noise", on_all, NOISE),
    "resumed at the first step": (Suppression, "load_state_dict", without("step"), through_a_file),
    "resumed without masks": (Mask, "set", nothing, through_a_file),
    "resumed without history": (Suppression, "load_state_dict", without_history, through_a_file),
    "resumed with other noise": (Suppression, "load_state_dict", without("generator"), through_a_file),
    "a claim whatever went before": (
        Suppression,
        "step",
        not_released,
        test_private.test_masks_of_earlier_training_without_noise_make_no_claim,
    ),
    "hooks stay": (
        Enforcement,
        "stop",
        nothing,
        test_layers.test_one_suppression_a_layer_until_it_is_finalized,
    ),
}


def test_lbfgs_begins_anew() -> None:
    model, optimizer = laws.model_and_optimizer("LBFGS")
    suppression = laws.suppression_of(model, optimizer)
    cleared, masked = [], 0

    def look(step: int) -> None:
        nonlocal masked
        before, masked = masked, suppression.report().masked
        cleared.append(not optimizer.state or masked == before)

    laws.train(model, optimizer, suppression, laws.STEPS, look)
    assert masked
    assert all(cleared)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, field, fault, law_holds = FAULTS[name]
    monkeypatch.setattr(owner, field, fault)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        law_holds()
