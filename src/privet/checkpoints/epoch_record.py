"""What one pass over the examples was like, as a checkpoint keeps it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EpochRecord"]


@dataclass(frozen=True)
class EpochRecord:
    """One pass over the examples.

    Args:
        epoch: which one, from 1.
        loss: mean loss over the examples, each taken before the step of its batch.
        accuracy: share of examples whose largest output was their label, in training mode, 0 to 1.
        validation_loss: mean loss over the validation examples after the epoch; ``None`` without them.
        validation_accuracy: accuracy over the validation examples after the epoch; ``None`` without them.
    """

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
