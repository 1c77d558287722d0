"""Parameters that are used more than once, and the ways around a layer: right to the cross term."""

from copy import deepcopy

import pytest
import torch
from tests.dp.per_example.laws import (
    Problem,
    in_groups,
    law_agrees,
    law_norms_bound_the_sum,
    law_takes_out,
    problem,
    random_,
    sums,
)
from torch import Tensor, nn

from privet.dp.per_example import tape
from privet.dp.per_example.engine import Engine


class Again(nn.Module):
    """The same layer so many times in a row, and once more beside."""

    def __init__(self, layer: nn.Module, times: int, size: int = 6) -> None:
        super().__init__()
        self.layer, self.times, self.head = layer, times, nn.Linear(size, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs
        for _ in range(self.times):
            hidden = self.layer(hidden).tanh()
        return self.head(hidden)


class Tied(nn.Module):
    """A table of words that is also the last layer's weight, and an output bias that is not tied."""

    def __init__(self, padding: int | None = None, words: int = 7, size: int = 5) -> None:
        super().__init__()
        self.words = nn.Embedding(words, size, padding_idx=padding)
        self.middle = nn.Linear(size, size)
        self.out = nn.Linear(size, words)
        self.out.weight = self.words.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(self.middle(self.words(inputs)).tanh())


class TiedLinears(nn.Module):
    """Two layers with one weight and one bias, a third with the bias alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight, self.second.bias, self.third.bias = self.first.weight, self.first.bias, self.first.bias

    def forward(self, inputs: Tensor) -> Tensor:
        return self.third(self.second(self.first(inputs).tanh()).tanh())


class Residual(nn.Module):
    """What goes in is added to what comes out, twice nested."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6), nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.GELU())

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.inner(inputs)
        hidden = hidden + self.outer(hidden)
        return hidden + self.outer(hidden) * self.inner(hidden)


class Unused(nn.Module):
    """A layer that is never called, one whose output goes nowhere, and one that only some losses depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle, self.ignored = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        self.ignored(inputs)
        return self.used(inputs)


def stack(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


SHARED = [
    ("a layer alone in its model", lambda: nn.Linear(6, 4), (6,), 0),
    ("twice", lambda: Again(nn.Linear(6, 6), 2), (6,), 0),
    ("three times, positions", lambda: Again(nn.Linear(6, 6), 3), (4, 6), 0),
    ("three times, without bias", lambda: Again(nn.Linear(6, 6, bias=False), 3), (4, 6), 0),
    ("a convolution twice", lambda: Again(nn.Conv2d(2, 2, 3, padding=1), 2), (2, 5, 6), 0),
    ("a wide convolution twice", lambda: Again(nn.Conv1d(16, 16, 3, padding=1), 2), (16, 6), 0),
    ("layer norm three times", lambda: Again(nn.LayerNorm(6), 3), (4, 6), 0),
    ("group norm twice", lambda: Again(nn.GroupNorm(2, 4), 2), (4, 6), 0),
    ("rms norm twice", lambda: Again(nn.RMSNorm(6), 2), (4, 6), 0),
    ("table and last layer", Tied, (4,), 7),
    ("table with padding and last layer", lambda: Tied(padding=2), (9,), 7),
    ("wide table and last layer", lambda: Tied(words=60, size=40), (4,), 60),
    ("wide table with padding and last layer", lambda: Tied(2, 50, 40), (5,), 6),
    ("a wide layer three times", lambda: Again(nn.Linear(40, 40), 3, 40), (2, 40), 0),
    ("two linear layers", TiedLinears, (6,), 0),
    ("two linear layers, positions", TiedLinears, (3, 6), 0),
    ("residual", Residual, (6,), 0),
    ("residual, positions", Residual, (4, 6), 0),
    ("unused", Unused, (6,), 0),
    ("in place after linear", lambda: stack(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)), (4, 6), 0),
    ("in place after one position", lambda: stack(nn.Linear(6, 5), nn.ReLU(inplace=True)), (6,), 0),
    ("in place after conv2d", lambda: stack(nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True)), (2, 6, 6), 0),
    ("in place after conv1d", lambda: stack(nn.Conv1d(2, 3, 3), nn.ReLU(inplace=True)), (2, 6), 0),
    ("in place after layer norm", lambda: stack(nn.LayerNorm(6), nn.ReLU(inplace=True)), (4, 6), 0),
    ("in place after group norm", lambda: stack(nn.GroupNorm(2, 4), nn.ReLU(inplace=True)), (4, 6), 0),
    ("in place after rms norm", lambda: stack(nn.RMSNorm(6), nn.ReLU(inplace=True)), (4, 6), 0),
    ("in place after embedding", lambda: stack(nn.Embedding(5, 4), nn.ReLU(inplace=True)), (3,), 5),
]
table = pytest.mark.parametrize(("make", "shape", "words"), [row[1:] for row in SHARED], ids=[row[0] for row in SHARED])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("groups", [1, 3])
@table
def test_agrees(make, shape, words, groups, dtype):
    law_agrees(problem(make(), shape, words=words, dtype=dtype), groups=groups)


@table
def test_the_sum_has_the_norms_that_were_told(make, shape, words):
    law_norms_bound_the_sum(problem(make(), shape, words=words, dtype=torch.float32))


@table
def test_an_example_that_is_not_finite_is_taken_out(make, shape, words):
    case = problem(make(), shape, words=words)
    loud = case.data[1].clone()
    loud[3] = torch.nan
    law_takes_out(case, Problem(case.model, (case.data[0], loud)), 3)


def test_the_cross_term_is_measured_a_few_examples_at_a_time(monkeypatch):
    """A tied table of 2^22 numbers: four examples at a time, where they are made and not seen in their factors."""
    monkeypatch.setattr(tape, "_crossed", lambda uses: None)
    model = nn.Sequential(nn.Linear(2048, 2048, bias=False), nn.Linear(2048, 2048, bias=False))
    model[1].weight = model[0].weight
    case = problem(model, (2048,), size=5, dtype=torch.float32)
    for parameter in case.model.parameters():
        parameter.data.mul_(0.02)
    law_agrees(case)


@pytest.mark.parametrize("wide", [Tied(words=60, size=40), Again(nn.Linear(40, 40), 3, 40)], ids=["words", "layer"])
def test_wide_ones_are_not_made(wide, monkeypatch):
    case = problem(wide, (4,) if isinstance(wide, Tied) else (2, 40), words=60 if isinstance(wide, Tied) else 0)
    monkeypatch.setattr(tape.Tape, "_make", lambda *_: pytest.fail("made"))
    Engine(case.model).take(case.loss, case.data, case.size)


def test_where_uses_cancel_the_gradient_itself_is_made():
    """Tied layers whose gradients cancel but for a millionth: the Gram matrices tell nothing in float32."""
    model = nn.Sequential(nn.Linear(40, 40, bias=False), nn.Linear(40, 40, bias=False))
    model[1].weight = model[0].weight
    data = torch.randn(3, 2, 40, generator=torch.Generator().manual_seed(0))
    made = []
    make = tape.Tape._make
    tape_make = lambda self, *given: (made.append(given[1:]), make(self, *given))  # noqa: E731

    def loss(data):
        return (model[0](data) - (1.0 - 1e-6) * model[1](data)).flatten(1).sum(dim=1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tape.Tape, "_make", tape_make)
        gradients = Engine(model).take(loss, data, 3)
    assert made == [(0, 1), (1, 2), (2, 3)]
    added = gradients.per_example()["0.weight"].double().flatten(1).norm(dim=1)
    assert bool((gradients.squared_norms[0].sqrt() >= added * (1 - 1e-5)).all())


def test_made_gradients_that_cancel_are_not_told_too_small():
    """A convolution used twice, less itself but for a ten-millionth: rounding remains in float32, and is counted."""
    torch.manual_seed(0)
    worst = 0.0
    for _ in range(30):
        layer, data = nn.Conv1d(3, 4, 3), 10 * torch.randn(4, 3, 200)
        random_(layer, seed=int(data[0, 0, 0] * 100) % 97)
        engine = Engine(layer)

        def loss(data, layer=layer):
            return (layer(data) - layer(data * (1 + 1e-7))).flatten(1).sum(dim=1)

        gradients = engine.take(loss, data, 4)
        for index in range(4):
            weights = torch.zeros(1, 4)
            weights[0, index] = 1.0
            gradients.add_to(flat := engine.flat(), weights)
            worst = max(
                worst, float(flat.double().norm()) / max(1e-30, float(gradients.squared_norms[0, index].sqrt()))
            )
    assert worst <= 1.0 + 1e-5


def test_what_is_used_twice_is_not_what_is_used_once():
    """The cross term is there: the norm is far from the root of the sum of both squares."""
    case = problem(nn.Sequential(layer := nn.Linear(6, 6, bias=False), layer), (6,))
    law_agrees(case)
    alone = deepcopy(case.model)
    alone[1] = deepcopy(alone[0])
    without = Problem(alone, case.data)
    both = Engine(case.model).take(case.loss, case.data, case.size).squared_norms
    apart = Engine(alone).take(without.loss, case.data, case.size).squared_norms
    assert ((both - apart).abs() / apart).max() > 0.1


def masked_gradients(case: Problem, loss) -> dict[str, Tensor]:
    """As the loop, but each time with the whole batch, so that the random masks are the same."""
    names, parameters = zip(*case.model.named_parameters(), strict=True)
    rows = [torch.autograd.grad(loss(case.data)[index], parameters) for index in range(case.size)]
    return {name: torch.stack([row[at] for row in rows]) for at, name in enumerate(names)}


@pytest.mark.parametrize("drop", [nn.Dropout, nn.AlphaDropout, nn.Dropout1d])
def test_dropout(drop):
    """The same masks forward and backward, inside the engine and out."""
    model = random_(nn.Sequential(nn.Linear(6, 8), drop(0.4), nn.Linear(8, 5), drop(0.5), nn.Linear(5, 2))).double()
    case = problem(model, (3, 6))

    def loss(data):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            return case.loss(data)

    wanted = masked_gradients(case, loss)
    engine = Engine(case.model, in_groups(case.model, 2))
    gradients = engine.take(loss, case.data, case.size)
    squares = [
        sum(wanted[slot.name].flatten(1).square().sum(dim=1) for slot in engine.slots if slot.group == group)
        for group in range(2)
    ]
    torch.testing.assert_close(gradients.squared_norms, torch.stack(squares), rtol=1e-9, atol=1e-12)
    total = sums(engine, gradients, torch.ones(2, case.size, dtype=torch.float64))
    for name, gradient in wanted.items():
        torch.testing.assert_close(total[name], gradient.sum(dim=0), rtol=1e-9, atol=1e-9)


MIXED = [
    ("linear", lambda: stack(nn.Linear(24, 20), nn.GELU(), nn.Linear(20, 4)), (24,), 0),
    ("positions", lambda: stack(nn.Linear(24, 20), nn.LayerNorm(20), nn.Linear(20, 4)), (5, 24), 0),
    ("convolution", lambda: stack(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 3)), (3, 8, 8), 0),
    ("wide", lambda: stack(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)), (16, 12, 12), 0),
    ("words", lambda: stack(nn.Embedding(9, 16), nn.RMSNorm(16, eps=1e-5), nn.Linear(16, 9)), (6,), 9),
    ("tied", Tied, (6,), 7),
]


@pytest.mark.parametrize(("make", "shape", "words"), [row[1:] for row in MIXED], ids=[row[0] for row in MIXED])
def test_autocast_keeps_norms_and_sums_in_float32(make, shape, words):
    """Forward and backward in bfloat16, near the float64 truth; norms and sums belong together as in float32."""
    case = problem(make(), shape, words=words, dtype=torch.float32)
    random_(case.model, seed=1, scale=0.2)
    wanted = case.truth()
    seen = []

    def loss(data):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = case.model(data[0])
        seen.append(output.dtype)
        return (output.float().sin() * data[1]).flatten(1).sum(dim=1)

    engine = Engine(case.model)
    gradients = engine.take(loss, case.data, case.size)
    assert seen == [torch.bfloat16]
    assert gradients.squared_norms.dtype == torch.float64
    found = sums(engine, gradients, torch.ones(1, case.size))
    largest = sum(one.flatten(1).square().sum(dim=1) for one in wanted.values()).sqrt().max().item()
    for name, gradient in gradients.per_example().items():
        assert gradient.dtype == torch.float32
        error = (gradient.double() - wanted[name]).flatten(1).norm(dim=1).max().item()
        assert error < 0.1 * largest, f"{name}: off by {error}, the largest norm is {largest}"
        torch.testing.assert_close(found[name], gradient.double().sum(dim=0), rtol=1e-4, atol=1e-5 * largest)
    law_norms_bound_the_sum(case, loss)
