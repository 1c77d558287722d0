"""Membership inference: was this record trained on? Higher scores mean "member"."""

from privet.attacks.membership.threshold import MembershipScores, loss_threshold

__all__ = ["MembershipScores", "loss_threshold"]
