"""Membership inference: was this record trained on? Higher scores mean "member"."""

from privet.attacks.membership.answers import Answers, answers_of, scaled_confidence
from privet.attacks.membership.blind import blind
from privet.attacks.membership.canaries import CanaryDesign, black_box
from privet.attacks.membership.canary_gradients import GradientScores
from privet.attacks.membership.fleet import (
    ONE_QUERY,
    Executor,
    Fleet,
    Processes,
    Queries,
    Query,
    Ray,
    Recipe,
    Serial,
    Shadows,
    TrainFn,
    inclusion,
    noisy,
    shifts_and_flips,
    signal_row,
)
from privet.attacks.membership.label_only import label_only, label_only_rotated
from privet.attacks.membership.learned import METHODS, LearnedAttack, Method, learned_attacks
from privet.attacks.membership.lira import Variance, lira, lira_rotated
from privet.attacks.membership.pool import Pool
from privet.attacks.membership.rmia import RmiaScores, rmia, rmia_rotated
from privet.attacks.membership.scores import MembershipScores
from privet.attacks.membership.threshold import loss_threshold, threshold_attacks

__all__ = [
    "METHODS",
    "ONE_QUERY",
    "Answers",
    "CanaryDesign",
    "Executor",
    "Fleet",
    "GradientScores",
    "LearnedAttack",
    "MembershipScores",
    "Method",
    "Pool",
    "Processes",
    "Queries",
    "Query",
    "Ray",
    "Recipe",
    "RmiaScores",
    "Serial",
    "Shadows",
    "TrainFn",
    "Variance",
    "answers_of",
    "black_box",
    "blind",
    "inclusion",
    "label_only",
    "label_only_rotated",
    "learned_attacks",
    "lira",
    "lira_rotated",
    "loss_threshold",
    "noisy",
    "rmia",
    "rmia_rotated",
    "scaled_confidence",
    "shifts_and_flips",
    "signal_row",
    "threshold_attacks",
]
