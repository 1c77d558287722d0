"""Which weights of one tensor are masked, and which are next."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from privet.errors import DivergedError

__all__ = ["MASKABLE", "Mask"]

_INTEGERS = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
MASKABLE = frozenset(_INTEGERS)


class Mask:
    """The masked entries of one tensor of weights; there are only ever more of them.

    Kept as whole numbers of the weights' width, 1 for a kept weight and 0 for a masked one. A weight's bits, taken as a
    whole number, times that are the same bits or those of +0, whatever they stand for (-1, infinity, NaN).

    Args:
        like: the weights, of a type in ``MASKABLE``; the mask is laid out in memory as they are.

    Attributes:
        count: how many are masked.
        version: rises whenever more are.
        kept: the whole numbers, of the shape of the weights.

    Example:
        >>> weights = torch.tensor([[0.5, -0.1], [-0.0, 2.0]])
        >>> mask = Mask(weights)
        >>> mask.add(mask.smallest(weights, 2))
        >>> mask.clear(weights)
        >>> weights
        tensor([[0.5000, 0.0000],
                [0.0000, 2.0000]])
    """

    def __init__(self, like: Tensor) -> None:
        self._dtype = like.dtype
        self.kept = torch.ones_like(like, dtype=_INTEGERS[like.dtype], requires_grad=False)
        self.count = self.version = 0

    @property
    def masked(self) -> Tensor:
        """A bool tensor of the shape of the weights, True where masked."""
        return self.kept == 0

    def set(self, masked: Tensor) -> None:
        """Mask what ``masked`` (bool, of the shape of the weights) says, and nothing else."""
        self.kept.copy_(~masked)
        self.count = int(masked.count_nonzero())
        self.version += 1

    def add(self, indices: Tensor) -> None:
        """Mask more weights.

        Args:
            indices: their places in row-major order (k,), each kept so far.
        """
        flat = self.kept.reshape(-1)  # in row-major order: a copy where the memory is not
        flat.index_fill_(0, indices, 0)
        if flat.data_ptr() != self.kept.data_ptr():
            self.kept.copy_(flat.reshape(self.kept.shape))
        self.count += len(indices)
        self.version += 1

    def follow(self, weights: Tensor) -> None:
        """Go where the weights went: to another device, or another type."""
        self._dtype = weights.dtype
        self.kept = self.kept.to(weights.device, _INTEGERS[weights.dtype])

    def clear(self, values: Tensor) -> None:
        """Write +0 into the masked entries of ``values``, of the shape of the weights, whatever was there."""
        kept = self.kept
        if values.requires_grad:
            values = values.detach()
        if values.dtype is self._dtype and values.device == kept.device:
            values.view(kept.dtype).mul_(kept)
        else:
            values.masked_fill_(self.masked.to(values.device), 0)

    def smallest(self, weights: Tensor, count: int) -> Tensor:
        """Choose what to mask next, so that ``count`` weights are masked in all.

        These are the smallest of the kept weights by magnitude, of equals those of lower index: one selection, without
        sorting, on the weights' own device. For a moment it takes about ten times the memory of the weights.

        Args:
            weights: of any shape; masked ones are not looked at.
            count: how many shall be masked in all, fewer than there are.

        Returns:
            Their places in row-major order (count - self.count,), in no order; none where so many are masked already.

        Raises:
            DivergedError: a kept weight is NaN or infinite.

        Example:
            >>> weights = torch.tensor([0.3, -0.2, 0.2, 0.1])
            >>> Mask(weights).smallest(weights, 2)
            tensor([3, 1])
        """
        places = self.kept.reshape(-1).nonzero().reshape(-1)  # (m,), rising
        sizes = weights.detach().reshape(-1).index_select(0, places).abs_()  # (m,)
        if sizes.element_size() < 4:
            sizes = sizes.float()  # exact; few devices select among half-precision numbers
        if not math.isfinite(float(sizes.max())):  # the largest is NaN where one is
            raise DivergedError("Suppression stopped: a weight is NaN or infinite. Lower the learning rate.")
        more = count - self.count
        if more <= 0:
            return places[:0]
        values, chosen = sizes.topk(more + 1, largest=False, sorted=False)
        above, limit = values.topk(2).values.tolist()
        if limit < above:
            return places.index_select(0, chosen[values < above])
        below = (sizes < limit).nonzero().reshape(-1)
        equal = (sizes == limit).nonzero().reshape(-1)[: more - len(below)]
        return places.index_select(0, torch.cat((below, equal)))
