"""What looks as if the audit were not of what the user means: said as a warning, because it may be as it should."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from privet.attacks.membership import Answers
from privet.audit.assess import Assessment
from privet.audit.findings import BlindCheck, Procedure
from privet.audit.runs import Run
from privet.audit.world import ShadowEvidence, World
from privet.statistics import clopper_pearson

__all__ = ["doubt_about", "suspicions"]

_WIDE = 0.2  # of the blind classifier's interval
_APART = 0.1  # between the target's share of sure records and that of the shadow models
_SURELY = 0.999


def suspicions(
    world: World,
    runs: Mapping[str, Run],
    judged: Mapping[str, Assessment],
    blind: BlindCheck,
    procedure: Procedure | None,
) -> tuple[str, ...]:
    """A sentence for everything that looks wrong.

    Args:
        world: what the attacks saw.
        runs: what they brought.
        judged: what that says.
        blind: the check of the two sets.
        procedure: what the shadow models say about the training; None without them.
    """
    found = []
    if _guesses(world.answers):
        found.append(
            "The target is right about its members no more often than a guess: check that its weights are loaded and "
            "that the records are prepared as they were for training."
        )
    if blind.auc.high - blind.auc.low > _WIDE:
        found.append(
            "Whether both sets come of one distribution could hardly be checked with so few records: the blind "
            f"classifier's area lies between {blind.auc.low:.2f} and {blind.auc.high:.2f}."
        )
    if world.shadows is not None:
        found += _about_shadows(world.shadows, world.answers)
    if procedure is not None and procedure.auc.low <= 0.5 and any(judged[name].leaks for name in runs):
        found.append("The target leaks, and the shadow models do not: train_fn may not be how the target was trained.")
    return tuple(found)


def doubt_about(judged: Mapping[str, Assessment], procedure: Procedure | None) -> str:
    """A sentence, if shadow models give away what the target does not: it may be another model, or other members.

    Args:
        judged: what the scores on the target say.
        procedure: what the shadow models say about the training; None without them.
    """
    if procedure is None or procedure.attack not in judged:
        return ""
    own = judged[procedure.attack].auc
    if own.high >= procedure.auc.low:
        return ""
    return (
        f"But models trained by train_fn on these records give them away, with an area under the ROC of at least "
        f"{procedure.auc.low:.3f}, and the target does not, with at most {own.high:.3f}: check that these are the "
        "records it was trained on, and that this is how."
    )


def _guesses(answers: Answers) -> bool:
    """Whether the target may be right about its members no more often than by always naming the commonest label."""
    labels = answers.labels[: answers.members]
    right = int((answers.log_probabilities[: answers.members].argmax(1) == labels).sum())
    commonest = float(np.bincount(labels).max()) / len(labels)
    return clopper_pearson(right, len(labels), _SURELY).low <= commonest and commonest < 1.0


def _about_shadows(shadows: ShadowEvidence, answers: Answers) -> list[str]:
    """Shadow models that differ from the target in how they answer about records that none of them was trained on."""
    found = []
    signals = np.asarray(shadows.signals[:, :, 0])
    if all(np.array_equal(signals[0], other) for other in signals[1:]):
        found.append("All shadow models answer alike: train_fn seems not to train on the indices it is given.")
    middle = 0.5 if answers.form.labels_only else 0.0
    theirs = float((signals[~shadows.membership] > middle).mean())
    own = float((shadows.target[answers.members :, 0] > middle).mean())
    if abs(theirs - own) > _APART:
        found.append(
            f"About records they were not trained on, the target gives the right label more than even odds for "
            f"{own:.0%}, the shadow models for {theirs:.0%}: train_fn may not be how the target was trained, and "
            "attacks that compare the two are weaker then."
        )
    return found
