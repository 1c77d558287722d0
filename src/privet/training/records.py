"""What a training run says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from privet.checkpoints.epoch_record import EpochRecord

__all__ = ["FitResult", "best_epoch", "out_of_patience"]


@dataclass(frozen=True)
class FitResult:
    """How a training run went.

    Args:
        history: a record for each finished epoch, those before a resume included.
        stopped_early: whether patience ran out before the last epoch asked for.
        best_epoch: the epoch of the smallest validation loss, the first of equals; ``None`` without validation.
    """

    history: tuple[EpochRecord, ...]
    stopped_early: bool
    best_epoch: int | None


def best_epoch(history: Sequence[EpochRecord]) -> int | None:
    """Return the epoch of the smallest validation loss, the first of equals.

    Args:
        history: a record for each finished epoch.

    Returns:
        The epoch, from 1; ``None`` where no record has a validation loss.

    Example:
        >>> best_epoch([EpochRecord(1, 0.9, 0.5, 0.8), EpochRecord(2, 0.7, 0.6, 0.8)])
        1
    """
    losses = [(record.validation_loss, record.epoch) for record in history if record.validation_loss is not None]
    return min(losses)[1] if losses else None


def out_of_patience(history: Sequence[EpochRecord], patience: int | None) -> bool:
    """Return whether the last ``patience`` epochs brought no smaller validation loss.

    Args:
        history: a record for each finished epoch.
        patience: how many epochs without improvement are allowed, at least 1; ``None`` for any number.

    Returns:
        Whether to stop.

    Example:
        >>> out_of_patience([EpochRecord(1, 0.9, 0.5, 0.8), EpochRecord(2, 0.7, 0.6, 0.9)], patience=1)
        True
    """
    best = best_epoch(history)
    return patience is not None and best is not None and history[-1].epoch - best >= patience
