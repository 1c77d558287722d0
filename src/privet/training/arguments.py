"""What ``fit`` asks of its arguments."""

from __future__ import annotations

import math
import operator
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from privet.atomic_file import check_destination
from privet.errors import ArgumentError, CheckpointError
from privet.models.initialisation import check_seed

__all__ = ["as_count", "check_arguments", "check_checkpoint"]


def as_count(name: str, value: object, least: int = 1) -> int:
    """Return ``value`` as an integer, or refuse it unless it is one of at least ``least``.

    Args:
        name: the argument, as the caller wrote it.
        value: an integer of Python or NumPy; no truth value.
        least: the smallest integer allowed.

    Returns:
        The same as an ``int``.

    Raises:
        ArgumentError: it is not.

    Example:
        >>> import numpy as np
        >>> as_count("epochs", np.int64(3))
        3
    """
    try:
        if isinstance(value, bool | Tensor):  # operator.index takes True, and tensors that hold it, for 1
            raise TypeError
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = least - 1
    if count < least:
        raise ArgumentError(name, value, f"an integer of at least {least}")
    return count


def check_arguments(
    epochs: int,
    batch_size: int,
    seed: int,
    learning_rate: object,
    optimizer: object,
    validation: object,
    patience: int | None,
) -> tuple[int, int, int, int | None]:
    """Refuse what ``fit`` cannot use, each with the meaning it has there.

    Args:
        epochs: at least 1.
        batch_size: at least 1.
        seed: 0 to 2^64 - 1.
        learning_rate: a finite number above 0, or ``None``.
        optimizer: a function from parameters to an optimizer, or ``None``.
        validation: ``None`` for no validation.
        patience: at least 1 and with validation only, or ``None``.

    Returns:
        ``epochs``, ``batch_size``, ``seed`` and ``patience`` as integers of Python.

    Raises:
        ArgumentError: an argument is outside what is allowed.

    Example:
        >>> check_arguments(0, 32, 0, None, None, None, None)
        Traceback (most recent call last):
        privet.errors.ArgumentError: epochs = 0 is not allowed; give an integer of at least 1.
    """
    epochs, batch_size = as_count("epochs", epochs), as_count("batch_size", batch_size)
    given: object = seed
    seed = int(given) if isinstance(given, np.integer) else seed
    check_seed(seed)
    if learning_rate is not None:
        number = isinstance(learning_rate, int | float) and not isinstance(learning_rate, bool)
        if not number or not 0 < learning_rate < math.inf:  # type: ignore[operator]
            raise ArgumentError("learning_rate", learning_rate, "a finite number above 0")
        if optimizer is not None:
            raise ArgumentError("learning_rate", learning_rate, "either learning_rate or optimizer, not both")
    if optimizer is not None and (isinstance(optimizer, Optimizer) or not callable(optimizer)):
        allowed = "a function from parameters to an optimizer, such as lambda p: torch.optim.SGD(p, lr=0.1)"
        raise ArgumentError("optimizer", type(optimizer).__name__, allowed)
    if patience is not None:
        patience = as_count("patience", patience)
        if validation is None:
            raise ArgumentError("patience", patience, "None without validation", "Give validation examples.")
    return epochs, batch_size, seed, patience


def check_checkpoint(checkpoint: str | Path | None, resume: bool) -> Path | None:
    """Return where checkpoints go, or refuse the file.

    Args:
        checkpoint: the file, or ``None``.
        resume: whether to continue from it.

    Returns:
        The file with links followed, or ``None``.

    Raises:
        ArgumentError: it cannot be written, or there is nothing to continue from.
        CheckpointError: it exists and is not to be continued.

    Example:
        >>> check_checkpoint(None, resume=False) is None
        True
    """
    if checkpoint is None:
        if resume:
            raise ArgumentError("resume", resume, "False without a checkpoint", "Give the file to continue from.")
        return None
    path = check_destination("checkpoint", checkpoint)
    if path.exists() and not resume:
        raise CheckpointError(f"{checkpoint} exists: give resume=True to continue it, or another file, or remove it.")
    return path
