"""Batch normalization and a batch of one example."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from privet.checkpoints.device import device_of
from privet.errors import ArgumentError
from privet.training.examples import Source

__all__ = ["check_last_batch"]


def check_last_batch(model: nn.Module, source: Source, batch_size: int) -> None:
    """Refuse a batch size that leaves one example alone where a layer needs the mean and variance over several.

    With N examples the last batch of an epoch has (N - 1) mod batch_size + 1. Layers that also average over pixels,
    and have more than one, take a single example; whether they do is seen by one look at one example.

    Args:
        model: inputs (B, ...) -> outputs (B, classes); left in evaluation mode, its statistics as they were.
        source: the examples.
        batch_size: examples a step.

    Raises:
        ArgumentError: names the layer.

    Example:
        >>> source = Source(torch.zeros(9, dtype=torch.int64), lambda rows: torch.zeros(9, 3)[rows], str)
        >>> check_last_batch(nn.Sequential(nn.BatchNorm1d(3)), source, 4)
        Traceback (most recent call last):
        privet.errors.ArgumentError: batch_size = 4 is not allowed; give a batch size that leaves no batch of one \
example (of 9, the last batch has 1). The layer '0' (BatchNorm1d) has no variance over one value; leave one example \
out, or normalize by groups (GroupNorm).
    """
    if (len(source) - 1) % batch_size:
        return
    model.train()
    found = [(module, name) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    names = {module: name for module, name in found if module.training}  # a model may keep some frozen
    model.eval()
    alone: list[_BatchNorm] = []

    def look(module: _BatchNorm, given: tuple[Any, ...]) -> None:
        inputs = given[0]
        if inputs.dim() > 1 and inputs.numel() == inputs.shape[1]:
            alone.append(module)

    hooks = [module.register_forward_pre_hook(look) for module in names]
    try:
        with torch.no_grad():
            model(source.take(slice(0, 1)).to(device_of(model)))
    finally:
        for hook in hooks:
            hook.remove()
    if alone:
        allowed = (
            f"a batch size that leaves no batch of one example (of {len(source)}, the last batch has 1)"
            if batch_size > 1
            else "a batch size of at least 2"
        )
        layer = f"The layer {names[alone[0]]!r} ({type(alone[0]).__name__}) has no variance over one value"
        remedy = f"{layer}; leave one example out, or normalize by groups (GroupNorm)."
        raise ArgumentError("batch_size", batch_size, allowed, remedy)
