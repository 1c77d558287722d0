"""What each record is asked as: itself, and images or rows close to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from privet.attacks.membership.fleet.inclusion import check_whole
from privet.errors import ArgumentError, DataError

__all__ = ["ONE_QUERY", "Queries", "Query", "noisy", "shifts_and_flips"]


@dataclass(frozen=True)
class Query:
    """One way to ask about records.

    Attributes:
        name: as messages name it.
        transform: maps all inputs (P, ...) of the pool to as many of the same shape and type, the same on every call.
    """

    name: str
    transform: Callable[[Tensor], Tensor]

    def of(self, inputs: Tensor) -> Tensor:
        """The inputs to ask.

        Args:
            inputs: (P, ...).

        Raises:
            DataError: if the transform answers something else than as many inputs of that shape and type.
        """
        asked: Any = self.transform(inputs)
        if not isinstance(asked, Tensor) or asked.shape != inputs.shape or asked.dtype != inputs.dtype:
            shown = f"{asked.dtype} {tuple(asked.shape)}" if isinstance(asked, Tensor) else type(asked).__name__
            raise DataError(
                f"the query {self.name!r} made {shown} of {inputs.dtype} {tuple(inputs.shape)}; "
                "a query keeps shape and type."
            )
        return asked


@dataclass(frozen=True)
class Queries:
    """The queries about each record, Q in number, in order.

    Attributes:
        queries: at least one; names differ.

    Raises:
        ArgumentError: there is none, or two have one name.

    Example:
        >>> [query.name for query in shifts_and_flips(flip=False)]
        ['as it is', 'left 1', 'right 1', 'up 1', 'down 1']
    """

    queries: tuple[Query, ...]

    def __post_init__(self) -> None:
        names = [query.name for query in self.queries]
        if not names or len(set(names)) < len(names):
            raise ArgumentError("queries", tuple(names), "at least one query, each with a name of its own")

    def __len__(self) -> int:
        return len(self.queries)

    def __iter__(self) -> Iterator[Query]:
        return iter(self.queries)


@dataclass(frozen=True)
class _AsItIs:
    def __call__(self, inputs: Tensor) -> Tensor:
        return inputs


@dataclass(frozen=True)
class _Moved:
    """Each image moved by whole pixels, edges repeated, then perhaps mirrored left to right."""

    right: int
    down: int
    mirrored: bool

    def __call__(self, inputs: Tensor) -> Tensor:
        if inputs.ndim != 4:
            raise DataError(
                f"inputs of shape {tuple(inputs.shape)} are no images; give (N, C, H, W), or other queries for them."
            )
        moved = inputs  # (N, C, H, W)
        for dim, by in ((2, self.down), (3, self.right)):
            if by:
                size = inputs.shape[dim]
                moved = moved.index_select(dim, (torch.arange(size, device=inputs.device) - by).clamp(0, size - 1))
        return moved.flip(3) if self.mirrored else moved


@dataclass(frozen=True)
class _Noisy:
    """Each value with Gaussian noise, the same for every model that is asked."""

    scale: float
    seed: int

    def __call__(self, inputs: Tensor) -> Tensor:
        if not inputs.is_floating_point():
            raise DataError(f"inputs are {inputs.dtype}; noise is added to floating-point inputs alone.")
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(inputs.shape, generator=generator, dtype=torch.float32).mul_(self.scale)
        return inputs + noise.to(inputs)


_SELF = Query("as it is", _AsItIs())

ONE_QUERY = Queries((_SELF,))
"""Each record is asked as it is, once."""


def shifts_and_flips(pixels: int = 1, flip: bool = True) -> Queries:
    """Images as they are, moved by 1 ... ``pixels`` to each of four sides, and all of these mirrored.

    Worth its time where training augmented its images like this, and behind labels alone.

    Args:
        pixels: the farthest move, at least 0; what moves in repeats the edge.
        flip: mirror left to right too.

    Returns:
        1 + 4 ``pixels`` queries about inputs (N, C, H, W), twice as many with ``flip``; the image as it is comes first.

    Raises:
        ArgumentError: if ``pixels`` is negative or no whole number.

    Example:
        >>> len(shifts_and_flips(pixels=2))
        18
    """
    check_whole("pixels", pixels, 0)
    queries = [_SELF]
    for by in range(1, pixels + 1):
        sides = (("left", -by, 0), ("right", by, 0), ("up", 0, -by), ("down", 0, by))
        queries += [Query(f"{side} {by}", _Moved(right, down, mirrored=False)) for side, right, down in sides]
    if flip:
        mirrored = [
            (query.name, getattr(query.transform, "right", 0), getattr(query.transform, "down", 0)) for query in queries
        ]
        queries += [
            Query("mirrored" if name == _SELF.name else f"{name}, mirrored", _Moved(right, down, mirrored=True))
            for name, right, down in mirrored
        ]
    return Queries(tuple(queries))


def noisy(scale: float, count: int, seed: int) -> Queries:
    """Records as they are, and ``count`` times with Gaussian noise: for tables, and behind labels alone.

    Args:
        scale: the noise's standard deviation, in the inputs' own units, above 0.
        count: noisy queries a record, at least 1.
        seed: of the noise, not negative; one seed is the same noise for every model.

    Returns:
        1 + ``count`` queries about floating-point inputs; the record as it is comes first.

    Raises:
        ArgumentError: if a value is out of range.

    Example:
        >>> [query.name for query in noisy(0.1, count=2, seed=0)]
        ['as it is', 'noise 1', 'noise 2']
    """
    if isinstance(scale, bool) or not (math.isfinite(scale) and scale > 0):
        raise ArgumentError("scale", scale, "a finite number above 0")
    check_whole("count", count, 1)
    check_whole("seed", seed, 0)
    noises = (Query(f"noise {draw + 1}", _Noisy(float(scale), seed * 1_000_003 + draw)) for draw in range(count))
    return Queries((_SELF, *noises))
