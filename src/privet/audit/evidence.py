"""What an audit gathers: whether the two sets can be told apart, what the target says, what shadow models say."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from privet.attacks.membership import Pool
from privet.attacks.membership.blind import blind
from privet.attacks.membership.fleet import Fleet
from privet.attacks.membership.learned import Method
from privet.audit.assess import assess
from privet.audit.findings import BlindCheck
from privet.audit.growth import Growth, begun, grown
from privet.audit.runs import Run, model_runs, shadow_runs
from privet.audit.subject import Subject
from privet.audit.terms import Terms
from privet.audit.watch import Watch
from privet.audit.world import World
from privet.statistics import Estimate, auc_interval, clopper_pearson

__all__ = ["BLIND_LIMIT", "Evidence", "blind_check", "gathered"]

BLIND_LIMIT = 0.52
"""The lower end of the blind classifier's area may not lie above this."""

_BLIND_CONFIDENCE = 0.99
_LATE = "Within the time limit no learned attack was run."
_CONTROLS = 1.5  # times what the learned attacks took is kept for running them once more
_JUDGED = 4.0  # times what judging the first attacks took is kept for judging all of them, and the controls
_KEPT = 1.0  # second for everything else


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that is known before anything is judged.

    Attributes:
        blind: the check of the two sets.
        world: what the attacks saw.
        runs: what each of them brought, by name.
        growth: the shadow models; None without.
        warnings: what there was no time for, a sentence each.
    """

    blind: BlindCheck
    world: World
    runs: Mapping[str, Run]
    growth: Growth | None
    warnings: tuple[str, ...] = ()

    @property
    def accuracy(self) -> tuple[Estimate, Estimate]:
        """The share of members, and of others, that the target labels right."""
        answers = self.world.answers
        right = answers.log_probabilities.argmax(1) == answers.labels
        ours, theirs = right[: answers.members], right[answers.members :]
        return clopper_pearson(int(ours.sum()), ours.size), clopper_pearson(int(theirs.sum()), theirs.size)

    @property
    def shadows(self) -> int:
        """How many shadow models are evaluated."""
        return 0 if self.world.shadows is None else len(self.world.shadows.blocks)


def gathered(
    subject: Subject,
    fleet: Fleet | None,
    methods: Sequence[Method],
    terms: Terms,
    *,
    ends: float | None,
    watch: Watch,
) -> Evidence:
    """Ask, train and attack: the least that the strongest attacks need, then all others, then what makes them stronger.

    Args:
        subject: the target and the records.
        fleet: trains shadow models; None for none.
        methods: of the learned attacks.
        terms: how the audit is to be done.
        ends: when the audit is to end, on the clock of ``time.monotonic``; None: when it is done.
        watch: is told what is being done.

    Returns:
        The evidence.
    """
    watch.say("comparing members and non-members")
    check = blind_check(subject.pool, terms.seed)
    watch.say("asking the target")
    answers = subject.answers()
    if fleet is None:
        watch.say("attacks on the answers")
        return Evidence(check, World(answers), model_runs(answers, methods, seed=terms.seed), None)
    target = fleet.row(subject.query)  # first, so that whatever is wrong with it is known before any training
    interrupted = begun(fleet, terms, ends=ends, progress=watch.count)
    late = () if ends is None or time.monotonic() < ends or not methods else (_LATE,)
    watch.say("attacks on the answers")
    before = time.monotonic()
    runs = model_runs(answers, () if late else methods, seed=terms.seed)
    deadline = None
    if ends is not None:
        took, before = time.monotonic() - before, time.monotonic()
        assess({name: run.scores for name, run in runs.items()}, confidence=terms.confidence, seed=terms.seed)
        deadline = ends - _CONTROLS * took - _JUDGED * (time.monotonic() - before) - _KEPT
    growth = grown(fleet, target, subject.form, terms, deadline=deadline, progress=watch.count, interrupted=interrupted)
    watch.say("attacks with shadow models")
    world = World(answers, growth.shadows)
    return Evidence(check, world, {**runs, **shadow_runs(world)}, growth, (*growth.warnings, *late))


def blind_check(pool: Pool, seed: int) -> BlindCheck:
    """Whether a classifier that never sees the model tells members from non-members."""
    scores = blind(pool, seed=seed)
    auc = auc_interval(scores.members, scores.non_members, seed=seed, confidence=_BLIND_CONFIDENCE)
    return BlindCheck(auc, BLIND_LIMIT, auc.low > BLIND_LIMIT)
