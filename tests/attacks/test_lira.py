"""LiRA: equal to loops over single numbers, quiet without a leak, better with defended shadows than without."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attacks.shadows import Drawn, area, draw, drawn, false_alarms, rounded, uneven
from tests.reference import membership as reference

from privet.attacks.membership import Variance, lira, lira_rotated
from privet.errors import ArgumentError, DataError
from privet.output_form import OutputForm

VARIANCES = [Variance.PER_RECORD, Variance.SHARED, Variance.NEIGHBOURS]
HOW = st.sampled_from([(variance, False) for variance in VARIANCES] + [(variance, True) for variance in VARIANCES[:2]])
ROUNDED = OutputForm(decimals=1, probabilities=True)


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(some=drawn(least_blocks=3), how=HOW, decimals=st.sampled_from([None, None, 0, 1, 2, 4]))
def test_scores_are_those_of_the_loops(some: Drawn, how: tuple[Variance, bool], decimals: int | None) -> None:
    variance, offline = how
    form = OutputForm(decimals=decimals, probabilities=decimals is not None)
    unit = None if decimals is None else 10.0**-decimals
    signals, target = some.signals, some.target
    if decimals is not None:
        signals, target = rounded(signals, decimals), rounded(target, decimals)
    found = lira(signals, some.membership, target, variance=variance, offline=offline, form=form)
    close(found, reference.lira(signals, some.membership, target, variance, offline, unit))


@settings(deadline=None, max_examples=30)
@given(some=drawn(least_blocks=3, queries=2), how=HOW)
def test_a_rotated_row_is_the_fit_without_its_block(some: Drawn, how: tuple[Variance, bool]) -> None:
    variance, offline = how
    found = lira_rotated(some.signals, some.membership, some.blocks, variance=variance, offline=offline)
    for row, scores in enumerate(found):
        close(scores, reference.lira(*some.without(row), some.signals[row], variance, offline, None))


@settings(deadline=None, max_examples=30)
@given(some=drawn(least_blocks=3, queries=2), how=HOW)
def test_a_rotated_target_may_answer_behind_a_defense_that_the_fit_is_without(
    some: Drawn, how: tuple[Variance, bool]
) -> None:
    variance, offline = how
    targets, form = rounded(some.signals, 1), ROUNDED
    found = lira_rotated(
        some.signals, some.membership, some.blocks, targets=targets, variance=variance, offline=offline, form=form
    )
    for row, scores in enumerate(found):
        close(scores, lira(*some.without(row), targets[row], variance=variance, offline=offline, form=form))
        close(scores, reference.lira(*some.without(row), targets[row], variance, offline, 0.1))


@pytest.mark.parametrize("decimals", [None, 1])
def test_records_alike_are_those_of_about_the_same_centre(decimals: int | None) -> None:
    some = draw(3, blocks=3, records=450)
    signals = some.signals if decimals is None else rounded(some.signals, decimals)  # rounded: many centres are equal
    found = lira(signals, some.membership, some.target)
    close(found, reference.lira(signals, some.membership, some.target, Variance.NEIGHBOURS, False, None))


def test_two_blocks_of_two_are_enough() -> None:
    some = draw(4, blocks=2, records=6)
    for variance in (Variance.SHARED, Variance.NEIGHBOURS):
        found = lira_rotated(some.signals, some.membership, some.blocks, variance=variance)
        for row, scores in enumerate(found):
            close(scores, reference.lira(*some.without(row), some.signals[row], variance, False, None))


@pytest.mark.parametrize("form", [OutputForm(), ROUNDED, OutputForm(decimals=6, probabilities=True)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_confidences_far_out_are_scored(form: OutputForm, dtype: Any) -> None:
    signals = np.array([[700.0, -700, 0], [-700, 700, 700], [700, -700, 0], [-700, 700, -700]] * 2, dtype)
    membership = np.array([[True, False, True], [False, True, False]] * 4)
    blocks, target = np.arange(8) // 2, np.array([700.0, 700, 0], dtype)
    for variance in VARIANCES:
        scores = lira(signals, membership, target, variance=variance, form=form)
        assert np.isfinite(scores).all()
        assert (scores[:2] > 0).all()
        assert np.isfinite(lira_rotated(signals, membership, blocks, variance=variance, form=form)).all()
        assert np.isfinite(lira_rotated(signals, membership, blocks, offline=True, form=form)).all()


def test_defaults_are_neighbours_and_offline_one_variance() -> None:
    some = draw(5, blocks=4, records=20)
    three = (some.signals, some.membership, some.target)
    np.testing.assert_array_equal(lira(*three), lira(*three, variance=Variance.NEIGHBOURS))
    np.testing.assert_array_equal(lira(*three, offline=True), lira(*three, offline=True, variance=Variance.SHARED))


def test_offline_never_looks_at_shadows_trained_on_the_record() -> None:
    some = draw(6, blocks=4, records=20)
    other = np.where(some.membership[:, :, None], 99.0, some.signals)
    for form in (OutputForm(), ROUNDED):
        first, second = (
            lira(each, some.membership, some.target, offline=True, form=form) for each in (some.signals, other)
        )
        np.testing.assert_array_equal(first, second)


def test_order_of_shadows_and_records_does_not_matter() -> None:
    some = draw(7, blocks=4, records=300)
    generator = np.random.default_rng(0)
    shadows, records = generator.permutation(8), generator.permutation(300)
    for variance in VARIANCES:
        found = lira_rotated(some.signals, some.membership, some.blocks, variance=variance)
        other = lira_rotated(
            some.signals[shadows][:, records],
            some.membership[shadows][:, records],
            some.blocks[shadows],
            variance=variance,
        )
        close(other, found[shadows][:, records])


def test_surer_than_models_trained_on_it_is_no_evidence_against() -> None:
    some = draw(8, blocks=4, records=30)
    for form in (OutputForm(), OutputForm(decimals=2, probabilities=True)):
        rising = [lira(some.signals, some.membership, np.full(30, phi), form=form) for phi in (4.0, 8.0, 16.0, 32.0)]
        best = np.max(rising[:1], axis=0)
        assert (rising[-1] > 0).mean() > 0.9
        if form == OutputForm():
            np.testing.assert_array_equal(rising[-1], rising[-2])
            assert (rising[-1] >= best - 1e-9).all()


@pytest.mark.parametrize("variance", VARIANCES)
def test_without_a_leak_nothing_is_found(variance: Variance) -> None:
    def first(some: Drawn) -> Any:
        return lira_rotated(some.signals, some.membership, some.blocks, variance=variance)[0], some.membership[0]

    assert false_alarms(first) <= 0.088  # 5% and three standard errors of 300 runs


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_null_run_catches_a_target_within_its_own_fit(variance: Variance) -> None:
    def own(some: Drawn) -> Any:
        itself = some.signals[0] * (1.0 + 1e-9)  # unchanged, it would be refused
        return lira(some.signals, some.membership, itself, variance=variance), some.membership[0]

    assert false_alarms(own, 50) > 0.25


def test_the_null_run_catches_a_target_left_out_without_its_block() -> None:
    def alone(some: Drawn) -> Any:
        return lira(some.signals[1:], some.membership[1:], some.signals[0]), some.membership[0]

    assert false_alarms(alone, 50, "less") > 0.25  # one IN shadow less for each record that it was trained on


def test_of_few_shadows_records_alike_make_more() -> None:
    some = uneven(0)
    found = {
        variance: area(lira_rotated(some.signals, some.membership, some.blocks, variance=variance), some.membership)
        for variance in VARIANCES
    }
    assert found[Variance.NEIGHBOURS] > found[Variance.SHARED] + 0.01
    assert found[Variance.NEIGHBOURS] > found[Variance.PER_RECORD] + 0.01


def test_cells_and_defended_shadows_find_what_the_naive_density_misses() -> None:
    some = uneven(1)
    shown = rounded(some.signals, 1)
    scores, naive = np.zeros(some.membership.shape), np.zeros(some.membership.shape)
    for variance in (Variance.NEIGHBOURS, Variance.SHARED):
        scores = lira_rotated(shown, some.membership, some.blocks, variance=variance, form=ROUNDED)
        for row in range(len(naive)):  # shadows that do not pass through the defense, and a point's density
            naive[row] = lira(*some.without(row), shown[row], variance=variance)
        assert area(scores, some.membership) > area(naive, some.membership) + 0.02


def test_a_query_that_tells_nothing_costs_nothing() -> None:
    some = uneven(2, records=1_000)
    noise = np.random.default_rng(0).normal(size=(*some.signals.shape[:2], 8))
    both = np.concatenate([some.signals, noise], 2)
    alone = area(lira_rotated(some.signals, some.membership, some.blocks), some.membership)
    assert area(lira_rotated(both, some.membership, some.blocks), some.membership) > alone - 0.005
    mean = area(lira_rotated(both, some.membership, some.blocks, variance=Variance.SHARED), some.membership)
    assert mean < alone - 0.02


GOOD = draw(9, blocks=2, records=3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"signals": GOOD.signals[0, 0]}, "signals are float64 of shape"),
        ({"signals": GOOD.signals.astype(object)}, "signals are object"),
        (
            {"signals": np.where(GOOD.signals == GOOD.signals[1, 2, 0], np.nan, GOOD.signals)},
            "nan at shadow 1, record 2",
        ),
        (
            {"signals": np.where(GOOD.signals == GOOD.signals[1, 2, 0], np.inf, GOOD.signals)},
            "inf at shadow 1, record 2",
        ),
        ({"membership": GOOD.membership.astype(int)}, "membership is int64"),
        ({"membership": GOOD.membership[:, :2]}, r"give bool \(4, 3\)"),
        ({"membership": np.ones((4, 3), bool)}, "record 0 has 0 OUT shadows and needs 1"),
        ({"membership": np.zeros((4, 3), bool)}, "record 0 has 0 IN shadows and needs 1"),
        ({"target": GOOD.target[:2]}, r"give numbers \(3, 1\)"),
        ({"target": GOOD.target * np.nan}, "target: nan at record 0, query 0"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], words: str) -> None:
    arguments = {"signals": GOOD.signals, "membership": GOOD.membership, "target": GOOD.target} | change
    with pytest.raises(DataError, match=words):
        lira(**arguments)


def test_targets_of_another_shape_are_refused() -> None:
    some = draw(1, blocks=3, records=6)
    with pytest.raises(DataError, match="targets"):
        lira_rotated(some.signals, some.membership, some.blocks, targets=some.signals[:, :3])


def test_rotating_and_own_variances_need_more() -> None:
    signals, membership = GOOD.signals, GOOD.membership
    with pytest.raises(DataError, match="blocks are float64"):
        lira_rotated(signals, membership, GOOD.blocks.astype(float))
    with pytest.raises(DataError, match="all shadows are of one block"):
        lira_rotated(signals, membership, np.zeros(4, int))
    with pytest.raises(DataError, match="has 1 IN shadows, its own block left out, and needs 2"):
        lira_rotated(signals, membership, GOOD.blocks, variance=Variance.PER_RECORD)
    with pytest.raises(ArgumentError, match="offline=True"):
        lira(signals, membership, GOOD.target, variance=Variance.NEIGHBOURS, offline=True)
    with pytest.raises(ArgumentError, match="label_only scores votes"):
        lira(signals, membership, GOOD.target, form=OutputForm(labels_only=True))
    with pytest.raises(ArgumentError, match="variance = 'shared'"):
        lira(signals, membership, GOOD.target, variance="shared")  # type: ignore[arg-type]
