"""Modules without a rule: vmap over the module gives the gradients of the loop, or a refusal by name."""

import pytest
import torch
import torch.nn.functional as F
from tests.dp.per_example.laws import Problem, law_agrees, law_norms_bound_the_sum, law_takes_out, problem
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from privet.dp.per_example import fallback
from privet.dp.per_example.engine import Engine
from privet.dp.per_example.ownership import owners
from privet.errors import PrivateTrainingError, UnsupportedLayerError


class Doubled(nn.Linear):
    """A subclass that computes something else than its parent."""

    def forward(self, input):
        return 2.0 * F.linear(input, self.weight.tanh(), self.bias)


class ClassToken(nn.Module):
    """A bare parameter next to children, as in a vision transformer."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 6))
        self.place = nn.Parameter(torch.zeros(1, 4, 6))
        self.embed = nn.Linear(5, 6)
        self.block = nn.TransformerEncoderLayer(6, 2, 7, dropout=0.0, batch_first=True)
        self.norm = nn.LayerNorm(6)

    def forward(self, input):
        tokens = torch.cat([self.token.expand(len(input), -1, -1), self.embed(input)], dim=1) + self.place
        return self.norm(self.block(tokens)[:, 0])


class Scale(nn.Module):
    """The smallest unit: a parameter for each feature."""

    def __init__(self, features=6):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))

    def forward(self, input, shift=0.0):
        return input * self.scale + shift


class Product(nn.Module):
    """Two arguments of a layer without a rule."""

    def __init__(self, features):
        super().__init__()
        self.layer = nn.Bilinear(features, features, 2)

    def forward(self, input):
        return self.layer(input, input.cos())


class Listed(nn.Module):
    """Parameters in lists and dicts, which have no forward."""

    def __init__(self):
        super().__init__()
        self.rows = nn.ParameterList([nn.Parameter(torch.ones(6)) for _ in range(2)])
        self.named = nn.ParameterDict({"shift": nn.Parameter(torch.ones(6))})

    def forward(self, input):
        return (input * self.rows[0]).sin() * self.rows[1] + self.named["shift"]


class Several(nn.Module):
    """Nested arguments and outputs, some of them not differentiable, some not used."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 6))

    def forward(self, pair, *, words, factor, nothing=None):
        first, second = pair["first"], pair["second"]
        made = (first @ self.weight) * factor + second[:, :1] * words.unsqueeze(1)
        return made, {"most": made.argmax(dim=1), "none": nothing, "unused": (second * self.weight[0]).cos()}


class Calls(nn.Module):
    def __init__(self):
        super().__init__()
        self.before = nn.Linear(6, 6)
        self.several = Several()

    def forward(self, input):
        hidden = self.before(input).tanh()
        words = (input[:, 0] > 0).to(torch.int64)
        made, more = self.several({"first": hidden, "second": input.sin()}, words=words, factor=0.7)
        assert more["none"] is None
        assert more["most"].dtype == torch.int64
        return made + more["most"].unsqueeze(1)


class Shared(nn.Module):
    """A unit whose inner parameter is another layer's too."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.unit = Doubled(6, 6)
        self.unit.weight = self.first.weight

    def forward(self, input):
        return self.unit(self.first(input).tanh())


class TiedInside(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(6))
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, input):
        return self.second(self.first(input).tanh()) * self.gain


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.unit = Scale()

    def forward(self, input):
        return self.unit(self.unit(input).sin(), shift=1.0)


class Cells(nn.Module):
    """A cell that is called once a position and takes a tuple."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(6, 3)

    def forward(self, input):
        state = (input[:, 0, :3], input[:, 0, 3:])
        for position in range(input.shape[1]):
            state = self.cell(input[:, position], state)
        return torch.cat(state, dim=1)


def weight_normed() -> nn.Module:
    return parametrizations.weight_norm(nn.Linear(6, 4, bias=False))


def parametrized_attention() -> nn.Module:
    attention = nn.MultiheadAttention(6, 2, batch_first=True)
    parametrizations.weight_norm(attention.out_proj)

    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention

        def forward(self, input):
            return self.attention(input, input, input, need_weights=False)[0]

    return Attends()


def fixed_batch_norm() -> nn.Module:
    norm = nn.BatchNorm1d(6)
    norm.running_mean.copy_(torch.arange(6.0))
    norm.running_var.copy_(torch.arange(6.0) + 1.0)
    return norm.eval()


def partly_frozen() -> nn.Module:
    unit = TiedInside()
    unit.first.weight.requires_grad_(False)
    return unit


