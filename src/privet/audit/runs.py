"""The attacks of an audit, each a function of a world: and which of them must find a planted leak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privet.attacks.membership import Answers, MembershipScores, threshold_attacks
from privet.attacks.membership.label_only import label_only
from privet.attacks.membership.learned import Method, learned_attacks
from privet.attacks.membership.lira import lira
from privet.attacks.membership.rmia import rmia
from privet.audit.world import World
from privet.output_form import OutputForm

__all__ = [
    "LABEL_ONLY",
    "LIRA",
    "OFFLINE_LIRA",
    "RMIA",
    "Run",
    "chosen_methods",
    "headline_of",
    "model_runs",
    "required_of",
    "run_attacks",
    "shadow_runs",
    "shadow_scores",
]

LIRA, OFFLINE_LIRA, RMIA, LABEL_ONLY = "LiRA", "LiRA offline", "RMIA", "label-only"


@dataclass(frozen=True, eq=False)
class Run:
    """What one attack brought from a world.

    Attributes:
        scores: higher means member.
        tier: 0 for what needs the model alone, 1 for what needs shadow models.
        details: what else the attack says of itself.
    """

    scores: MembershipScores
    tier: int
    details: Mapping[str, Any] = field(default_factory=dict)


def run_attacks(world: World, methods: Sequence[Method], *, seed: int) -> dict[str, Run]:
    """Run every attack on a world.

    Args:
        world: what the attacks see, members first.
        methods: of the learned attacks; empty for none.
        seed: of the learned attacks' splits and trainings.

    Returns:
        What each attack brought, by name.
    """
    return {**model_runs(world.answers, methods, seed=seed), **shadow_runs(world)}


def model_runs(answers: Answers, methods: Sequence[Method], *, seed: int) -> dict[str, Run]:
    """The attacks that need the target alone: one threshold for all records, and what can be learned of its answers."""
    runs = {scores.attack: Run(scores, 0) for scores in threshold_attacks(answers)}
    for one in learned_attacks(answers, methods, seed=seed) if methods else ():
        details = {
            "parameters": dict(one.parameters),
            "precision": one.precision,
            "accuracy": one.accuracy,
            "recall": one.recall,
        }
        runs[one.scores.attack] = Run(one.scores, 0, details)
    return runs


def shadow_runs(world: World) -> dict[str, Run]:
    """The attacks that know how each record is answered by models trained on it, and by others; none without them."""
    members = world.answers.members
    return {
        name: Run(MembershipScores(name, scores[:members], scores[members:]), 1)
        for name, scores in shadow_scores(world).items()
    }


def shadow_scores(world: World) -> dict[str, NDArray[np.float64]]:
    """What the attacks with shadow models score each record (P,), by name; nothing without shadow models."""
    here = world.shadows
    if here is None:
        return {}
    if world.answers.form.labels_only:
        return {LABEL_ONLY: label_only(here.signals, here.membership, here.target)}
    form = world.answers.form
    return {
        LIRA: lira(here.full, here.membership, here.target, form=form),
        OFFLINE_LIRA: lira(here.full, here.membership, here.target, offline=True, form=form),
        RMIA: rmia(here.signals, here.membership, here.target).log_ratio,
    }


def required_of(runs: Mapping[str, Run], form: OutputForm) -> frozenset[str]:
    """The attacks that must find a planted leak, or the audit is underpowered.

    These are LiRA or label-only where there are shadow models, and the thresholds, unless there are shadow models and a
    defense coarsens the answer: what it leaves to an attack that knows each record, one threshold for all of them need
    not see. Others may miss a record that was memorised outright and be right: learned attacks see half of the
    records, offline LiRA half of the shadow models, and RMIA divides by a mean that half of the shadow models raise to
    1/2, so that no such record gets more than twice what any other does.

    Args:
        runs: by name.
        form: what the target lets out.
    """
    whole = form in (OutputForm(), OutputForm(probabilities=True))
    by_shadows = any(run.tier == 1 for run in runs.values())
    return frozenset(
        name
        for name, run in runs.items()
        if name in (LIRA, LABEL_ONLY)
        or (run.tier == 0 and "parameters" not in run.details and (whole or not by_shadows))
    )


def headline_of(runs: Mapping[str, Run]) -> str:
    """The attack by which records are ranked: with shadow models LiRA or label-only, else the first threshold."""
    for name in (LIRA, LABEL_ONLY):
        if name in runs:
            return name
    return next(iter(runs))


def chosen_methods(runs: Mapping[str, Run]) -> tuple[Method, ...]:
    """The learned attacks with the parameters that they chose, and nothing left to choose."""
    return tuple(
        (name, {key: (value,) for key, value in run.details["parameters"].items()})
        for name, run in runs.items()
        if "parameters" in run.details
    )
