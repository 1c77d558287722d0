"""The verdict: which of the five applies, and that its reason says why."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from tests.audit.worlds import audited, world_of

from privet.attacks.membership import MembershipScores
from privet.audit import AttackResult, ExchangeControl, NullControl, PlantedControl, Verdict
from privet.audit.assess import assess
from privet.audit.claim import audit_claim
from privet.audit.conclude import conclude, planted_control
from privet.audit.findings import BlindCheck
from privet.statistics import Estimate

GENERATOR = np.random.default_rng(0)
ORDER = ["CLAIM VIOLATED", "INVALID", "LEAK", "UNDERPOWERED", "NO LEAK FOUND"]
NEVER = ("private", "safe", "secure", "anonymous")


def attack(name="LiRA", *, leaks=False, found=True, required=True, gap=0.0, size=1_000):
    scores = MembershipScores(name, GENERATOR.normal(gap, 1, size), GENERATOR.normal(0, 1, size))
    judged = assess({name: scores}, confidence=0.95, seed=0)[name]
    return AttackResult(name, 1, scores, judged.auc, judged.rates, leaks, found, required)


CLEAN = NullControl(0.999, (), 200, 3, 21)
FOUND = PlantedControl(0.05, 50, ())
VIOLATED = audit_claim(np.arange(200) % 2, np.arange(200) % 2 == 1, (0.1, 1e-5))
KEPT = audit_claim(np.arange(200) % 2, np.arange(200) % 2 == 1, (30.0, 1e-5))
DIFFERS = BlindCheck(Estimate(0.6, 0.55, 0.65, 0.99, 500), 0.52, True)


def test_there_are_five_verdicts_and_none_says_private():
    assert sorted(verdict.value for verdict in Verdict) == sorted(ORDER)


@pytest.mark.parametrize("which", list(itertools.product([False, True], repeat=4)))
def test_the_first_that_applies_is_the_verdict(which):
    violated, invalid, leak, missed = which
    verdict, reason = conclude(
        [attack(leaks=leak, gap=1.0 if leak else 0.0)],
        null=replace(CLEAN, found=("knn",)) if invalid else CLEAN,
        planted=replace(FOUND, missed=("LiRA",)) if missed else FOUND,
        claim=VIOLATED if violated else KEPT,
    )
    first = next((place for place, applies in enumerate(which) if applies), 4)
    assert verdict.value == ORDER[first]
    assert reason.endswith(".")
    assert not any(word in reason.lower() for word in NEVER)


@pytest.mark.parametrize(
    "control",
    [
        {"null": replace(CLEAN, found=("mlp",))},
        {"null": replace(CLEAN, alarms=22)},
        {"exchange": ExchangeControl(("LiRA",))},
        {"blind": DIFFERS},
    ],
)
def test_each_broken_control_makes_an_audit_invalid_even_beside_a_leak(control):
    verdict, _ = conclude([attack(leaks=True, gap=1.0)], **{"null": CLEAN, "planted": FOUND, **control})
    assert verdict is Verdict.INVALID


def test_as_many_alarms_as_allowed_are_allowed():
    verdict, _ = conclude([attack()], null=replace(CLEAN, alarms=21), planted=FOUND)
    assert verdict is Verdict.NO_LEAK_FOUND


def test_the_reason_of_a_leak_names_the_strongest_finding():
    weak, strong = attack("loss threshold", leaks=True, gap=0.5), attack("LiRA", leaks=True, gap=2.0)
    _, reason = conclude([weak, strong], null=CLEAN, planted=FOUND)
    assert reason.startswith("LiRA: ")
    assert "2 attacks" in reason


def test_a_required_attack_that_missed_the_planted_leak_is_named_with_the_records_it_takes():
    attacks = [attack("loss threshold", found=False, size=300), attack("knn", found=False, required=False, size=300)]
    control = planted_control(attacks, share=0.05, count=15, members=300, non_members=300, confidence=0.99)
    assert control.missed == ("loss threshold",)
    assert control.records_needed is not None
    assert control.records_needed > 300
    _, reason = conclude(attacks, null=CLEAN, planted=control)
    assert f"{control.records_needed:,} members" in reason


def test_where_records_do_not_help_none_are_asked_for():
    attacks = [attack(found=False, size=5_000)]
    control = planted_control(attacks, share=0.05, count=250, members=5_000, non_members=5_000, confidence=0.99)
    assert control.records_needed is None
    assert "shadow models" in conclude(attacks, null=CLEAN, planted=control, shadows=16)[1]
    assert "train_fn" in conclude(attacks, null=CLEAN, planted=control)[1]


def test_the_records_asked_for_find_the_planted_leak():
    verdict, _, attacks, _ = audited(world_of(members=300, non_members=300, shadows=0))
    assert verdict is Verdict.UNDERPOWERED
    control = planted_control(
        attacks, share=0.05, count=15, members=300, non_members=300, confidence=attacks[0].auc.confidence
    )
    enough = control.records_needed
    verdicts = [audited(world_of(members=enough, non_members=enough, shadows=0, seed=seed))[0] for seed in range(5)]
    assert verdicts.count(Verdict.NO_LEAK_FOUND) >= 3  # four in five are promised; 2 or fewer of 5 have chance 6%


def test_a_single_member_is_written_as_one():
    _, reason = conclude([attack()], null=CLEAN, planted=replace(FOUND, members=1))
    assert "1 member (5%)" in reason
