"""The doctor names everything that is not ready, and what it tells to do does mend it."""

import json
import re

import pytest
import torch
import torch.nn.functional as F
from tests.dp.per_example.test_refusals import REFUSED, named
from torch import nn

from privet.dp.diagnosis import Path
from privet.dp.doctor import examine
from privet.dp.mending import place_of
from privet.dp.per_example.rules import refuse
from privet.errors import ArgumentError, PrivateTrainingError

# Only the source of the user's class, or another layer altogether, mends these.
WITHOUT_CODE = {
    "quantized",
    "quantization-aware",
    "scripted",
    "traced",
    "plain weight",
    "rrelu in a unit",
    "lstm in a unit",
    "fractional pooling in a unit",
}


def look(model, inputs=None, loss=None):
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)) if inputs is None else inputs
    loss = loss or (lambda x: model(x).flatten(1).square().sum(dim=1))
    return examine(model, loss, inputs, len(inputs))


def run(code, model, **names):
    space = {"model": model, "nn": nn, "torch": torch, **names}
    exec(code, space)
    return space["model"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_every_refusal_is_a_problem_and_its_code_mends_it(name):
    model, where, _ = named(name)
    diagnosis = look(model)
    problem = next(problem for problem in diagnosis.problems if problem.name == where)
    assert problem.edit.endswith(".")
    assert bool(problem.code) == (name not in WITHOUT_CODE)
    if not problem.code:
        return
    mended = run(problem.code, model, inputs=torch.randn(5, 4))
    after = look(mended)
    assert problem.reason not in [other.reason for other in after.problems]
    assert where not in [other.name for other in after.problems], after.text()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_it_says_not_ready_where_the_engine_refuses(name):
    model, _, _ = named(name)
    with pytest.raises(PrivateTrainingError):
        refuse(model)
    assert not look(model).ready


def test_all_problems_are_named_at_once():
    model = nn.ModuleDict(
        {
            "table": nn.Embedding(9, 4, max_norm=1.0, sparse=True),
            "norm": nn.BatchNorm1d(4),
            "hidden": nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
            "small": nn.Linear(4, 4).half(),
            "out": nn.Linear(4, 2),
        }
    )

    def mean(x):
        return F.cross_entropy(model["out"](model["norm"](model["table"](x))), x)

    diagnosis = look(model, torch.arange(2), mean)
    assert [problem.name for problem in diagnosis.problems] == [
        "norm",
        "hidden",
        "small.weight",
        "small.bias",
        "table",
        "",
    ]
    assert "reduction='none'" in diagnosis.problems[-1].reason
    assert 'reduction="none"' in diagnosis.problems[-1].code
    for problem in diagnosis.problems[:-1]:
        model = run(problem.code, model)
    after = look(
        model, torch.arange(2), lambda x: F.cross_entropy(model["out"](model["table"](x)), x, reduction="none")
    )
    assert after.ready, after.text()


def test_the_losses_shape_is_told_next_to_refused_layers_and_their_errors_are_not():
    model = nn.Sequential(nn.Linear(4, 1), nn.BatchNorm1d(1))
    assert [problem.kind for problem in look(model, loss=model).problems] == ["BatchNorm1d", "Loss"]
    assert [problem.kind for problem in look(model, loss=lambda x: model(x[:1])).problems] == ["BatchNorm1d"]


def test_a_frozen_batch_norm_is_kept_in_eval_mode():
    model = nn.Sequential(nn.BatchNorm1d(4).requires_grad_(False), nn.Linear(4, 1))
    (problem,) = look(model).problems
    assert problem.code.startswith("model[0].eval()")
    run(problem.code, model)
    assert look(model).ready


def test_the_proposed_norm_lets_every_channel_through():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
    (problem,) = look(model).problems
    run(problem.code, model)
    assert problem.code.split(" = ")[1] in problem.edit
    outputs = model(torch.randn(6, 4, generator=torch.Generator().manual_seed(2)))
    assert bool((outputs.abs() > 0.1).any(dim=0).all())


class Gain(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x * self.gain


def test_each_layer_is_listed_with_its_path_and_what_is_trained():
    model = nn.Sequential(
        nn.Linear(4, 4), Gain(), nn.ReLU(), nn.Linear(4, 4).requires_grad_(False), nn.LayerNorm(4), nn.BatchNorm1d(4)
    )
    model[4].bias.requires_grad_(False)
    layers = {layer.name: layer for layer in look(model).layers}
    assert {name: layer.path for name, layer in layers.items()} == {
        "0": Path.RULE,
        "1": Path.FALLBACK,
        "3": Path.FROZEN,
        "4": Path.RULE,
        "5": Path.REFUSED,
    }
    assert [(layer.trainable, layer.frozen) for layer in layers.values()] == [(20, 0), (4, 0), (0, 20), (4, 4), (8, 0)]
    model[5] = nn.Identity()
    ready = look(model)
    assert ready.ready
    assert ready.examples > 1
    assert ready.worst is not None
    assert ready.worst < 1e-5


def test_layers_that_are_handled_in_one_piece_are_listed_once():
    model = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    model.self_attn.out_proj.weight.requires_grad_(False)
    layers = look(model, torch.randn(3, 5, 4)).layers
    assert [layer.name for layer in layers] == ["self_attn", "linear1", "linear2", "norm1", "norm2"]
    assert (layers[0].trainable, layers[0].frozen) == (64, 16)  # (12 + 4) x 4 weights, 12 + 4 biases


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x):
        h = self.one(x)
        return self.two(h - h.mean(dim=0))


def test_examples_that_influence_one_another_are_found():
    (problem,) = look(Mixing()).problems
    assert (problem.name, problem.kind) in [("one.weight", "Parameter"), ("two.weight", "Parameter")]
    assert "depends on the others" in problem.reason


def test_the_probes_error_names_the_parameter_it_is_about():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    (problem,) = look(model, loss=lambda x: F.linear(model[0](x), model[1].weight).sum(dim=1)).problems
    assert (problem.name, problem.kind) == ("1.weight", "Parameter")


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (lambda model, x: model(x).sum(), r"looks like a mean or a sum"),
        (lambda model, x: model(x), r"returned shape \(5, 1\) for 5 examples"),
        (lambda model, x: model(x[:, :3]).sum(dim=1), r"it raised RuntimeError: mat1 and mat2"),
        (lambda model, x: model(x).squeeze(), r"returned shape \(\) for 1 examples"),
        (lambda model, x: (model(x) / x.std(dim=0)[:1] if len(x) > 1 else 1 / 0)[:, 0], "ZeroDivisionError.*alone"),
        (lambda model, x: model(x).detach()[:, 0], "do not depend on any trainable parameter"),
        (lambda model, x: model(x)[:, 0] + torch.rand(len(x)), "draws random numbers"),
    ],
)
def test_what_is_wrong_with_the_loss_is_told_as_such(loss, told):
    model = nn.Linear(4, 1)
    (problem,) = look(model, loss=lambda x: loss(model, x)).problems
    assert problem.kind == "Loss"
    assert problem.who == "the per-example loss"
    assert re.search(told, problem.reason), problem.reason