UNITS = {
    "subclass of linear": (lambda: Doubled(6, 4), (6,)),
    "scale": (Scale, (3, 6)),
    "class token": (ClassToken, (3, 5)),
    "lists and dicts": (Listed, (6,)),
    "nested arguments": (Calls, (6,)),
    "weight norm": (weight_normed, (6,)),
    "weight norm with bias": (lambda: parametrizations.weight_norm(nn.Linear(6, 4)), (2, 6)),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(6, 6), use_trivialization=False), (6,)),
    "attention with weight norm": (parametrized_attention, (3, 6)),
    "bilinear": (lambda: Product(3), (3,)),
    "batch norm in eval mode": (fixed_batch_norm, (6,)),
    "tied inside": (TiedInside, (6,)),
    "partly frozen": (partly_frozen, (6,)),
    "tied with a rule": (Shared, (6,)),
    "called twice": (Twice, (6,)),
    "lstm cell": (Cells, (3, 6)),
}


def solved(name: str, dtype=torch.float64) -> Problem:
    make, shape = UNITS[name]
    return problem(make(), shape, 4, dtype=dtype)


def units(function):
    return pytest.mark.parametrize("name", UNITS)(function)


@units
def test_gradients_are_those_of_single_examples(name):
    case = solved(name)
    assert any(owner.rule is None for owner in owners(case.model)), "nothing went to the fallback"
    law_agrees(case, groups=2)


@units
def test_in_float32_the_sum_has_the_norms_that_were_told(name):
    case = solved(name, torch.float32)
    law_agrees(case)
    law_norms_bound_the_sum(case)


@pytest.mark.parametrize("name", ["scale", "subclass of linear", "called twice", "tied with a rule", "class token"])
def test_between_layers_with_rules(name):
    make, shape = UNITS[name]
    last = 4 if name == "subclass of linear" else 6
    before = nn.Linear(shape[-1], shape[-1])
    case = problem(nn.Sequential(before, nn.Tanh(), make(), nn.ReLU(inplace=True), nn.Linear(last, 2)), shape, 4)
    law_agrees(case, groups=3)
    assert not [key for module in case.model.modules() for key in vars(module) if key == "forward"]


@pytest.mark.parametrize("name", ["class token", "called twice"])
def test_an_example_that_is_not_finite_is_taken_out(name):
    case = solved(name)
    inputs, targets = case.data
    strange = inputs.clone()
    strange[1] = torch.nan
    law_takes_out(case, Problem(case.model, (strange, targets)), 1)


def test_under_autocast_it_is_run_again_as_it_was_run():
    case = problem(nn.Sequential(Doubled(6, 6), Scale(), nn.Linear(6, 2)), (6,), 4, dtype=torch.float32)
    wanted = case.truth()

    def loss(data):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return case.loss(data).float()

    found = Engine(case.model).take(loss, case.data, case.size).per_example()
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        error = (gradient.double() - wanted[name]).norm()
        assert 0.0 < error <= 0.1 * wanted[name].norm(), name


def test_which_modules_are_units():
    model = nn.Sequential(ClassToken(), nn.Linear(6, 6), Twice(), nn.MultiheadAttention(6, 2))
    kinds = {owner.name: (owner.rule is None, owner.whole) for owner in owners(model)}
    assert kinds == {"0": (True, True), "1": (False, False), "2.unit": (True, True), "3": (False, True)}


class Whole(nn.Module):
    """Something with a parameter; ``compute`` is what it does with it."""

    def __init__(self, compute):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))
        self.register_buffer("seen", torch.zeros(6))
        self.compute = compute

    def forward(self, input):
        return self.compute(self, input * self.weight)


def branching(module, hidden):
    return hidden if bool(hidden.sum() > 0) else -hidden


def counting(module, hidden):
    module.seen.add_(hidden.detach().mean(dim=0))
    return hidden + module.seen


def replacing(module, hidden):
    module.seen = 0.9 * module.seen + hidden.detach().sum(dim=0)
    return hidden


def in_place(module, hidden):
    made = torch.zeros(len(hidden), 6, dtype=hidden.dtype)
    made[:, :2].add_(hidden[:, :2])
    return hidden + made


def keeping(module, hidden):
    module.last = hidden.square().mean(dim=1)  # as for a penalty that is added to the loss
    return hidden


OUTSIDE = nn.Parameter(torch.ones(6))

