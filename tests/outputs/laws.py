"""What every defense must obey, as functions of a constructor that wraps a network.

Each law raises AssertionError when it is broken. ``make`` wraps a network in evaluation mode; the networks are
identities, so that a defense is compared on exactly known logits with a twin in float64 NumPy that shares no code with
it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from privet.errors import NonFiniteOutputError

Make = Callable[[nn.Module], Any]
Call = Callable[[Tensor], Any]

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def identity() -> nn.Module:
    return nn.Identity().eval()


@dataclass(frozen=True)
class Expected:
    """What a chain of defenses should answer: softmax or not, then roundings, then top-k or labels."""

    softmax: bool = True
    decimals: int | None = None
    k: int | None = None
    labels: bool = False

    def of(self, logits: Tensor) -> tuple[np.ndarray, ...]:
        """The answers of the twin, float64; values have gone through the network's own type."""
        x = logits.to(torch.float64).numpy()
        if self.softmax:
            e = np.exp(x - x.max(axis=-1, keepdims=True))
            x = e / e.sum(axis=-1, keepdims=True)
        if self.decimals is not None:
            x = half_even(x, self.decimals)
        x = torch.from_numpy(x).to(logits.dtype).to(torch.float64).numpy()
        order = np.argsort(-x, axis=-1, kind="stable")
        if self.labels:
            return (order[..., 0],)
        if self.k is not None:
            order = order[..., : self.k]
            return np.take_along_axis(x, order, axis=-1), order
        return (x,)


def half_even(x: np.ndarray, decimals: int) -> np.ndarray:
    """Rounds by comparing the fraction with one half, not by any rounding function."""
    scaled = x * 10.0**decimals
    below = np.floor(scaled)
    fraction = scaled - below
    up = (fraction > 0.5) | ((fraction == 0.5) & (below % 2 == 1))
    result = (below + up) / 10.0**decimals
    return np.where(np.abs(x) < 2.0**53, result, x)


def undecided(x: Tensor, decimals: int) -> bool:
    """Whether some softmax lies so close to a rounding boundary that float64 itself does not decide it."""
    p = torch.softmax(x.double(), -1).numpy() * 10.0**decimals
    return bool((np.abs(p - np.floor(p) - 0.5) < 1e-14 * 10.0**decimals).any())


def parts(answer: Any) -> tuple[Tensor, ...]:
    return tuple(answer) if isinstance(answer, tuple) else (answer,)


def law_exact(call: Call, logits: Tensor, expected: Expected) -> None:
    """The answer is that of the twin: integers exactly, values to the last place (float64: four) of their type."""
    got = parts(call(logits))
    wanted = expected.of(logits)
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert tuple(one.shape) == other.shape
        if one.is_floating_point():
            assert one.dtype == logits.dtype
            places = 8 * torch.finfo(torch.float64).eps if logits.dtype == torch.float64 else 0.0
            np.testing.assert_allclose(one.to(torch.float64).numpy(), other, rtol=places, atol=0)
        else:
            assert one.dtype == torch.int64
            np.testing.assert_array_equal(one.numpy(), other)


def law_row_by_row(call: Call, logits: Tensor) -> None:
    """A batch is answered as its rows are, each alone."""
    together = parts(call(logits))
    alone = [parts(call(row.unsqueeze(0))) for row in logits]
    for place, one in enumerate(together):
        assert one.shape[:1] == logits.shape[:1]
        assert torch.equal(one, torch.cat([answer[place] for answer in alone]))


def law_detached(make: Make) -> None:
    """No answer has a gradient, though the parameters and the input have one, and kept parts neither."""
    network = nn.Linear(4, 5).eval()
    x = torch.ones(2, 4, requires_grad=True)
    for one in parts(make(network)(x)):
        assert not one.requires_grad
        assert one.grad_fn is None
    for one in parts(make(identity())(x)):
        assert not one.requires_grad


def law_owns_its_storage(call: Call, logits: Tensor) -> None:
    """No answer is a view: its storage holds the answer and not a byte more, and is not the network's output."""
    for one in parts(call(logits)):
        assert one.untyped_storage().nbytes() == one.numel() * one.element_size()
        assert one.numel() == 0 or one.untyped_storage().data_ptr() != logits.untyped_storage().data_ptr()


def law_not_finite(make: Make) -> None:
    """NaN and either infinity in any one row are refused in eager mode."""
    for bad in (float("nan"), float("inf"), float("-inf")):
        for dtype in DTYPES:
            logits = torch.zeros(3, 4, dtype=dtype)
            logits[1, 2] = bad
            try:
                make(identity())(logits)
            except NonFiniteOutputError:
                continue
            raise AssertionError(f"{bad} in {dtype} passed")


class WithHidden(nn.Module):
    """Answers logits next to what must not get out."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"hidden": x * 7, "logits": x}


def law_nothing_else(make_of_part: Callable[[nn.Module, str], Any], plain: Make) -> None:
    """Of an output with several parts only the defended one gets out, in no other shape than alone."""
    x = torch.tensor([[0.5, 0.25, 2.0], [1.0, 3.0, 3.0]])
    got = make_of_part(WithHidden().eval(), "logits")(x)
    wanted = plain(identity())(x)
    assert type(got) is type(wanted)
    assert len(parts(got)) == len(parts(wanted))
    assert all(torch.equal(one, other) for one, other in zip(parts(got), parts(wanted), strict=True))


def tied(seed: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Logits of few distinct values, so that most are tied."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, shape, generator=generator).to(dtype)


@st.composite
def logits(draw: st.DrawFn, most_rows: int = 5, most_classes: int = 40) -> Tensor:
    """Scores of any leading shape and type: spread out, tied, or on rounding boundaries."""
    leading = draw(st.lists(st.integers(1, most_rows), max_size=3))
    classes = draw(st.integers(1, most_classes))
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shape = (*leading, classes)
    match draw(st.sampled_from(("spread", "tied", "halves", "large"))):
        case "spread":
            return torch.randn(shape, generator=generator, dtype=torch.float64).mul(4).to(dtype)
        case "tied":
            return torch.randint(-2, 3, shape, generator=generator).to(dtype)
        case "halves":  # multiples of 1/8: x.125 and x.375 lie between two hundredths
            return torch.randint(-80, 80, shape, generator=generator).to(torch.float64).div(8).to(dtype)
        case _:
            exponent = draw(st.integers(0, 14 if dtype == torch.float16 else 120))
            return (
                torch.randn(shape, generator=generator, dtype=torch.float64)
                .clamp(-1.9, 1.9)
                .mul(2.0**exponent)
                .to(dtype)
            )
