"""Delta of the Gaussian mechanism against its definition in 200 digits, and the sides of its inverse."""

from __future__ import annotations

import math
import random

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privet.accounting.gaussian import gaussian_delta, gaussian_epsilon, log_gaussian_delta
from privet.errors import ArgumentError


def defined_log_delta(epsilon: float, mu: float) -> mpmath.mpf:
    with mpmath.workdps(400):
        e, m = mpmath.mpf(epsilon), mpmath.mpf(mu)
        return mpmath.log(mpmath.ncdf(-e / m + m / 2) - mpmath.exp(e) * mpmath.ncdf(-e / m - m / 2))


def random_cases(n: int, seed: int) -> list[tuple[float, float]]:
    draw = random.Random(seed)
    cases = []
    for _ in range(n):
        mu, x = 10 ** draw.uniform(-5, 2), 10 ** draw.uniform(-3, 1.5)
        cases.append((x * mu + draw.choice([0.0, mu * mu / 2]), mu))
    return cases


def test_delta_is_its_definition() -> None:
    for epsilon, mu in [*random_cases(400, seed=1), (0.0, 1e-8), (0.0, 30.0), (2.0, 0.05), (1.0, 0.0499999)]:
        exact = defined_log_delta(epsilon, mu)
        assert abs(float(log_gaussian_delta(epsilon, mu) - exact)) <= 4e-13, (epsilon, mu)


def test_tiny_deltas_neither_underflow_nor_turn_negative() -> None:
    # x = 99.5: log phi(x) + log(m(x) - m(x + 1)), by quadrature in 40 digits
    assert log_gaussian_delta(100.0, 1.0) == pytest.approx(-4960.25455381742, rel=1e-14)
    assert gaussian_delta(100.0, 1.0) == 0.0


@settings(max_examples=150, deadline=None)
@given(st.floats(-5, 2), st.floats(-15, -0.1))
def test_the_upper_end_keeps_delta_and_the_lower_end_does_not(log_mu: float, log_delta: float) -> None:
    mu, delta = 10**log_mu, 10**log_delta
    bound = gaussian_epsilon(delta, mu)
    if bound.upper > 0.0:
        assert defined_log_delta(bound.upper, mu) <= mpmath.log(mpmath.mpf(delta))
    if bound.lower > 0.0:
        assert defined_log_delta(bound.lower, mu) >= mpmath.log(mpmath.mpf(delta))
    assert bound.width <= 1e-12 * bound.upper + 3e-12 * mu


@pytest.mark.parametrize("sigmas", [[1.0], [2.0] * 4, [1.25, 5 / 3], [10.0] * 100])
def test_golden_value(sigmas: list[float]) -> None:
    mu = math.sqrt(sum(1 / sigma**2 for sigma in sigmas))
    bound = gaussian_epsilon(1e-5, mu)
    assert bound.lower == pytest.approx(4.377178, abs=5e-7)
    assert bound.upper == pytest.approx(4.377178, abs=5e-7)


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-3, 50), st.floats(1e-12, 0.5), st.floats(1.001, 3))
def test_monotone(mu: float, delta: float, factor: float) -> None:
    assert gaussian_epsilon(delta, mu * factor).upper >= gaussian_epsilon(delta, mu).lower
    assert gaussian_epsilon(delta / factor, mu).upper >= gaussian_epsilon(delta, mu).lower


def test_nothing_released_costs_nothing_and_a_large_delta_covers_all() -> None:
    assert gaussian_epsilon(1e-5, 0.0).upper == 0.0
    assert gaussian_epsilon(0.4, 1.0).upper == 0.0  # total variation 0.3829
    assert gaussian_epsilon(0.38, 1.0).upper > 0.0


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: gaussian_delta(-1.0, 1.0), "epsilon"),
        (lambda: gaussian_delta(math.nan, 1.0), "epsilon"),
        (lambda: gaussian_delta(1.0, 0.0), "mu"),
        (lambda: gaussian_epsilon(0.0, 1.0), "delta"),
        (lambda: gaussian_epsilon(1.0, 1.0), "delta"),
        (lambda: gaussian_epsilon(1e-5, math.inf), "mu"),
    ],
)
def test_refusals(call, name: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ArgumentError, match=name):
        call()
