"""Where others hook into the training loop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from torch import nn
from torch.optim import Optimizer

from privet.checkpoints.epoch_record import EpochRecord
from privet.errors import ArgumentError

__all__ = ["Callback", "OnEnd", "OnEpoch", "OnStart", "OnStep", "check_callbacks"]


@runtime_checkable
class OnStart(Protocol):
    """Called once before the first step, and before a checkpoint is taken up."""

    def on_start(self, model: nn.Module, optimizer: Optimizer, steps_per_epoch: int, total_steps: int) -> None:
        """Do something with what will be trained; an error here ends the run before any work."""


@runtime_checkable
class OnStep(Protocol):
    """Called after every optimizer step."""

    def on_step(self, step: int, model: nn.Module, optimizer: Optimizer) -> None:
        """Do something after optimizer step ``step``, counted from 1 over all epochs."""


@runtime_checkable
class OnEpoch(Protocol):
    """Called after every epoch, before its checkpoint is written."""

    def on_epoch(self, record: EpochRecord, model: nn.Module) -> None:
        """Do something after an epoch."""


@runtime_checkable
class OnEnd(Protocol):
    """Called when training ends, however it ends, where ``on_start`` (if there is one) raised nothing."""

    def on_end(self) -> None:
        """Let go of what was taken hold of."""


# One of these, or several. A callback that also has ``state_dict`` and ``load_state_dict`` is written to the checkpoint
# and put back on resume; one with ``settings`` (plain values) is continued only with the same.
Callback = OnStart | OnStep | OnEpoch | OnEnd


def check_callbacks(callbacks: Iterable[object]) -> None:
    """Refuse what would never be called.

    Raises:
        ArgumentError: one is a class, has none of the four methods, or is given twice.
    """
    seen: list[object] = []
    for callback in callbacks:
        if isinstance(callback, type) or not isinstance(callback, Callback):
            raise ArgumentError("callbacks", callback, "objects with on_start, on_step, on_epoch or on_end")
        if any(callback is other for other in seen):
            raise ArgumentError("callbacks", callback, "each object once")
        seen.append(callback)
