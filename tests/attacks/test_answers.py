"""The target is asked once; its confidence in a record's label is taken as log-odds that keep their precision."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from privet import outputs
from privet.attacks import Target
from privet.attacks.membership import Answers, Pool, answers_of, scaled_confidence
from privet.errors import ArgumentError, DataError, LabelError
from privet.output_form import OutputForm


def pool_of(logits: torch.Tensor, labels: torch.Tensor, members: int, classes: int) -> Pool:
    return Pool.of((logits[:members], labels[:members]), (logits[members:], labels[members:]), classes)


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return torch.log_softmax(torch.from_numpy(logits), -1).numpy()


@given(st.lists(st.floats(-300, 300), min_size=2, max_size=6), st.data())
def test_scaled_confidence_is_the_log_odds_of_the_own_label(logits: list[float], data: st.DataObject) -> None:
    label = data.draw(st.integers(0, len(logits) - 1))
    with mpmath.workdps(400):
        others = mpmath.fsum(mpmath.exp(z) for c, z in enumerate(logits) if c != label)
        expected = float(logits[label] - mpmath.log(others))
    found = scaled_confidence(log_softmax(np.array([logits])), np.array([label]))[0]
    assert found == pytest.approx(expected, abs=1e-9)


def test_confidences_beyond_the_spacing_of_float64_are_told_apart() -> None:
    sure = log_softmax(np.array([[60.0, 0.0, 0.0], [61.0, 0.0, 0.0]]))
    assert sure[0, 0] == sure[1, 0]  # the probability alone cannot
    assert np.diff(scaled_confidence(sure, np.array([0, 0])))[0] == pytest.approx(1.0)


@pytest.mark.parametrize("decimals", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("k", [None, 3])
def test_a_rounded_confidence_stays_in_its_cell(decimals: int, k: int | None) -> None:
    generator = torch.Generator().manual_seed(decimals)
    logits = 4.0 * torch.randn(400, 8, generator=generator)
    labels = logits.argmax(1)
    network = torch.nn.Identity().eval()
    rounded = outputs.Rounding(network, decimals)
    defense = rounded if k is None else outputs.TopK(rounded, k)
    answers = answers_of(Target(defense, 8, defense.output_form), pool_of(logits, labels, 200, 8))
    answered = rounded(logits).gather(1, labels[:, None])[:, 0].double().numpy()
    odds = answers.scaled_confidence()
    found = 1.0 / (1.0 + np.exp(-odds))
    assert np.abs(found - answered).max() < 0.5 * 10.0**-decimals
    assert np.isfinite(odds).all()


def test_more_decimals_than_float32_has_round_nothing() -> None:
    logits = torch.tensor([[30.0, 0.0, 0.0], [20.0, 0.0, 0.0]])
    logs = log_softmax(logits.double().numpy())
    labels = np.array([0, 0])
    form = OutputForm(decimals=12, probabilities=True)
    assert np.array_equal(scaled_confidence(logs, labels, form), scaled_confidence(logs, labels))


def test_the_target_is_asked_about_every_record_once() -> None:
    asked = []

    def query(inputs: torch.Tensor) -> torch.Tensor:
        asked.extend(inputs[:, 0].tolist())
        return inputs

    logits = torch.arange(21.0).reshape(7, 3)
    labels = torch.arange(7) % 3
    pool = pool_of(logits, labels, 4, 3)
    answers = answers_of(Target(query, 3, batch_size=2), pool)
    assert asked == logits[:, 0].tolist()
    assert torch.allclose(torch.from_numpy(answers.log_probabilities), torch.log_softmax(logits.double(), -1))
    assert answers.members == 4
    assert answers.labels.tolist() == labels.tolist()
    assert answers.is_member.tolist() == pool.is_member.tolist()
    assert answers.copies is not None
    assert len(set(answers.copies.tolist())) == 7


def test_what_does_not_fit_is_refused() -> None:
    pool = pool_of(torch.arange(6.0).reshape(2, 3), torch.tensor([0, 1]), 1, 3)
    with pytest.raises(ArgumentError, match="3 classes"):
        answers_of(Target(torch.nn.Identity(), 4), pool)
    labels = np.array([0, 1])
    for logs, members in ((np.zeros(2), 1), (np.zeros((3, 2)), 1), (np.zeros((2, 2)), 2), (np.zeros((2, 2)), 0)):
        with pytest.raises(DataError, match="give"):
            Answers(logs, labels, members)
    with pytest.raises(DataError, match="NaN or infinite"):
        Answers(np.array([[0.0, -np.inf], [0.0, 0.0]]), labels, 1)


@pytest.mark.parametrize("labels", [np.array([0, 2]), np.array([-1, 0]), np.array([0.0, 1.0])])
def test_labels_that_are_no_classes_are_refused(labels: NDArray[np.int64]) -> None:
    with pytest.raises(LabelError, match=r"0 \.\.\. 1"):
        Answers(np.log([[0.8, 0.2], [0.5, 0.5]]), labels, members=1)
