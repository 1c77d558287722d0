"""A defense takes the part that it is told of whatever a network answers, and drops the rest."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.outputs import laws
from torch import Tensor, nn

from privet import outputs
from privet.errors import ArgumentError, DefenseError
from privet.outputs import Part

X = torch.tensor([[9.0, 9.0, 0.0, 2.0, 1.0], [9.0, 9.0, 3.0, 0.0, 3.0]])


class Fields(NamedTuple):
    boxes: Tensor
    logits: Tensor


@dataclass
class Record:
    boxes: Tensor
    logits: Tensor


class ModelOutput(OrderedDict):
    """Both a dict and attributes, as model libraries answer."""

    def __getattr__(self, name):
        return self[name]


FORMS = {
    "dict": (lambda boxes, logits: {"boxes": boxes, "logits": logits}, "logits", "boxes"),
    "ordered": (lambda boxes, logits: ModelOutput(boxes=boxes, logits=logits), "logits", "boxes"),
    "named tuple": (Fields, "logits", "boxes"),
    "dataclass": (Record, "logits", "boxes"),
    "tuple": (lambda *both: both, 1, 0),
    "list": (lambda *both: list(both), -1, -2),
}


class Detector(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        return self.form(x[..., :2], x[..., 2:])


@pytest.mark.parametrize(("form", "part", "rest"), FORMS.values(), ids=FORMS)
def test_a_member(form, part, rest):
    network = Detector(form).eval()
    alone = outputs.Labeling(network, part=part)(X)
    assert isinstance(alone, Tensor)
    assert alone.tolist() == [1, 0]
    label, boxes = outputs.Labeling(network, part=part, keep=(rest,))(X.clone().requires_grad_())
    assert label.tolist() == [1, 0]
    assert torch.equal(boxes, X[:, :2])
    assert not boxes.requires_grad
    top, boxes = outputs.TopK(outputs.Rounding(network, 1, part=part, keep=[rest]), 1)(X)
    assert top.values.flatten().tolist() == pytest.approx([0.7, 0.5])
    assert torch.equal(boxes, X[:, :2])


@pytest.mark.parametrize(("form", "part", "rest"), FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("wrong", ["scores", 5, "keys", None])
def test_no_such_member(form, part, rest, wrong):
    with pytest.raises(DefenseError, match=r"no part|not a tensor"):
        outputs.Labeling(Detector(form).eval(), part=wrong)(X)
    with pytest.raises((DefenseError, ArgumentError)):
        outputs.Labeling(Detector(form).eval(), part=part, keep=(wrong,))(X)


def test_slices():
    network = nn.Identity().eval()
    part = Part(slices={-1: slice(2, None)})
    assert outputs.Labeling(network, part=part)(X).tolist() == [1, 0]
    both = Part(slices={0: slice(1), 1: slice(2, 4)})
    assert outputs.Rounding(network, 1, softmax=False, part=both)(X).tolist() == [[0.0, 2.0]]
    _, rest = outputs.Labeling(network, part=part, keep=(Part(slices={-1: slice(2)}),))(X)
    assert torch.equal(rest, X[:, :2])
    named = Part("logits", {-1: slice(1, None)})
    assert outputs.Labeling(Detector(FORMS["dict"][0]).eval(), part=named)(X).tolist() == [0, 1]


LAST = Part("logits", {-1: slice(2, None)})


@pytest.mark.parametrize(
    ("part", "kept"),
    [
        (None, Part()),
        ("logits", "logits"),
        ("logits", Part()),
        ("logits", Part(slices={-1: slice(1)})),
        (1, 1),
        (LAST, "logits"),
        ("logits", LAST),
        (LAST, LAST),
        (LAST, Part("logits", {-1: slice(0, 3)})),
        (LAST, Part("logits", {0: slice(0, 2)})),
        (LAST, Part("logits", {1: slice(0, 2)})),  # the last axis, perhaps
        (LAST, Part("logits", {-1: slice(0, -2)})),  # disjoint for four classes at most
        (LAST, Part("logits", {-1: slice(-3, -1)})),
        (Part(slices={-1: slice(4, None)}), Part(slices={-1: slice(5, 6)})),
    ],
)
def test_what_is_defended_cannot_be_kept(part, kept):
    with pytest.raises(ArgumentError, match="keep"):
        outputs.Rounding(nn.Identity().eval(), 1, part=part, keep=(kept,))


@given(st.lists(st.none() | st.integers(-7, 7), min_size=4, max_size=4), st.lists(st.integers(1, 3), min_size=2))
def test_slices_taken_for_disjoint_are_disjoint_on_every_length(bounds, steps):
    first, second = slice(*bounds[:2], steps[0]), slice(*bounds[2:], steps[1])
    try:
        outputs.Labeling(nn.Identity(), part=Part(0, {-1: first}), keep=(Part(0, {-1: second}),))
    except ArgumentError:
        return
    for length in range(16):
        assert not set(range(length)[first]) & set(range(length)[second])


class Answers(nn.Module):
    def __init__(self, of):
        super().__init__()
        self.of = of

    def forward(self, x):
        return self.of(x)


SHARED = {
    "the same tensor": lambda x: {"logits": x, "other": x},
    "a view": lambda x: {"logits": x, "other": x.view(x.shape)},
    "transposed": lambda x: {"logits": x, "other": x.mT},
    "all of which logits are a slice": lambda x: {"logits": x[..., 1:], "other": x},
    "one class": lambda x: {"logits": x, "other": x[..., 2]},
    "every second": lambda x: {"logits": x[..., 1:], "other": x[..., ::2]},
    "expanded": lambda x: {"logits": x[:1].expand(3, -1), "other": x},
    "other bytes": lambda x: {"logits": x, "other": x.view(torch.uint8)},
    "shifted": lambda x: {"logits": x, "other": x.flatten()[1:].as_strided((2,), (3,))},
    "an array": lambda x: {"logits": x, "other": torch.from_numpy(x.numpy())},
    "a record": lambda x: Record(x, x),
}
APART = {
    "a copy": lambda x: {"logits": x, "other": x.clone()},
    "halves": lambda x: {"logits": x[..., 2:], "other": x[..., :2]},
    "interleaved": lambda x: {"logits": x[..., ::2], "other": x[..., 1::2]},
    "no rows": lambda x: {"logits": x, "other": x[:0]},
    "of another type": lambda x: {"logits": x, "other": x.double()},
    "expanded": lambda x: {"logits": x[:1].expand(3, -1), "other": x[1:]},
}


@pytest.mark.parametrize("of", SHARED.values(), ids=SHARED)
def test_what_is_defended_cannot_be_kept_under_another_name(of):
    other = "boxes" if of is SHARED["a record"] else "other"
    for defense in (outputs.Labeling, lambda n, **kw: outputs.Rounding(n, 1, **kw)):
        with pytest.raises(DefenseError, match="another name"):
            defense(Answers(of).eval(), part="logits", keep=(other,))(X)


@pytest.mark.parametrize("of", APART.values(), ids=APART)
def test_what_lies_next_to_it_can_be_kept(of):
    _, other = outputs.Labeling(Answers(of).eval(), part="logits", keep=("other",))(X)
    assert torch.equal(other, of(X)["other"])


def test_positions_of_one_member():
    network = Answers(lambda x: (x, x[..., :1])).eval()
    with pytest.raises(DefenseError, match="another name"):
        outputs.Labeling(network, part=0, keep=(-2,))(X)
    for strict in (False, True):
        with pytest.raises(Exception, match="another name"):  # strict: an error of torch.export that quotes it
            torch.export.export(outputs.Labeling(network, part=0, keep=(-2,)), (X,), strict=strict)
    call = torch.compile(outputs.Labeling(network, part=0, keep=(1,)), backend="eager", fullgraph=True)
    assert torch.equal(call(X[:, 1:])[1], X[:, 1:2])
    part, rest = Part(0, {-1: slice(2, None)}), Part(-2, {-1: slice(2)})
    assert torch.equal(outputs.Labeling(network, part=part, keep=(rest,))(X)[1], X[:, :2])


@pytest.mark.parametrize("rows", [1, 2])
def test_a_kept_part_is_a_copy(rows):
    keep = (Part(slices={-1: slice(2)}),)
    defended = outputs.Rounding(nn.Identity().eval(), 1, part=Part(slices={-1: slice(2, None)}), keep=keep)
    laws.law_owns_its_storage(defended, X[:rows])
    whole = outputs.Labeling(Detector(FORMS["dict"][0]).eval(), part="logits", keep=("boxes",))
    laws.law_owns_its_storage(whole, X[:rows])


@pytest.mark.parametrize("slices", [{2: slice(1)}, {-3: slice(1)}, {0: slice(1), -2: slice(1)}])
def test_an_axis_that_is_not_there(slices):
    with pytest.raises(DefenseError, match="axis"):
        outputs.Labeling(nn.Identity().eval(), part=Part(slices=slices))(X)


@pytest.mark.parametrize("slices", [{"0": slice(1)}, {0: 1}, [slice(1)], {True: slice(1)}, {0: slice(None, None, -1)}])
def test_slices_of_the_wrong_type(slices):
    with pytest.raises(ArgumentError, match="slices"):
        Part(slices=slices)


def test_a_slice_without_classes():
    with pytest.raises(DefenseError, match="at least one class"):
        outputs.Labeling(nn.Identity().eval(), part=Part(slices={-1: slice(5, None)}))(X)
