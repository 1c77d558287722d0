"""The threshold attacks: their scores, a planted leak that is found, a null in which nothing is."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from privet import outputs
from privet.attacks import Target
from privet.attacks.membership import Answers, Pool, answers_of, loss_threshold, threshold_attacks
from privet.attacks.membership.threshold import confidence, entropy, loss, modified_entropy
from privet.errors import DataError, LabelError
from privet.output_form import OutputForm
from privet.statistics import auc_interval

EVERYTHING = OutputForm()


def records(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 5, generator=generator), torch.randint(0, 5, (count,), generator=generator)


def identity(inputs: Tensor) -> Tensor:
    return inputs


def test_the_score_is_minus_the_cross_entropy() -> None:
    members, non_members = records(7, 0), records(4, 1)
    scores = loss_threshold(Target(identity, 5), members, non_members)
    for found, (inputs, labels) in ((scores.members, members), (scores.non_members, non_members)):
        expected = -torch.nn.functional.cross_entropy(inputs.double(), labels, reduction="none")
        assert torch.allclose(torch.from_numpy(found), expected)


def test_a_planted_leak_is_found_and_a_null_is_not() -> None:
    members, non_members = records(400, 0), records(400, 1)
    known = members[0] + torch.nn.functional.one_hot(members[1], 5)
    leak = loss_threshold(Target(identity, 5), (known, members[1]), non_members)
    assert auc_interval(leak.members, leak.non_members, seed=0).low > 0.6
    null = loss_threshold(Target(identity, 5), members, non_members)
    interval = auc_interval(null.members, null.non_members, seed=0, confidence=0.999)  # false alarm: 1 in 1,000
    assert interval.low <= 0.5 <= interval.high


@pytest.mark.parametrize(
    ("inputs", "labels", "error"),
    [
        (torch.zeros(2, 5), torch.tensor([0, 5]), LabelError),
        (torch.zeros(2, 5), torch.tensor([-1, 0]), LabelError),
        (torch.zeros(2, 5), torch.tensor([0.0, 1.0]), LabelError),
        (torch.zeros(2, 5), torch.tensor([[0], [1]]), LabelError),
        (torch.zeros(2, 5), torch.tensor([0]), DataError),
        (torch.zeros(0, 5), torch.tensor([], dtype=torch.int64), DataError),
    ],
)
def test_records_that_cannot_be_attacked_are_refused_before_any_query(
    inputs: Tensor, labels: Tensor, error: type[Exception]
) -> None:
    def never(_: Tensor) -> Tensor:
        raise AssertionError("queried")

    with pytest.raises(error, match="non-members"):
        loss_threshold(Target(never, 5), records(3, 0), (inputs, labels))


def answers_to(logits: NDArray[np.float64], labels: NDArray[np.int64], form: OutputForm = EVERYTHING) -> Answers:
    return Answers(torch.log_softmax(torch.from_numpy(logits), -1).numpy(), labels, len(labels) // 2, form)


@given(st.integers(0, 10_000), st.integers(2, 5), st.floats(0.1, 30.0))
def test_each_score_is_its_formula(seed: int, classes: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    logits = scale * generator.standard_normal((6, classes))
    labels = generator.integers(0, classes, 6)
    answers = answers_to(logits, labels)
    for row, label in enumerate(labels):
        with mpmath.workdps(60):
            weights = [mpmath.exp(z) for z in logits[row]]
            p = [weight / mpmath.fsum(weights) for weight in weights]
            expected = {
                loss: mpmath.log(p[label]),
                confidence: mpmath.log(max(p)),
                entropy: mpmath.fsum(q * mpmath.log(q) for q in p),
                modified_entropy: (1 - p[label]) * mpmath.log(p[label])
                + mpmath.fsum(q * mpmath.log(1 - q) for c, q in enumerate(p) if c != label),
            }
        for score, value in expected.items():
            assert score(answers)[row] == pytest.approx(float(value), rel=1e-9, abs=1e-13)


def test_the_loss_tells_sure_answers_apart() -> None:
    answers = answers_to(np.array([[50.0, 0.0], [51.0, 0.0], [2.0, 0.0]]), np.array([0, 0, 0]))
    for score in (loss, confidence):
        sure, surer, unsure = score(answers)
        assert unsure < sure < surer < 0.0


def test_the_modified_entropy_puts_sure_and_wrong_last() -> None:
    logits = np.array([[9.0, 0.0], [0.0, 0.0], [0.0, 9.0], [0.0, 30.0]])
    scores = modified_entropy(answers_to(logits, np.zeros(4, dtype=np.int64)))
    assert np.array_equal(np.argsort(-scores), [0, 1, 2, 3])
    assert np.isfinite(scores).all()


def test_all_thresholds_have_their_names_and_sides() -> None:
    generator = np.random.default_rng(0)
    answers = answers_to(generator.standard_normal((10, 3)), generator.integers(0, 3, 10))
    found = threshold_attacks(answers)
    assert [scores.attack for scores in found] == ["loss threshold", "confidence", "entropy", "modified entropy"]
    for scores, score in zip(found, (loss, confidence, entropy, modified_entropy), strict=True):
        assert np.array_equal(np.concatenate((scores.members, scores.non_members)), score(answers))
        assert len(scores.members) == answers.members


def test_behind_labels_there_is_one_attack_and_two_scores() -> None:
    members, non_members = records(60, 0), records(50, 1)
    form = OutputForm(labels_only=True)
    target = Target(lambda inputs: inputs.argmax(-1), 5, form)
    (scores,) = threshold_attacks(answers_of(target, Pool.of(members, non_members, 5)))
    assert scores.attack == "label is right"
    for found, (inputs, labels) in ((scores.members, members), (scores.non_members, non_members)):
        assert found.tolist() == (inputs.argmax(-1) == labels).double().tolist()


@pytest.mark.parametrize("form", [OutputForm(decimals=1, probabilities=True), OutputForm(k=2, probabilities=True)])
def test_every_score_is_finite_where_a_defense_withholds(form: OutputForm) -> None:
    (inputs, labels), others = records(60, 0), records(50, 1)
    network = torch.nn.Identity().eval()
    defense = outputs.Rounding(network, 1) if form.decimals else outputs.TopK(network, 2)
    answers = answers_of(Target(defense, 5, defense.output_form), Pool.of((30.0 * inputs, labels), others, 5))
    for scores in threshold_attacks(answers):
        assert np.isfinite(scores.members).all()
        assert np.isfinite(scores.non_members).all()


def test_a_record_on_both_sides_is_refused_before_any_query() -> None:
    def never(_: Tensor) -> Tensor:
        raise AssertionError("queried")

    members, non_members = records(5, 0), records(5, 1)
    non_members[0][2] = members[0][4]
    with pytest.raises(DataError, match="member 4 and non-member 2"):
        loss_threshold(Target(never, 5), members, non_members)
