"""One table: every layer, shape and dtype against the loop over single examples."""

import pytest
import torch
from tests.dp.per_example.laws import Problem, law_agrees, law_norms_bound_the_sum, law_takes_out, random_
from tests.dp.per_example.layers import LAYERS, NEVER_FIRST, WITHOUT_PARAMETERS, Layer
from torch import nn

from privet.dp import Expand
from privet.dp.per_example.engine import Engine
from privet.dp.per_example.tape import Tape


def table(layers):
    return pytest.mark.parametrize("layer", layers, ids=lambda one: one.name)


dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


@dtypes
@table(LAYERS)
def test_a_layer_alone(layer: Layer, dtype):
    law_agrees(layer.alone(dtype))


@dtypes
@table([*LAYERS, *NEVER_FIRST, *WITHOUT_PARAMETERS])
def test_a_layer_between_others(layer: Layer, dtype):
    law_agrees(layer.behind(dtype), groups=3)


@table(LAYERS)
def test_a_batch_of_one(layer: Layer):
    law_agrees(layer.behind(size=1))


@table(LAYERS)
def test_the_sum_has_the_norms_that_were_told(layer: Layer):
    law_norms_bound_the_sum(layer.behind(torch.float32))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@table(LAYERS)
def test_an_example_that_is_not_finite_is_taken_out(layer: Layer, value):
    """By its input where it has numbers, by its output's gradient in any case."""
    case = layer.behind()
    inputs, targets = case.data
    loud = targets.clone()
    loud[1] = value
    law_takes_out(case, Problem(case.model, (inputs, loud), case.memory_format), 1)
    if not layer.words:
        strange = inputs.clone()
        strange[1] = value
        law_takes_out(case, Problem(case.model, (strange, targets), case.memory_format), 1)


@table(LAYERS)
def test_a_finite_example_whose_gradient_overflows_is_taken_out(layer: Layer):
    case = layer.behind()
    inputs, targets = case.data
    loud = targets.clone()
    loud[2] *= 1e300
    law_takes_out(case, Problem(case.model, (inputs, loud), case.memory_format), 2)


@table([one for one in LAYERS if "RNN, relu" not in one.name])
def test_under_autocast_the_sum_has_the_norms_that_were_told(layer: Layer):
    """In bfloat16, near the float64 truth of weights that are small enough to be followed."""
    case = layer.behind(torch.float32)
    random_(case.model, seed=1, scale=0.2)

    def loss(data):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = case.model(data[0])
        return (output.float().sin() * data[1]).flatten(1).sum(dim=1)

    law_norms_bound_the_sum(case, loss)
    wanted = case.truth()
    found = Engine(case.model).take(loss, case.data, case.size).per_example()
    largest = sum(one.reshape(case.size, -1).square().sum(dim=1) for one in wanted.values()).sqrt().max().item()
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        assert (gradient.double() - wanted[name]).reshape(case.size, -1).norm(dim=1).max().item() < 0.1 * largest, name


def test_every_parameter_a_group():
    case = next(layer for layer in LAYERS if layer.name == "conv2d groups").behind()
    gradients = law_agrees(case, groups=100)
    assert gradients.squared_norms.shape == (6, case.size)


@table(LAYERS)
def test_no_norm_is_larger_than_what_it_could_be_if_nothing_cancelled(layer: Layer, monkeypatch):
    """Each use's own bound, which the margins of shared parameters and of gradients made again stand on."""
    checked = []
    real = Tape.arrived

    def arrived(self, use):
        bounds = use.most_norms()
        made = use.per_example(0, self.size)
        assert len(bounds) == len(made) == len(use.parts)
        for bound, gradient in zip(bounds, made, strict=True):
            norms = gradient.reshape(self.size, -1).double().norm(dim=1)
            assert bool((norms <= bound * (1.0 + 1e-9) + 1e-300).all())
            checked.append(norms)
        real(self, use)

    monkeypatch.setattr(Tape, "arrived", arrived)
    case = layer.behind()
    Engine(case.model).take(case.loss, case.data, case.size)
    assert checked


class Turned(nn.Module):
    """The layer between pieces that have other axes last in memory, as recurrent ones or channels-last ones do."""

    def __init__(self, inner: nn.Module, last: int) -> None:
        super().__init__()
        self.inner, self.last = inner, last

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.turned(self.inner(self.turned(inputs)))

    def turned(self, values: torch.Tensor) -> torch.Tensor:
        order = [*range(self.last, values.dim()), *range(min(self.last, values.dim()))]
        return values.permute(order).contiguous().permute(torch.tensor(order).argsort().tolist())


@pytest.mark.parametrize("last", [1, 2], ids=["examples last", "examples and channels last"])
@pytest.mark.parametrize("size", [1, None])
@table(LAYERS)
def test_whatever_the_order_in_memory(layer: Layer, size, last):
    alone = layer.alone(size=size)
    law_agrees(Problem(Turned(alone.model, last), alone.data))


def test_what_an_expand_gives_may_change_in_place():
    """Of one example, too: it is no view of the parameter."""
    module = nn.Sequential(Expand(torch.ones(3)))
    engine = Engine(module)

    def loss(data: torch.Tensor) -> torch.Tensor:
        return (module(data).mul_(2.0) * data).sum(dim=1)

    engine.take(loss, torch.ones(1, 3), 1)
    assert module[0].value.tolist() == [1.0, 1.0, 1.0]
