"""Each record takes part by its own coin, with exactly the probability that is accounted for.

The statistical tests use fixed seeds and would each raise a false alarm for fewer than one in 10^5 seeds. The same
tests reject samplers that are not Poisson.
"""

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from tests.dp.forked import forked

from privet.accounting import NoSampling, Poisson, TruncatedPoisson
from privet.dp import sampling as module
from privet.dp.keystream import KeyStream
from privet.dp.sampling import PoissonSampler
from privet.errors import ArgumentError, PrivateTrainingError

RARE = 1e-5
N, RATE, DRAWS = 200, 0.1, 20_000


class Given:
    """A stream whose fills the test chose, in order."""

    secret = False

    def __init__(self, *fills: NDArray[Any]) -> None:
        self.fills = list(fills)

    def fill(self, buffer: NDArray[Any]) -> None:
        buffer[:] = self.fills.pop(0)


@given(
    rate=st.floats(0, 1, exclude_min=True)
    | st.sampled_from([2.0**-8, 0.5, 1 - 2.0**-53, 3 * 2.0**-9, 2.0**-64, 5e-324]),
    data=st.data(),
)
def test_a_record_takes_part_if_its_64_bits_are_below_the_rate(rate: float, data: st.DataObject) -> None:
    threshold = int(Fraction(rate) * 2**64)  # exact
    near = st.integers(-2, 1).map(lambda step: min(max(threshold + step, 0), 2**64 - 1))
    same_byte = st.integers(0, 2**56 - 1).map(lambda low: min(threshold >> 56, 255) << 56 | low)
    coins = data.draw(st.lists(st.integers(0, 2**64 - 1) | near | same_byte, min_size=1, max_size=8))
    first = np.array([coin >> 56 for coin in coins], np.uint8)
    tied = [coin for coin in coins if coin >> 56 == threshold >> 56]
    rest = np.array([(coin << 8 & 2**64 - 1) | 0x5A for coin in tied], np.uint64)  # its last 8 bits do not count
    drawn = PoissonSampler(len(coins), Poisson(rate), Given(first, rest)).draw()  # type: ignore[arg-type]
    assert drawn.tolist() == [index for index, coin in enumerate(coins) if coin < threshold]


def samples(sampler: PoissonSampler, draws: int = DRAWS) -> NDArray[np.bool_]:
    """(draws, N): who took part."""
    taken = np.zeros((draws, sampler._population), np.bool_)
    for row in taken:
        row[sampler.draw().numpy()] = True
    return taken


