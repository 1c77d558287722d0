"""What a layer's per-example gradients are made of, once the backward pass has been through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from privet.dp.per_example import kernels
from privet.dp.per_example.slots import Part

__all__ = ["Factors", "Given", "Room", "Use"]


class Room:
    """How much memory per-example gradients may take, and one growing buffer for them that is used step after step.

    Fresh buffers of this size cost more in page faults than in arithmetic.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self._device = dtype, device
        self._chunks: list[Tensor] = []
        self._used = 0
        self._left = 0
        self._scratch = torch.empty(0, dtype=dtype, device=device)

    def start(self, most_bytes: int) -> None:
        """Forget what was kept; from now on at most ``most_bytes`` are given out."""
        if len(self._chunks) > 1:
            total = sum(chunk.numel() for chunk in self._chunks)
            self._chunks = []  # let go of the old ones before the new one is there
            self._chunks = [torch.empty(total, dtype=self.dtype, device=self._device)]
        self._used = 0
        self._left = most_bytes

    def keep(self, *shape: int) -> Tensor | None:
        """A buffer until the next :meth:`start`; None where there is no more room."""
        size = torch.Size(shape).numel()
        needed = -(-size // 16) * 16
        if needed * self.dtype.itemsize > self._left:
            return None
        self._left -= needed * self.dtype.itemsize
        if not self._chunks or self._used + needed > self._chunks[-1].numel():
            self._chunks.append(torch.empty(needed, dtype=self.dtype, device=self._device))
            self._used = 0
        taken = self._chunks[-1][self._used : self._used + size].view(shape)
        self._used += needed
        return taken

    def scratch(self, *shape: int) -> Tensor:
        """A buffer until the next call of this method."""
        size = torch.Size(shape).numel()
        if self._scratch.numel() < size:
            self._scratch = torch.empty(size, dtype=self.dtype, device=self._device)
        return self._scratch[:size].view(shape)


@dataclass(frozen=True, eq=False)
class Factors:
    r"""Per-example gradients as sums of outer products, :math:`G_b = \sum_t l_{bt} r_{bt}^T`.

    Attributes:
        left: (B, T, p); or places (B, T) of whole numbers, each for a vector with a one there and zeros elsewhere.
        right: (B, T, q).
    """

    left: Tensor
    right: Tensor


class Use(Protocol):
    """One call of a layer. Each part's per-example gradient G has shape (B, *part.shape)."""

    @property
    def parts(self) -> Sequence[Part]:
        """What of the parameters it uses."""

    def squared_norms(self, room: Room) -> Sequence[Tensor]:
        """The squared norm of each example's gradient, (B,) float64 for each part; may keep G and drop its causes."""

    def most_norms(self) -> Sequence[Tensor]:
        """What each part's norms could be if nothing cancelled, (B,) float64; before ``squared_norms`` alone."""

    def factors(self) -> Sequence[Factors | None]:
        """Each part's G in factors, or None where it has none; before ``squared_norms`` alone."""

    def add_to(self, views: Sequence[Tensor], weights: Sequence[Tensor], room: Room) -> None:
        """Add the sum over the examples of weight (B,) times G to each part's view."""

    def per_example(self, start: int, stop: int) -> Sequence[Tensor]:
        """G of examples ``start`` ... ``stop`` - 1, for each part."""

    def clear(self, rows: Tensor) -> None:
        """Take examples out: where ``rows`` (B,) is true, everything becomes 0, also what is NaN."""


class Given:
    """Per-example gradients that are there as they are."""

    def __init__(self, parts: Sequence[Part], gradients: Sequence[Tensor]) -> None:
        """Take ``gradients``, (B, *shape) for each part."""
        self.parts = tuple(parts)
        self._gradients = list(gradients)

    def squared_norms(self, room: Room) -> list[Tensor]:  # noqa: D102
        return [kernels.squared_norms(gradient.reshape(len(gradient), -1)) for gradient in self._gradients]

    def most_norms(self) -> list[Tensor]:  # noqa: D102
        return [kernels.squared_norms(gradient.reshape(len(gradient), -1)).sqrt() for gradient in self._gradients]

    def factors(self) -> list[Factors | None]:  # noqa: D102
        return [None] * len(self.parts)

    def add_to(self, views: Sequence[Tensor], weights: Sequence[Tensor], room: Room) -> None:  # noqa: D102
        for gradient, view, weight in zip(self._gradients, views, weights, strict=True):
            kernels.add_weighted_rows(view, gradient, weight)

    def per_example(self, start: int, stop: int) -> list[Tensor]:  # noqa: D102
        return [gradient[start:stop] for gradient in self._gradients]

    def clear(self, rows: Tensor) -> None:  # noqa: D102
        self._gradients = [kernels.cleared(gradient, rows) for gradient in self._gradients]
