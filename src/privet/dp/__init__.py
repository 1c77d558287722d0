"""Training with differential privacy: an ordinary loop, model and optimizer stay the user's own."""

from privet.dp.adaptive_clipping import AdaptiveQuantile, ClipUpdate
from privet.dp.clipping import ClippingState, ClippingStrategy, FixedNorm
from privet.dp.clipping_groups import Groups, PerLayer
from privet.dp.diagnosis import Diagnosis
from privet.dp.diagnostics import Diagnostics
from privet.dp.doctor import examine
from privet.dp.entry import make_private
from privet.dp.fit_records import FitResult, OnEnd, OnEpoch, OnStart, OnStep, StepRecord
from privet.dp.fitting import fit
from privet.dp.per_example.expand import Expand
from privet.dp.plan import Plan
from privet.dp.private import Private, Spent, TestRun
from privet.dp.progress import Reached
from privet.dp.statement import Statement
from privet.dp.step import Release

__all__ = [
    "AdaptiveQuantile",
    "ClipUpdate",
    "ClippingState",
    "ClippingStrategy",
    "Diagnosis",
    "Diagnostics",
    "Expand",
    "FitResult",
    "FixedNorm",
    "Groups",
    "OnEnd",
    "OnEpoch",
    "OnStart",
    "OnStep",
    "PerLayer",
    "Plan",
    "Private",
    "Reached",
    "Release",
    "Spent",
    "Statement",
    "StepRecord",
    "TestRun",
    "examine",
    "fit",
    "make_private",
]
