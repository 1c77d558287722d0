"""A claimed (epsilon, delta) beside what canaries prove."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from privet.errors import ArgumentError
from privet.statistics.one_run import OneRunBound, one_run_epsilon

__all__ = ["UNTESTED", "ClaimAudit", "audit_claim", "checked_claim", "claim_of"]

UNTESTED = (
    "The claimed (epsilon, delta) was not tested: membership was not randomised. Give canaries that were included at "
    "random (docs/audit.md)."
)


@dataclass(frozen=True)
class ClaimAudit:
    """A claim and the lower bound beside it.

    Attributes:
        claim: the claimed (epsilon, delta).
        bound: what the canaries prove at that delta.
    """

    claim: tuple[float, float]
    bound: OneRunBound

    @property
    def violated(self) -> bool:
        """Whether the lower bound lies above the claimed epsilon."""
        return self.bound.epsilon_low > self.claim[0]

    @property
    def words(self) -> str:
        """What may be said, in two sentences."""
        epsilon, delta = self.claim
        low, percent = math.floor(self.bound.epsilon_low * 100.0) / 100.0, 100.0 * self.bound.confidence
        shown = f"epsilon is at least {low:.2f}" if low > 0.0 else "that shows no epsilon above 0"
        found = (
            f"{self.bound.correct:,} of {self.bound.guesses:,} guesses about {self.bound.canaries:,} canaries were "
            f"right: {shown} at delta {delta:g}, at {percent:.4g}% confidence."
        )
        if self.violated:
            return f"{found} That refutes the claimed epsilon of {epsilon:g}."
        return f"{found} The claimed epsilon of {epsilon:g} is not refuted, which does not prove it."


def audit_claim(
    scores: ArrayLike,
    included: ArrayLike,
    claim: tuple[float, float],
    *,
    guesses: int | Sequence[int] | None = None,
    confidence: float = 0.95,
) -> ClaimAudit:
    """Test a claimed (epsilon, delta) by canaries that were included at random.

    Args:
        scores: of the canaries (m,); higher means "in".
        included: whether each was in (m,), by independent fair coins.
        claim: epsilon >= 0 and delta in [0, 1), under add-or-remove of one record.
        guesses: how many, fixed beforehand; see :func:`~privet.statistics.one_run.one_run_epsilon`.
        confidence: in (0, 1).

    Returns:
        The claim with the bound beside it; ``violated`` if the bound lies above.

    Raises:
        ArgumentError: if the claim or another argument is out of range.
        DataError: if scores and coins do not fit each other, or the coins were not fair.

    Guarantees:
        If the claim is true, it is called violated with probability at most 1 - confidence, over the coins and the
        training, whatever the model, the attack and the scores are. What is assumed stands with
        :func:`~privet.statistics.one_run.one_run_epsilon`: the neighbouring relation is add or remove one record, so a
        claim under another relation is to be restated first; all that the scores rest on is covered by the claim.

    Example:
        >>> import numpy as np
        >>> included = np.random.default_rng(0).random(200) < 0.5
        >>> audit = audit_claim(included, included, claim=(1.0, 1e-5))
        >>> audit.violated, audit.words
        (True, '36 of 36 guesses about 200 canaries were right: epsilon is at least 2.44 at delta 1e-05, at 95% \
confidence. That refutes the claimed epsilon of 1.')
    """
    epsilon, delta = checked_claim(claim)
    bound = one_run_epsilon(scores, included, delta, guesses=guesses, confidence=confidence)
    return ClaimAudit((epsilon, delta), bound)


def checked_claim(claim: Any) -> tuple[float, float]:
    """The claimed (epsilon, delta) as two numbers.

    Raises:
        ArgumentError: it is no pair of a finite epsilon of at least 0 and a delta in [0, 1).
    """
    try:
        epsilon, delta = (float(part) for part in claim)
    except (TypeError, ValueError):
        raise ArgumentError("claim", claim, "the claimed (epsilon, delta), such as (3.0, 1e-5)") from None
    if not (0.0 <= epsilon < math.inf and 0.0 <= delta < 1.0):
        raise ArgumentError("claim", claim, "a finite epsilon of at least 0 and a delta from 0 to below 1")
    return epsilon, delta


def claim_of(claim: tuple[float, float] | None, canaries: Any, confidence: float) -> ClaimAudit | None:
    """Test the claim by the canaries; None without them.

    Args:
        claim: epsilon and delta.
        canaries: a pair: scores (m,), and whether each canary was included (m,).
        confidence: in (0, 1).

    Raises:
        ArgumentError: there are canaries and no claim, or they are no pair.
        DataError: scores and inclusion do not fit each other.
    """
    if canaries is None:
        return None
    if claim is None:
        raise ArgumentError("claim", None, "the (epsilon, delta) that the canaries are to test, beside canaries=")
    if not isinstance(canaries, tuple | list) or len(canaries) != 2:
        raise ArgumentError("canaries", type(canaries).__name__, "a pair (scores, included), one of each a canary")
    scores, included = canaries
    return audit_claim(scores, included, claim, confidence=confidence)
