"""A norm from Gram matrices is never told smaller than it is, however the positions cancel."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from privet.dp.per_example import kernels
from privet.dp.per_example.engine import Engine
from privet.dp.per_example.use import Room

UNDERSTATED = 1e-4  # relative, of the norm; what the rounding of float32 costs anyway
OVERSTATED = 1e-2


def cancelling(seed: int, pairs: int, p: int, q: int, rest: float, alike: bool) -> tuple[Tensor, Tensor]:
    """Positions that come in pairs whose gradients cancel but for a relative ``rest``; all numbers alike, or random."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        if alike:
            return torch.full(shape, 0.1 + torch.rand((), generator=generator).item())
        return torch.randn(shape, generator=generator)

    left, right = numbers(1, pairs, p), numbers(1, pairs, q)
    other = left * (rest * torch.randn(1, pairs, p, generator=generator) - 1.0)
    return torch.cat([left, other], 1), torch.cat([right, right], 1)


def law_never_understates(left: Tensor, right: Tensor) -> None:
    told = kernels.ghost_squared_norms(left, [right])[0]
    exact = torch.bmm(left.double().mT, right.double()).flatten(1).norm(dim=1)
    rounding = (
        1e-6 * left.shape[1] ** 0.5 * (left.double().norm(dim=2) * right.double().norm(dim=2)).sum(dim=1)
    )  # of float32 itself
    for index, norm in enumerate(exact.tolist()):
        one = told[index].sqrt().item()
        assert one >= norm * (1.0 - UNDERSTATED), f"the norm is {norm}, it was told as {one}"
        assert one <= norm * (1.0 + OVERSTATED) + rounding[index].item(), f"the norm is {norm}, it was told as {one}"
        for least in (1 << 60, 1):  # as a product, and as a convolution
            added = left.new_zeros(left.shape[2], right.shape[2])
            alone = left[index, None], right[index, None]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(kernels, "_PLACES_TURNED", least)
                patch.setattr(kernels, "_PRODUCTS", least)
                kernels.add_weighted_outer(added, *alone, torch.ones(1))
            norm = added.double().norm().item()
            assert one >= norm * (1.0 - UNDERSTATED), f"what is added has norm {norm}, it was told as {one}"


