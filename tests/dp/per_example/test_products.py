"""Large products of float32 are convolutions with a kernel of one place; they give what products give."""

from collections.abc import Iterator

import pytest
import torch
from tests.dp.per_example.laws import law_agrees, law_norms_bound_the_sum
from tests.dp.per_example.layers import LAYERS, Layer

from privet.dp.per_example import kernels


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


@pytest.fixture
def convolved(monkeypatch) -> list[int]:
    """The rows of each product that was a convolution."""
    seen: list[int] = []
    real = kernels._image

    def image(rows):
        seen.append(len(rows))
        return real(rows)

    monkeypatch.setattr(kernels, "_image", image)
    return seen


@pytest.fixture(autouse=True, params=[1, 2], ids=["one thread", "two threads"])
def threads(request) -> Iterator[None]:
    """With one there are several images."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def always(monkeypatch) -> None:
    for name in ("_PLACES", "_PLACES_TURNED", "_PRODUCTS"):
        monkeypatch.setattr(kernels, name, 1)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("shape", [(1024, 64, 64), (4096, 1, 1024), (4096, 1024, 1), (2000, 70, 33)])
def test_a_product(shape, biased, convolved):
    n, p, q = shape
    rows, bias = numbers(n, q), numbers(p) if biased else None
    for weight in (numbers(p, q), numbers(q, p).t()):
        exact = rows.double() @ weight.double().t() + (0.0 if bias is None else bias.double())
        found = kernels.product(rows, weight, bias)
        assert found.is_contiguous()
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)
    assert convolved == [n, n]


@pytest.mark.parametrize("first", ["examples", "positions"])
@pytest.mark.parametrize("shape", [(16, 64, 64, 64), (4, 1024, 1, 1024), (1024, 1, 70, 90), (50, 40, 33, 70)])
def test_a_weighted_sum(shape, first, convolved):
    b, t, p, q = shape
    left, right, weights = numbers(b, t, p), numbers(b, t, q), torch.rand(b)
    exact = 1.0 + torch.einsum("b,btp,btq->pq", weights.double(), left.double(), right.double())
    if first == "positions":
        left, right = (one.transpose(0, 1).contiguous().transpose(0, 1) for one in (left, right))
    found = torch.ones(p, q)
    kernels.add_weighted_outer(found, left, right, weights)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-3)
    assert convolved == [b * t, b * t]


def test_rows_that_are_columns_of_others(convolved):
    both = numbers(2048, 160)
    weight = numbers(40, 60)
    found = kernels.product(both[:, 100:], weight)
    torch.testing.assert_close(found, both[:, 100:] @ weight.t(), rtol=1e-5, atol=1e-4)
    assert convolved == [2048]


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(numbers(255, 128), 129), (numbers(1024, 63), 64), (numbers(4096, 64, dtype=torch.float64), 64)],
    ids=["few rows", "a small one", "float64"],
)
def test_what_stays_a_product(rows, columns, convolved):
    weight = numbers(columns, rows.shape[1], dtype=rows.dtype)
    torch.testing.assert_close(kernels.product(rows, weight), rows @ weight.t())
    assert convolved == []


@pytest.mark.parametrize("layer", LAYERS, ids=lambda one: one.name)
def test_the_table_by_convolutions(layer: Layer, always, convolved):
    law_agrees(layer.behind(torch.float32), groups=1)
    law_agrees(layer.behind(torch.float32), groups=3)
    law_norms_bound_the_sum(layer.behind(torch.float32))
    assert convolved
