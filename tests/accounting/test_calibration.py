"""Plans that fit: always within the target, never far below it, and the last number of steps that fits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privet.accounting import PLD, Event, NoSampling, Poisson
from privet.accounting.calibration import largest_steps, merged_events, noise_multiplier, schedule_scale
from privet.errors import AccountingError, ArgumentError


@pytest.mark.parametrize(
    ("rate", "steps", "delta", "target"),
    [(256 / 60_000, 14_000, 1e-5, 2.0), (0.01, 100, 1e-6, 0.3), (0.2, 50, 1e-5, 10.0), (0.5, 1, 1e-4, 1.0)],
)
def test_the_noise_meets_the_target_and_just_so(rate: float, steps: int, delta: float, target: float) -> None:
    noise = noise_multiplier(Poisson(rate), steps, delta, target)
    assert target * (1 - 5e-4) <= PLD().upper_epsilon([Event(noise, Poisson(rate), steps)], delta) <= target


def test_the_noise_without_sampling_is_that_of_the_gaussian_mechanism() -> None:
    assert noise_multiplier(NoSampling(), 1, 1e-5, 4.377178) == pytest.approx(1.0, abs=2e-4)


@pytest.mark.parametrize("target", [0.5, 3.0])
def test_the_scale_of_a_schedule_meets_the_target_and_just_so(target: float) -> None:
    shape = 2.0 * 0.3 ** (np.arange(600) / 599)
    scale = schedule_scale(shape.tolist(), Poisson(0.02), 1e-5, target)
    spent = PLD().upper_epsilon(merged_events((scale * shape).tolist(), Poisson(0.02)), 1e-5)
    assert target * (1 - 5e-4) <= spent <= target


@given(st.integers(0, 200), st.integers(0, 250))
def test_the_last_number_that_fits(limit: int, most: int) -> None:
    assert largest_steps(lambda steps: steps <= limit, most) == min(limit, most)


def test_merged_events_keep_every_step_in_order() -> None:
    noise = [2.0, 2.0, 1.0, 2.0]
    events = merged_events(noise, NoSampling())
    assert [event.noise_multiplier for event in events for _ in range(event.count)] == noise
    assert len(events) == 3


def test_a_target_below_what_delta_forgives_is_met_by_much_noise() -> None:
    noise = noise_multiplier(Poisson(0.01), 10, 1e-5, 1e-6)
    assert PLD().upper_epsilon([Event(noise, Poisson(0.01), 10)], 1e-5) <= 1e-6


def test_what_cannot_be_met_is_refused() -> None:
    with pytest.raises(ArgumentError, match="target_epsilon"):
        noise_multiplier(NoSampling(), 1, 1e-5, 0.0)
    with pytest.raises(ArgumentError, match="delta"):
        noise_multiplier(NoSampling(), 1, 1.0, 1.0)
    with pytest.raises(ArgumentError, match="at least one step"):
        schedule_scale([], NoSampling(), 1e-5, 1.0)
    with pytest.raises(AccountingError, match="no noise"):
        noise_multiplier(NoSampling(), 1, 1e-12, 1e-12)
    with pytest.raises(ArgumentError, match="most"):
        largest_steps(lambda _: True, -1)
