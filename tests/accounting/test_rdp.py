"""Renyi divergences against quadrature in 40 digits, against dp-accounting, and the laws of the accountant."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privet.accounting.events import Event, NeighbouringRelation, NoSampling, Poisson, TruncatedPoisson
from privet.accounting.gaussian import gaussian_epsilon
from privet.accounting.rdp import RDP, rdp_epsilon_of_order
from privet.errors import ArgumentError, UnsupportedEventError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "rdp.json").read_text())
REPLACE = NeighbouringRelation.REPLACE_ONE


def defined_divergence(q: float, z: float, alpha: float, *, other_direction: bool = False) -> mpmath.mpf:
    """The definition: Gauss-Legendre quadrature in pieces of one noise deviation."""
    with mpmath.workdps(40):
        q, z, a = mpmath.mpf(q), mpmath.mpf(z), mpmath.mpf(alpha)
        power = 1 - a if other_direction else a
        ratio = lambda x: 1 - q + q * mpmath.exp(x / z - 1 / (2 * z * z))  # noqa: E731
        density = lambda x: mpmath.npdf(x)  # noqa: E731
        edge = z * mpmath.log(1 / q - 1) + 1 / (2 * z)
        top = a / z + 15
        points = sorted({mpmath.mpf(-15), *(p for p in (edge,) if -15 < p < top), top})
        cuts = [points[0]]
        for left, right in itertools.pairwise(points):
            n = math.ceil(float((right - left) / min(1, 2 * z)))
            cuts += [left + (right - left) * k / n for k in range(1, n + 1)]
        excess = mpmath.quad(lambda x: density(x) * (ratio(x) ** power - 1 - power * (ratio(x) - 1)), cuts, maxdegree=4)
        return mpmath.log1p(excess) / (a - 1)


def random_cases(n: int, seed: int, *, whole: bool) -> list[tuple[float, float, float]]:
    draw = random.Random(seed)
    cases = []
    for _ in range(n):
        q = draw.choice([10 ** draw.uniform(-6, -0.05), 1 - 10 ** draw.uniform(-6, -0.5)])
        z = 10 ** draw.uniform(-0.6, 1.7)
        alpha = 1 + 10 ** draw.uniform(-4, min(2.2, math.log10(25 * z)))
        cases.append((q, z, max(2.0, float(round(alpha))) if whole else alpha))
    return cases


@pytest.mark.parametrize("whole", [True, False])
def test_divergence_is_its_definition(whole: bool) -> None:
    for q, z, alpha in random_cases(15, seed=2, whole=whole):
        exact = defined_divergence(q, z, alpha)
        assert rdp_epsilon_of_order(q, z, alpha)[0] == pytest.approx(float(exact), rel=1e-10), (q, z, alpha)


def test_whole_orders_are_the_binomial_sum() -> None:
    draw = random.Random(3)
    for _ in range(60):
        q, z, alpha = 10 ** draw.uniform(-6, -0.01), 10 ** draw.uniform(-0.7, 2), draw.choice([2, 3, 7, 40, 256, 300])
        with mpmath.workdps(60):
            mq, mz = mpmath.mpf(q), mpmath.mpf(z)
            terms = (
                mpmath.binomial(alpha, k) * (1 - mq) ** (alpha - k) * mq**k * mpmath.exp((k * k - k) / (2 * mz**2))
                for k in range(alpha + 1)
            )
            exact = mpmath.log(mpmath.fsum(terms)) / (alpha - 1)
        assert rdp_epsilon_of_order(q, z, alpha)[0] == pytest.approx(float(exact), rel=1e-10), (q, z, alpha)


def test_whole_and_nearby_orders_agree() -> None:
    """The two ways of summing meet: the divergence is continuous in the order."""
    draw = random.Random(4)
    for _ in range(200):
        q, z = 10 ** draw.uniform(-6, -0.001), 10 ** draw.uniform(-1, 2)
        alpha = float(draw.randint(2, 256))
        nearby = rdp_epsilon_of_order(q, z, alpha * (1 + 1e-13))[0]
        assert nearby == pytest.approx(rdp_epsilon_of_order(q, z, alpha)[0], rel=1e-9), (q, z, alpha)


def test_the_other_direction_is_not_larger() -> None:
    for q, z, alpha in random_cases(6, seed=5, whole=False):
        other = float(defined_divergence(q, z, alpha, other_direction=True))
        assert other <= rdp_epsilon_of_order(q, z, alpha)[0] * (1 + 1e-10)


@pytest.mark.parametrize("q", [1e-300, 1e-6, 0.5, 1 - 1e-9, 1.0])
def test_extremes_stay_finite_and_below_no_sampling(q: float) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for z in (1e-3, 0.04, 0.06, 0.2, 1.0, 100.0, 1e6):
            for alpha in (1 + 1e-9, 1.5, 2.0, 33.3, 1e3, 1e6 + 0.5, 1e30):
                value = rdp_epsilon_of_order(q, z, alpha)[0]
                assert 0.0 <= value <= alpha / (2 * z * z) * (1 + 1e-12), (z, alpha)


def test_many_levels_at_once_are_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privet.accounting.rdp._CHUNK", 5_000)  # several chunks
    draw = np.random.default_rng(6)
    q, z = 10 ** draw.uniform(-5, 0, 300), 10 ** draw.uniform(-0.5, 1, 300)
    q[:10] = 1.0
    for alpha in (1.7, 2.0, 31.4):
        together = rdp_epsilon_of_order(q, z, alpha)
        alone = [rdp_epsilon_of_order(a, b, alpha)[0] for a, b in zip(q, z, strict=True)]
        np.testing.assert_allclose(together, alone, rtol=1e-11)


def test_dp_accounting_is_not_below_at_its_own_orders() -> None:
    from dp_accounting import dp_event
    from dp_accounting.rdp import rdp_privacy_accountant as theirs

    draw = random.Random(7)
    for case in range(25):
        orders = sorted({*(draw.randint(2, 64) for _ in range(5)), *(1 + draw.uniform(0.05, 9) for _ in range(5))})
        accountant, events = theirs.RdpAccountant(orders), []
        for _ in range(draw.randint(1, 3)):
            q, z, n = 10 ** draw.uniform(-4, -0.3), draw.uniform(0.5, 5), draw.randint(1, 2000)
            events.append(Event(z, Poisson(q), n))
            accountant.compose(dp_event.PoissonSampledDpEvent(q, dp_event.GaussianDpEvent(z)), n)
        z = draw.uniform(5, 50)
        events.append(Event(z, NoSampling(), 3))
        accountant.compose(dp_event.GaussianDpEvent(z), 3)
        ours = RDP().divergences(events, orders)
        for order, our, their in zip(orders, ours, accountant._rdp, strict=True):
            assert our <= their * (1 + 1e-8) + 1e-9, (case, order)
            if order == int(order):
                assert our == pytest.approx(their, rel=1e-7, abs=1e-9), (case, order)
        delta = 10 ** draw.uniform(-10, -0.5)
        at_their_orders = RDP(tuple(orders)).epsilon(events, delta).upper
        assert at_their_orders <= accountant.get_epsilon(delta) + 1e-9
        assert RDP().epsilon(events, delta).upper <= at_their_orders * (1 + 1e-8)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=str)
def test_golden_values(case: dict[str, float]) -> None:
    event = Event(case["noise_multiplier"], Poisson(case["sampling_rate"]), int(case["steps"]))
    upper = RDP().epsilon([event], case["delta"]).upper
    assert upper <= case["epsilon"] + 1e-4
    assert upper >= case["epsilon"] * 0.99  # far below would be below the truth


def test_the_searched_order_is_the_best_of_a_dense_grid() -> None:
    orders = tuple((1 + np.geomspace(1e-3, 1e3, 400)).tolist())
    draw = random.Random(8)
    for _ in range(6):
        events = [
            Event(10 ** draw.uniform(-0.5, 2), Poisson(10 ** draw.uniform(-5, 0)), int(10 ** draw.uniform(0, 5)))
            for _ in range(2)
        ]
        delta = 10 ** draw.uniform(-12, -1)
        assert RDP().epsilon(events, delta).upper <= RDP(orders).epsilon(events, delta).upper * (1 + 1e-9)


def test_ten_thousand_noise_levels_cost_no_accuracy() -> None:
    """The order is searched on 64 stand-ins; the answer is that of the best order."""
    levels = 2.0 * np.exp(-np.arange(2000) / 1999 * np.log(2 / 0.6))
    events = [Event(float(z), Poisson(256 / 60_000), 5) for z in levels]
    upper = RDP().epsilon(events, 1e-5).upper
    near = RDP(tuple(np.arange(3.0, 7.0, 0.05).tolist())).epsilon(events, 1e-5).upper
    assert upper <= near * (1 + 1e-5)


def test_epsilon_holds_where_the_truth_is_known() -> None:
    draw = random.Random(9)
    for _ in range(60):
        z, n, delta = 10 ** draw.uniform(-1, 2), draw.randint(1, 50), 10 ** draw.uniform(-12, -0.1)
        exact = gaussian_epsilon(delta, math.sqrt(n) / z)
        for event in (Event(z, NoSampling(), n), Event(z, Poisson(1.0), n)):
            for relation in NeighbouringRelation:
                upper = RDP().epsilon([event], delta, relation).upper
                assert upper >= exact.lower, (z, n, delta)
                assert upper <= 1.4 * exact.upper + 0.9, (z, n, delta)


logs = st.floats(-4, -0.01)


@settings(max_examples=40, deadline=None)
@given(logs, st.floats(-0.6, 2), st.integers(1, 10**6), st.floats(-12, -1), st.floats(1.01, 2))
def test_monotone(log_q: float, log_z: float, n: int, log_delta: float, factor: float) -> None:
    q, z, delta = 10**log_q, 10**log_z, 10**log_delta

    def upper(q: float = q, z: float = z, n: int = n, delta: float = delta) -> float:
        return RDP().epsilon([Event(z, Poisson(min(q, 1.0)), n)], delta).upper

    middle = upper()
    assert math.isfinite(middle)
    slack = 1e-9 * middle
    assert upper(z=z * factor) <= middle + slack
    assert upper(q=q * factor) >= middle - slack
    assert upper(n=math.ceil(n * factor)) >= middle - slack
    assert upper(delta=delta / factor) >= middle - slack


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_order_and_merging_do_not_matter(data: st.DataObject) -> None:
    kind = st.builds(
        Event,
        st.sampled_from([0.7, 1.0, 3.0]),
        st.one_of(st.just(NoSampling()), st.builds(Poisson, st.sampled_from([0.01, 0.3, 1.0]))),
        st.integers(1, 9),
    )
    events = data.draw(st.lists(kind, min_size=1, max_size=8))
    shuffled = data.draw(st.permutations(events))
    singles = [Event(e.noise_multiplier, e.sampling) for e in events for _ in range(e.count)]
    assert RDP().epsilon(events, 1e-5) == RDP().epsilon(shuffled, 1e-5) == RDP().epsilon(singles, 1e-5)
    orders = [1.5, 8.0]
    apart = sum(RDP().divergences([event], orders) for event in events)
    np.testing.assert_allclose(RDP().divergences(events, orders), apart, rtol=1e-12)


def test_zero_where_the_total_variation_is_below_delta() -> None:
    assert RDP().epsilon([], 1e-5).upper == 0.0
    assert RDP().epsilon([Event(10.0, NoSampling())], 0.06).upper == 0.0  # total variation 0.0399, Pinsker 0.05
    assert RDP().epsilon([Event(10.0, NoSampling())], 0.03).upper > 0.0
    assert RDP((2.0,)).epsilon([Event(0.1, NoSampling())], 0.999).upper > 0.0


def test_what_the_theorem_does_not_cover_is_refused() -> None:
    sampled, truncated = Event(1.0, Poisson(0.1)), Event(1.0, TruncatedPoisson(0.1, 10, 50))
    with pytest.raises(UnsupportedEventError, match="replace-one"):
        RDP().epsilon([Event(1.0, NoSampling()), sampled], 1e-5, REPLACE)
    for relation in NeighbouringRelation:
        with pytest.raises(UnsupportedEventError, match="displace"):
            RDP().epsilon([truncated], 1e-5, relation)
        with pytest.raises(UnsupportedEventError, match="displace"):
            RDP().divergences([truncated], [2.0], relation)


@pytest.mark.parametrize("orders", [(), (1.0,), (2.0, 0.5), (math.inf,), (math.nan,)])
def test_orders_outside_the_theory_are_refused(orders: tuple[float, ...]) -> None:
    with pytest.raises(ArgumentError, match="orders"):
        RDP(orders)
    with pytest.raises(ArgumentError, match="orders"):
        RDP().divergences([Event(1.0, NoSampling())], orders)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_delta_outside_its_range_is_refused(delta: float) -> None:
    with pytest.raises(ArgumentError, match="delta"):
        RDP().epsilon([], delta)
