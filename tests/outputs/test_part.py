"""A defense takes the part that it is told of whatever a network answers, and drops the rest."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
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
    with pytest.raises(DefenseError):
        outputs.Labeling(Detector(form).eval(), part=part, keep=(wrong,))(X)


def test_slices():
    network = nn.Identity().eval()
    part = Part(slices={-1: slice(2, None)})
    assert outputs.Labeling(network, part=part)(X).tolist() == [1, 0]
    both = Part(slices={0: slice(1), 1: slice(2, 4)})
    assert outputs.Rounding(network, 1, softmax=False, part=both)(X).tolist() == [[0.0, 2.0]]
    _, rest = outputs.Labeling(network, part=part, keep=(Part(slices={1: slice(2)}),))(X)
    assert torch.equal(rest, X[:, :2])
    named = Part("logits", {-1: slice(1, None)})
    assert outputs.Labeling(Detector(FORMS["dict"][0]).eval(), part=named)(X).tolist() == [0, 1]


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
