"""Where a model is."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["device_of"]


def device_of(model: nn.Module) -> torch.device:
    """Return where the first parameter of ``model`` is; the CPU for a model without parameters.

    Args:
        model: any module.

    Returns:
        The device.

    Example:
        >>> device_of(nn.Linear(1, 1))
        device(type='cpu')
    """
    first = next(model.named_parameters(), None)  # a defended network refuses parameters(), which are for training
    return torch.device("cpu") if first is None else first[1].device
