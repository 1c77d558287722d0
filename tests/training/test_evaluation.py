"""Laws of evaluation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from privet.errors import ArgumentError, DataError, DivergedError, NonFiniteOutputError
from privet.models import LinearNet
from privet.outputs import Labeling, Rounding, TopK
from privet.training import evaluate, predict

MODEL = nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 4), nn.BatchNorm1d(4)).double()


@given(n=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 2**32))
def test_the_batch_size_does_not_matter_and_the_numbers_are_the_definitions(n: int, batch_size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (n,), generator=generator)
    MODEL.eval()
    with torch.no_grad():
        outputs = MODEL(inputs)
    MODEL.train()
    found = evaluate(MODEL, (inputs, labels), batch_size=batch_size)
    assert found.n == n
    assert found.accuracy == (outputs.argmax(1) == labels).sum().item() / n
    assert found.loss == pytest.approx(functional.cross_entropy(outputs, labels).item(), rel=1e-12)
    answered = predict(MODEL, inputs, batch_size)
    torch.testing.assert_close(answered, outputs, rtol=1e-12, atol=1e-12)
    assert not answered.requires_grad
    assert MODEL.training
    assert all(part.training for part in MODEL)


def test_the_mode_is_put_back_after_an_error() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Linear(5, 4))
    with pytest.raises(RuntimeError):
        predict(model, torch.zeros(2, 6))
    assert model.training
    assert model[0].training


def test_no_inputs_no_answers() -> None:
    assert predict(nn.Linear(5, 4), torch.zeros(0, 5)).shape == (0, 4)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True])
def test_batch_sizes_are_checked(batch_size: int) -> None:
    with pytest.raises(ArgumentError, match="batch_size"):
        predict(nn.Linear(5, 4), torch.zeros(2, 5), batch_size)
    with pytest.raises(ArgumentError, match="batch_size"):
        evaluate(nn.Linear(5, 4), (torch.zeros(2, 5), torch.tensor([0, 1])), batch_size=batch_size)


INPUTS, LABELS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0, 1])


def test_a_defended_network_is_evaluated_as_it_is_served() -> None:
    model = LinearNet(5, 4, seed=1).eval()
    served = Rounding(model, 2)
    expected = served(INPUTS)
    torch.testing.assert_close(predict(served, INPUTS, 4), expected, rtol=0, atol=0)
    found = evaluate(served, (INPUTS, LABELS), batch_size=4)
    assert found.accuracy == (expected.argmax(1) == LABELS).sum().item() / 6
    assert not served.training


@pytest.mark.parametrize("defend", [Labeling, lambda net: TopK(net, 2)])
def test_answers_without_a_score_for_each_class_are_one_clear_error(defend: Callable[[nn.Module], nn.Module]) -> None:
    model = LinearNet(5, 4, seed=1).eval()
    with pytest.raises(DataError, match=r"one score for each class.*origin_network"):
        evaluate(defend(model), (INPUTS, LABELS))


def test_predict_gives_one_tensor_or_says_why_not() -> None:
    model = LinearNet(5, 4, seed=1).eval()
    assert predict(Labeling(model), INPUTS, 4).shape == (6,)
    with pytest.raises(DataError, match="one tensor"):
        predict(TopK(model, 2), INPUTS)
    with pytest.raises(ArgumentError, match=r"inputs = 'ndarray' .* torch.from_numpy"):
        predict(model, INPUTS.numpy())  # type: ignore[arg-type]


class At(nn.Module):
    """Answers ``value`` to the example whose first number is 99."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.where(inputs[:, :1] != 99, self.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_answers_that_are_not_finite_have_no_accuracy(value: float) -> None:
    inputs = INPUTS.clone()
    inputs[4, 0] = 99
    with pytest.raises(DivergedError, match="NaN or infinity to the example at index 4"):
        evaluate(At(value), (inputs, LABELS), batch_size=3)
    with pytest.raises(NonFiniteOutputError):
        evaluate(Rounding(At(value).eval(), 2), (inputs, LABELS), batch_size=3)


def test_a_loss_that_is_not_finite_is_no_evaluation() -> None:
    with pytest.raises(DivergedError, match="loss is nan"):
        evaluate(nn.Identity(), (INPUTS, LABELS), loss=lambda outputs, labels: outputs.mean() * float("nan"))
