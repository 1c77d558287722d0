"""Membership inference: was this record trained on? Higher scores mean "member"."""

from privet.attacks.membership.label_only import label_only, label_only_rotated
from privet.attacks.membership.lira import Variance, lira, lira_rotated
from privet.attacks.membership.rmia import RmiaScores, rmia, rmia_rotated
from privet.attacks.membership.threshold import MembershipScores, loss_threshold

__all__ = [
    "MembershipScores",
    "RmiaScores",
    "Variance",
    "label_only",
    "label_only_rotated",
    "lira",
    "lira_rotated",
    "loss_threshold",
    "rmia",
    "rmia_rotated",
]
