"""Laws of evaluation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from privet.errors import ArgumentError
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
