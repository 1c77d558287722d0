"""Membership inference: was this record trained on? Higher scores mean "member"."""

from privet.attacks.membership.answers import Answers, answers_of, scaled_confidence
from privet.attacks.membership.blind import blind
from privet.attacks.membership.learned import METHODS, LearnedAttack, Method, learned_attacks
from privet.attacks.membership.pool import Pool
from privet.attacks.membership.scores import MembershipScores
from privet.attacks.membership.threshold import loss_threshold, threshold_attacks

__all__ = [
    "METHODS",
    "Answers",
    "LearnedAttack",
    "MembershipScores",
    "Method",
    "Pool",
    "answers_of",
    "blind",
    "learned_attacks",
    "loss_threshold",
    "scaled_confidence",
    "threshold_attacks",
]