IMPOSSIBLE = {
    "branches": (branching, "depends on the values of tensors"),
    "random": (lambda module, hidden: F.dropout(hidden, 0.5), "draws random numbers"),
    "noise": (lambda module, hidden: hidden + torch.randn_like(hidden), "draws random numbers"),
    "counts": (counting, "changes its buffers"),
    "replaces a buffer": (replacing, "changes its buffers"),
    "keeps a tensor": (keeping, "keeps tensors on itself"),
    "uses another's parameter": (lambda module, hidden: hidden * OUTSIDE, "neither its own parameter nor an argument"),
    "in place": (in_place, "changes a tensor in place"),
    "mixes": (lambda module, hidden: hidden - hidden.mean(dim=0), "influence one another"),
    "mixes a little": (lambda module, hidden: hidden + 1e-3 * hidden.roll(1, 0), "influence one another"),
    "normalises over the batch": (lambda module, hidden: F.batch_norm(hidden, None, None, training=True), ""),
    "loses the axis": (lambda module, hidden: hidden.sum(dim=0), r"returned a tensor of shape \(6,\)"),
    "returns an object": (lambda module, hidden: object(), "returned a object"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_told_apart_is_refused_by_name(name):
    compute, told = IMPOSSIBLE[name]
    model = nn.Sequential(nn.Linear(6, 6), Whole(compute))
    data = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UnsupportedLayerError, match=rf"(?s)layer '1' \(Whole\).*{told}.*Write it from layers"):
        Engine(model).take(lambda data: model(data).flatten(1).sum(dim=1), data, 4)
    assert "forward" not in vars(model[1])


def test_a_hidden_state_is_noticed():
    """Random numbers that torch knows nothing of."""
    numbers = iter(range(1, 100))
    model = Whole(lambda module, hidden: hidden * next(numbers))
    with pytest.raises(UnsupportedLayerError, match=r"the model itself \(Whole\).*keeps a state"):
        Engine(model).take(lambda data: model(data).sum(dim=1), torch.ones(4, 6), 4)


def test_its_input_changed_in_place_is_refused():
    class Changing(Scale):
        def forward(self, input):
            return input.mul_(2.0) * self.scale

    model = nn.Sequential(nn.Linear(6, 6), Changing())
    with pytest.raises(UnsupportedLayerError, match="changes its input in place"):
        Engine(model).take(lambda data: model(data).sum(dim=1), torch.ones(4, 6), 4)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda unit, data: unit(data.view(24, 1)).view(4, -1), r"'unit' got an input of shape \(24, 1\)"),
        (lambda unit, data: unit(data, torch.ones(6)), r"'unit' got an input of shape \(6,\)"),
        (lambda unit, data: unit(data, object()), r"'unit' .*argument of type object"),
        (lambda unit, data: unit(1.0).expand(4, 6) + data, r"'unit' .*got no tensor"),
    ],
)
def test_arguments_without_the_axis_of_examples_are_refused(call, told):
    class Calling(nn.Module):
        def __init__(self):
            super().__init__()
            self.unit = Scale()

    model = Calling()
    with pytest.raises(UnsupportedLayerError, match=told):
        Engine(model).take(lambda data: call(model.unit, data).sum(dim=1), torch.ones(4, 6), 4)


def test_a_child_of_a_unit_called_from_outside_is_refused():
    class Outside(nn.Module):
        def __init__(self):
            super().__init__()
            self.unit = TiedInside()

        def forward(self, input):
            return self.unit(input) + self.unit.first(input)

    model = Outside()
    with pytest.raises(PrivateTrainingError, match=r"'unit.first.weight'|'unit.first.bias'"):
        Engine(model).take(lambda data: model(data).sum(dim=1), torch.ones(4, 6), 4)


def test_without_gradients_it_is_the_module_itself():
    class Calling(nn.Module):
        def __init__(self):
            super().__init__()
            self.noisy, self.last = Scale(), nn.Linear(6, 1)

        def forward(self, input):
            with torch.no_grad():
                hidden = self.noisy(input[0])
            return self.last(input + hidden).squeeze(1)

    case = problem(Calling(), (6,), 4)
    found = Engine(case.model).take(lambda data: case.model(data[0]), case.data, 4).per_example()
    assert not found["noisy.scale"].any()
    assert torch.equal(found["last.weight"][:, 0], (case.data[0] + case.model.noisy(case.data[0][0])).detach())


def test_planted_a_unit_that_is_not_compared_lets_examples_mix(monkeypatch):
    """The comparison is what notices it: without it, a wrong gradient would go through."""
    monkeypatch.setattr(fallback, "_agree", lambda *_: True)
    model = Whole(lambda module, hidden: hidden - 0.5 * hidden.mean(dim=0))
    Engine(model).take(lambda data: model(data).sum(dim=1), torch.eye(6)[:4], 4)


def test_spectral_norm_keeps_a_state_while_training():
    model = parametrizations.spectral_norm(nn.Linear(6, 4))
    with pytest.raises(UnsupportedLayerError, match="changes its buffers"):
        Engine(model).take(lambda data: model(data).sum(dim=1), torch.ones(4, 6), 4)
    assert parametrize.is_parametrized(model)
    law_agrees(problem(model.eval(), (6,), 4))
