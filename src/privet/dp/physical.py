"""How many examples go through a model at once: as many as the memory there is can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from privet.dp.per_example.engine import Engine, PerExampleLoss

__all__ = ["largest_batch"]

_SHARE = 0.25  # of the free memory, for what one pass keeps
_UNKNOWN = 4 << 30  # bytes, where the system does not tell


def largest_batch(engine: Engine, per_example_loss: PerExampleLoss, data: Any, size: int) -> int:
    """The largest number of examples to take gradients of at once.

    One pass is watched: what autograd saves for the backward pass, and twice as much again for per-example gradients
    and temporaries. A quarter of the free memory is given to it.

    Args:
        engine: of the model.
        per_example_loss: from data to losses.
        data: a few examples.
        size: how many.

    Returns:
        At least 1.
    """
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    owned = {parameter.untyped_storage().data_ptr() for parameter in engine.model.parameters()}
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        per_example_loss(data)  # as it is: torch.func, which the fallback uses, cannot be watched
    activations = sum(bytes_ for place, bytes_ in saved.items() if place not in owned)
    each = 3 * max(activations, 1) / size
    return max(1, int(_SHARE * _free_bytes(engine.slots[0].parameter.device) / each))


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return _UNKNOWN
