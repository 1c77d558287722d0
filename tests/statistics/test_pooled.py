"""Rates pooled over models: against resampled tables written out, and by coverage and false alarms over fixed seeds.

Coverage tests draw 300 experiments with a nominal error of 5%; at nominal, more than 33 misses have probability
below 1e-5. Scores that share a record or a model are drawn so that intervals blind to it miss far more often.
"""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from privet.errors import ArgumentError, DataError, SampleTooSmallError
from privet.statistics import auc_interval, pooled_auc, pooled_tpr_at_fpr, roc_curve, tpr_at_fpr
from privet.statistics.pooled import _areas, _Draw, _matching_size, _placements, _reach

Floats, Bools = NDArray[np.float64], NDArray[np.bool_]
EXPERIMENTS, ALLOWED_MISSES = 300, 33


def halves(models: int, records: int, generator: np.random.Generator) -> Bools:
    """Complementary pairs: each record is a member of just half the models."""
    ranks = np.argsort(generator.random((models // 2, records)), axis=1)
    half = ranks < records // 2
    return np.stack((half, ~half), axis=1).reshape(models, records)


def test_values_are_those_of_all_scores_together() -> None:
    generator = np.random.default_rng(0)
    scores, member = np.round(generator.normal(size=(5, 60)), 1), generator.random((5, 60)) < 0.4
    area = pooled_auc(scores, member, seed=0, resamples=100)
    assert area.value == pytest.approx(roc_curve(scores[member], scores[~member]).auc, abs=1e-12)
    assert area.n == 60
    pooled = pooled_tpr_at_fpr(scores, member, 0.1, seed=0, resamples=100)
    alone = tpr_at_fpr(scores[member], scores[~member], 0.1)
    assert (pooled.threshold, pooled.tpr.value, pooled.fpr.value) == (
        alone.threshold,
        alone.tpr.value,
        alone.fpr.value,
    )


def test_a_resample_repeats_models_and_records() -> None:
    generator = np.random.default_rng(1)
    part, whole = generator.random((4, 11)), generator.random((4, 11)) < 0.5
    draw = _Draw(4, 11, 20, seed=2)
    assert draw.models.sum(1).tolist() == [4] * 20
    assert draw.records.sum(1).tolist() == [11] * 20
    expected = []
    for models, records in zip(draw.models.astype(int), draw.records.astype(int), strict=True):
        repeated = np.ix_(np.repeat(np.arange(4), models), np.repeat(np.arange(11), records))
        expected.append((part * whole)[repeated].sum() / whole[repeated].sum())
    assert draw.share(part * whole, whole) == pytest.approx(expected, rel=1e-5)


def test_many_columns_are_summed_like_few() -> None:
    """More cells than are held at a time: 40 resamples of 250,000 records."""
    table = np.random.default_rng(0).random((4, 250_000)) < 0.01
    draw = _Draw(4, 250_000, 40, seed=0)
    whole = np.ones_like(table)
    expected = np.einsum("rt,tp,rp->r", draw.models, table[:, ::1].astype(float), draw.records) / 1e6
    assert draw.share(table, whole) == pytest.approx(expected, rel=1e-5)


def test_resampled_areas_are_those_of_repeated_tables() -> None:
    """Placements give the resampled areas up to a small term; areas of the tables written out agree with them."""
    generator = np.random.default_rng(5)
    member = halves(6, 60, generator)
    scores = (
        generator.normal(size=(6, 60)) + generator.normal(size=(6, 1)) + member * generator.normal(1.0, 1.0, (6, 1))
    )
    draw = _Draw(6, 60, 200, seed=3)
    exact = []
    for models, records in zip(draw.models.astype(int), draw.records.astype(int), strict=True):
        repeated = np.ix_(np.repeat(np.arange(6), models), np.repeat(np.arange(60), records))
        exact.append(roc_curve(scores[repeated][member[repeated]], scores[repeated][~member[repeated]]).auc)
    ours = _areas(draw, _placements(scores, member), member)
    assert np.corrcoef(ours, exact)[0, 1] > 0.96
    assert ours.std() == pytest.approx(np.std(exact), rel=0.1)
    assert ours.mean() == pytest.approx(np.mean(exact), abs=0.02)  # written out, a model drawn twice meets itself more


def copies(experiment: int) -> tuple[Floats, Bools, float]:
    """Eight models that answer alike about 60 records: only the records are evidence."""
    generator = np.random.default_rng(experiment)
    member = np.tile(np.arange(60) < 30, (8, 1))
    return np.tile(generator.normal(size=60), (8, 1)) + 0.5 * member, member, 1.0


def moods(experiment: int) -> tuple[Floats, Bools, float]:
    """Eight models, each of which betrays its members to another degree: only the models are evidence."""
    generator = np.random.default_rng(experiment)
    member = halves(8, 300, generator)
    return (
        generator.normal(size=(8, 300)) + member * generator.normal(0.5, 0.6, size=(8, 1)),
        member,
        float(np.sqrt(1.36)),
    )


@pytest.mark.parametrize("drawn", [copies, moods])
def test_the_interval_of_the_area_covers_where_scores_are_clustered(drawn) -> None:  # type: ignore[no-untyped-def]
    misses = blind = 0
    for experiment in range(EXPERIMENTS):
        scores, member, deviation = drawn(experiment)
        truth = float(norm.cdf(0.5 / np.sqrt(1.0 + deviation**2)))
        ours = pooled_auc(scores, member, seed=experiment, resamples=200)
        misses += not ours.low <= truth <= ours.high
        theirs = auc_interval(scores[member], scores[~member], seed=experiment, resamples=100)
        blind += not theirs.low <= truth <= theirs.high
    assert misses <= ALLOWED_MISSES
    assert blind > 3 * ALLOWED_MISSES


@pytest.mark.parametrize("drawn", [copies, moods])
def test_the_intervals_of_the_rates_cover_where_scores_are_clustered(drawn) -> None:  # type: ignore[no-untyped-def]
    missed, above, blind = 0, 0, 0
    for experiment in range(EXPERIMENTS):
        scores, member, deviation = drawn(experiment)
        ours = pooled_tpr_at_fpr(scores, member, 0.2, seed=experiment, resamples=200)
        tpr, fpr = float(norm.sf((ours.threshold - 0.5) / deviation)), float(norm.sf(ours.threshold))
        missed += not ours.tpr.low <= tpr <= ours.tpr.high
        above += fpr > ours.fpr.high
        theirs = tpr_at_fpr(scores[member], scores[~member], 0.2)
        blind += not theirs.tpr.low <= tpr <= theirs.tpr.high
    assert missed <= ALLOWED_MISSES
    assert above <= 20  # one-sided 2.5%: more than 20 in 300 has probability below 1e-4
    assert blind > 3 * ALLOWED_MISSES


@pytest.mark.parametrize(("models", "mood"), [(4, 0.0), (4, 1.0), (8, 0.3)])
def test_nothing_is_found_where_nothing_leaks(models: int, mood: float) -> None:
    """1,000 null runs, models that differ in their scores or not: at most 7.1% false alarms, nominal 2.5%."""
    area = rate = 0
    for experiment in range(1_000):
        generator = np.random.default_rng(experiment)
        scores = generator.normal(size=(models, 60)) + mood * generator.normal(size=(models, 1))
        scores += 0.5 * generator.normal(size=60)
        member = halves(models, 60, generator)
        area += pooled_auc(scores, member, seed=experiment, resamples=100).low > 0.5
        found = pooled_tpr_at_fpr(scores, member, 0.1, seed=experiment, resamples=100)
        rate += found.tpr.low > found.fpr.high
    assert area <= 71
    assert rate <= 71


def test_a_leak_is_found_with_less_than_one_model_alone_needs() -> None:
    """Against a test that always says nothing: eight models find what one cannot."""
    generator = np.random.default_rng(0)
    member = halves(8, 200, generator)
    scores = generator.normal(size=(8, 200)) + 0.4 * member
    found = pooled_auc(scores, member, seed=0)
    assert found.low > 0.5
    alone = auc_interval(scores[0][member[0]], scores[0][~member[0]], seed=0)
    assert found.high - found.low < 0.7 * (alone.high - alone.low)


def test_the_reach_is_that_of_the_clustered_variance() -> None:
    """A normal sum of model, record and cell effects: its deviation over that of its resamples, and Student's t."""
    models = np.repeat(np.array([[3.0], [-1.0], [-2.0], [0.5]]), 50, axis=1)
    assert _reach(models, 0.025) == pytest.approx(3.182 / 1.96 * np.sqrt(4 / 3), rel=0.05)
    cells = [_reach(np.random.default_rng(e).normal(size=(100, 100)), 0.025) for e in range(20)]
    assert np.mean(cells) == pytest.approx(np.sqrt(1 / 3), rel=0.1)  # resamples count cells three times
    assert _reach(np.tile(np.random.default_rng(0).normal(size=100), (8, 1)), 0.025) == pytest.approx(1.0, abs=0.1)
    assert _reach(np.zeros((4, 10)), 0.025) == 1.0


def test_the_matching_size_is_that_of_independent_scores() -> None:
    generator = np.random.default_rng(0)
    areas = [roc_curve(generator.normal(0.5, size=40), generator.normal(size=80)).auc for _ in range(2_000)]
    deviation = float(np.std(areas))
    assert _matching_size(0.638, 400, 800, deviation) == pytest.approx(0.1, rel=0.15)
    assert _matching_size(0.638, 40, 80, deviation / 3) == 1.0


def test_separation_and_equal_scores_still_have_a_width() -> None:
    member = halves(4, 40, np.random.default_rng(0))
    apart = pooled_auc(member * 1.0, member, seed=0)
    assert apart.value == apart.high == 1.0
    assert 0.8 < apart.low < 0.95
    equal = pooled_auc(np.zeros((4, 40)), member, seed=0)
    assert equal.low < equal.value == 0.5 < equal.high
    nobody = pooled_tpr_at_fpr(np.zeros((4, 40)), member, 0.1, seed=0)
    assert not nobody.reached
    assert (nobody.tpr.value, nobody.fpr.value) == (0.0, 0.0)
    assert nobody.fpr.high > 0.1
    assert nobody.tpr.high > 0.05


def test_far_confidences_are_wider() -> None:
    generator = np.random.default_rng(0)
    member = halves(8, 100, generator)
    scores = generator.normal(size=(8, 100)) + 0.5 * member
    widths = []
    for confidence in (0.9, 0.95, 0.99, 0.999, 0.9999):
        area = pooled_auc(scores, member, seed=0, confidence=confidence)
        rate = pooled_tpr_at_fpr(scores, member, 0.05, seed=0, confidence=confidence)
        widths.append((area.high - area.low, rate.tpr.high - rate.tpr.low, rate.fpr.high - rate.fpr.low))
    assert (np.diff(widths, axis=0) > 0).all()


def test_same_seed_same_interval() -> None:
    generator = np.random.default_rng(0)
    scores, member = generator.normal(size=(4, 50)), halves(4, 50, generator)
    assert pooled_auc(scores, member, seed=1) == pooled_auc(scores, member, seed=1)
    assert pooled_auc(scores, member, seed=1) != pooled_auc(scores, member, seed=2)


def test_what_cannot_be_pooled_is_refused() -> None:
    scores = np.random.default_rng(0).normal(size=(4, 40))
    member = halves(4, 40, np.random.default_rng(0))
    with pytest.raises(DataError, match=r"scores have shape \(40,\)"):
        pooled_auc(scores[0], member[0], seed=0)
    with pytest.raises(DataError, match="membership is int64"):
        pooled_auc(scores, member.astype(int), seed=0)
    with pytest.raises(DataError, match="membership is bool of shape"):
        pooled_auc(scores, member[:, 1:], seed=0)
    with pytest.raises(DataError, match="NaN"):
        pooled_auc(np.where(member, np.nan, scores), member, seed=0)
    with pytest.raises(SampleTooSmallError, match="3 models and 40 records"):
        pooled_auc(scores[:3], member[:3], seed=0)
    with pytest.raises(SampleTooSmallError, match="160 member and 0 non-member scores"):
        pooled_tpr_at_fpr(scores, np.ones_like(member), 0.1, seed=0)
    with pytest.raises(SampleTooSmallError, match="80 non-member"):
        pooled_tpr_at_fpr(scores, member, 0.001, seed=0)
    with pytest.raises(ArgumentError, match="fpr"):
        pooled_tpr_at_fpr(scores, member, 1.0, seed=0)
    with pytest.raises(ArgumentError, match="resamples"):
        pooled_auc(scores, member, seed=0, resamples=99)


def test_models_that_saw_all_records_or_none_are_pooled() -> None:
    """Some resamples draw members alone; they say nothing."""
    generator = np.random.default_rng(0)
    member = np.tile(np.array([[True], [True], [False], [False]]), (1, 40))
    scores = generator.normal(size=(4, 40)) + member
    area = pooled_auc(scores, member, seed=0)
    assert area.low < roc_curve(scores[member], scores[~member]).auc < area.high
    found = pooled_tpr_at_fpr(scores, member, 0.1, seed=0)
    assert found.tpr.low < found.tpr.value < found.tpr.high


def test_scores_that_cancel_in_every_row_and_column_have_a_width() -> None:
    scores = np.array([[1.0, 0.0] * 5, [0.0, 1.0] * 5] * 2)
    member = np.tile(np.array([[True], [True], [False], [False]]), (1, 10))
    area = pooled_auc(scores, member, seed=0)
    assert area.low < 0.5 < area.high
    assert pooled_tpr_at_fpr(scores, member, 0.6, seed=0).tpr.low < 0.5
