"""Every defense obeys the laws: it is what its float64 twin says, row by row, detached, and nothing besides."""

import io

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.outputs import laws
from tests.outputs.laws import Expected

from privet import outputs

DIGITS = {torch.float16: 3, torch.bfloat16: 2, torch.float32: 6, torch.float64: 12}

ALL = {
    "rounding": (lambda network, **part: outputs.Rounding(network, 2, **part), Expected(decimals=2)),
    "raw rounding": (
        lambda network, **part: outputs.Rounding(network, 1, softmax=False, **part),
        Expected(softmax=False, decimals=1),
    ),
    "labeling": (outputs.Labeling, Expected(labels=True, softmax=False)),
    "top-k": (lambda network, **part: outputs.TopK(network, 3, **part), Expected(k=3)),
    "raw top-k": (
        lambda network, **part: outputs.TopK(network, 3, softmax=False, **part),
        Expected(softmax=False, k=3),
    ),
    "top-k of rounding": (
        lambda network, **part: outputs.TopK(outputs.Rounding(network, 1, **part), 3),
        Expected(decimals=1, k=3),
    ),
    "rounding of top-k": (
        lambda network, **part: outputs.Rounding(outputs.TopK(network, 3, **part), 1),
        Expected(decimals=1, k=3),
    ),
    "label of top-k of rounding": (
        lambda network, **part: outputs.Labeling(outputs.TopK(outputs.Rounding(network, 1, **part), 2)),
        Expected(decimals=1, labels=True),
    ),
}
every = pytest.mark.parametrize(("make", "expected"), ALL.values(), ids=ALL)


@given(x=laws.logits(), decimals=st.integers(0, 12), softmax=st.booleans())
def test_rounding_is_exact(x, decimals, softmax):
    decimals = min(decimals, DIGITS[x.dtype])
    assume(not (softmax and laws.undecided(x, decimals)))
    defended = outputs.Rounding(laws.identity(), decimals, softmax=softmax)
    laws.law_exact(defended, x, Expected(softmax=softmax, decimals=decimals))


@given(x=laws.logits())
def test_labeling_is_exact(x):
    laws.law_exact(outputs.Labeling(laws.identity()), x, Expected(labels=True, softmax=False))


@given(x=laws.logits(), k=st.integers(1, 40), softmax=st.booleans())
def test_top_k_is_exact(x, k, softmax):
    k = min(k, x.shape[-1])
    defended = outputs.TopK(laws.identity(), k, softmax=softmax)
    # In float64 the twin's own last place decides which of two nearly equal probabilities is higher.
    assume(not (softmax and x.dtype == torch.float64 and _nearly_tied(x)))
    laws.law_exact(defended, x, Expected(softmax=softmax, k=k))


@given(x=laws.logits(), k=st.integers(1, 40), decimals=st.integers(0, 2))
def test_compositions_are_exact(x, k, decimals):
    assume(not laws.undecided(x, decimals))
    k = min(k, x.shape[-1])
    rounded = outputs.Rounding(laws.identity(), decimals)
    laws.law_exact(outputs.TopK(rounded, k), x, Expected(decimals=decimals, k=k))
    laws.law_exact(outputs.Labeling(rounded), x, Expected(decimals=decimals, labels=True))
    turned = outputs.Rounding(outputs.TopK(laws.identity(), k), decimals)
    laws.law_exact(turned, x, Expected(decimals=decimals, k=k))


@given(x=laws.logits(), k=st.integers(1, 40), decimals=st.integers(0, 2), softmax=st.booleans())
def test_the_order_of_nesting_tells_nothing(x, k, decimals, softmax):
    """Forms that are equal let out the same, down to the classes of equal scores."""
    k = min(k, x.shape[-1])
    one = outputs.TopK(outputs.Rounding(laws.identity(), decimals, softmax=softmax), k)
    other = outputs.Rounding(outputs.TopK(laws.identity(), k, softmax=softmax), decimals)
    assert one.output_form == other.output_form
    for mine, theirs in zip(one(x), other(x), strict=True):
        assert torch.equal(mine, theirs)