@pytest.mark.parametrize("ready", [True, False])
def test_the_model_and_the_random_state_stay_as_they_were(ready):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            if not ready:
                self.calls = self.calls + 1
            return x

    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), Counting(), nn.Linear(4, 1))
    if not ready:
        model.append(nn.BatchNorm1d(1))
    model[0].weight.grad = torch.ones(4, 4)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    buffers = dict(model.named_buffers())
    random = torch.get_rng_state()
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    assert look(model, inputs).ready is ready
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(buffers[name] is buffer for name, buffer in model.named_buffers())
    assert torch.equal(model[0].weight.grad, torch.ones(4, 4))
    assert model.training
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_model_without_shapes_is_not_given_any():
    model = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(1))
    assert not look(model).ready
    assert type(model[1]) is nn.LazyLinear


def test_a_changed_buffer_is_a_problem_and_is_put_back():
    class Running(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(4))

        def forward(self, x):
            self.seen += x.detach().sum(dim=0)
            return x

    model = nn.Sequential(Running(), nn.Linear(4, 1))
    (problem,) = look(model).problems
    assert "seen" in problem.reason
    assert not model[0].seen.any()


def test_a_model_with_nothing_to_train():
    model = nn.Linear(4, 1).requires_grad_(False)
    (problem,) = look(model).problems
    run(problem.code, model)
    assert look(model).ready
    assert not look(nn.Identity()).ready


def test_a_parameter_elsewhere_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).double())
    problems = look(model).problems
    assert [problem.name for problem in problems] == ["1.weight", "1.bias"]
    assert [layer.path for layer in look(model).layers] == [Path.RULE, Path.REFUSED]
    for problem in problems:
        run(problem.code, model)
    assert look(model).ready


def test_plain_data_and_text_tell_the_same():
    model, where, _ = named("batch norm in a unit")
    model.append(nn.Sequential())
    model[2].add_module("a_rather_long_name_of_a_layer_that_goes_on", nn.Linear(4, 4))
    diagnosis = look(model)
    told = json.loads(json.dumps(diagnosis.to_json(), allow_nan=False))
    assert told["ready"] is False
    assert [problem["name"] for problem in told["problems"]] == [where]
    text = diagnosis.text(80)
    for layer in told["layers"]:
        assert any(line.startswith(layer["name"]) for line in text.splitlines())
    for problem in told["problems"]:
        assert problem["name"] in text
        assert problem["code"] in text
        assert " ".join(problem["reason"].split()) in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_places_are_written_as_one_would():
    model = nn.Sequential(nn.ModuleList([nn.Linear(1, 1)]), nn.ModuleDict({"a b": nn.ReLU()}))
    model.add_module("odd-name", nn.ReLU())
    model.add_module("plain", nn.ParameterList([nn.Parameter(torch.ones(1))]))
    everything = [*model.named_modules(), *model.named_parameters()]
    for name, value in everything:
        space = {"model": model}
        exec(f"found = {place_of(model, name)}", space)
        assert space["found"] is value
    assert place_of(model, "0.0.weight") == "model[0][0].weight"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((None, lambda x: x, torch.ones(2, 4), 2), "model"),
        ((nn.Linear(4, 1), None, torch.ones(2, 4), 2), "per_example_loss"),
        ((nn.Linear(4, 1), lambda x: x, torch.ones(2, 4), 0), "size"),
        ((nn.Linear(4, 1), lambda x: x, torch.ones(2, 4), 3), "size = 3 .* give 2"),
        ((nn.Linear(4, 1), lambda x: x, object(), 3), "data"),
    ],
)
def test_other_arguments_are_refused(arguments, told):
    with pytest.raises(ArgumentError, match=told):
        examine(*arguments)
