"""Where others hook into the training loop."""

from __future__ import annotations

from typing import Protocol

from torch import nn
from torch.optim import Optimizer

from privet.checkpoints.epoch_record import EpochRecord

__all__ = ["Callback"]


class Callback(Protocol):
    """Called after every optimizer step and after every epoch.

    A callback that also has ``state_dict`` and ``load_state_dict`` is written to the checkpoint and put back on resume.
    """

    def on_step(self, step: int, model: nn.Module, optimizer: Optimizer) -> None:
        """Do something after optimizer step ``step``, counted from 1 over all epochs."""

    def on_epoch(self, record: EpochRecord, model: nn.Module) -> None:
        """Do something after an epoch, before its checkpoint is written."""
