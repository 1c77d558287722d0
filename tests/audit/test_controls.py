"""The controls themselves: what is planted is what is said, and worlds are changed only where they should be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit.worlds import CLASSES, audited, logs_of, world_of

from privet.attacks.membership import Answers, MembershipScores, lira, scaled_confidence, threshold_attacks
from privet.audit import Verdict
from privet.audit.exchange import exchange_control
from privet.audit.null import null_control
from privet.audit.planted import plant, plant_scores, planted_rows
from privet.audit.procedure import procedure_null, procedure_of, rotated_scores
from privet.audit.runs import headline_of, required_of, run_attacks, shadow_scores
from privet.audit.world import ShadowEvidence, World
from privet.errors import DataError
from privet.output_form import OutputForm
from privet.statistics import Estimate

FORMS = [
    OutputForm(),
    OutputForm(probabilities=True),
    OutputForm(decimals=1, probabilities=True),
    OutputForm(k=2, probabilities=True),
    OutputForm(labels_only=True),
    OutputForm(decimals=1),
]


def small(**kwargs):
    return world_of(members=120, non_members=150, shadows=8, **kwargs)


def in_form(world, form):
    answers = Answers(world.answers.log_probabilities, world.answers.labels, world.answers.members, form)
    return World(answers, world.shadows)


# The planted leak.


@pytest.mark.parametrize("form", FORMS)
def test_planted_answers_are_the_surest_there_are_and_of_the_right_label(form):
    world = in_form(small(labels_only=form.labels_only), form)
    rows = planted_rows(120, 0.1, seed=0)
    planted = plant(world, rows, seed=0).answers
    before, after = (scaled_confidence(one.log_probabilities, one.labels, form) for one in (world.answers, planted))
    assert after[rows].min() >= before.max() - 1e-9
    assert (planted.log_probabilities[rows].argmax(1) == planted.labels[rows]).all()
    assert np.exp(planted.log_probabilities[rows]).sum(1) == pytest.approx(1.0, abs=0.05 * CLASSES)


@pytest.mark.parametrize("form", FORMS)
def test_only_planted_members_change(form):
    world = in_form(small(labels_only=form.labels_only), form)
    rows = planted_rows(120, 0.1, seed=0)
    planted = plant(world, rows, seed=0)
    others = np.setdiff1d(np.arange(270), rows)
    assert (planted.answers.log_probabilities[others] == world.answers.log_probabilities[others]).all()
    assert (planted.shadows.signals[:, others] == world.shadows.signals[:, others]).all()
    assert (planted.shadows.target[others] == world.shadows.target[others]).all()
    assert (planted.shadows.membership == world.shadows.membership).all()
    assert rows.max() < 120
    assert len(rows) == 12


def test_planted_shadow_answers_are_sure_in_and_hard_out():
    world = small()
    rows = planted_rows(120, 0.1, seed=0)
    planted = plant(world, rows, seed=0).shadows
    inside = planted.membership[:, rows]
    drawn = planted.signals[:, rows, 0]
    everything = world.shadows.signals
    assert drawn[inside].min() > np.quantile(everything, 0.9)
    assert np.median(drawn[~inside]) < np.quantile(everything, 0.2)
    assert np.isin(drawn[~inside], everything).all()


def test_the_world_itself_is_left_as_it_was():
    world = small()
    before = world.answers.log_probabilities.copy(), world.shadows.signals.copy(), world.shadows.target.copy()
    plant(world, planted_rows(120, 0.5, seed=0), seed=0)
    now = world.answers.log_probabilities, world.shadows.signals, world.shadows.target
    assert all((one == other).all() for one, other in zip(before, now, strict=True))


def test_every_threshold_puts_the_planted_members_first():
    world = world_of(shadows=0, members=200, non_members=200)
    rows = planted_rows(200, 0.05, seed=3)
    for scores in threshold_attacks(plant(world, rows, seed=0).answers):
        assert scores.members[rows].min() > scores.non_members.max(), scores.attack


@pytest.mark.parametrize("surest", [-3.0, 0.0, 30.0, 600.0])
def test_planting_works_on_models_that_are_never_sure_and_on_those_that_always_are(surest):
    labels = np.arange(40) % CLASSES
    answers = Answers(logs_of(np.linspace(surest - 1.0, surest, 40), labels), labels, 20)
    planted = plant(World(answers), np.array([2, 5]), seed=0).answers
    assert np.isfinite(planted.log_probabilities).all()
    assert planted.scaled_confidence()[[2, 5]].min() > answers.scaled_confidence().max()
    assert np.exp(planted.log_probabilities[2, labels[2]]) > 0.99


@pytest.mark.parametrize("form", [OutputForm(probabilities=True), OutputForm(k=1, probabilities=True), OutputForm(k=1)])
def test_where_every_answer_is_certain_a_memorised_one_looks_like_the_others(form):
    """One class has 1, all others 0: a leak that such answers cannot show must not count as found."""
    generator = np.random.default_rng(0)
    labels, said = generator.integers(0, CLASSES, (2, 4_000))
    said = np.where(generator.random(4_000) < 0.9, labels, said)
    logs = np.where(said[:, None] == np.arange(CLASSES), 0.0, -105.0)
    verdict, _, attacks, _ = audited(World(Answers(logs, labels, 2_000, form)))
    assert verdict is Verdict.UNDERPOWERED
    assert not any(one.planted_found for one in attacks)


@given(st.integers(1, 5_000), st.floats(0.001, 0.5), st.integers(0, 9))
def test_at_least_one_member_is_planted_and_the_share_of_them(members, share, seed):
    rows = planted_rows(members, share, seed)
    assert len(rows) == len(set(rows)) == max(1, round(share * members))
    assert rows.min() >= 0
    assert rows.max() < members


def test_scores_that_are_all_the_same_stay_so_when_planted():
    scores = MembershipScores("a", np.ones(30), np.ones(30))
    planted = plant_scores(scores, np.array([1, 2]))
    assert (planted.members == 1.0).all()


# The null.


def test_shuffling_moves_whole_records_and_keeps_them_all():
    world = small()
    moved = world.shuffled(seed=1)
    order = np.lexsort(moved.answers.log_probabilities.T), np.lexsort(world.answers.log_probabilities.T)
    for one, other in zip(order[0], order[1], strict=True):
        assert moved.answers.labels[one] == world.answers.labels[other]
        assert (moved.shadows.membership[:, one] == world.shadows.membership[:, other]).all()
        assert (moved.shadows.signals[:, one] == world.shadows.signals[:, other]).all()
        assert (moved.shadows.target[one] == world.shadows.target[other]).all()
    assert moved.answers.members == world.answers.members


def test_shuffling_takes_a_leak_away():
    scores = next(iter(run_attacks(world_of(3.0).shuffled(seed=0), (), seed=0).values())).scores
    assert abs(np.mean(scores.members) - np.mean(scores.non_members)) < 0.5


@pytest.mark.parametrize("gap", [0.0, 2.0])
def test_a_right_audit_passes_its_null_however_much_leaks(gap):
    broken = [audited(small(gap=gap, seed=seed))[3].null.broken for seed in range(4)]
    assert not any(broken)


def test_an_accuracy_above_guessing_is_found():
    generator = np.random.default_rng(0)
    shuffled = {"a": MembershipScores("a", generator.normal(size=100), generator.normal(size=100))}
    right = Estimate(0.52, 0.5, 0.54, 0.95, 1_000)
    wrong = Estimate(0.65, 0.6, 0.7, 0.95, 1_000)
    for accuracy, found in ((right, ()), (wrong, ("knn (accuracy)",))):
        null = null_control(shuffled, accuracies={"knn": accuracy}, headline="a", confidence=0.95, seed=0)
        assert null.found == found


# The exchange.


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from([0.0, 2.0]), st.booleans(), st.sampled_from([4, 8, 40]))
def test_right_attacks_pass_the_exchange(seed, gap, labels_only, shadows):
    world = world_of(gap, members=40, non_members=50, shadows=shadows, seed=seed, labels_only=labels_only)
    assert exchange_control(world).broken == ()


@pytest.mark.parametrize("form", FORMS[1:4])
def test_attacks_adapted_to_a_defense_pass_the_exchange(form):
    assert exchange_control(in_form(small(gap=1.0), form)).broken == ()


def test_without_shadow_models_there_is_nothing_to_exchange():
    assert exchange_control(world_of(shadows=0)).broken == ()


# The rotation.


def test_a_procedure_that_leaks_is_told_from_one_that_does_not():
    for gap, leaks in ((0.0, False), (2.0, True)):
        shadows = world_of(gap, shadows=16).shadows
        procedure = procedure_of(shadows, OutputForm(), confidence=0.99, seed=0)
        assert (procedure.auc.low > 0.5) is leaks
        assert procedure.shadows == 16
        null = procedure_null(shadows, OutputForm(), confidence=0.999, seed=0)
        assert null.low <= 0.5 <= null.high


def test_every_shadow_model_is_scored_on_every_record():
    world = small(gap=1.0)
    assert rotated_scores(world.shadows, OutputForm()).shape == world.shadows.membership.shape


# Who is needed, and who comes first.


def test_who_is_needed():
    plain, rounded, labels = (in_form(small(labels_only=form.labels_only), form) for form in (*FORMS[1:3], FORMS[4]))
    thresholds = {"loss threshold", "confidence", "entropy", "modified entropy"}
    for world, needed, first in (
        (plain, thresholds | {"LiRA"}, "LiRA"),
        (rounded, {"LiRA"}, "LiRA"),
        (labels, {"label-only"}, "label-only"),
        (World(rounded.answers), thresholds, "loss threshold"),
        (World(labels.answers), {"label is right"}, "label is right"),
    ):
        runs = run_attacks(world, (), seed=0)
        assert required_of(runs, world.answers.form) == needed
        assert headline_of(runs) == first


def test_behind_labels_alone_without_shadow_models_an_audit_is_underpowered():
    verdict, reason, *_ = audited(world_of(shadows=0, labels_only=True, members=800, non_members=800))
    assert verdict is Verdict.UNDERPOWERED
    assert "train_fn" in reason


def test_without_shadow_models_no_attack_uses_them():
    assert shadow_scores(world_of(shadows=0)) == {}


def test_signals_that_do_not_fit_are_refused():
    here = small().shadows
    with pytest.raises(DataError, match="fit"):
        ShadowEvidence(here.signals, here.membership, here.blocks, here.target[1:])


# Shadow models that were asked without the defense as well.


def behind_rounding():
    """Shadow models' answers behind one decimal, and their full ones."""
    world = in_form(small(gap=2.0), OutputForm(decimals=1, probabilities=True))
    here = world.shadows
    rounded = np.clip(np.round(1.0 / (1.0 + np.exp(-here.signals)), 1), 0.025, 0.975)
    defended = np.log(rounded) - np.log1p(-rounded)
    target = np.clip(np.round(1.0 / (1.0 + np.exp(-here.target)), 1), 0.025, 0.975)
    target = np.log(target) - np.log1p(-target)
    return World(world.answers, ShadowEvidence(defended, here.membership, here.blocks, target, undefended=here.signals))


