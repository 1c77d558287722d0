"""Sabotaged membership audits: each planted fault is caught by the controls that every audit runs.

A fault is planted where the audit calls the step, in a world that leaks nothing; the same world is first shown to be
judged as it should. Caught means INVALID for what finds what is not there, UNDERPOWERED for what finds nothing.
"""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from tests.audit.worlds import audited, world_of

from privet.attacks.membership import MembershipScores
from privet.attacks.membership.learned import LearnedAttack
from privet.audit import Verdict, assess, audit_scores, exchange, procedure, runs
from privet.statistics import Estimate, RateAtRate, auc_interval, clopper_pearson, tpr_at_fpr

SILENT = world_of(0.0, members=800, non_members=800, shadows=12, seed=5)
LABELS = world_of(0.0, members=800, non_members=800, shadows=12, seed=5, labels_only=True)
LEAKING = world_of(1.0, members=800, non_members=800, shadows=12, seed=5)
KNN = [("knn", {"n_neighbors": [5]})]


@pytest.fixture
def given():
    generator = np.random.default_rng(1)
    return generator.normal(size=2_000), generator.normal(size=2_000)


@pytest.mark.parametrize("world", [SILENT, LABELS])
def test_without_a_fault_a_world_without_a_leak_is_judged_as_one(world):
    verdict, reason, *_ = audited(world)
    assert verdict is Verdict.NO_LEAK_FOUND, reason


def test_without_a_fault_a_leak_is_found():
    verdict, *_ = audited(LEAKING)
    assert verdict is Verdict.LEAK


def test_without_a_fault_learned_attacks_find_nothing():
    verdict, reason, *_ = audited(SILENT, KNN)
    assert verdict is Verdict.NO_LEAK_FOUND, reason


# Members evaluated on the attack's training split.


def judged_on_what_it_learned_from(answers, methods, *, seed):
    features = answers.log_probabilities
    members = np.arange(len(features)) < answers.members
    scores = KNeighborsClassifier(5).fit(features, members).predict_proba(features)[:, 1]
    right = clopper_pearson(1, 2)
    split = MembershipScores("knn", scores[members], scores[~members])
    return (LearnedAttack(split, {"n_neighbors": 5}, right, right, right),)


def test_an_attack_judged_on_its_training_split_is_invalid(monkeypatch):
    monkeypatch.setattr(runs, "learned_attacks", judged_on_what_it_learned_from)
    verdict, reason, _, controls = audited(SILENT, KNN)
    assert verdict is Verdict.INVALID
    assert controls.null.found == ("knn",)
    assert "knn" in reason