def is_poisson(taken: NDArray[np.bool_], rate: float) -> float:
    """How well independent coins of this rate explain the samples: the smallest p-value, times how many there are."""
    draws, size = taken.shape
    coins = (taken - rate) / np.sqrt(rate * (1 - rate))  # mean 0, variance 1, if the rate is right
    p = []
    for sums, count in ((coins.sum(1), size), (coins.sum(0), draws)):  # sizes of samples; how often each record
        spread = stats.chi2(len(sums)).cdf(np.square(sums).sum() / count)
        p.append(2 * min(spread, 1 - spread))
    p.append(stats.norm.sf(abs(coins.sum()) / np.sqrt(coins.size)) * 2)
    for lag in (1, 2, size // 2):  # records next to each other; and the same record in samples next to each other
        for now, later in ((coins[:, :-lag], coins[:, lag:]), (coins[:-lag], coins[lag:])):
            z = (now * later).sum() / np.sqrt(now.size)
            p.append(stats.norm.sf(abs(z)) * 2)
    return len(p) * float(min(p))


def test_samples_are_independent_coins_of_the_rate() -> None:
    taken = samples(PoissonSampler(N, Poisson(RATE), KeyStream.seeded(1, "sample")))
    assert is_poisson(taken, RATE) > RARE
    for factor in (2 / 3, 3 / 2, 0.98, 1.02):
        assert is_poisson(taken, factor * RATE) < 1e-9


def of_fixed_size(random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    while True:
        yield random.choice(N, int(N * RATE), replace=False)


def shuffled(random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    while True:
        yield from random.permutation(N).reshape(-1, int(N * RATE))


def in_blocks(random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    while True:
        yield np.flatnonzero(np.repeat(random.random(N // 2) < RATE, 2))


def repeating(random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    while True:
        sample = np.flatnonzero(random.random(N) < RATE)
        yield from (sample, sample)


def with_favourites(random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    rates = np.where(np.arange(N) < N // 2, 0.9 * RATE, 1.1 * RATE)
    while True:
        yield np.flatnonzero(random.random(N) < rates)


def never_empty(random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    while True:
        sample = np.flatnonzero(random.random(N) < RATE)
        if len(sample) >= 12:
            yield sample


@pytest.mark.parametrize("other", [of_fixed_size, shuffled, in_blocks, repeating, with_favourites, never_empty])
def test_samplers_that_are_not_poisson_are_rejected(
    other: Callable[[np.random.Generator], Iterator[NDArray[np.int64]]],
) -> None:
    taken = np.zeros((DRAWS, N), np.bool_)
    for row, sample in zip(taken, islice(other(np.random.default_rng(1)), DRAWS), strict=True):
        row[sample] = True
    assert is_poisson(taken, RATE) < 1e-9


def test_chunks_are_independent_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", N // 2)  # the lag of N // 2 compares the two
    assert is_poisson(samples(PoissonSampler(N, Poisson(RATE), KeyStream.seeded(2, "sample"))), RATE) > RARE
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert is_poisson(samples(PoissonSampler(N, Poisson(RATE), KeyStream.seeded(3, "sample")), 1000), RATE) > RARE


@pytest.mark.parametrize("sampling", [NoSampling(), Poisson(1.0), Poisson(1)])
def test_at_rate_one_every_record_takes_part_and_no_coin_is_thrown(sampling: NoSampling | Poisson) -> None:
    for size in (1, 5, module._CHUNK + 3):
        drawn = PoissonSampler(size, sampling, Given()).draw()  # type: ignore[arg-type]
        assert torch.equal(drawn, torch.arange(size))


@given(st.integers(1, 60), st.floats(0, 1, exclude_min=True), st.integers(1, 70), st.integers(0, 2**32))
def test_a_capped_sample_is_part_of_the_whole_one(population: int, rate: float, cap: int, seed: int) -> None:
    whole = PoissonSampler(population, Poisson(rate), KeyStream.seeded(seed, "sample")).draw()
    capped = PoissonSampler(
        population, TruncatedPoisson(rate, cap, population), KeyStream.seeded(seed, "sample")
    ).draw()
    for drawn in (whole, capped):
        assert drawn.dtype == torch.int64
        assert drawn.tolist() == sorted(set(drawn.tolist()) & set(range(population)))
    assert len(capped) == min(cap, len(whole))
    assert set(capped.tolist()) <= set(whole.tolist())


def test_every_part_of_the_capped_size_is_as_likely() -> None:
    """All 35 sets of 3 of 7; a cut that keeps the first ones is rejected."""
    sampler = PoissonSampler(7, TruncatedPoisson(1.0, 3, 7), KeyStream.seeded(4, "sample"))
    sets = [tuple(sampler.draw().tolist()) for _ in range(20_000)]
    counts = [sets.count(one) for one in set(sets)]
    assert len(counts) == 35
    assert stats.chisquare(counts).pvalue > RARE


def test_equal_keys_at_the_cut_are_drawn_again() -> None:
    keys = [np.array(row, np.uint64) for row in ([5, 5, 9], [1, 7, 7], [9, 3, 5])]
    assert module._subset(3, 1, Given(*keys)).tolist() == [0]  # type: ignore[arg-type]
    assert module._subset(3, 2, Given(*keys[1:])).tolist() == [1, 2]  # type: ignore[arg-type]


def test_samples_of_secret_streams_differ() -> None:
    sampler, other = (PoissonSampler(200, Poisson(0.5), KeyStream.secret()) for _ in range(2))
    assert len({tuple(one.draw().tolist()) for one in (sampler, sampler, other)}) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_draws_samples_of_its_own() -> None:
    sampler = PoissonSampler(200, Poisson(0.5), KeyStream.secret())
    said = [forked(lambda: bytes(sampler.draw().tolist())) for _ in range(2)] + [bytes(sampler.draw().tolist())]
    assert len(set(said)) == 3
    assert all(60 < len(sample) < 140 for sample in said)  # false alarm below 1e-7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_seeded_sampler_refuses_to_go_on_in_a_child() -> None:
    sampler = PoissonSampler(200, Poisson(0.5), KeyStream.seeded(1, "sample"))
    assert forked(lambda: bytes(sampler.draw().tolist())).startswith(PrivateTrainingError.__name__.encode())


def test_what_cannot_be_sampled_is_refused() -> None:
    stream = KeyStream.secret()
    for population in (0, -1, 2.0, True):
        with pytest.raises(ArgumentError, match="population"):
            PoissonSampler(population, NoSampling(), stream)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="population"):
        PoissonSampler(10, TruncatedPoisson(0.1, 3, 11), stream)
    for sampling in ("shuffled", None, 0.1):
        with pytest.raises(ArgumentError, match="No other sampler"):
            PoissonSampler(10, sampling, stream)  # type: ignore[arg-type]


def test_what_is_shown_holds_no_key() -> None:
    assert (
        repr(PoissonSampler(5, NoSampling(), KeyStream.secret())) == "PoissonSampler(population=5, KeyStream(secret))"
    )
