"""The planted leak: a share of the members memorised outright, which an audit that can find such a leak must find."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privet.attacks.membership import Answers, MembershipScores, scaled_confidence
from privet.audit.world import ShadowEvidence, World

__all__ = ["plant", "plant_scores", "planted_rows"]

Floats = NDArray[np.float64]
_SURE = math.log(999.0)  # log-odds of 99.9%: the least that a memorised record is answered with
_MARGIN = 2.0  # log-odds by which it is answered surer than every other record


def planted_rows(members: int, share: float, seed: int) -> NDArray[np.intp]:
    """Which of the members are memorised: a share of them, at least one, drawn by ``seed``."""
    count = max(1, round(share * members))
    return np.sort(np.random.default_rng((seed, 3)).choice(members, count, replace=False))


def plant(world: World, rows: NDArray[np.intp], seed: int) -> World:
    """The same world in which the target has memorised some members, and only what was trained on them has.

    Its answer about them, and that of every shadow model trained on them, puts nearly all probability on their label:
    more than about any record here, as far as such answers can say that. Shadow models that were not trained on
    them answer as they do about hard records: as about one of the tenth of which they are least sure. Answers of
    different models about a record spread as they do about that one.

    Args:
        world: what the attacks see.
        rows: the members to be memorised.
        seed: of the draw of hard records.

    Returns:
        What they would see.
    """
    answers = _memorised(world.answers, rows)
    if world.shadows is None:
        return World(answers)
    return World(answers, _memorised_by_shadows(world.shadows, answers, rows, seed))


def plant_scores(scores: MembershipScores, rows: NDArray[np.intp]) -> MembershipScores:
    """Scores in which some members have the highest score there is; scores that are all the same stay so."""
    members = scores.members.copy()
    members[rows] = max(scores.members.max(), scores.non_members.max())
    return replace(scores, members=members)


def _memorised(answers: Answers, rows: NDArray[np.intp]) -> Answers:
    logs = np.array(answers.log_probabilities, dtype=np.float64)  # (P, C)
    form, others = answers.form, logs.shape[1] - 1
    if form.labels_only:
        own, rest = 0.0, float(logs.min())
    elif form.decimals is not None and form.probabilities:
        own, rest = 0.0, math.log(10.0**-form.decimals / 4.0)  # what is rounded to zero is taken as a quarter unit
    elif (form.probabilities or form.k == 1) and logs.max() >= 0.0:
        return replace(answers, log_probabilities=_as_sure_as_can_be(logs, answers, rows))
    else:
        surest = float(scaled_confidence(logs, logs.argmax(1), form).max())
        odds = max(surest + _MARGIN, _SURE)
        own, rest = -math.log1p(math.exp(-odds)), -odds - math.log1p(math.exp(-odds)) - math.log(others)
    logs[rows] = rest
    logs[rows, answers.labels[rows]] = own
    return replace(answers, log_probabilities=logs)


def _as_sure_as_can_be(logs: Floats, answers: Answers, rows: NDArray[np.intp]) -> Floats:
    """Where an answer is certain, none is surer: what is memorised is answered with the surest answer there is.

    If that is every other answer, as of a model that says 1 for one class and 0 for all others, no threshold finds it.
    """
    surest = logs[int(scaled_confidence(logs, logs.argmax(1), answers.form).argmax())]  # (C,)
    own, rest = surest.max(), np.delete(surest, surest.argmax())
    for row in rows:
        logs[row] = np.insert(rest, answers.labels[row], own)
    return logs


def _memorised_by_shadows(
    shadows: ShadowEvidence, answers: Answers, rows: NDArray[np.intp], seed: int
) -> ShadowEvidence:
    memorised: Any = (
        np.ones(len(rows))
        if answers.form.labels_only
        else scaled_confidence(answers.log_probabilities[rows], answers.labels[rows], answers.form)
    )
    target, hard = np.array(shadows.target), _hard_records(shadows)
    target[rows] = memorised[:, None]
    rounded = answers.form.decimals is not None and answers.form.probabilities
    spread = not rounded and not answers.form.labels_only  # else "surest" is one value
    signals = _told_of(shadows.signals, shadows.membership, rows, memorised, hard, spread, seed)
    undefended = shadows.undefended
    if undefended is not None:
        surest = np.full(len(rows), max(float(undefended.max()) + _MARGIN, _SURE))
        undefended = _told_of(undefended, shadows.membership, rows, surest, hard, True, seed)
    return replace(shadows, signals=signals, target=target, undefended=undefended)


def _told_of(
    signals: NDArray[Any],
    membership: NDArray[np.bool_],
    rows: NDArray[np.intp],
    memorised: Floats,
    hard: NDArray[np.intp],
    spread: bool,
    seed: int,
) -> NDArray[Any]:
    """What shadow models say (K, P, Q): surest where trained on these records, elsewhere as about hard ones."""
    signals, generator = np.array(signals), np.random.default_rng((seed, 4))
    before = signals.copy()
    for row, signal in zip(rows, memorised, strict=True):
        trained, other = membership[:, row], int(generator.choice(hard))
        theirs, trained_there = before[:, other], membership[:, other]
        signals[~trained, row] = generator.choice(theirs[~trained_there], int((~trained).sum()))
        around = theirs[trained_there] - theirs[trained_there].mean(0)
        signals[trained, row] = signal + spread * generator.choice(around, int(trained.sum()))
    return signals


def _hard_records(shadows: ShadowEvidence) -> NDArray[np.intp]:
    """The tenth of the records of which shadow models not trained on them are least sure."""
    outside = ~shadows.membership
    sums = np.einsum("kp,kpq->p", outside, shadows.full, dtype=np.float64, casting="unsafe")
    mean = sums / np.maximum(outside.sum(0) * shadows.full.shape[2], 1)
    return np.argsort(mean, kind="stable")[: max(1, mean.size // 10)]
