"""What a run is: everything that must be the same for a checkpoint to continue it."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from privet.checkpoints.snapshots import to_plain
from privet.checkpoints.stateful import Stateful
from privet.errors import ArgumentError
from privet.training.examples import Source

__all__ = ["describe_callable", "describe_run"]


def describe_run(
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    *,
    loss: object,
    examples: Source,
    validation: Source | None,
    callbacks: Sequence[Stateful],
    device: torch.device,
    plain: dict[str, Any],
) -> dict[str, Any]:
    """Describe a run that has not begun, in what JSON holds.

    The number of epochs is not part of it: nothing in an epoch depends on how many are to come.

    Args:
        model: described by its structure and by which parameters are trained.
        optimizer: described by its class and its hyper-parameters.
        scheduler: described by its class and its numbers; functions inside are not.
        loss: described by its name and its numbers.
        examples: described by a digest.
        validation: described by a digest.
        callbacks: those with a state, described by their classes and, where they have them, ``settings``.
        device: where the run computes.
        plain: further values, taken as they are.

    Returns:
        Plain values by name.

    Raises:
        ArgumentError: a hyper-parameter cannot be kept in a checkpoint.
    """
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    described = {
        **plain,
        "device": device.type,
        "model": re.sub(r" at 0x[0-9a-fA-F]+", "", repr(model)),
        "trained": [name for name, parameter in model.named_parameters() if parameter.requires_grad],
        "optimizer": _class_of(optimizer),
        **{f"optimizer group {index}": _numbers(group, "optimizer") for index, group in enumerate(groups)},
        "scheduler": "none" if scheduler is None else _class_of(scheduler),
        "scheduler numbers": {} if scheduler is None else _numbers(scheduler.state_dict(), "scheduler"),
        "loss": describe_callable(loss),
        "examples": examples.digest(),
        "validation": "none" if validation is None else validation.digest(),
        "callbacks": [_described(callback) for callback in callbacks],
    }
    result: dict[str, Any] = json.loads(json.dumps(described))
    return result


def describe_callable(function: object) -> str:
    """Name a function, a partial function or a module, with its numbers.

    Args:
        function: anything that is called.

    Returns:
        Its name.

    Example:
        >>> describe_callable(nn.CrossEntropyLoss(label_smoothing=0.1))
        'torch.nn.modules.loss.CrossEntropyLoss(ignore_index=-100, label_smoothing=0.1, reduction=mean)'
    """
    if isinstance(function, functools.partial):
        given = [*map(_plain_text, function.args)]
        given += [f"{name}={_plain_text(value)}" for name, value in sorted(function.keywords.items())]
        return f"{describe_callable(function.func)}({', '.join(given)})"
    if isinstance(function, nn.Module):
        numbers = {name: value for name, value in vars(function).items() if isinstance(value, int | float | str)}
        shown = ", ".join(f"{name}={numbers[name]}" for name in sorted(numbers) if name != "training")
        return f"{_class_of(function)}({shown})"
    if hasattr(function, "__qualname__"):
        return f"{getattr(function, '__module__', '')}.{function.__qualname__}"
    return _class_of(function)


def _described(callback: Stateful) -> Any:
    settings = getattr(callback, "settings", None)
    if settings is None:
        return _class_of(callback)
    try:
        json.dumps(settings)
    except (TypeError, ValueError) as error:
        raise ArgumentError("callbacks", _class_of(callback), "settings of plain values", f"({error})") from error
    return {_class_of(callback): settings}


def _numbers(state: dict[str, Any], name: str) -> dict[str, Any]:
    tensors: dict[str, torch.Tensor] = {}
    plain = {str(key): to_plain(value, f"{name}.{key}", tensors) for key, value in state.items()}
    return {**plain, **{key: value.tolist() for key, value in tensors.items()}}


def _plain_text(value: object) -> str:
    return str(value) if isinstance(value, int | float | str | None) else _class_of(value)


def _class_of(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