def law_crossed_never_understates(left: Tensor, right: Tensor) -> None:
    """The same, its positions in two factors; where it does not tell, the gradient is made."""
    lefts, rights = (list(values.split((left.shape[1] + 1) // 2, dim=1)) for values in (left, right))
    told, doubtful = kernels.crossed_squared_norms(lefts, rights)
    exact = torch.bmm(left.double().mT, right.double()).flatten(1).norm(dim=1)
    rounding = 1e-6 * left.shape[1] ** 0.5 * (left.double().norm(dim=2) * right.double().norm(dim=2)).sum(dim=1)
    for index in (~doubtful).nonzero().flatten().tolist():
        one, norm = told[index].sqrt().item(), exact[index].item()
        assert one >= norm * (1.0 - UNDERSTATED), f"the norm is {norm}, it was told as {one}"
        assert one <= norm * (1.0 + OVERSTATED) + rounding[index].item(), f"the norm is {norm}, it was told as {one}"


def test_words_are_vectors_with_a_one():
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(0, 5, (3, 4), generator=generator), torch.randint(0, 5, (3, 2), generator=generator)
    dense = torch.randn(3, 6, 5, generator=generator, dtype=torch.float64)
    rights = [torch.randn(3, size, 7, generator=generator, dtype=torch.float64) for size in (4, 6, 2)]
    told, doubtful = kernels.crossed_squared_norms([words[0], dense, words[1]], rights)
    hot = [torch.nn.functional.one_hot(one, 5).double() for one in words]
    made = torch.cat([hot[0], dense, hot[1]], 1).mT @ torch.cat(rights, 1)
    torch.testing.assert_close(told, made.flatten(1).square().sum(dim=1), rtol=1e-12, atol=0.0)
    assert not bool(doubtful.any())


def law_plain_norm(row: Tensor) -> None:
    told = kernels.squared_norms(row).sqrt().item()
    norm = row.double().norm().item()
    assert abs(told - norm) <= UNDERSTATED * norm, f"the norm is {norm}, it was told as {told}"


@settings(max_examples=300)
@given(
    seed=st.integers(0, 10_000),
    pairs=st.sampled_from([1, 2, 5, 18, 40, 150]),
    p=st.sampled_from([1, 2, 7, 64, 300, 1000]),
    q=st.sampled_from([1, 3, 16, 128, 2000]),
    rest=st.floats(-8.0, 0.0).map(lambda exponent: 10.0**exponent),
    alike=st.booleans(),
)
@example(seed=0, pairs=1, p=1, q=1, rest=0.0, alike=True)
@example(seed=0, pairs=40, p=300, q=2000, rest=1e-3, alike=True)
@example(seed=0, pairs=40, p=300, q=2000, rest=1e-2, alike=True)
@example(seed=7828, pairs=5, p=1000, q=16, rest=0.01912167, alike=True)
@example(seed=351, pairs=2, p=1000, q=2000, rest=0.01675564, alike=True)
@example(seed=3, pairs=20, p=64, q=128, rest=1e-4, alike=False)
def test_never_understates(seed, pairs, p, q, rest, alike):
    law_never_understates(*cancelling(seed, pairs, p, q, rest, alike))
    law_crossed_never_understates(*cancelling(seed, pairs, p, q, rest, alike))


@pytest.mark.parametrize("scale", [1e-15, 1e-8, 1.0, 1e8, 1e15])
def test_whatever_the_scale(scale):
    left, right = cancelling(5, 6, 20, 30, 1e-2, False)
    law_never_understates(left * scale, right)
    law_never_understates(left, right * scale)
    law_never_understates(left * scale, right / scale)


def test_each_example_is_looked_at_on_its_own(monkeypatch):
    """Some cancel and some do not; only the doubtful ones are made."""
    hard = cancelling(1, 8, 30, 20, 1e-4, False)
    generator = torch.Generator().manual_seed(2)
    easy = torch.randn(1, 16, 30, generator=generator), torch.randn(1, 16, 20, generator=generator)
    left, right = (torch.cat([easy[side], hard[side], easy[side], hard[side]]) for side in (0, 1))
    made = []
    real = kernels.outer

    def outer(one, other, out=None):
        made.append(len(one))
        return real(one, other, out)

    monkeypatch.setattr(kernels, "outer", outer)
    law_never_understates(left, right)
    assert sum(made) == 2


def test_in_float64_nothing_is_made_and_nothing_is_added():
    generator = torch.Generator().manual_seed(4)
    left = torch.randn(3, 9, 5, generator=generator, dtype=torch.float64)
    right = torch.randn(3, 9, 4, generator=generator, dtype=torch.float64)
    exact = torch.bmm(left.mT, right).flatten(1).square().sum(dim=1)
    torch.testing.assert_close(kernels.ghost_squared_norms(left, [right])[0], exact, rtol=1e-13, atol=0.0)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    size=st.sampled_from([1, 5, 1000, 70_000, 2_000_000]),
    alike=st.booleans(),
)
def test_a_plain_norm_is_not_understated_either(seed, size, alike):
    """Summing many squares of float32 one after the other would lose up to a percent."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.rand(1, 1 if alike else size, generator=generator).expand(1, size).contiguous()
    law_plain_norm(row)


@pytest.mark.parametrize("scale", [1e-25, 1e-22, 1e-19, 1.0])
def test_a_small_factor_may_meet_a_large_one(scale):
    """Squares of the small one get lost in float32; the gradient does not."""
    generator = torch.Generator().manual_seed(6)
    left, right = (torch.randn(4, 5, 6, generator=generator) for _ in range(2))
    left, right = left * scale, right * 1e17
    for one, other in ((left, right), (right, left)):
        norms = torch.bmm(one.double().mT, other.double()).flatten(1).norm(dim=1)
        ghost = kernels.ghost_squared_norms(one, [other])[0].sqrt()
        assert bool((ghost >= norms * (1.0 - UNDERSTATED) - 1e-14).all())
        single = kernels.outer_squared_norms(one[:, 0], other[:, 0]).sqrt()
        torch.testing.assert_close(single, one[:, 0].double().norm(dim=1) * other[:, 0].double().norm(dim=1))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_told(value):
    left, right = torch.ones(3, 4, 5), torch.ones(3, 4, 6)
    left[1, 2, 3] = value
    told = kernels.ghost_squared_norms(left, [right])[0].isfinite()
    assert told.tolist() == [True, False, True]
    assert kernels.squared_norms(left.flatten(1)).isfinite().tolist() == [True, False, True]


@pytest.mark.parametrize("kind", ["linear", "embedding", "conv", "twice"])
def test_what_is_made_twice_is_told_at_its_longest(kind, monkeypatch):
    """Sums over many positions, made once for the norm and once for the sum, in other orders."""
    monkeypatch.setattr(Room, "keep", lambda self, *shape: None)
    positions = 1 << 17
    torch.manual_seed(0)
    inputs = torch.full((2, positions, 5), 0.37)
    if kind == "embedding":
        model: nn.Module = nn.Embedding(3, 4)
        inputs = torch.ones(2, positions, dtype=torch.int64)
    elif kind == "conv":
        model, inputs = nn.Conv1d(16, 16, 3, bias=False), torch.full((2, 16, positions), 0.37)
    else:
        layer = nn.Linear(5, 5, bias=False)
        model = nn.Sequential(layer, layer) if kind == "twice" else layer
    engine = Engine(model)
    gradients = engine.take(lambda data: model(data).flatten(1).sum(1) * 0.1, inputs, 2)
    for row in range(2):
        flat, weights = engine.flat(), torch.zeros(1, 2, dtype=torch.float64)
        weights[0, row] = 0.73
        gradients.add_to(flat, weights)
        told = gradients.squared_norms[0, row].sqrt().item()
        assert flat.double().norm().item() / 0.73 <= told * (1.0 + 1e-5)


def test_two_uses_of_a_table_of_single_numbers_make_no_gram_matrix(monkeypatch):
    seen = []
    real = kernels.crossed_squared_norms
    monkeypatch.setattr(kernels, "crossed_squared_norms", lambda *given: seen.append(given) or real(*given))
    layer = nn.Linear(1, 4)
    Engine(layer).take(lambda data: layer(layer(data)[..., :1]).flatten(1).sum(1), torch.ones(2, 3000, 1), 2)
    assert all(right.shape[1] == 1 for _, rights in seen for right in rights)
