"""Which records each shadow model is trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privet.errors import ArgumentError, DataError

__all__ = ["block_size", "check_whole", "inclusion", "shadow_seed"]

_MOST_LEFT_OUT = 8  # parts of the pool, of which all but one are trained on: each shadow sees at least 7/8 of it
_MOST_PARTS = 32  # of which one is trained on
_MEMBERSHIP, _TRAINING = 0, 1  # what a stream of random numbers is for


def block_size(pool_size: int, members: int) -> int:
    r"""The number B of shadows in a block, within which every record is trained on equally often.

    With q = M / P, the share of the pool that the target was trained on, a shadow is trained on about as many records:

    * 1/3 < q < 2/3: B = 2, one random half of the pool each.
    * q <= 1/3: B = round(1 / q), and each shadow is trained on one of B parts.
    * q >= 2/3: B = round(1 / (1 - q)), at most 8, and each shadow is trained on all parts but one.

    Args:
        pool_size: the number of records P >= 2.
        members: how many the target was trained on, M, in 1 ... P - 1.

    Returns:
        B >= 2.

    Raises:
        ArgumentError: if ``members`` is out of range.
        DataError: if the members are less than about 1/32 of the pool.

    Example:
        >>> block_size(1_000, 500), block_size(1_000, 200), block_size(1_000, 750), block_size(1_000, 990)
        (2, 5, 4, 8)
    """
    if not 0 < members < pool_size:
        raise ArgumentError("members", members, f"a whole number between 1 and {pool_size - 1}")
    share = members / pool_size
    if 1 / 3 < share < 2 / 3:
        return 2
    if share >= 2 / 3:
        return min(round(1 / (1 - share)), _MOST_LEFT_OUT)
    if round(1 / share) > _MOST_PARTS:
        raise DataError(
            f"{members:,} members among {pool_size:,} records: shadow models trained on as few take "
            f"{round(1 / share):,} of them until each record was trained on once; leave non-members out, so that there "
            f"are at most {members * (_MOST_PARTS - 1):,}."
        )
    return round(1 / share)


def inclusion(pool_size: int, members: int, block: int, seed: int) -> NDArray[np.bool_]:
    """The memberships of one block of shadows: row b says which records shadow b of this block is trained on.

    The parts are drawn from the whole pool, members and non-members alike: nothing of the target's own membership goes
    in but the number M. Parts differ in size by one record at most.

    Args:
        pool_size: the number of records P >= 2.
        members: how many the target was trained on, M, in 1 ... P - 1.
        block: the number of the block, from 0.
        seed: of the fleet, not negative.

    Returns:
        (B, P); every column holds exactly one True (B - 1 if M is at least 2/3 of P).

    Raises:
        ArgumentError: if an argument is out of range.
        DataError: as :func:`block_size`.

    Example:
        >>> halves = inclusion(6, 3, block=0, seed=1)
        >>> halves.sum(1), halves.sum(0)
        (array([3, 3]), array([1, 1, 1, 1, 1, 1]))
    """
    parts = block_size(pool_size, members)
    order = np.random.default_rng(_stream(seed, _MEMBERSHIP, block)).permutation(pool_size)
    included = np.zeros((parts, pool_size), dtype=np.bool_)  # (B, P)
    for row, records in zip(included, np.array_split(order, parts), strict=True):
        row[records] = True
    return ~included if members / pool_size >= 2 / 3 else included


def shadow_seed(seed: int, shadow: int) -> int:
    """The seed of one shadow's training: 31 bits that neither another shadow nor another fleet shares but by chance.

    Args:
        seed: of the fleet, not negative.
        shadow: its number, from 0.

    Example:
        >>> shadow_seed(0, 0) == shadow_seed(0, 0), shadow_seed(0, 0) == shadow_seed(0, 1)
        (True, False)
    """
    return int(_stream(seed, _TRAINING, shadow).generate_state(1)[0]) >> 1


def check_whole(name: str, value: Any, least: int) -> int:
    """Return a whole number as an int.

    Raises:
        ArgumentError: it is none, or less than ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ArgumentError(name, value, f"a whole number of at least {least}")
    return int(value)


def _stream(seed: int, purpose: int, number: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(check_whole("seed", seed, 0), spawn_key=(purpose, number))
