"""Whether the state of an optimizer in a file fits the optimizer that is to take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import LBFGS, Optimizer

from privet.errors import ArgumentError

__all__ = ["optimizer_layout", "state_misfits"]

_SCALARS = ("step", "eta", "mu", "mu_product")


def optimizer_layout(state: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the groups of an optimizer: which settings each has and how many parameters.

    Args:
        state: what ``state_dict`` of the optimizer returned.

    Returns:
        Plain values by name.

    Raises:
        ArgumentError: it is not the state of an optimizer.

    Example:
        >>> optimizer_layout({"param_groups": [{"lr": 0.1, "params": [0, 1]}]})
        {'group0': {'settings': ['lr', 'params'], 'parameters': 2}}
    """
    groups = state.get("param_groups")
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        raise ArgumentError("optimizer", type(state).__name__, "an optimizer with param_groups")
    return {
        f"group{i}": {"settings": sorted(group), "parameters": len(group["params"])} for i, group in enumerate(groups)
    }


def state_misfits(state: Mapping[str, Any], optimizer: Optimizer) -> list[str]:
    """Say which tensors of a stored state have another shape than ``optimizer`` needs for its parameters.

    torch's own optimizers alone are compared; what others keep is theirs to check.

    Args:
        state: what ``state_dict`` of an optimizer with as many parameters returned.
        optimizer: is to take the state.

    Returns:
        A phrase for each tensor that does not fit.

    Example:
        >>> import torch
        >>> sgd = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1, momentum=0.9)
        >>> state_misfits({"state": {0: {"momentum_buffer": torch.zeros(3)}}}, sgd)
        ['momentum_buffer of parameter 0 is (3,) there and (2,) here']
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    known = type(optimizer).__module__.startswith("torch.optim") and not isinstance(optimizer, LBFGS)
    found: list[str] = []
    for index, values in state.get("state", {}).items():
        if not isinstance(index, int) or not 0 <= index < len(parameters) or not isinstance(values, Mapping):
            found.append(f"parameter {index!r} has a state there and is none of the {len(parameters)} here")
            continue
        for name, value in values.items():
            needed = _needed(str(name), tuple(parameters[index].shape))
            if known and isinstance(value, Tensor) and tuple(value.shape) != needed:
                found.append(f"{name} of parameter {index} is {tuple(value.shape)} there and {needed} here")
    return found


def _needed(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if name in _SCALARS:
        return ()
    if name == "row_var":  # of Adafactor: the two factors of a variance
        return (*shape[:-1], 1)
    if name == "col_var":
        return (*shape[:-2], 1, *shape[-1:])
    return shape
