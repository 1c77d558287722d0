"""Training with differential privacy: an ordinary loop, model and optimizer stay the user's own."""

from privet.dp.adaptive_clipping import AdaptiveQuantile, ClipUpdate
from privet.dp.clipping import ClippingState, ClippingStrategy, FixedNorm
from privet.dp.diagnostics import Diagnostics
from privet.dp.plan import Plan
from privet.dp.private import Private, Spent, TestRun, make_private
from privet.dp.statement import Statement
from privet.dp.step import Release

__all__ = [
    "AdaptiveQuantile",
    "ClipUpdate",
    "ClippingState",
    "ClippingStrategy",
    "Diagnostics",
    "FixedNorm",
    "Plan",
    "Private",
    "Release",
    "Spent",
    "Statement",
    "TestRun",
    "make_private",
]
