"""torch's global random states, as a checkpoint keeps them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["global_states", "set_global_states"]


def global_states(device: torch.device) -> dict[str, Tensor]:
    """Return torch's global random states of the CPU and of ``device``.

    Args:
        device: where the run computes.

    Returns:
        Each state by name, as bytes (uint8).

    Example:
        >>> sorted(global_states(torch.device("cpu")))
        ['cpu']
    """
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states


def set_global_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Set torch's global random states of the CPU and of ``device``.

    Args:
        states: what ``global_states`` returned.
        device: where the run computes.

    Example:
        >>> set_global_states(global_states(torch.device("cpu")), torch.device("cpu"))
    """
    torch.set_rng_state(states["cpu"])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[device.type], device)
