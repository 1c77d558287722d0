"""The audit of scores that somebody else's attack made: the same tests, controls and verdicts, without the model."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from privet.attacks.membership import MembershipScores
from privet.audit.assess import assess, family_size, single_confidence
from privet.audit.conclude import attack_results, conclude, planted_control
from privet.audit.limits import check_counts, check_planted_share, check_whole, sample_warnings
from privet.audit.null import null_control
from privet.audit.planted import plant_scores, planted_rows
from privet.audit.result import AuditResult
from privet.audit.runs import Run
from privet.statistics.estimate import check_confidence

__all__ = ["GIVEN", "audit_scores"]

GIVEN = "given scores"


def audit_scores(
    member_scores: ArrayLike,
    non_member_scores: ArrayLike,
    *,
    seed: int = 0,
    confidence: float = 0.95,
    planted_share: float = 0.05,
) -> AuditResult:
    """Judge the scores of a membership attack that was run elsewhere.

    The attack cannot be run again, so the controls work on the scores: they are shuffled, where nothing may be found,
    and a share of the members is given the highest score there is, which must be found. Whether members and
    non-members come of one distribution, and whether the attack learned from the records it scores, cannot be seen
    here.

    Args:
        member_scores: (M,), M >= 10; higher means member. Records that the attack learned from do not belong here.
        non_member_scores: (N,), N >= 10.
        seed: of resampling and shuffling, >= 0.
        confidence: of all intervals together, in (0, 1).
        planted_share: how many of the members the planted leak is about, from 0.001 to 0.5.

    Returns:
        Estimates, controls and verdict.

    Raises:
        ArgumentError: an argument is out of range.
        DataError: scores are empty, not a vector, or hold a NaN.
        SampleTooSmallError: there are fewer than ten of either.

    Example:
        >>> generator = np.random.default_rng(0)
        >>> result = audit_scores(generator.normal(1, 1, 2_000), generator.normal(0, 1, 2_000))
        >>> result.verdict.value, round(result.auc.value, 2)
        ('LEAK', 0.76)
    """
    check_confidence(confidence)
    check_planted_share(planted_share)
    check_whole("seed", seed, 0)
    scores = MembershipScores(GIVEN, np.asarray(member_scores), np.asarray(non_member_scores))
    members, non_members = scores.members.size, scores.non_members.size
    check_counts(members, non_members, least=10)
    runs = {GIVEN: Run(scores, 0)}
    rows = planted_rows(members, planted_share, seed)
    judged = assess({GIVEN: scores}, confidence=confidence, seed=seed)
    planted = assess({GIVEN: plant_scores(scores, rows)}, confidence=confidence, seed=seed)
    null = null_control({GIVEN: _shuffled(scores, seed)}, headline=GIVEN, confidence=confidence, seed=seed)
    tests = family_size({GIVEN: scores})
    attacks = attack_results(runs, judged, planted, frozenset({GIVEN}))
    control = planted_control(
        attacks,
        share=planted_share,
        count=rows.size,
        members=members,
        non_members=non_members,
        confidence=single_confidence(confidence, tests),
    )
    verdict, reason = conclude(attacks, null=null, planted=control, scores_only=True)
    return AuditResult(
        verdict=verdict,
        reason=reason,
        attacks=attacks,
        headline=GIVEN,
        members=members,
        non_members=non_members,
        confidence=confidence,
        tests=tests,
        null=null,
        planted=control,
        warnings=(
            *sample_warnings(attacks, non_members),
            "Only scores were given: whether members and non-members differ in distribution was not checked.",
        ),
        provenance=(("seed", str(seed)), ("planted share", f"{planted_share:g}")),
    )


def _shuffled(scores: MembershipScores, seed: int) -> MembershipScores:
    pool = np.random.default_rng((seed, 2)).permutation(np.concatenate((scores.members, scores.non_members)))
    return MembershipScores(GIVEN, pool[: scores.members.size], pool[scores.members.size :])
