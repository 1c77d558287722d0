"""The numbers are those of Box and Muller for the bytes of the stream, hence normal; nothing is drawn twice.

The statistical tests use fixed seeds and would each raise a false alarm for fewer than one in 10^5 seeds.
"""

import math
import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from tests.dp.forked import forked

from privet.dp import noise as module
from privet.dp.keystream import KeyStream
from privet.dp.noise import Noise
from privet.errors import ArgumentError

PIECE = module._PIECE
DTYPES = (torch.float32, torch.float64)
RARE = 1e-5
WRONG = (2 / 3, 3 / 2, 0.99, 1.01)


@pytest.fixture
def threads() -> Iterator[None]:
    """The number of threads is as it was, afterwards."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draw(size: int, seed: int, std: float = 1.0, dtype: torch.dtype = torch.float64) -> NDArray[np.float64]:
    out = torch.full((size,), math.nan, dtype=dtype)
    Noise(KeyStream.seeded(seed, "noise")).normal_(out, std)
    return out.double().numpy()


class Given:
    """A stream, of one span, whose bytes the test chose."""

    secret = False

    def __init__(self, content: bytes) -> None:
        self.content = content

    def spans(self, count: int) -> list["Given"]:
        assert count == 1
        return [self]

    def fill(self, buffer: NDArray[np.uint8]) -> None:
        assert len(buffer) == len(self.content)
        buffer[:] = np.frombuffer(self.content, np.uint8)


def edges(bits: int) -> st.SearchStrategy[int]:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return st.integers(low, high) | st.sampled_from([low, low + 1, -1, 0, 1, high - 1, high, low // 2, high // 2])


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data(), std=st.floats(1e-20, 1e20))
def test_the_numbers_are_those_of_box_and_muller(dtype: torch.dtype, data: st.DataObject, std: float) -> None:
    bits, close = {torch.float32: (32, 4e-7), torch.float64: (64, 3e-15)}[dtype]
    ks, js = (data.draw(st.lists(edges(width), min_size=2, max_size=2)) for width in (64, bits))
    for size in (3, 4):  # the last pair half used, or whole
        content = np.array(ks, "i8").tobytes() + np.array(js, f"i{bits // 8}").tobytes()
        out = torch.full((size,), math.nan, dtype=dtype)
        Noise(Given(content)).normal_(out, std)  # type: ignore[arg-type]
        found = out.tolist()
        for pair, (k, j) in enumerate(zip(ks, js, strict=True)):
            radius = std * math.sqrt(-2 * math.log(((k & (2**63 - 1)) + 0.5) * 2.0**-63))
            angle = math.pi * j / 2 ** (bits - 1)
            wanted = [radius * math.cos(angle), radius * math.sin(angle)]
            for place, value in zip((pair, pair + 2), wanted, strict=True):
                if place < size:
                    assert found[place] == pytest.approx(value, rel=0, abs=close * (radius + 1e-7 * std))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_tails_reach_8_5_sigma_and_small_radii_are_fine(dtype: torch.dtype) -> None:
    """The largest radius, and the smallest above 0: no coarser than 53 bits make it."""
    wide = 4 if dtype == torch.float32 else 8
    for k, low, high in ((0, 9.41, 9.43), (2**63 - 1, 0, 0), (2**63 - 1 - 1024, 1.4e-8, 2.2e-8)):
        out = torch.empty(1, dtype=dtype)
        Noise(Given(k.to_bytes(8, "little") + bytes(wide))).normal_(out, 1.0)  # type: ignore[arg-type]
        assert low <= out.item() <= high


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("std", [1.0, 0.3, 1e-30, 1e30])
def test_the_numbers_are_normal(dtype: torch.dtype, std: float) -> None:
    numbers = draw(1 << 20, 1, std, dtype) / std
    assert normal(numbers) > RARE
    for scale in WRONG:
        assert normal(numbers * scale) < 1e-9


def normal(numbers: NDArray[np.float64]) -> float:
    """How well they fit N(0, 1): the smallest of five p-values, times five."""
    size = len(numbers)
    squares = stats.chi2(size).cdf(np.square(numbers).sum())
    outside = numbers[np.abs(numbers) > 3]  # the tails on their own
    beyond = stats.norm.sf(3)
    return 5 * min(
        stats.kstest(numbers, stats.norm.cdf).pvalue,
        2 * min(squares, 1 - squares),
        2 * stats.norm.sf(abs(numbers.mean()) * math.sqrt(size)),
        stats.binomtest(len(outside), size, 2 * beyond).pvalue,
        stats.kstest(np.abs(outside), lambda x: 1 - stats.norm.sf(x) / beyond).pvalue,
    )


def test_the_test_of_the_tails_sees_tails_that_are_cut() -> None:
    numbers = draw(1 << 20, 1)
    assert normal(np.where(np.abs(numbers) > 3.7, 3.7, numbers)) < 1e-5
    narrow = stats.norm.ppf(np.clip(np.round(stats.norm.cdf(numbers) * 2**12) / 2**12, 2**-13, 1 - 2**-13))
    assert normal(narrow) < 1e-9


def correlated(numbers: NDArray[np.float64], lag: int) -> float:
    """The smallest p-value of the correlations of numbers, and of their squares, with those ``lag`` further on."""
    z = []
    for values in (numbers, np.square(numbers) - 1, np.abs(numbers) - math.sqrt(2 / math.pi)):
        products = values[:-lag] * values[lag:]
        z.append(products.mean() / (np.square(values).mean() / math.sqrt(len(products))))
    return 2 * float(stats.norm.sf(max(map(abs, z))))


LAGS = (1, 2, PIECE // 2 - 1, PIECE // 2, PIECE - 1, PIECE, 2 * PIECE)  # within a pair, a piece, and across pieces


def test_numbers_are_independent_within_pairs_and_across_pieces() -> None:
    numbers = draw(4 * PIECE, 2)
    assert all(correlated(numbers, lag) > RARE / len(LAGS) for lag in LAGS)
    repeated = np.concatenate([numbers[:PIECE], numbers[:PIECE], numbers[2 * PIECE :]])
    assert correlated(repeated, PIECE) < 1e-9
    same_radius = numbers.copy()
    same_radius[PIECE // 2 : PIECE] = np.sign(same_radius[PIECE // 2 : PIECE]) * np.abs(numbers[: PIECE // 2])
    assert correlated(same_radius, PIECE // 2) < 1e-9


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_changes_nothing(dtype: torch.dtype) -> None:
    made = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        made.append(draw(5 * PIECE + 3, 3, 2.0, dtype))
    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[0], made[2])


@pytest.mark.usefixtures("threads")
def test_nothing_is_drawn_twice_by_threads_pieces_or_calls() -> None:
    """64-bit angles and radii: of 10^6 numbers no two are equal unless bytes were used twice."""
    torch.set_num_threads(2)
    noise = Noise(KeyStream.secret())
    made: list[torch.Tensor] = []

    def work() -> None:
        for size in (PIECE // 8, 2 * PIECE + 1, 1, PIECE):
            out = torch.empty(size, dtype=torch.float64)
            noise.normal_(out, 1.0)
            made.append(out)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    numbers = torch.cat(made).abs()
    assert len(numbers) == 4 * (PIECE // 8 + 3 * PIECE + 2)
    assert len(numbers.unique()) == len(numbers)


@pytest.mark.parametrize("size", [0, 1, 2, 3, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 1])
def test_every_number_is_overwritten_and_no_other(size: int) -> None:
    around = torch.full((size + 2,), math.nan)
    Noise(KeyStream.seeded(4, "noise")).normal_(around[1:-1], 1.0)
    assert around[1:-1].isfinite().all()
    assert around[[0, -1]].isnan().all()


def test_calls_go_on_along_the_stream() -> None:
    noise = Noise(KeyStream.seeded(5, "noise"))
    one, two = torch.empty(8), torch.empty(8)
    noise.normal_(one, 1.0)
    noise.normal_(two, 1.0)
    assert not torch.isin(one, two).any()


def test_single_numbers_are_normal() -> None:
    noise = Noise(KeyStream.seeded(6, "noise"))
    numbers = np.array([noise.draw(3.0) for _ in range(3000)])
    assert stats.kstest(numbers / 3, stats.norm.cdf).pvalue > RARE
    for scale in WRONG[:2]:
        assert stats.kstest(scale * numbers / 3, stats.norm.cdf).pvalue < 1e-9


def test_no_noise_is_for_seeded_streams_alone() -> None:
    out = torch.ones(5)
    Noise(KeyStream.seeded(7, "noise")).normal_(out, 0.0)
    assert torch.equal(out, torch.zeros(5))
    assert Noise(KeyStream.seeded(7, "noise")).draw(0.0) == 0.0
    out = torch.ones(5)
    with pytest.raises(ArgumentError, match="not private"):
        Noise(KeyStream.secret()).normal_(out, 0.0)
    with pytest.raises(ArgumentError, match="std"):
        Noise(KeyStream.secret()).draw(0.0)
    assert torch.equal(out, torch.ones(5))


@pytest.mark.parametrize("std", [-1.0, math.nan, math.inf, -0.5, True, "1", None, 1e-35, 1e38])
def test_a_scale_that_makes_no_normal_numbers_is_refused(std: float) -> None:
    out = torch.ones(5)
    with pytest.raises(ArgumentError, match=r"std = .* from 2\.0e-31 to 2\.1e\+37"):
        Noise(KeyStream.seeded(8, "noise")).normal_(out, std)
    assert torch.equal(out, torch.ones(5))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_smallest_and_largest_scales_give_finite_normal_numbers(dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    for std in (limits.tiny * 2.0**24, limits.max / 16):
        assert normal(draw(1 << 18, 9, std, dtype) / std) > RARE
        out = torch.empty(1, dtype=dtype)
        Noise(Given(bytes(8 + limits.bits // 8))).normal_(out, std)  # type: ignore[arg-type]
        assert 9.4 < out.item() / std < 9.5


@pytest.mark.parametrize(
    "out",
    [torch.empty(4, dtype=torch.float16), torch.empty(4, dtype=torch.int64), torch.empty(2, 2), torch.empty(8)[::2]],
)
def test_other_tensors_are_refused(out: torch.Tensor) -> None:
    with pytest.raises(ArgumentError, match="out"):
        Noise(KeyStream.secret()).normal_(out, 1.0)


@pytest.mark.gpu
def test_noise_on_a_device_is_the_noise_of_the_cpu() -> None:
    there = torch.empty(1000, device="cuda")
    Noise(KeyStream.seeded(10, "noise")).normal_(there, 1.0)
    assert np.array_equal(there.double().cpu().numpy(), draw(1000, 10, dtype=torch.float32))


@pytest.mark.usefixtures("threads")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_makes_noise_of_its_own_on_threads_of_its_own() -> None:
    torch.set_num_threads(2)
    noise = Noise(KeyStream.secret())

    def make() -> bytes:
        out = torch.from_numpy(np.full(3 * PIECE, math.nan, np.float32))  # PyTorch's own threads hang after a fork
        noise.normal_(out, 1.0)
        return out[-1000:].numpy().tobytes()

    said = [make(), forked(make), forked(make), make()]
    numbers = np.concatenate([np.frombuffer(part, np.float32) for part in said])
    assert len(numbers) == 4000
    assert np.isfinite(numbers).all()
    assert all(abs(np.corrcoef(numbers.reshape(4, -1))[row, other]) < 0.2 for row in range(4) for other in range(row))


@pytest.mark.usefixtures("threads")
def test_a_failure_on_one_thread_is_raised_once_all_have_stopped() -> None:
    torch.set_num_threads(2)
    running, finished = threading.Event(), []

    def slow() -> None:
        running.set()
        time.sleep(0.2)
        finished.append(True)

    def fails() -> None:
        running.wait(10)
        raise ZeroDivisionError

    for tasks in ([slow, fails], [fails, slow]):
        running.clear()
        with pytest.raises(ZeroDivisionError):
            module._together(tasks)
    assert len(finished) == 2
