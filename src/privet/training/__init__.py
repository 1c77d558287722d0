"""A plain training loop, evaluation, weights and checkpoints that continue bit for bit."""

from __future__ import annotations

from privet.training.callbacks import Callback
from privet.training.checkpoints import load_checkpoint, save_checkpoint
from privet.training.evaluation import Evaluation, evaluate, predict
from privet.training.examples import TensorExamples
from privet.training.fit import fit
from privet.training.records import EpochRecord, FitResult
from privet.training.snapshots import Snapshot
from privet.training.weights import load_weights, save_weights

__all__ = [
    "Callback",
    "EpochRecord",
    "Evaluation",
    "FitResult",
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
