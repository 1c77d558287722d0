"""What a plan may hold, and what may stand together; checked before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from privet import schedules
from privet.accounting.events import NeighbouringRelation
from privet.dp.clipping import check_strategy
from privet.errors import ArgumentError
from privet.schedules.checks import check_count, check_noise

if TYPE_CHECKING:
    from privet.dp.plan import Plan

__all__ = ["check_plan"]

_MOST_STEPS = 10_000_000  # the values of every step are held in memory


def check_plan(plan: Plan) -> None:
    """An ArgumentError for the first field that is out of range, or does not fit the others."""
    _check_data(plan)
    _check_steps(plan)
    _check_noise(plan)
    _check_relation(plan)
    _check_cap(plan)
    check_strategy("clipping", plan.clipping)


def _check_data(plan: Plan) -> None:
    """The records and what is promised about them."""
    check_count("dataset_size", plan.dataset_size)
    size: object = plan.expected_batch_size
    if isinstance(size, bool) or not isinstance(size, int | float) or not 1 <= size <= plan.dataset_size:
        raise ArgumentError("expected_batch_size", size, f"a number from 1 to the dataset size, {plan.dataset_size:,}")
    delta: object = plan.delta
    if isinstance(delta, bool) or not isinstance(delta, int | float) or not 0.0 < delta < 1.0 / plan.dataset_size:
        raise ArgumentError(
            "delta",
            delta,
            f"a number above 0 and below 1/N = {1.0 / plan.dataset_size:.4g}",
            "With 1/N, publishing a record at random would count as private.",
        )
    if plan.unit != "example":
        raise ArgumentError("unit", plan.unit, "'example'", "Samples of whole users or groups do not exist yet.")


def _check_steps(plan: Plan) -> None:
    if (plan.steps is None) == (plan.epochs is None):
        raise ArgumentError("steps, epochs", (plan.steps, plan.epochs), "exactly one of them")
    if plan.steps is not None:
        check_count("steps", plan.steps)
    elif plan.epochs is not None:
        schedules.steps_for(plan.epochs, 1, 1)  # refuses what is no number of epochs
    if plan.total_steps > _MOST_STEPS:
        raise ArgumentError("steps", plan.total_steps, f"at most {_MOST_STEPS:,}; a larger batch makes fewer steps")


def _check_noise(plan: Plan) -> None:
    noise: object = plan.noise
    if not callable(noise):
        if isinstance(noise, str):
            raise ArgumentError("noise", noise, "a number or a schedule", "privet.schedules.parse reads one from text.")
        check_noise("noise", noise)
    for name in ("target_epsilon", "budget_epsilon"):
        if getattr(plan, name) is not None:
            check_noise(name, getattr(plan, name))
    if plan.target_epsilon is not None and plan.budget_epsilon is not None:
        raise ArgumentError(
            "budget_epsilon", plan.budget_epsilon, "a target or a budget, not both", "A target is a budget too."
        )


def _check_relation(plan: Plan) -> None:
    relation: object = plan.relation
    if not isinstance(relation, NeighbouringRelation):
        raise ArgumentError("relation", relation, "a NeighbouringRelation")
    if relation is NeighbouringRelation.REPLACE_ONE and plan.expected_batch_size != plan.dataset_size:
        raise ArgumentError(
            "relation",
            relation,
            f"add-or-remove-one, or an expected batch size of all {plan.dataset_size:,} records",
            "The theorem by which Poisson sampling saves epsilon does not cover replace-one.",
        )


def _check_cap(plan: Plan) -> None:
    if plan.max_batch_size is None:
        return
    check_count("max_batch_size", plan.max_batch_size)
    if not plan.expected_batch_size <= plan.max_batch_size < plan.dataset_size:
        raise ArgumentError(
            "max_batch_size",
            plan.max_batch_size,
            f"from the expected batch size, {plan.expected_batch_size:g}, to below the dataset size, "
            f"{plan.dataset_size:,}, or none",
            "It bounds the batch that is drawn, not the part of it that is computed at once.",
        )
    if plan.target_epsilon is not None:
        raise ArgumentError(
            "target_epsilon",
            plan.target_epsilon,
            "no target together with max_batch_size",
            "The scale is solved for by PLD, which does not know truncated batches; give the noise and budget_epsilon.",
        )
