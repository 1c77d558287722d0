"""From evidence and controls to what each attack found, and to what the shadow models say of the training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privet.audit.assess import assess, family_size, single_confidence
from privet.audit.conclude import attack_results, planted_control
from privet.audit.controls import Controls
from privet.audit.evidence import Evidence
from privet.audit.findings import PlantedControl, Procedure
from privet.audit.limits import sample_warnings
from privet.audit.procedure import FEWEST_BLOCKS, procedure_of
from privet.audit.result import AttackResult
from privet.audit.runs import required_of
from privet.audit.suspicions import doubt_about, suspicions
from privet.audit.terms import Terms
from privet.audit.world import World

__all__ = ["Judged", "judge"]


@dataclass(frozen=True, eq=False)
class Judged:
    """What the numbers say, before the verdict.

    Attributes:
        attacks: what each found.
        tests: over how many intervals theirs are corrected.
        planted: who missed the planted leak.
        procedure: what the training gives away; None without enough shadow models.
        warnings: what limits the audit, a sentence each.
        doubt: why a target that gives nothing away may be the wrong one; "" for none.
    """

    attacks: tuple[AttackResult, ...]
    tests: int
    planted: PlantedControl
    procedure: Procedure | None
    warnings: tuple[str, ...]
    doubt: str


def judge(evidence: Evidence, controls: Controls, planted: int, terms: Terms) -> Judged:
    """Make the estimates, all of which hold at once.

    Args:
        evidence: what was gathered.
        controls: what the controls found.
        planted: how many members the planted leak is about.
        terms: how the audit is done.

    Returns:
        What the numbers say.
    """
    world, runs = evidence.world, evidence.runs
    members, records = world.answers.members, len(world.answers.labels)
    scores = {name: run.scores for name, run in runs.items()}
    judged = assess(scores, confidence=terms.confidence, seed=terms.seed)
    tests = family_size(scores)
    attacks = attack_results(runs, judged, controls.planted, required_of(runs, world.answers.form))
    procedure = _procedure(world, terms)
    control = planted_control(
        attacks,
        share=terms.planted_share,
        count=planted,
        members=members,
        non_members=records - members,
        confidence=single_confidence(terms.confidence, tests),
    )
    warnings = (
        *suspicions(world, runs, judged, evidence.blind, procedure),
        *evidence.warnings,
        *sample_warnings(attacks, records - members),
    )
    return Judged(attacks, tests, control, procedure, warnings, doubt_about(judged, procedure))


def _procedure(world: World, terms: Terms) -> Procedure | None:
    shadows = world.shadows
    if shadows is None or np.unique(shadows.blocks).size < FEWEST_BLOCKS:
        return None
    return procedure_of(shadows, world.answers.form, confidence=terms.confidence, seed=terms.seed)
