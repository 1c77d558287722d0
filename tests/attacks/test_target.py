"""A target's answers in every form become log-probabilities; what is withheld is imputed, never invented."""

import math
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import Tensor

from privet import outputs
from privet.attacks import Target
from privet.attacks.membership import scaled_confidence
from privet.errors import ArgumentError, DataError
from privet.output_form import OutputForm

Ranked = namedtuple("Ranked", "values indices")
LOGITS = torch.tensor([[2.0, 1.0, 0.0, -9.0], [0.0, 0.0, 3.0, 0.0], [-1.0, 5.0, 1.0, 1.0]])
INPUTS = torch.arange(3.0)[:, None]


def logits(inputs: Tensor) -> Tensor:
    return LOGITS[inputs[:, 0].long()]


def test_logits_and_probabilities_say_the_same() -> None:
    from_logits = Target(logits, 4).ask(INPUTS)
    from_probabilities = Target(lambda x: torch.softmax(logits(x).double(), -1), 4, OutputForm(probabilities=True)).ask(
        INPUTS
    )
    assert torch.allclose(from_logits, torch.log_softmax(LOGITS.double(), -1))
    assert torch.allclose(from_logits, from_probabilities)


def test_batches_do_not_change_the_answer() -> None:
    assert torch.equal(Target(logits, 4, batch_size=1).ask(INPUTS), Target(logits, 4).ask(INPUTS))


def test_arrays_are_answers_too() -> None:
    array = Target(lambda x: logits(x).numpy()[::-1][::-1], 4).ask(INPUTS)  # ONNX runtimes answer arrays
    assert torch.equal(array, Target(logits, 4).ask(INPUTS))
    labels = Target(lambda x: logits(x).argmax(-1).numpy(), 4, OutputForm(labels_only=True)).ask(INPUTS)
    assert labels.argmax(1).tolist() == [0, 2, 1]


def test_top_k_keeps_what_is_shown_and_bounds_what_is_not() -> None:
    probabilities = torch.softmax(LOGITS.double(), -1)
    answer = torch.topk(probabilities, 2)
    target = Target(lambda x: Ranked(answer.values, answer.indices), 4, OutputForm(k=2, probabilities=True))
    imputed = target.ask(INPUTS).exp()
    for row in range(3):
        shown = answer.indices[row]
        assert torch.allclose(imputed[row, shown], answer.values[row])
        hidden = [index for index in range(4) if index not in shown]
        assert (imputed[row, hidden] <= answer.values[row].min()).all()
    assert torch.allclose(imputed.sum(-1), torch.ones(3, dtype=torch.float64))


def test_rounded_to_zero_is_a_quarter_unit() -> None:
    rounded = torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 3)
    imputed = Target(lambda x: rounded, 4, OutputForm(decimals=2, probabilities=True)).ask(INPUTS).exp()
    assert torch.allclose(imputed[0], torch.tensor([1.0, 0.0025, 0.0025, 0.0025], dtype=torch.float64))


@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 3, None])
def test_an_answer_that_floating_point_calls_certain_is_no_outlier(k: int | None, kind: torch.dtype) -> None:
    gaps = torch.arange(0.0, 200.0, 0.5)  # of the first logit above the others, to where exp(-gap) is no number
    shown = torch.softmax(torch.nn.functional.pad(gaps[:, None].double(), (0, 3)), -1).to(kind)
    form = OutputForm(k=k, probabilities=True)
    target = Target(lambda _: shown if k is None else Ranked(*shown.topk(k)), 4, form, batch_size=len(gaps))
    answer = target.ask(gaps[:, None]).numpy()
    for label in (0, 3):  # right and wrong
        odds = scaled_confidence(answer, np.full(len(gaps), label), form)
        steps = np.diff(odds if label == 0 else -odds)
        reached = np.abs(odds).max()
        finest = -math.log(torch.finfo(kind).eps if k == 1 else torch.finfo(kind).tiny * torch.finfo(kind).eps)
        assert reached < min(finest, 110.0) + 4.0  # no further out than the type tells apart, but for a few nats
        assert steps.min() > -3.0  # the surer, the higher, but for how a type rounds near its ends
        assert steps.max() < 4.0, "a gap between the certain and the almost certain"


