"""Assessment: the family it is corrected over, and that no more false alarms come of it than it says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privet.attacks.membership import MembershipScores
from privet.audit import RATES
from privet.audit.assess import assess, family_size, finds, rates_of, shown_rates, single_confidence
from privet.errors import DataError, SampleTooSmallError


def scores(generator, gap=0.0, members=500, non_members=500, name="a", levels=None):
    drawn = generator.normal(gap, 1, members), generator.normal(0, 1, non_members)
    if levels is not None:
        drawn = tuple(np.floor(side * levels) for side in drawn)
    return MembershipScores(name, *drawn)


@pytest.mark.parametrize(
    ("size", "shown"),
    [(9, ()), (10, (0.1,)), (99, (0.1,)), (100, (0.01, 0.1)), (999, (0.01, 0.1)), (1_000, RATES), (10_000, RATES)],
)
def test_a_rate_is_shown_from_as_many_non_members_as_one_over_it(size, shown):
    assert shown_rates(size) == shown
    one = MembershipScores("a", np.arange(20.0), np.arange(float(size)))
    assert tuple(rates_of(one, 0.95)) == shown


def test_the_family_is_every_area_and_every_rate_that_is_shown():
    generator = np.random.default_rng(0)
    family = {"a": scores(generator, non_members=1_000), "b": scores(generator, non_members=150)}
    assert family_size(family) == 4 + 3
    judged = assess(family, confidence=0.95, seed=0)
    expected = single_confidence(0.95, 7)
    assert expected == pytest.approx(1 - 0.05 / 7)
    for one in judged.values():
        assert one.auc.confidence == expected
        assert all(rate.tpr.confidence == rate.fpr.confidence == expected for rate in one.rates.values())


def test_more_attacks_make_every_interval_wider():
    generator = np.random.default_rng(0)
    first = scores(generator)
    alone = assess({"a": first}, confidence=0.95, seed=0)["a"]
    among = assess({"a": first, **{str(i): scores(generator) for i in range(9)}}, confidence=0.95, seed=0)["a"]
    assert among.auc.high - among.auc.low > alone.auc.high - alone.auc.low
    assert among.rates[0.1].tpr.low < alone.rates[0.1].tpr.low


@pytest.mark.parametrize(("levels", "sizes"), [(None, (40, 200)), (2.0, (100, 100))])
def test_without_a_leak_at_most_the_stated_share_of_audits_finds_one(levels, sizes):
    generator = np.random.default_rng(1)
    runs, alarms = 60, 0
    for seed in range(runs):
        family = {name: scores(generator, members=sizes[0], non_members=sizes[1], levels=levels) for name in "abcdef"}
        alarms += any(one.leaks for one in assess(family, confidence=0.8, seed=seed).values())
    # nominal 20% and three standard errors; uncorrected, the areas of six attacks would raise 47%
    assert alarms / runs <= 0.2 + 3 * np.sqrt(0.2 * 0.8 / runs)


def test_a_leak_at_small_rates_alone_is_found_by_its_rate_and_not_by_the_area():
    generator = np.random.default_rng(0)
    one = scores(generator, members=2_000, non_members=2_000)
    one.members[:60] = 10.0
    judged = assess({"a": one}, confidence=0.95, seed=0)["a"]
    assert judged.leaks
    assert finds(judged.rates)
    assert not finds({0.1: judged.rates[0.1]})


def test_a_leak_in_the_middle_alone_is_found_by_the_area():
    generator = np.random.default_rng(0)
    non_members = generator.uniform(0, 1, 2_000)
    members = np.where(
        generator.random(2_000) < 0.9, generator.uniform(0.2, 0.9, 2_000), generator.uniform(0, 1, 2_000)
    )
    judged = assess({"a": MembershipScores("a", members, non_members)}, confidence=0.95, seed=0)["a"]
    assert judged.auc.low > 0.5
    assert judged.leaks
    assert not finds(judged.rates)


def test_members_that_score_lower_are_no_leak():
    generator = np.random.default_rng(0)
    judged = assess({"a": scores(generator, gap=-1.0)}, confidence=0.95, seed=0)["a"]
    assert not judged.leaks


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from([None, 1.0, 0.2]))
def test_only_the_order_of_scores_counts(seed, levels):
    generator = np.random.default_rng(seed)
    one = scores(generator, gap=0.3, members=60, non_members=120, levels=levels)
    other = MembershipScores("a", np.exp(one.members / 3) + 7, np.exp(one.non_members / 3) + 7)
    first, second = (assess({"a": each}, confidence=0.95, seed=0)["a"] for each in (one, other))
    assert first.auc == second.auc
    for rate in first.rates:
        assert first.rates[rate].tpr == second.rates[rate].tpr
        assert first.rates[rate].fpr == second.rates[rate].fpr


def test_too_few_records_are_refused():
    with pytest.raises(SampleTooSmallError):
        assess({"a": MembershipScores("a", np.arange(9.0), np.arange(50.0))}, confidence=0.95, seed=0)


def test_nan_is_refused():
    with pytest.raises(DataError, match="NaN"):
        MembershipScores("a", np.array([np.nan]), np.array([1.0]))
