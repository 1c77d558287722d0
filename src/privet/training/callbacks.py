"""Where others hook into the training loop."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn
from torch.optim import Optimizer

from privet.checkpoints.callbacks import OnEnd
from privet.checkpoints.epoch_record import EpochRecord

__all__ = ["Callback", "OnEnd", "OnEpoch", "OnStart", "OnStep"]


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


# One of these, or several. A callback that also has ``state_dict`` and ``load_state_dict`` is written to the checkpoint
# and put back on resume; one with ``settings`` (plain values) is continued only with the same.
Callback = OnStart | OnStep | OnEpoch | OnEnd
