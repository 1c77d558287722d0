"""What a suppression knows of the private training whose weights its masks are chosen from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from torch import nn
from torch.optim import Optimizer

from privet.errors import ArgumentError
from privet.suppression.layers import Chosen

__all__ = ["PrivateSteps", "SpentOn", "check_evidence"]


class SpentOn(Protocol):
    """A ledger, of which only this is asked."""

    @property
    def head(self) -> str:
        """The digest of all its records."""

    def check_head(self, expected: str) -> None:
        """Refuse where that digest was never this ledger's."""


@runtime_checkable
class PrivateSteps(Protocol):
    """A private training as ``privet.dp.make_private`` gives it, of which only this is asked."""

    @property
    def model(self) -> nn.Module:
        """What it trains."""

    @property
    def step(self) -> int:
        """How many private steps were taken."""

    @property
    def test_run(self) -> bool:
        """Whether its noise can be repeated from a seed, so that it protects nobody."""

    @property
    def closed(self) -> bool:
        """Whether it has let go of the model."""

    groups: tuple[tuple[str, ...], ...]
    ledger: SpentOn


def check_evidence(
    private: object, optimizer: Optimizer | None, chosen: Iterable[Chosen]
) -> tuple[PrivateSteps, list[nn.Parameter]]:
    """Refuse a private training that says nothing of the chosen weights.

    Returns:
        The private training, and all parameters that it trains.

    Raises:
        ArgumentError: it is none, or is closed; it does not train a chosen parameter; or the optimizer remembers steps
            from before it.
    """
    if not isinstance(private, PrivateSteps):
        raise ArgumentError("private", private, "what dp.make_private gave, or None")
    if private.closed:
        raise ArgumentError("private", "a closed private training", "one that goes on")
    trained = {name for group in private.groups for name in group}
    parameters = [parameter for name, parameter in private.model.named_parameters() if name in trained]
    known = {id(parameter) for parameter in parameters}
    for one in chosen:
        if id(one.parameter) not in known:
            raise ArgumentError("private", "a private training of other weights", f"the one that trains {one.name!r}")
    if optimizer is not None and private.step == 0 and _has_stepped(optimizer):
        remedy = "What it remembers of steps without noise would go into the weights; make a new one."
        raise ArgumentError("optimizer", type(optimizer).__name__, "an optimizer that has taken no step yet", remedy)
    return private, parameters


def _has_stepped(optimizer: Optimizer) -> bool:
    """Whether it remembers a step; Adagrad has a state from the start, with its steps at 0."""
    return any(float(state.get("step", 1)) > 0 for state in optimizer.state.values())
