"""How much noise at which step: pure functions of the step, never of the data. Standard library only."""

from privet.schedules.decays import ExponentialDecay, StepDecay, TimeDecay
from privet.schedules.grammar import describe, parse
from privet.schedules.shapes import Constant, Cosine, Floor, Linear, NoiseSchedule, Scaled, Staircase
from privet.schedules.values import digest, evaluate, scaled, steps_for

__all__ = [
    "Constant",
    "Cosine",
    "ExponentialDecay",
    "Floor",
    "Linear",
    "NoiseSchedule",
    "Scaled",
    "Staircase",
    "StepDecay",
    "TimeDecay",
    "describe",
    "digest",
    "evaluate",
    "parse",
    "scaled",
    "steps_for",
]