def judged_by_a_split_that_forgot_to_split(answers, methods, *, seed):
    """Nearest neighbour: every record finds itself."""
    features = answers.log_probabilities
    members = np.arange(len(features)) < answers.members
    attack = KNeighborsClassifier(1).fit(features, members)
    half = np.random.default_rng(seed).permutation(len(members))[: len(members) // 2]
    scores, inside = attack.predict(features[half]).astype(float), members[half]
    right = clopper_pearson(1, 2)
    return (LearnedAttack(MembershipScores("knn", scores[inside], scores[~inside]), {}, right, right, right),)


def test_an_attack_trained_on_the_half_it_is_judged_on_is_invalid(monkeypatch):
    monkeypatch.setattr(runs, "learned_attacks", judged_by_a_split_that_forgot_to_split)
    verdict, *_ = audited(SILENT, KNN)
    assert verdict is Verdict.INVALID


# Threshold tuned on the test half.


def best_threshold(members, non_members, fpr, confidence=0.95):
    """The threshold at which these very members stand out most, its false positive rate taken as known."""
    scores = np.concatenate((members, non_members))
    ordered = np.sort(members), np.sort(non_members)
    above = [1.0 - np.searchsorted(side, scores, side="right") / side.size for side in ordered]
    best = int(np.argmax(above[0] - above[1]))
    found = round(above[0][best] * members.size)
    rate = Estimate(above[1][best], above[1][best], above[1][best], confidence, non_members.size)
    return RateAtRate(fpr, clopper_pearson(found, members.size, confidence), rate, scores[best], False, True)


def test_a_threshold_tuned_on_the_records_it_is_judged_by_is_invalid(monkeypatch):
    monkeypatch.setattr(assess, "tpr_at_fpr", best_threshold)
    verdict, _, _, controls = audited(SILENT)
    assert verdict is Verdict.INVALID
    assert controls.null.alarms > controls.null.alarms_allowed


def test_a_tuned_threshold_is_invalid_for_scores_alone(monkeypatch, given):
    assert audit_scores(*given).verdict is Verdict.NO_LEAK_FOUND
    monkeypatch.setattr(assess, "tpr_at_fpr", best_threshold)
    assert audit_scores(*given).verdict is Verdict.INVALID


# Ties sorted in favour of members.


def area_with_members_first(members, non_members, **kwargs):
    order = np.sort(np.unique(np.concatenate((members, non_members))))
    return auc_interval(2 * np.searchsorted(order, members) + 1, 2 * np.searchsorted(order, non_members), **kwargs)


def rate_with_members_first(members, non_members, fpr, confidence=0.95):
    right = tpr_at_fpr(members, non_members, fpr, confidence)
    tied = int((members >= right.threshold).sum())
    return RateAtRate(
        fpr, clopper_pearson(tied, len(members), confidence), right.fpr, right.threshold, right.coarse, right.reached
    )


@pytest.mark.parametrize(
    ("name", "fault"), [("auc_interval", area_with_members_first), ("tpr_at_fpr", rate_with_members_first)]
)
def test_ties_in_favour_of_members_are_invalid_although_these_scores_have_none(monkeypatch, given, name, fault):
    monkeypatch.setattr(assess, name, fault)
    result = audit_scores(*given)
    assert result.verdict is Verdict.INVALID
    assert "tied scores" in result.null.found
    verdict, *_ = audited(SILENT)
    assert verdict is Verdict.INVALID


# IN records used in an OUT fit.

REAL = {name: getattr(runs, name) for name in ("lira", "rmia", "label_only", "threshold_attacks")}


def density(values, mean, spread):
    return -0.5 * ((values - mean) ** 2 / spread + np.log(spread))


def lira_with_everything_in_the_out_fit(signals, membership, target, *, offline=False, form=None):
    values, asked = signals[:, :, 0].astype(float), target[:, 0].astype(float)
    out = values.mean(0), values.var(0, ddof=1) + 1e-9
    if offline:
        return (asked - out[0]) / np.sqrt(out[1])
    inside = np.where(membership, values, np.nan)
    return density(asked, np.nanmean(inside, 0), np.nanvar(inside, 0, ddof=1) + 1e-9) - density(asked, *out)


def lira_with_one_in_shadow_in_the_out_fit(signals, membership, target, **kwargs):
    """One shadow of sixteen, trained on all but a few records, is taken for one that was trained on none."""
    mistaken = np.array(membership)
    mistaken[0] = False
    return (
        REAL["lira"](signals, membership, target, **kwargs)
        if kwargs.get("offline")
        else 0.5
        * (REAL["lira"](signals, membership, target, **kwargs) + REAL["lira"](signals, mistaken, target, **kwargs))
    )


def offline_with_one_in_shadow(signals, membership, target, **kwargs):
    if kwargs.get("offline"):
        membership = np.array(membership)
        membership[0] = False
    return REAL["lira"](signals, membership, target, **kwargs)


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        (lira_with_everything_in_the_out_fit, {"LiRA", "LiRA offline"}),
        (lira_with_one_in_shadow_in_the_out_fit, {"LiRA"}),
        (offline_with_one_in_shadow, {"LiRA offline"}),
    ],
)
@pytest.mark.parametrize("world", [SILENT, LEAKING])
def test_in_records_in_the_out_fit_are_invalid(monkeypatch, world, fault, broken):
    monkeypatch.setattr(runs, "lira", fault)
    verdict, reason, _, controls = audited(world)
    assert verdict is Verdict.INVALID
    assert set(controls.exchange.broken) == broken
    assert "mixed" in reason


