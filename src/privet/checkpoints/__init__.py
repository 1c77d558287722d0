"""Checkpoints and weights: what a run needs to continue, written in one step and checked before it is put back."""

from __future__ import annotations

from privet.checkpoints.checkpoint import load_checkpoint, put_back, save_checkpoint
from privet.checkpoints.device import device_of
from privet.checkpoints.epoch_record import EpochRecord
from privet.checkpoints.snapshots import Snapshot, read_snapshot, write_snapshot
from privet.checkpoints.stateful import Stateful
from privet.checkpoints.weights import load_weights, save_weights, state_of

__all__ = [
    "EpochRecord",
    "Snapshot",
    "Stateful",
    "device_of",
    "load_checkpoint",
    "load_weights",
    "put_back",
    "read_snapshot",
    "save_checkpoint",
    "save_weights",
    "state_of",
    "write_snapshot",
]
