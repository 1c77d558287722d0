"""A plain training loop, evaluation, weights and checkpoints that continue bit for bit."""

from __future__ import annotations

from privet.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from privet.checkpoints.epoch_record import EpochRecord
from privet.checkpoints.snapshots import Snapshot
from privet.checkpoints.weights import load_weights, save_weights
from privet.training.callbacks import Callback, OnEnd, OnEpoch, OnStart, OnStep
from privet.training.evaluation import Evaluation, evaluate, predict
from privet.training.examples import TensorExamples
from privet.training.fit import fit
from privet.training.records import FitResult

__all__ = [
    "Callback",
    "EpochRecord",
    "Evaluation",
    "FitResult",
    "OnEnd",
    "OnEpoch",
    "OnStart",
    "OnStep",
    "Snapshot",
    "TensorExamples",
    "evaluate",
    "fit",
    "load_checkpoint",
    "load_weights",
    "predict",
    "save_checkpoint",
    "save_weights",
]