def test_in_records_in_the_out_mean_of_rmia_are_invalid(monkeypatch):
    def fault(signals, membership, target):
        mistaken = np.array(membership)
        mistaken[0] = False
        return REAL["rmia"](signals, mistaken, target)

    monkeypatch.setattr(runs, "rmia", fault)
    verdict, _, _, controls = audited(SILENT)
    assert verdict is Verdict.INVALID
    assert controls.exchange.broken == ("RMIA",)


def test_in_records_in_the_out_votes_are_invalid(monkeypatch):
    def fault(votes, membership, target):
        mistaken = np.array(membership)
        mistaken[0] = False
        return REAL["label_only"](votes, mistaken, target)

    monkeypatch.setattr(runs, "label_only", fault)
    verdict, _, _, controls = audited(LABELS)
    assert verdict is Verdict.INVALID
    assert controls.exchange.broken == ("label-only",)


def test_a_shadow_model_that_is_fitted_to_itself_is_invalid(monkeypatch):
    def with_itself(signals, membership, blocks, *, targets=None, form=None):
        itself = signals * np.float32(1.0 + 1e-5)  # unchanged, a row would be refused
        return np.stack([REAL["lira"](signals, membership, row) for row in itself])

    monkeypatch.setattr(procedure, "lira_rotated", with_itself)
    verdict, _, _, controls = audited(SILENT)
    assert verdict is Verdict.INVALID
    assert controls.null.found == ("every shadow model in turn",)


def test_a_shadow_model_whose_twin_gives_its_membership_away_is_invalid(monkeypatch):
    """Left out alone, a shadow leaves its complementary twin: how many are left then tells its membership."""

    def without_itself_alone(signals, membership, blocks, *, targets=None, form=None):
        records = signals.shape[1]
        rows = []
        for k in range(len(signals)):
            rest = np.arange(len(signals)) != k
            rows.append(membership[rest].sum(0)[:records] * -1.0)
        return np.stack(rows)

    monkeypatch.setattr(procedure, "lira_rotated", without_itself_alone)
    assert audited(SILENT)[0] is Verdict.INVALID


# A dead attack reported as safe.


def constant(*args, **kwargs):
    return np.zeros(args[0].shape[1])


@pytest.mark.parametrize("fault", [constant, lambda *args, **kwargs: -REAL["lira"](*args, **kwargs)])
def test_dead_or_inverted_lira_is_underpowered(monkeypatch, fault):
    monkeypatch.setattr(runs, "lira", fault)
    verdict, reason, attacks, _ = audited(SILENT)
    assert verdict is Verdict.UNDERPOWERED
    assert "LiRA" in reason
    assert not next(one for one in attacks if one.name == "LiRA").planted_found


def test_dead_label_only_is_underpowered(monkeypatch):
    monkeypatch.setattr(runs, "label_only", constant)
    assert audited(LABELS)[0] is Verdict.UNDERPOWERED


@pytest.mark.parametrize("dead", range(4))
def test_a_dead_threshold_is_underpowered(monkeypatch, dead):
    def fault(answers):
        live = list(REAL["threshold_attacks"](answers))
        members, non_members = np.zeros_like(live[dead].members), np.zeros_like(live[dead].non_members)
        live[dead] = MembershipScores(live[dead].attack, members, non_members)
        return tuple(live)

    monkeypatch.setattr(runs, "threshold_attacks", fault)
    assert audited(SILENT)[0] is Verdict.UNDERPOWERED


def test_an_attack_that_never_looks_at_the_target_is_underpowered(monkeypatch):
    noise = np.random.default_rng(0)
    monkeypatch.setattr(runs, "lira", lambda signals, *args, **kwargs: noise.normal(size=signals.shape[1]))
    verdict, *_ = audited(SILENT)
    assert verdict in (Verdict.UNDERPOWERED, Verdict.INVALID)


@pytest.mark.parametrize("scores", [np.zeros(3_000), np.repeat([0.0, 1.0], [900, 2_100])])
def test_given_scores_that_are_dead_are_underpowered(scores):
    assert audit_scores(scores, scores).verdict is Verdict.UNDERPOWERED


def test_the_exchange_control_can_be_told_from_a_broken_one():
    assert exchange.exchange_control(SILENT).broken == ()
    assert exchange.exchange_control(LABELS).broken == ()
