"""What the training procedure gives away: every shadow model in turn is the target, attacked by the others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privet.attacks.membership.fleet import Shadows
from privet.attacks.membership.label_only import label_only_rotated
from privet.attacks.membership.lira import lira_rotated
from privet.audit.findings import Procedure
from privet.audit.result import RATES
from privet.audit.runs import LABEL_ONLY, LIRA
from privet.audit.world import ShadowEvidence
from privet.errors import SampleTooSmallError
from privet.output_form import OutputForm
from privet.statistics import Estimate, RateAtRate, pooled_auc, pooled_tpr_at_fpr

__all__ = ["FEWEST_BLOCKS", "procedure_null", "procedure_of", "rotated_scores"]

FEWEST_BLOCKS = 3
"""With one block left out, two are needed to tell a spread from nothing."""


def procedure_of(shadows: ShadowEvidence, form: OutputForm, *, confidence: float, seed: int) -> Procedure:
    """Rotate all shadow models and pool their scores.

    The target says what one model gives away; this says it of the way in which such models are trained, over records
    and trainings. Its intervals are single ones, at ``confidence`` each.

    Args:
        shadows: at least three blocks of them.
        form: what is let out.
        confidence: of each interval.
        seed: of the resampling.

    Returns:
        The pooled area, and the true positive rate at each of :data:`RATES` that can be shown.
    """
    scores = rotated_scores(shadows, form)
    rates: dict[float, RateAtRate] = {}
    for rate in RATES:
        try:
            rates[rate] = pooled_tpr_at_fpr(scores, shadows.membership, rate, seed=seed, confidence=confidence)
        except SampleTooSmallError:
            continue
    auc = pooled_auc(scores, shadows.membership, seed=seed, confidence=confidence)
    return Procedure(LABEL_ONLY if form.labels_only else LIRA, len(scores), auc, rates)


def procedure_null(shadows: ShadowEvidence, form: OutputForm, *, confidence: float, seed: int) -> Estimate:
    """The pooled area where each record's answers were shuffled over the shadow models: 1/2, if no model fits itself.

    A rotation in which a model, or one whose membership follows from it, had a part in its own fit is found out here.

    Args:
        shadows: at least three blocks of them.
        form: what is let out.
        confidence: of the interval.
        seed: of the shuffling and resampling.

    Returns:
        The area, with its interval.
    """
    generator = np.random.default_rng((seed, 5))
    count, records = shadows.membership.shape
    order = generator.permuted(np.tile(np.arange(count)[:, None], (1, records)), axis=0)  # (K, P)
    mixed = shadows.changed(lambda signals: np.take_along_axis(signals, order[:, :, None], axis=0))
    return pooled_auc(rotated_scores(mixed, form), shadows.membership, seed=seed, confidence=confidence)


def rotated_scores(shadows: ShadowEvidence | Shadows, form: OutputForm) -> NDArray[Any]:
    """The scores of every record by every shadow model in turn (K, P)."""
    if form.labels_only:
        return label_only_rotated(shadows.signals, shadows.membership, shadows.blocks)
    full = shadows.signals if shadows.undefended is None else shadows.undefended
    return lira_rotated(full, shadows.membership, shadows.blocks, targets=shadows.signals, form=form)
