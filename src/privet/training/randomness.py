"""Random numbers of a run: from its seed, apart from torch's global state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

__all__ = ["global_states", "isolated", "set_global_states", "streams"]


def streams(seed: int) -> tuple[int, int]:
    """Derive two seeds that share nothing: one for shuffling, one for dropout and its like.

    Args:
        seed: an integer from 0 to 2^64 - 1.

    Returns:
        The seed for shuffling and the seed for everything that draws from torch's global state.

    Example:
        >>> len(set(streams(0)))
        2
    """
    first, second = np.random.SeedSequence(seed).generate_state(2, np.uint64)
    return int(first), int(second)


@contextmanager
def isolated(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch's global state of the CPU and of ``device`` inside, and put it back after.

    Args:
        device: where the run computes.
        seed: an integer from 0 to 2^64 - 1.

    Example:
        >>> before = torch.get_rng_state()
        >>> with isolated(torch.device("cpu"), 1):
        ...     _ = torch.rand(3)
        >>> bool(torch.equal(before, torch.get_rng_state()))
        True
    """
    before = global_states(device)
    try:
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
        yield
    finally:
        set_global_states(before, device)


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