@every
def test_a_large_batch_is_exact(make, expected):
    """So many values that some lie where float32 does not decide how they are rounded."""
    x = torch.randn(257, 1000, generator=torch.Generator().manual_seed(1)) * 3
    laws.law_exact(make(laws.identity()), x, expected)


@pytest.mark.parametrize("decimals", range(7))
@pytest.mark.parametrize("aside", [-1, 1], ids=["below", "above"])
def test_next_to_a_boundary_the_side_is_that_of_float64(decimals, aside):
    """Rows with a probability from a thousandth of itself to far less off a boundary."""
    boundary = (torch.randint(0, 10**decimals, (300,), generator=torch.Generator().manual_seed(6)) + 0.5).double()
    off = 10.0 ** -torch.linspace(3, 12, 300, dtype=torch.float64)
    p = boundary * (1 + aside * off) / 10**decimals
    x = torch.zeros(300, 1000)
    x[:, 0] = (p / (1 - p)).log() / 2
    x[:, 1] = -x[:, 0]
    x[:, 2:] = -100
    decided = torch.stack([row for row in x if not laws.undecided(row, decimals)])
    laws.law_exact(outputs.Rounding(laws.identity(), decimals), decided, Expected(decimals=decimals))


@every
def test_ties_are_broken_by_the_lowest_class(make, expected):
    laws.law_exact(make(laws.identity()), laws.tied(2, (64, 500)), expected)


@every
@pytest.mark.parametrize("dtype", laws.DTYPES, ids=str)
def test_row_by_row(make, expected, dtype):
    laws.law_row_by_row(make(laws.identity()), laws.tied(3, (6, 9), dtype))


@every
def test_detached(make, expected):
    laws.law_detached(make)


@every
@pytest.mark.parametrize("dtype", laws.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(4, 9), (1, 9), (9,), (2, 3, 9), (0, 9), (4, 3)], ids=str)
def test_an_answer_is_all_that_its_storage_holds(make, expected, dtype, shape):
    x = laws.tied(4, shape, dtype)
    laws.law_owns_its_storage(make(laws.identity()), x)
    laws.law_owns_its_storage(make(laws.identity()), x.mT if x.ndim > 1 and x.shape[-2] >= 3 else x)


@every
def test_what_is_saved_is_the_answer_alone(make, expected):
    answers = laws.parts(make(laws.identity())(laws.tied(5, (2, 5000))))
    for one in answers:
        file = io.BytesIO()
        torch.save(one, file)
        assert len(file.getvalue()) < one.numel() * one.element_size() + 4000


@every
def test_not_finite(make, expected):
    laws.law_not_finite(make)


@every
def test_nothing_else_gets_out(make, expected):
    def of_part(network, name):
        return make(network, part=name)

    laws.law_nothing_else(of_part, make)


@every
def test_an_empty_batch_is_answered(make, expected):
    for one in laws.parts(make(laws.identity())(torch.zeros(0, 5))):
        assert len(one) == 0


def test_256_rows_are_256_labels():
    assert outputs.Labeling(laws.identity())(torch.randn(256, 10)).shape == (256,)


def test_a_rounded_score_does_not_tell_the_sign_of_what_was_rounded_away():
    answer = outputs.Rounding(laws.identity(), 1, softmax=False)(torch.tensor([[-0.01, 0.01]]))
    assert not torch.signbit(answer).any()


def test_a_finite_answer_whose_sum_overflows_is_finite():
    x = torch.full((2, 8), torch.finfo(torch.float32).max)
    assert outputs.Labeling(laws.identity())(x).tolist() == [0, 0]


def _nearly_tied(x):
    p = torch.softmax(x, -1).sort(-1).values
    gap = p[..., 1:] - p[..., :-1]
    return bool((gap < 1e-14 * p[..., 1:]).any())
