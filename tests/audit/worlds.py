"""Worlds of which it is known how much they leak: answers and shadow models drawn from normal distributions."""

from __future__ import annotations

import numpy as np

from privet.attacks.membership import Answers
from privet.audit.assess import assess, family_size, single_confidence
from privet.audit.conclude import attack_results, conclude, planted_control
from privet.audit.controls import controlled
from privet.audit.planted import planted_rows
from privet.audit.runs import required_of, run_attacks
from privet.audit.terms import Terms
from privet.audit.world import ShadowEvidence, World
from privet.output_form import OutputForm

CLASSES = 5


def logs_of(phi, labels, classes=CLASSES):
    """Log-probabilities (P, C) whose scaled confidence is phi, the rest shared equally."""
    logs = np.repeat((-np.logaddexp(0.0, phi) - np.log(classes - 1))[:, None], classes, axis=1)
    logs[np.arange(len(phi)), labels] = -np.logaddexp(0.0, -phi)
    return logs


def memberships(generator, shadows, records):
    """Complementary halves (K, P) and their blocks (K,)."""
    rows = []
    for _ in range(shadows // 2):
        inside = np.zeros(records, dtype=bool)
        inside[generator.permutation(records)[: records // 2]] = True
        rows += [inside, ~inside]
    return np.stack(rows), np.arange(shadows) // 2


def world_of(gap=0.0, *, members=400, non_members=400, shadows=16, seed=0, labels_only=False):
    """Members are answered ``gap`` standard deviations surer than if they were none; so are those of the shadows."""
    generator = np.random.default_rng(seed)
    records = members + non_members
    hardness = generator.normal(1.0, 2.0, records)
    phi = hardness + gap * (np.arange(records) < members) + generator.normal(size=records)
    labels = generator.integers(0, CLASSES, records)
    form = OutputForm(labels_only=True) if labels_only else OutputForm()
    answered = np.where(phi > 0, 690.0, -690.0) if labels_only else phi
    answers = Answers(logs_of(answered, labels), labels, members, form)
    if not shadows:
        return World(answers)
    inside, blocks = memberships(generator, shadows, records)
    signals = hardness + gap * inside + generator.normal(size=inside.shape)
    if labels_only:
        signals, phi = (signals > 0).astype(float), (phi > 0).astype(float)
    return World(answers, ShadowEvidence(signals.astype(np.float32)[:, :, None], inside, blocks, phi[:, None]))


def audited(world, methods=(), **terms):
    """Attacks, controls and the verdict with its reason: everything after the evidence."""
    terms = Terms(**terms)
    runs = run_attacks(world, methods, seed=terms.seed)
    members = world.answers.members
    rows = planted_rows(members, terms.planted_share, terms.seed)
    controls = controlled(world, runs, methods, rows, terms)
    scores = {name: run.scores for name, run in runs.items()}
    found = assess(scores, confidence=terms.confidence, seed=terms.seed)
    attacks = attack_results(runs, found, controls.planted, required_of(runs, world.answers.form))
    planted = planted_control(
        attacks,
        share=terms.planted_share,
        count=rows.size,
        members=members,
        non_members=len(world.answers.labels) - members,
        confidence=single_confidence(terms.confidence, family_size(scores)),
    )
    shadows = 0 if world.shadows is None else len(world.shadows.blocks)
    verdict, reason = conclude(
        attacks, null=controls.null, planted=planted, exchange=controls.exchange, shadows=shadows
    )
    return verdict, reason, attacks, controls
