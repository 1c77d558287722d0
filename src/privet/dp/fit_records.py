"""What private training in one call gives back, and where others hook into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn
from torch.optim import Optimizer

from privet.checkpoints.callbacks import OnEnd
from privet.dp.private import Private, Spent
from privet.dp.progress import Reached
from privet.dp.statement import Statement
from privet.dp.step import Release

__all__ = ["Callback", "FitResult", "OnEnd", "OnEpoch", "OnStart", "OnStep", "StepRecord"]


@runtime_checkable
class OnStart(Protocol):
    """Called once before the first step."""

    def on_start(
        self, model: nn.Module, optimizer: Optimizer, steps_per_epoch: None, total_steps: int, private: Private
    ) -> None:
        """Do something with what will be trained. An epoch here is N / B steps, no whole number: None."""


@runtime_checkable
class OnStep(Protocol):
    """Called after every step; what it is given was released."""

    def on_step(self, step: int, model: nn.Module, release: Release) -> None:
        """Do something after step ``step``, counted from 1."""


@runtime_checkable
class OnEpoch(Protocol):
    """Called after every N / B steps, rounded up."""

    def on_epoch(self, epoch: int, model: nn.Module, reached: Reached) -> None:
        """Do something after epoch ``epoch``, counted from 1."""


Callback = OnStart | OnStep | OnEpoch | OnEnd


@dataclass(frozen=True)
class StepRecord:
    """What a step let out besides its gradient.

    Attributes:
        step: from 1.
        noise_multiplier: of all that it released.
        max_grad_norms: what each group was clipped to.
    """

    step: int
    noise_multiplier: float
    max_grad_norms: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class FitResult:
    """A privately trained model and what may be said about it.

    Attributes:
        model: the model that was given, trained.
        statement: what may be published with it; ``print`` it.
        spent: what the ledger says, all its runs together.
        history: of every step, released values only.
    """

    model: nn.Module
    statement: Statement
    spent: Spent
    history: tuple[StepRecord, ...]

    @property
    def complete(self) -> bool:
        """Whether the whole plan was run; otherwise the budget ended it before."""
        return self.spent.steps == self.spent.total_steps
