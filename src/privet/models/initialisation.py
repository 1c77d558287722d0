"""Initial weights from a seed, without touching torch's global random state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from privet.errors import ArgumentError

__all__ = ["check_seed", "seeded"]


def check_seed(seed: object) -> None:
    """Refuse ``seed`` unless it is an integer from 0 to 2^64 - 1.

    Args:
        seed: what was given.

    Raises:
        ArgumentError: it is not.

    Example:
        >>> check_seed(-1)
        Traceback (most recent call last):
        privet.errors.ArgumentError: seed = -1 is not allowed; give an integer from 0 to 2^64 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ArgumentError("seed", seed, "an integer from 0 to 2^64 - 1")


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw what is built inside from ``seed``, and leave the global random state as it was.

    Args:
        seed: an integer from 0 to 2^64 - 1; ``None`` draws from torch's global state, as torch does.

    Raises:
        ArgumentError: ``seed`` is not such an integer.

    Example:
        >>> with seeded(1):
        ...     first = torch.rand(3)
        >>> with seeded(1):
        ...     bool(torch.equal(first, torch.rand(3)))
        True
    """
    if seed is None:
        yield
        return
    check_seed(seed)
    # Named devices: torch.manual_seed seeds every accelerator, so every one is put back.
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        torch.manual_seed(seed)
        yield
