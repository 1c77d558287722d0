"""zCDP: its conversion against the minimum in 40 digits, the truth, and the laws of an accountant."""

from __future__ import annotations

import math
import random

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privet.accounting.events import Event, NeighbouringRelation, NoSampling, Poisson, TruncatedPoisson
from privet.accounting.gaussian import gaussian_epsilon
from privet.accounting.rdp import RDP
from privet.accounting.zcdp import ZCDP, epsilon_of_rho
from privet.errors import ArgumentError, UnsupportedEventError


def defined_epsilon(rho: float, delta: float) -> float:
    """The conversion at the order where its derivative vanishes, in 40 digits."""
    with mpmath.workdps(40):
        r, log_delta = mpmath.mpf(rho), mpmath.log(mpmath.mpf(delta))

        def at(a: mpmath.mpf) -> mpmath.mpf:
            return r * a + mpmath.log(1 - 1 / a) - (mpmath.log(a) + log_delta) / (a - 1)

        grid = [1 + mpmath.mpf(10) ** (mpmath.mpf(k) / 100) for k in range(-900, 1200, 4)]
        start = min(range(len(grid)), key=lambda i: at(grid[i]))
        low, high = grid[max(start - 1, 0)], grid[start + 1]
        for _ in range(80):  # ternary search
            third = (high - low) / 3
            if at(low + third) < at(high - third):
                high -= third
            else:
                low += third
        return max(float(at(low)), 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_the_conversion_is_the_minimum_over_orders(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(12):
        rho, delta = 10 ** draw.uniform(-6, 4), 10 ** draw.uniform(-12, -2)
        exact = defined_epsilon(rho, delta)
        if rho / 2 <= delta**2 * (1 + 1e-9):
            assert epsilon_of_rho(rho, delta) == 0.0
        else:
            assert exact <= epsilon_of_rho(rho, delta) * (1 + 1e-13) + 1e-15
            assert epsilon_of_rho(rho, delta) <= exact * (1 + 1e-9) + 1e-9


@settings(max_examples=100, deadline=None)
@given(st.floats(-6, 6), st.floats(-12, -0.01))
def test_it_lies_between_the_truth_and_the_loose_conversion(log_rho: float, log_delta: float) -> None:
    rho, delta = 10**log_rho, 10**log_delta
    epsilon = epsilon_of_rho(rho, delta)
    assert gaussian_epsilon(delta, math.sqrt(2 * rho)).lower <= epsilon
    assert epsilon <= (rho + 2 * math.sqrt(-rho * math.log(delta))) * (1 + 1e-11)


def test_rho_is_the_sum_over_releases_whatever_was_sampled() -> None:
    events = [Event(2.0, NoSampling(), 3), Event(0.5, Poisson(0.01), 4)]
    assert ZCDP().rho(events) == pytest.approx(3 / 8 + 4 / 0.5)
    unsampled = [Event(2.0, NoSampling(), 3), Event(0.5, NoSampling(), 4)]
    for relation in NeighbouringRelation:
        assert ZCDP().epsilon(events, 1e-5, relation) == ZCDP().epsilon(unsampled, 1e-5, relation)


def test_without_sampling_it_is_rdp_and_with_sampling_it_is_not_below() -> None:
    draw = random.Random(4)
    for _ in range(10):
        z, n, delta = 10 ** draw.uniform(-0.5, 1.5), draw.randint(1, 1000), 10 ** draw.uniform(-10, -1)
        whole = ZCDP().epsilon([Event(z, NoSampling(), n)], delta).upper
        assert whole == pytest.approx(RDP().epsilon([Event(z, NoSampling(), n)], delta).upper, rel=1e-8)
        sampled = [Event(z, Poisson(draw.uniform(0.01, 0.99)), n)]
        assert ZCDP().epsilon(sampled, delta).upper >= RDP().epsilon(sampled, delta).upper * (1 - 1e-9)


@settings(max_examples=60, deadline=None)
@given(st.floats(-1, 3), st.integers(1, 10**6), st.floats(-12, -1), st.floats(1.01, 2))
def test_monotone(log_z: float, n: int, log_delta: float, factor: float) -> None:
    def upper(z: float = 10**log_z, n: int = n, delta: float = 10**log_delta) -> float:
        return ZCDP().epsilon([Event(z, NoSampling(), n)], delta).upper

    middle = upper()
    assert upper(z=10**log_z * factor) <= middle
    assert upper(n=math.ceil(n * factor)) >= middle
    assert upper(delta=10**log_delta / factor) >= middle


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.7, 1.0, 3.0]), st.integers(1, 9)), min_size=1, max_size=8), st.randoms())
def test_order_and_merging_do_not_matter(parts: list[tuple[float, int]], shuffle: random.Random) -> None:
    events = [Event(z, Poisson(0.1), n) for z, n in parts]
    singles = [Event(z, Poisson(0.1)) for z, n in parts for _ in range(n)]
    shuffle.shuffle(singles)
    assert ZCDP().epsilon(events, 1e-5) == ZCDP().epsilon(singles, 1e-5)


def test_ends() -> None:
    assert ZCDP().epsilon([], 1e-5).upper == 0.0
    assert epsilon_of_rho(math.inf, 1e-5) == math.inf
    assert epsilon_of_rho(1e-12, 1e-5) == 0.0
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for rho in (1e-300, 1e-12, 1e12, 1e300):
            for delta in (1e-300, 1e-12, 0.5, 1 - 1e-15):
                assert 0.0 <= epsilon_of_rho(rho, delta) < math.inf
    assert ZCDP().epsilon([Event(1e-100, NoSampling())], 1e-5).upper > 1e199


def test_refusals() -> None:
    for relation in NeighbouringRelation:
        with pytest.raises(UnsupportedEventError, match="displace"):
            ZCDP().epsilon([Event(1.0, TruncatedPoisson(0.1, 10, 50))], 1e-5, relation)
    with pytest.raises(ArgumentError, match="delta"):
        ZCDP().epsilon([], 0.0)
    with pytest.raises(ArgumentError, match="rho"):
        epsilon_of_rho(-1.0, 1e-5)
