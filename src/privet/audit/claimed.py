"""A claim that came with an audit: tested where canaries were inserted at random, else only shown."""

from __future__ import annotations

from typing import Any

from privet.audit.claim import ClaimAudit, audit_claim
from privet.errors import ArgumentError

__all__ = ["UNTESTED", "checked_claim", "claim_of"]

UNTESTED = (
    "The claimed (epsilon, delta) was not tested: membership was not randomised. Give canaries that were included at "
    "random (docs/audit.md)."
)


def checked_claim(claim: Any) -> tuple[float, float] | None:
    """The claimed (epsilon, delta) as two numbers; None for no claim.

    Raises:
        ArgumentError: it is no pair of an epsilon of at least 0 and a delta in [0, 1).
    """
    if claim is None:
        return None
    try:
        epsilon, delta = (float(part) for part in claim)
    except (TypeError, ValueError):
        epsilon = delta = -1.0
    if not (epsilon >= 0.0 and 0.0 <= delta < 1.0):
        raise ArgumentError("claim", claim, "a pair (epsilon, delta) with epsilon >= 0 and delta in [0, 1)")
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
