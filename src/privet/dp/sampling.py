"""Which records take part in a step: each by its own coin."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privet.accounting import NoSampling, Poisson, TruncatedPoisson
from privet.accounting.events import Sampling
from privet.dp.keystream import KeyStream
from privet.errors import ArgumentError

__all__ = ["PoissonSampler"]

_CHUNK = 1 << 18  # records whose coins are thrown at once


class PoissonSampler:
    r"""Draws logical samples: each record takes part independently of all others and of all other samples.

    .. math:: \Pr[\text{record } i \text{ takes part}] = \lfloor 2^{64} q \rfloor / 2^{64} \le q

    A record takes part if 64 random bits, read as a whole number, are below :math:`\lfloor 2^{64} q \rfloor`: the
    probability is exact, and never above the rate q that is accounted for. With a cap, a sample that is larger is cut
    to a uniformly random subset of that size. Without sampling every record takes part.

    Args:
        population: how many records there are, at least 1.
        sampling: how they are sampled, as the event says it.
        stream: where the coins come from.

    Raises:
        ArgumentError: ``population`` is below 1 or another than that of ``sampling``, or ``sampling`` is of no known
            kind.

    Example:
        >>> sampler = PoissonSampler(1000, Poisson(0.003), KeyStream.seeded(1, "sample"))
        >>> sampler.draw(), sampler.draw()
        (tensor([143, 199, 477, 691, 819, 829, 952]), tensor([ 56, 915]))
    """

    __slots__ = ("_cap", "_population", "_stream", "_threshold")

    def __init__(self, population: int, sampling: Sampling, stream: KeyStream) -> None:
        given: object = population
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise ArgumentError("population", population, "a whole number of at least 1")
        self._population = population
        self._stream = stream
        self._cap = population
        kind: object = sampling
        match kind:
            case NoSampling():
                self._threshold = 1 << 64
            case Poisson(rate):
                self._threshold = _threshold(rate)
            case TruncatedPoisson(rate, cap, counted):
                if counted != population:
                    raise ArgumentError("population", population, f"{counted}, the population of the sampling")
                self._threshold = _threshold(rate)
                self._cap = min(cap, population)
            case _:
                allowed = "NoSampling(), Poisson(rate) or TruncatedPoisson(...)"
                raise ArgumentError("sampling", sampling, allowed, "No other sampler is accounted for.")

    def __repr__(self) -> str:
        return f"PoissonSampler(population={self._population}, {self._stream!r})"

    def draw(self) -> Tensor:
        """The next sample.

        Returns:
            (k,) int64, the indices of the records that take part, in rising order; k may be 0.

        Raises:
            PrivateTrainingError: the stream is seeded and this is a forked process.
        """
        starts = range(0, self._population, _CHUNK)
        parts = [self._drawn(start, min(_CHUNK, self._population - start)) for start in starts]
        chosen = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if len(chosen) > self._cap:
            chosen = chosen[_subset(len(chosen), self._cap, self._stream)]
        return torch.from_numpy(chosen)

    def _drawn(self, start: int, size: int) -> NDArray[np.int64]:
        """The records that take part among ``size`` of them from ``start`` on."""
        if self._threshold == 1 << 64:
            return np.arange(start, start + size)
        # The first 8 of the 64 bits decide, unless they equal those of the threshold; then the other 56 do.
        first, rest = self._threshold >> 56, self._threshold & (1 << 56) - 1
        coins = np.empty(size, np.uint8)
        self._stream.fill(coins)
        takes_part = coins < first
        if rest:
            tied = np.flatnonzero(coins == first)
            more = np.empty(len(tied), np.uint64)
            self._stream.fill(more)
            takes_part[tied[more >> np.uint64(8) < rest]] = True
        return np.flatnonzero(takes_part) + start


def _threshold(rate: float) -> int:
    return int(rate * 2.0**64)  # exact before it is cut: a power of two changes only the exponent


def _subset(size: int, count: int, stream: KeyStream) -> NDArray[np.int64]:
    """``count`` of 0 ... ``size`` - 1 in rising order, every such set with the same probability."""
    keys = np.empty(size, np.uint64)
    while True:
        stream.fill(keys)
        order = np.argpartition(keys, (count - 1, count))
        if keys[order[count - 1]] != keys[order[count]]:  # equal keys could favour one of the two
            return np.sort(order[:count])
