"""Laws that every accountant obeys, run over all of them by one table."""

import dataclasses
import itertools
import math

import pytest

from privet.accounting import PLD, RDP, ZCDP, Bound, Event, NoSampling, Poisson, Reference, TruncatedPoisson

ACCOUNTANTS = {"pld": PLD(), "rdp": RDP(), "zcdp": ZCDP(), "reference": Reference(interval=1e-3)}
DELTA = 1e-5
PLANS = {
    "sampled": [Event(1.2, Poisson(0.02), 50)],
    "unsampled": [Event(3.0, NoSampling(), 4)],
    "mixed": [Event(1.0, Poisson(0.05), 10), Event(2.0, Poisson(0.01), 20), Event(8.0, NoSampling(), 1)],
}
CASES = list(itertools.product(ACCOUNTANTS, PLANS))


def spent(accountant: str, events: list[Event], delta: float = DELTA) -> Bound:
    return ACCOUNTANTS[accountant].epsilon(events, delta)


def slack(*bounds: Bound) -> float:
    """Laws hold for the truth; two brackets may cross by their widths where both ends are given."""
    return 1e-6 + sum(bound.width for bound in bounds if bound.lower > 0.0) + 2e-3 * max(b.upper for b in bounds)


def changed(events: list[Event], **change: object) -> list[Event]:
    return [dataclasses.replace(event, **change) for event in events]  # type: ignore[arg-type]


@pytest.mark.parametrize(("accountant", "plan"), CASES)
def test_lower_is_at_most_upper_and_finite(accountant: str, plan: str) -> None:
    bound = spent(accountant, PLANS[plan])
    assert 0.0 <= bound.lower <= bound.upper < math.inf


@pytest.mark.parametrize(("accountant", "plan"), CASES)
def test_more_noise_costs_less(accountant: str, plan: str) -> None:
    events = PLANS[plan]
    quieter = [dataclasses.replace(event, noise_multiplier=1.2 * event.noise_multiplier) for event in events]
    assert spent(accountant, quieter).upper < spent(accountant, events).upper


@pytest.mark.parametrize(("accountant", "plan"), CASES)
def test_fewer_steps_cost_no_more(accountant: str, plan: str) -> None:
    fewer, more = spent(accountant, PLANS[plan][:1]), spent(accountant, PLANS[plan] + PLANS["sampled"])
    assert fewer.upper < more.upper


@pytest.mark.parametrize("accountant", ["pld", "rdp", "reference"])
def test_less_sampling_costs_less(accountant: str) -> None:
    events = PLANS["sampled"]
    assert spent(accountant, changed(events, sampling=Poisson(0.01))).upper < spent(accountant, events).upper


@pytest.mark.parametrize(("accountant", "plan"), CASES)
def test_more_delta_costs_less(accountant: str, plan: str) -> None:
    assert spent(accountant, PLANS[plan], 1e-4).upper < spent(accountant, PLANS[plan]).upper


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_order_and_merging_do_not_matter(accountant: str) -> None:
    events = PLANS["mixed"]
    apart = [dataclasses.replace(event, count=1) for event in events for _ in range(event.count)]
    expected = spent(accountant, events)
    for other in (events[::-1], apart):
        bound = spent(accountant, other)
        assert abs(bound.upper - expected.upper) <= slack(bound, expected)


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(ACCOUNTANTS, 2)))
@pytest.mark.parametrize("plan", PLANS)
def test_no_upper_end_lies_below_anothers_lower(one: str, other: str, plan: str) -> None:
    assert spent(one, PLANS[plan]).upper >= spent(other, PLANS[plan]).lower


@pytest.mark.parametrize("accountant", ["pld", "rdp", "zcdp"])
def test_sampling_is_never_ignored_in_silence(accountant: str) -> None:
    """A truncated sample is not a Poisson sample: refused, not treated as one."""
    with pytest.raises(Exception, match=r"TruncatedPoisson|truncated"):
        spent(accountant, [Event(1.0, TruncatedPoisson(0.1, 20, 100))])


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_nothing_released_costs_nothing(accountant: str) -> None:
    assert spent(accountant, []).upper == 0.0
