"""Random numbers of a run: from its seed, apart from torch's global state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from privet.checkpoints.random_states import global_states, set_global_states

__all__ = ["isolated", "streams"]


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
