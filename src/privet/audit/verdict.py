"""What an audit may say, and nothing else: no verdict says that a model gives nothing away."""

from __future__ import annotations

from enum import Enum

__all__ = ["Verdict"]


class Verdict(Enum):
    """The five things that an audit can conclude; the first that applies is the verdict.

    Attributes:
        CLAIM_VIOLATED: canaries, included at random, prove more leakage than the claimed (epsilon, delta) allows.
        INVALID: the audit cannot be read: members and non-members differ in distribution, or a control that must find
            nothing found something, or members score lower than others.
        LEAK: an attack finds members more often than non-members, beyond what chance explains.
        UNDERPOWERED: no leak was found, and a planted leak of the stated size was not found either; or the attacks with
            shadow models, which were asked for, did not run.
        NO_LEAK_FOUND: no attack found a leak, though those that must would have found the planted one. Others may.

    Example:
        >>> Verdict("NO LEAK FOUND")
        <Verdict.NO_LEAK_FOUND: 'NO LEAK FOUND'>
    """

    CLAIM_VIOLATED = "CLAIM VIOLATED"
    INVALID = "INVALID"
    LEAK = "LEAK"
    UNDERPOWERED = "UNDERPOWERED"
    NO_LEAK_FOUND = "NO LEAK FOUND"
