"""A clip norm that follows a quantile: it finds it, moves by the formula, and stays within its bounds."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privet.dp.adaptive_clipping import AdaptiveQuantile, ClipUpdate
from privet.dp.clipping import ClippingState, estimated_fractions
from privet.errors import ArgumentError

GEOMETRIC, LINEAR = ClipUpdate.GEOMETRIC, ClipUpdate.LINEAR


@given(st.floats(0.01, 100.0), st.floats(0.05, 0.95), st.floats(0.01, 1.0), st.floats(-0.5, 1.5))
def test_a_norm_moves_by_the_formula(norm: float, quantile: float, rate: float, fraction: float) -> None:
    by_factor = AdaptiveQuantile(norm, quantile, rate, rule=GEOMETRIC)
    by_step = AdaptiveQuantile(norm, quantile, rate, rule=LINEAR)
    (geometric,) = by_factor.update(by_factor.initial(1), [fraction]).max_grad_norms
    (linear,) = by_step.update(by_step.initial(1), [fraction]).max_grad_norms
    assert math.log(geometric / norm) == pytest.approx(rate * (quantile - fraction), rel=1e-9, abs=1e-12)
    assert linear == max(norm + rate * (quantile - fraction), norm / 1e6)


@pytest.mark.parametrize("rule", ClipUpdate)
@pytest.mark.parametrize(("quantile", "start"), [(0.5, 0.1), (0.5, 10.0), (0.9, 1.0), (0.1, 1.0)])
def test_the_norm_finds_the_quantile(rule: ClipUpdate, quantile: float, start: float) -> None:
    generator = torch.Generator().manual_seed(1)
    noise = np.random.default_rng(1)
    norms = torch.rand(1_000, generator=generator) * 4.0  # the quantile q is 4 q
    size = 200.0
    strategy = AdaptiveQuantile(start, quantile, rule=rule)
    state, (std,) = strategy.initial(1), strategy.count_noise_stds(1, size)
    assert std == 10.0
    late = []
    for step in range(700):
        batch = norms[torch.rand(1_000, generator=generator) < size / 1_000].unsqueeze(0)
        below = strategy.clip(state, batch).below.tolist()
        state = strategy.update(state, estimated_fractions(below, [noise.normal(0.0, std)], size))
        late += state.max_grad_norms if step >= 500 else ()
    found = np.mean([(norms <= norm).double().mean().item() for norm in late])
    assert abs(float(found) - quantile) < 0.03


@given(
    st.sampled_from(ClipUpdate),
    st.floats(1e-12, 1e12),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5),
    st.floats(1e-3, 1e300),
)
def test_the_norm_stays_within_its_bounds_whatever_the_noise(
    rule: ClipUpdate, initial: float, fractions: list[float], rate: float
) -> None:
    strategy = AdaptiveQuantile(initial, learning_rate=rate, rule=rule)
    low, high = strategy.bounds
    assert max(initial / 1e6, 1e-12) == low <= initial <= high == min(initial * 1e6, 1e12)
    state = strategy.initial(1)
    for fraction in fractions:
        state = strategy.update(state, [fraction])
        assert low <= state.max_grad_norms[0] <= high


def test_bounds_hold_where_they_are_given() -> None:
    strategy = AdaptiveQuantile(1.0, rule=LINEAR, smallest=0.9, largest=1.05)
    assert strategy.update(strategy.initial(1), [1.5]).max_grad_norms == (0.9,)
    assert strategy.update(strategy.initial(1), [-0.5]).max_grad_norms == (1.05,)


def test_each_group_moves_by_its_own_fraction() -> None:
    strategy = AdaptiveQuantile(1.0)
    assert strategy.initial(3) == ClippingState((1.0, 1.0, 1.0))
    assert strategy.count_noise_stds(3, 40.0) == (2.0, 2.0, 2.0)
    clipped = strategy.clip(strategy.initial(2), torch.tensor([[0.5, 1.0, 2.0], [3.0, 3.0, 0.0]]))
    assert clipped.below.tolist() == [0.5, -0.5]  # a norm that equals C is below
    up, down, stay = strategy.update(strategy.initial(3), [0.25, 0.75, 0.5]).max_grad_norms
    assert up > 1.0 > down
    assert stay == 1.0


def test_a_given_count_noise_is_taken_as_it_is() -> None:
    assert AdaptiveQuantile(1.0, count_noise_std=7.0).count_noise_stds(1, 1e6) == (7.0,)


@pytest.mark.parametrize("fractions", [[], [0.5, 0.5], [math.nan], [math.inf]])
def test_what_is_no_fraction_is_refused(fractions: list[float]) -> None:
    strategy = AdaptiveQuantile(1.0)
    with pytest.raises(ArgumentError, match="noisy_fractions"):
        strategy.update(strategy.initial(1), fractions)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"initial_norm": 0.0}, "initial_norm"),
        ({"target_quantile": 0.0}, "target_quantile"),
        ({"target_quantile": 1.0}, "target_quantile"),
        ({"target_quantile": "half"}, "target_quantile"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": math.inf}, "learning_rate"),
        ({"count_noise_std": 0.0}, "count_noise_std"),
        ({"count_noise_std": math.nan}, "count_noise_std"),
        ({"rule": "geometric"}, "rule"),
        ({"smallest": 0.0}, "smallest"),
        ({"largest": math.inf}, "largest"),
        ({"smallest": 2.0}, "initial_norm"),
        ({"largest": 0.5}, "initial_norm"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ArgumentError, match=name):
        AdaptiveQuantile(**{"initial_norm": 1.0, **settings})


def test_every_setting_is_in_the_description() -> None:
    base = {"initial_norm": 1.0}
    others: list[dict[str, Any]] = [
        {"initial_norm": 2.0, "smallest": 1e-6, "largest": 1e6},
        {"target_quantile": 0.4},
        {"learning_rate": 0.1},
        {"count_noise_std": 5.0},
        {"rule": LINEAR},
        {"smallest": 1e-3},
        {"largest": 1e3},
    ]
    texts = {json.dumps(AdaptiveQuantile(**{**base, **one}).to_json(), sort_keys=True) for one in [base, *others]}
    assert len(texts) == 1 + len(others)
    assert AdaptiveQuantile(1).to_json() == AdaptiveQuantile(1.0).to_json()