def test_laws_are_fitted_to_the_fullest_answers_and_targets_answer_behind_the_defense():
    world = behind_rounding()
    here, form = world.shadows, world.answers.form
    scores = shadow_scores(world)
    assert np.array_equal(scores["LiRA"], lira(here.undefended, here.membership, here.target, form=form))
    rotated = rotated_scores(here, form)
    others = here.blocks != here.blocks[0]
    alone = lira(here.undefended[others], here.membership[others], here.signals[0], form=form)
    assert rotated[0] == pytest.approx(alone, rel=1e-9)


def test_a_change_of_the_world_changes_both_kinds_of_answers():
    world = behind_rounding()
    order = np.random.default_rng(0).permutation(270)
    moved = world.in_order(order).shadows
    assert np.array_equal(moved.undefended, world.shadows.undefended[:, order])
    assert np.array_equal(moved.signals, world.shadows.signals[:, order])
    assert exchange_control(world).broken == ()


def test_the_planted_leak_is_in_both_kinds_of_answers():
    world = behind_rounding()
    rows = planted_rows(120, 0.1, seed=0)
    planted = plant(world, rows, seed=0).shadows
    inside = planted.membership[:, rows]
    others = np.setdiff1d(np.arange(270), rows)
    for before, after in (
        (world.shadows.signals, planted.signals),
        (world.shadows.undefended, planted.undefended),
    ):
        assert (after[:, others] == before[:, others]).all()
        assert after[:, rows, 0][inside].mean() > before.mean() + 2.0
        assert after[:, rows, 0][inside].mean() > after[:, rows, 0][~inside].mean() + 2.0
