"""Shadow models: training them, asking them, keeping what they answered."""

from __future__ import annotations

from privet.attacks.membership.fleet.cluster import Ray
from privet.attacks.membership.fleet.executors import Executor, Serial
from privet.attacks.membership.fleet.fleet import Fleet, Shadows
from privet.attacks.membership.fleet.inclusion import block_size, inclusion
from privet.attacks.membership.fleet.processes import Processes
from privet.attacks.membership.fleet.queries import ONE_QUERY, Queries, Query, noisy, shifts_and_flips
from privet.attacks.membership.fleet.recipe import Recipe
from privet.attacks.membership.fleet.shadow import ShadowJob, TrainFn, TrainsMany
from privet.attacks.membership.fleet.signal_row import signal_row

__all__ = [
    "ONE_QUERY",
    "Executor",
    "Fleet",
    "Processes",
    "Queries",
    "Query",
    "Ray",
    "Recipe",
    "Serial",
    "ShadowJob",
    "Shadows",
    "TrainFn",
    "TrainsMany",
    "block_size",
    "inclusion",
    "noisy",
    "shifts_and_flips",
    "signal_row",
]
