"""Audits made by hand, one for each verdict, from scores whose leak is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from privet.attacks.membership import MembershipScores
from privet.audit.claim import ClaimAudit
from privet.audit.findings import BlindCheck, ExchangeControl, NullControl, PlantedControl, Procedure
from privet.audit.result import RATES, AttackResult, AuditResult
from privet.audit.verdict import Verdict
from privet.output_form import OutputForm
from privet.statistics import Estimate, OneRunBound, auc_interval, clopper_pearson, tpr_at_fpr

MEMBERS, NON_MEMBERS, CLASSES, SIDE = 1_200, 1_500, 4, 8
EACH = 0.999

LEARNED = {
    "parameters": {"n_neighbors": 5},
    "precision": clopper_pearson(340, 600),
    "accuracy": clopper_pearson(690, 1_200),
    "recall": clopper_pearson(410, 600),
}


def attack(
    name: str, shift: float, *, tier: int = 0, required: bool = True, planted_found: bool = True, **details: Any
) -> AttackResult:
    """An attack on Gaussian scores of which every fifth member is moved up by ``shift``."""
    generator = np.random.default_rng((len(name), 7))
    members = generator.normal(0.0, 1.0, MEMBERS)
    members[::5] += shift
    return judged(name, members, generator.normal(0.0, 1.0, NON_MEMBERS), tier, required, planted_found, details)


def judged(
    name: str,
    members: np.ndarray,
    non_members: np.ndarray,
    tier: int = 0,
    required: bool = True,
    planted_found: bool = True,
    details: Mapping[str, Any] | None = None,
) -> AttackResult:
    scores = MembershipScores(name, members, non_members)
    auc = auc_interval(members, non_members, seed=0, confidence=EACH)
    rates = {
        rate: tpr_at_fpr(members, non_members, rate, EACH) for rate in RATES if rate * non_members.size >= 1.0 - 1e-9
    }
    leaks = auc.low > 0.5 or any(rate.tpr.low > rate.fpr.high for rate in rates.values())
    return AttackResult(name, tier, scores, auc, rates, leaks, planted_found or leaks, required, details or {})


@cache
def attacks(shift: float, planted_found: bool = True) -> tuple[AttackResult, ...]:
    naive, found = shift / 3.0, planted_found
    return (
        attack("loss threshold", naive, planted_found=found),
        attack("entropy", naive / 2.0, planted_found=found),
        attack("label is right", 0.0, planted_found=found) if shift == 0.0 else tied(),
        attack("logistic regression", naive, required=False, planted_found=False, **LEARNED),
        attack("LiRA", shift, tier=1, planted_found=found),
        attack("RMIA", 0.9 * shift, tier=1, planted_found=found),
    )


def tied() -> AttackResult:
    """Scores of two values: no threshold has a small false positive rate."""
    members, non_members = np.zeros(MEMBERS), np.zeros(NON_MEMBERS)
    members[:1_000], non_members[:900] = 1.0, 1.0
    return judged("label is right", members, non_members)


def columns() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    labels = np.arange(MEMBERS + NON_MEMBERS) % CLASSES
    source = np.where(labels == 3, "north", "south")
    source[:5] = "rare"
    return labels, {"class": labels, "source": source}


@cache
def leak(shift: float = 5.0) -> AuditResult:
    labels, groups = columns()
    pixels = np.random.default_rng(3).random((MEMBERS + NON_MEMBERS, 1, SIDE, SIDE))
    found = attacks(shift)
    return AuditResult(
        verdict=Verdict.LEAK,
        reason="LiRA finds 18.2% of the members (from 14.8% to 21.9%) where it wrongly accuses 1.00% of the others.",
        attacks=found,
        headline="LiRA",
        members=MEMBERS,
        non_members=NON_MEMBERS,
        confidence=0.95,
        tests=24,
        null=NullControl(0.999, (), 100, 4, 13),
        planted=PlantedControl(0.05, 60, (), None),
        exchange=ExchangeControl(()),
        blind=BlindCheck(Estimate(0.503, 0.478, 0.529, 0.99, 600), 0.52, False),
        procedure=Procedure(
            "LiRA", 16, Estimate(0.612, 0.588, 0.637, 0.95, 2_700), {rate: found[4].rates[rate] for rate in RATES}
        ),
        shadows=16,
        form=OutputForm(),
        labels=labels,
        columns=groups,
        inputs=pixels.astype(np.float32),
        warnings=("The rates at a false positive rate of 0.1% rest on fewer than ten wrongly accused records.",),
        provenance=(("seed", "0"), ("target", "a network of two layers")),
    )


@cache
def no_leak_found() -> AuditResult:
    return replace(
        leak(0.0),
        verdict=Verdict.NO_LEAK_FOUND,
        reason="None of the 6 attacks found anything that chance does not explain.",
        form=OutputForm(decimals=1, probabilities=True),
        defense="rounding to 1 decimal",
        inputs=None,
    )


@cache
def underpowered() -> AuditResult:
    return replace(
        leak(0.0),
        verdict=Verdict.UNDERPOWERED,
        reason="No leak was found, but this audit could not have found one of the size it is held to.",
        attacks=attacks(0.0, planted_found=False),
        planted=PlantedControl(0.05, 60, ("LiRA", "RMIA"), 4_100),
        claimed=(3.0, 1e-5),
        inputs=None,
        columns={},
    )


@cache
def invalid() -> AuditResult:
    return replace(
        leak(),
        verdict=Verdict.INVALID,
        reason="Members and non-members can be told apart without the model.",
        blind=BlindCheck(Estimate(0.641, 0.617, 0.664, 0.99, 600), 0.52, True),
    )


@cache
def claim_violated() -> AuditResult:
    bound = OneRunBound(4.127, guesses=80, correct=80, canaries=1_000, delta=1e-5, confidence=0.95, tests=1)
    claim = ClaimAudit((3.0, 1e-5), bound)
    return replace(
        leak(),
        verdict=Verdict.CLAIM_VIOLATED,
        reason=claim.words,
        claim=claim,
        claimed=(3.0, 1e-5),
    )


@cache
def scores_only() -> AuditResult:
    """Few given scores: no labels, no shadow models, no blind check, only the largest rate."""
    generator = np.random.default_rng(11)
    found = judged("given scores", generator.normal(0.3, 1.0, 60), generator.normal(0.0, 1.0, 50), planted_found=False)
    return AuditResult(
        verdict=Verdict.UNDERPOWERED,
        reason="No leak was found, but this audit could not have found one of the size it is held to.",
        attacks=(found,),
        headline="given scores",
        members=60,
        non_members=50,
        confidence=0.95,
        tests=2,
        null=NullControl(0.999, (), 100, 3, 13),
        planted=PlantedControl(0.05, 3, ("given scores",), 2_600),
        warnings=("Nothing is said at a false positive rate of 1.0%: 50 non-members cannot show it, 100 can.",),
    )


EVERY = {
    "leak": leak,
    "no_leak_found": no_leak_found,
    "underpowered": underpowered,
    "invalid": invalid,
    "claim_violated": claim_violated,
    "scores_only": scores_only,
}
