"""Gaussian noise from a key stream."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privet.dp.keystream import KeyStream, Span, process
from privet.errors import ArgumentError

__all__ = ["Noise"]

_PIECE = 1 << 16  # numbers a thread makes at a time, from a span of their own: many against the cost of a call, and
# what they take still fits the cache

_kept = threading.local()

_Values = NDArray[np.float32 | np.float64]


class Noise:
    r"""Independent normal numbers of mean 0, by the method of Box and Muller.

    .. math:: (x, y) = \sigma \sqrt{-2 \ln u}\, (\cos \theta, \sin \theta), \quad u = \frac{k + 1/2}{2^{63}},
        \quad \theta = \frac{\pi j}{2^{b - 1}}

    with k uniform over 63 bits and j over b = 32 bits (float32) or 64 bits (float64), signed. So the tails reach
    :math:`\sigma \sqrt{128 \ln 2} = 9.4 \sigma`, a magnitude that is exceeded with probability 5e-21, and no number
    is infinite. As with every sampler in floating point, the numbers are normal up to rounding only.

    Args:
        stream: where the bytes come from.

    Example:
        >>> numbers = torch.empty(3)
        >>> Noise(KeyStream.seeded(1, "noise")).normal_(numbers, std=2.0)
        >>> numbers
        tensor([-0.4798, -0.6239,  1.5474])

    References:
        Box and Muller, "A note on the generation of random normal deviates", 1958.
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: KeyStream) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        return f"Noise({self._stream!r})"

    def normal_(self, out: Tensor, std: float) -> None:
        """Overwrite ``out`` with independent numbers from N(0, std^2).

        The numbers depend on the stream alone, not on the number of threads, ``torch.get_num_threads()``.

        Args:
            out: (N,), contiguous, float32 or float64, on any device.
            std: above 0; exactly 0.0 only where the stream is seeded. Not so small or large that a number could be
                subnormal at 1e-7 sigma, or infinite.

        Raises:
            ArgumentError: a tensor or a ``std`` of another kind; nothing was drawn.
        """
        if out.dtype not in (torch.float32, torch.float64):
            raise ArgumentError("out", out.dtype, "a tensor of float32 or float64", "Draw the noise there, then cast.")
        if out.ndim != 1 or not out.is_contiguous():
            raise ArgumentError("out", f"shape {tuple(out.shape)}, strides {out.stride()}", "a contiguous tensor (N,)")
        std = _check_std(std, torch.finfo(out.dtype), self._stream)
        if std == 0.0:
            out.detach().zero_()
        elif out.device.type != "cpu":
            made = torch.empty(out.shape, dtype=out.dtype)
            _fill(made.numpy(), std, self._stream)
            out.detach().copy_(made)
        else:
            _fill(out.detach().numpy(), std, self._stream)

    def draw(self, std: float) -> float:
        """One number from N(0, std^2), in float64.

        Args:
            std: above 0; exactly 0.0 only where the stream is seeded.

        Raises:
            ArgumentError: a ``std`` of another kind.
        """
        number = torch.empty(1, dtype=torch.float64)
        self.normal_(number, std)
        return number.item()


def _check_std(std: float, limits: torch.finfo, stream: KeyStream) -> float:
    given: object = std
    smallest, largest = limits.tiny * 2.0**24, limits.max / 16
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if number and (smallest <= std <= largest or (std == 0.0 and not stream.secret)):
        return float(std)
    allowed = f"a number from {smallest:.1e} to {largest:.1e} (for {limits.dtype})"
    remedy = "No noise, 0.0, is for tests with a seeded stream: what it protects is not private." if std == 0 else ""
    raise ArgumentError("std", std, allowed, remedy)


def _fill(values: _Values, std: float, stream: KeyStream) -> None:
    pieces = [values[start : start + _PIECE] for start in range(0, len(values), _PIECE)]
    spans = stream.spans(len(pieces))
    _together([partial(_fill_piece, piece, std, span) for piece, span in zip(pieces, spans, strict=True)])


def _fill_piece(out: _Values, std: float, span: Span) -> None:
    wide, pairs = out.dtype.itemsize, -(-len(out) // 2)
    if not hasattr(_kept, "memory"):  # of this thread: fresh memory would cost as much as the numbers
        _kept.memory = np.empty((16 + 3 * 8) * _PIECE // 2, np.uint8)
    u, k, j, r, angle = np.split(_kept.memory[: (16 + 3 * wide) * pairs], pairs * np.cumsum([8, 8, wide, wide]))
    span.fill(_kept.memory[8 * pairs : (16 + wide) * pairs])  # k and j
    _radius(k.view(np.int64), std, u.view(np.float64), r := r.view(out.dtype))
    np.copyto(angle := angle.view(out.dtype), j.view(f"i{wide}"), casting="same_kind")
    np.multiply(angle, math.pi * 2.0 ** (1 - 8 * wide), out=angle)
    first, second = out[:pairs], out[pairs:]  # the last pair may be half used
    np.cos(angle, out=first)
    np.multiply(first, r, out=first)
    np.sin(angle, out=angle)
    np.multiply(angle[: len(second)], r[: len(second)], out=second)


def _radius(k: NDArray[np.int64], std: float, u: NDArray[np.float64], r: _Values) -> None:
    np.bitwise_and(k, 2**63 - 1, out=k)
    np.copyto(u, k)
    np.add(u, 0.5, out=u)
    np.multiply(u, 2.0**-63, out=u)  # (0, 1]: 1 by rounding, where the radius is 0
    np.log(u, out=u)
    np.copyto(r, u, casting="same_kind")
    np.multiply(r, -2.0, out=r)
    np.sqrt(r, out=r)
    np.multiply(r, std, out=r)


_pool: tuple[tuple[int, int], ThreadPoolExecutor] | None = None


def _together(tasks: Sequence[Callable[[], None]]) -> None:
    """Do all tasks, on as many threads as PyTorch uses."""
    waiting = deque(tasks)

    def work() -> None:
        while waiting:
            try:
                task = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            task()

    others = min(torch.get_num_threads(), len(tasks)) - 1
    running = [_threads().submit(work) for _ in range(others)]
    try:
        work()
    finally:  # nobody writes into the tensor once it is given back
        wait(running)
    for done in running:
        done.result()


def _threads() -> ThreadPoolExecutor:
    global _pool
    home = process()
    if _pool is None or _pool[0] != home:  # threads do not live on in a forked process
        _pool = (home, ThreadPoolExecutor(64, thread_name_prefix="privet-noise"))
    return _pool[1]