def test_a_module_is_asked_in_evaluation_mode_and_left_as_it_was() -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5))
    network[1].eval()
    batch = torch.cat((LOGITS, LOGITS + 100.0))
    first = Target(network, 4, batch_size=2).ask(batch)
    assert torch.equal(first, Target(network, 4).ask(batch)), "an answer depends on the others of its batch"
    assert [module.training for module in network.modules()] == [True, True, False]
    assert not network[0].running_mean.any(), "asking trained the network"  # type: ignore[operator]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_probabilities_given_as_logits_are_refused_however_they_are_asked_for(batch_size: int) -> None:
    with pytest.raises(DataError, match="is a probability distribution"):
        Target(lambda x: torch.softmax(logits(x), -1), 4, batch_size=batch_size).ask(INPUTS)


def test_logits_whose_last_rows_look_like_probabilities_are_logits() -> None:
    rows = torch.cat((LOGITS, torch.eye(4)[:2]))
    answer = Target(lambda x: rows[x[:, 0].long()], 4, batch_size=3).ask(torch.arange(5.0)[:, None])
    assert torch.allclose(answer, torch.log_softmax(rows.double(), -1))


def test_labels_only_tell_right_from_wrong() -> None:
    target = Target(lambda x: logits(x).argmax(-1), 4, OutputForm(labels_only=True))
    answer = target.ask(INPUTS)
    assert answer.argmax(1).tolist() == [0, 2, 1]
    assert len(answer.unique()) == 2


@pytest.mark.parametrize(
    ("answer", "form", "message"),
    [
        (LOGITS[:, :2], OutputForm(), r"shape \(3, 2\) where scores of shape \(3, 4\)"),
        ("text", OutputForm(), "a str where scores"),
        (LOGITS.long(), OutputForm(), "int64"),
        (LOGITS * torch.nan, OutputForm(), "NaN"),
        (LOGITS, OutputForm(probabilities=True), "no probabilities"),
        (torch.softmax(LOGITS, -1), OutputForm(), "is a probability distribution"),
        (LOGITS, OutputForm(k=4), "values and indices"),
        (Ranked(LOGITS[:, :2], torch.zeros(3, 2)), OutputForm(k=2), "classes of shape"),
        (Ranked(LOGITS[:, :2], torch.full((3, 2), -1)), OutputForm(k=2), "outside 0 ... 3"),
        (torch.tensor([0, 1, 4]), OutputForm(labels_only=True), "outside 0 ... 3"),
        (torch.tensor([0.0, 1.0, 2.0]), OutputForm(labels_only=True), "classes of shape"),
    ],
)
def test_an_answer_that_is_not_what_the_form_says_is_refused(answer: object, form: OutputForm, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Target(lambda _: answer, 4, form).ask(INPUTS)


def test_a_defense_and_its_form_fit_each_other() -> None:
    network = torch.nn.Identity().eval()
    for defense in (
        outputs.Rounding(network, 1),
        outputs.Rounding(network, 2, softmax=False),
        outputs.TopK(network, 2),
        outputs.TopK(network, 2, softmax=False),
        outputs.TopK(outputs.Rounding(network, 1), 3),
        outputs.Labeling(network),
    ):
        answer = Target(defense, 4, defense.output_form).ask(LOGITS)
        assert answer.argmax(1).tolist() == [0, 2, 1]


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(DataError, match="no inputs"):
        Target(logits, 4).ask(INPUTS[:0])
    with pytest.raises(ArgumentError, match="classes"):
        Target(logits, 1)
    for batch_size in (0, 8.0, True, None):
        with pytest.raises(ArgumentError, match="batch_size"):
            Target(logits, 4, batch_size=batch_size)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="k of at most 4"):
        Target(logits, 4, OutputForm(k=5))
