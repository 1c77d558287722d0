"""How many shadow models an audit trains: as many as were asked for, as time allows, or until an interval is narrow."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from privet.attacks.membership.fleet import Fleet, Shadows
from privet.audit.procedure import FEWEST_BLOCKS, rotated_scores
from privet.audit.terms import MOST_SHADOWS, Terms
from privet.audit.world import ShadowEvidence
from privet.errors import SampleTooSmallError
from privet.output_form import OutputForm
from privet.statistics import pooled_tpr_at_fpr

__all__ = ["Growth", "begun", "grown"]

_FEWEST = 2  # blocks, so that each record has two models that were trained on it or two that were not
_RATE = 0.01  # the false positive rate at which the width is held to `until`
_LITTLE = 0.95  # twice the models that leave more of the width than this show that records limit it


@dataclass(frozen=True, eq=False)
class Growth:
    """The shadow models that there are, and why there are not more.

    Attributes:
        shadows: whole blocks of them and the target's own row; None where there are too few to evaluate.
        interrupted: somebody stopped their training.
        warnings: what was not reached, a sentence each.
        how: where they were trained.
    """

    shadows: ShadowEvidence | None
    interrupted: bool
    warnings: tuple[str, ...]
    how: str


def begun(fleet: Fleet, terms: Terms, *, ends: float | None, progress: Callable[[int, int], None]) -> bool:
    """Train the shadow models without which there is no attack by them; all of them where time is not limited.

    Before anything that takes long: what is wrong with the training is known at once, and attacks that find less do
    not take the time of those that find most.

    Args:
        fleet: trains them.
        terms: how many.
        ends: as ``deadline`` of :func:`grown`.
        progress: called with how many are finished and how many there are to be.

    Returns:
        Whether somebody stopped it.
    """
    wanted = _wanted(fleet, terms)
    first = wanted if ends is None else _FEWEST * fleet.block
    try:
        fleet.grow(first, progress=lambda done, _: progress(done, wanted), deadline=ends)
    except KeyboardInterrupt:
        return True
    return False


def _wanted(fleet: Fleet, terms: Terms) -> int:
    return -(-max(terms.shadows, FEWEST_BLOCKS * fleet.block) // fleet.block) * fleet.block


def grown(
    fleet: Fleet,
    target: NDArray[Any],
    form: OutputForm,
    terms: Terms,
    *,
    deadline: float | None,
    progress: Callable[[int, int], None] | None = None,
    interrupted: bool = False,
) -> Growth:
    """Train shadow models, as many as are wanted.

    Args:
        fleet: trains them.
        target: the target's own row.
        form: what it lets out.
        terms: how many, or how narrow an interval.
        deadline: on the clock of ``time.monotonic``; none is begun that would not be finished by then.
        progress: called with how many are finished and how many there are to be.
        interrupted: their training was stopped already; what there is remains.

    Returns:
        What there is.
    """
    wanted, notes = _wanted(fleet, terms), list[str]()
    shadows = fleet.shadows
    try:
        if not interrupted:
            shadows = fleet.grow(wanted, progress=progress, deadline=deadline)
            if terms.until is not None:
                shadows, notes = _until(fleet, shadows, form, terms, deadline=deadline, progress=progress)
    except KeyboardInterrupt:
        shadows, interrupted = fleet.shadows, True
    if interrupted:
        notes.append(f"Stopped by hand with {len(shadows)} of {wanted} shadow models trained.")
    if not interrupted and len(shadows) < wanted:
        notes.append(f"Within the time limit {len(shadows)} of {wanted} shadow models were trained.")
    if len(shadows) < _FEWEST * fleet.block:
        notes.append(f"At least {_FEWEST * fleet.block} are needed: no attack with shadow models was run.")
        return Growth(None, interrupted, tuple(notes), fleet.how)
    evidence = ShadowEvidence(
        shadows.signals, shadows.membership, shadows.blocks, target, undefended=shadows.undefended
    )
    return Growth(evidence, interrupted, tuple(notes), fleet.how)


def _until(
    fleet: Fleet,
    shadows: Shadows,
    form: OutputForm,
    terms: Terms,
    *,
    deadline: float | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[Shadows, list[str]]:
    """Twice as many models, again and again, until the interval is as narrow as asked or nothing more helps."""
    assert terms.until is not None
    before = width = _width(fleet, shadows, form, terms)
    while width > terms.until:
        said = f"The interval of the pooled rate at a false positive rate of {_RATE:.0%} is {width:.3f} wide, not "
        said += f"{terms.until:g}: "
        if 2 * len(shadows) > MOST_SHADOWS:
            return shadows, [said + f"{len(shadows)} shadow models are as many as are trained without asking."]
        if deadline is not None and time.monotonic() >= deadline:
            return shadows, [said + "the time limit was reached."]
        more = fleet.grow(2 * len(shadows), progress=progress, deadline=deadline)
        if len(more) < 2 * len(shadows):
            return more, [said + f"the time limit was reached with {len(more)} shadow models."]
        shadows, before, width = more, width, _width(fleet, more, form, terms)
        if width > terms.until and width > _LITTLE * before:
            return shadows, [
                f"{len(shadows)} shadow models leave an interval {width:.3f} wide at a false positive rate of "
                f"{_RATE:.0%}, half as many left {before:.3f}: the records limit it, not the models. Give more records."
            ]
    return shadows, []


def _width(fleet: Fleet, shadows: Shadows, form: OutputForm, terms: Terms) -> float:
    if len(shadows) < FEWEST_BLOCKS * fleet.block:
        return 1.0
    scores = rotated_scores(shadows, form)
    try:
        rate = pooled_tpr_at_fpr(scores, shadows.membership, _RATE, seed=terms.seed, confidence=terms.confidence)
    except SampleTooSmallError:
        return 1.0
    return rate.tpr.high - rate.tpr.low
