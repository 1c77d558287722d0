from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.suppression.training import batches, network, suppression_of, train, zeros
from torch import nn, optim
from torch.nn.utils import parametrizations

from privet import data, models
from privet.errors import ArgumentError, DivergedError
from privet.suppression import Layer, Suppression
from privet.suppression.layers import choose
from privet.suppression.ramp import Ramp
from privet.training import fit


def names(model: nn.Module, layers: Any = None) -> list[str]:
    return [one.name for one in choose(model, layers)]


def test_all_convolutions_and_linear_layers_by_default() -> None:
    assert names(models.LeNet5(seed=0)) == [
        "features.conv1.weight",
        "features.conv2.weight",
        "classifier.fc1.weight",
        "classifier.fc2.weight",
        "classifier.fc3.weight",
    ]
    mixed = nn.ModuleDict(
        {
            "a": nn.ConvTranspose2d(2, 3, 2),
            "b": nn.Conv1d(2, 3, 2),
            "c": nn.Conv3d(2, 3, 2),
            "d": nn.BatchNorm2d(4),
            "e": nn.Embedding(3, 3),
            "f": nn.LSTM(3, 3),
        }
    )
    assert names(mixed) == ["a.weight", "b.weight", "c.weight"]
    assert names(mixed, [nn.LSTM]) == ["f.weight_ih_l0", "f.weight_hh_l0"]
    assert names(nn.Linear(2, 2)) == ["weight"]


def test_compiled_parts_are_the_parts_themselves() -> None:
    plain = names(network())
    model = network()
    model[0], model[3] = torch.compile(model[0]), torch.compile(model[3])
    assert names(model) == names(torch.compile(model)) == plain
    assert names(model, ["0", "3.weight"]) == plain[:2]
    assert names(torch.compile(nn.Linear(3, 3))) == ["weight"]


def test_by_parameter_by_module_and_by_type_in_the_order_of_the_model() -> None:
    model = models.LeNet5(seed=0)
    chosen = choose(model, ["classifier.fc1", Layer(nn.Conv2d, minimum_kept=7), "classifier.fc3.bias"])
    assert [one.name for one in chosen] == [
        "features.conv1.weight",
        "features.conv2.weight",
        "classifier.fc1.weight",
        "classifier.fc3.bias",
    ]
    assert [one.rule.minimum_kept for one in chosen] == [7, 7, 0, 0]


def shared() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    model[1].weight = model[0].weight
    return model


def twice() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


def viewed() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight.data = model[0].weight.data
    return model


def frozen() -> nn.Module:
    model = network()
    model[0].weight.requires_grad_(False)
    return model


def parametrized() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3)))


@pytest.mark.parametrize(
    ("model", "layers", "said"),
    [
        (network, ["3.wieght"], "Did you mean '3.weight'"),
        (network, ["nothing like it"], "There are '0.weight', '0.bias', '3.weight', '3.bias' and 2 more"),
        (lambda: models.LeNet5(seed=0), ["features"], "name what is meant: 'features.conv1.weight'"),
        (network, [nn.LSTM], "a type with weights in the model"),
        (network, ["0", "0.weight"], "'0.weight' is chosen twice"),
        (network, [nn.Conv2d, Layer("0")], "'0.weight' is chosen twice"),
        (network, ["0", "0"], "chosen twice"),
        (network, [], "at least one layer"),
        (network, "0", "a list of names"),
        (network, nn.Linear, "a list of names"),
        (lambda: nn.Sequential(nn.ReLU()), None, "at least one layer with weights"),
        (frozen, None, "'0.weight'.*frozen"),
        (frozen, ["0"], "frozen"),
        (shared, None, "'0.weight' and '1.weight' share one tensor"),
        (twice, None, "'0.weight' and '2.weight' share one tensor"),
        (viewed, ["1"], "share one tensor"),
        (parametrized, None, "computed from others"),
        (parametrized, ["0.parametrizations.weight.original1"], "computed from others"),
        (lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 3))), None, "computed from others"),
        (lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(0, 3)), None, "This layer has none"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), None, "Run the model once"),
        (lambda: nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64)), None, "complex64"),
        (lambda: nn.Sequential(nn.Embedding(3, 2, sparse=True)), ["0"], "sparse=False"),
        (network, [Layer("0", minimum_kept=37)], "at most the 36 weights"),
        (lambda: network().half(), [Layer("0", upper_bound=1e6)], r"upper_bound = 1000000\.0 .*float16"),
        (lambda: network().half(), [Layer("0", lower_clip=1e-8)], r"lower_clip = 1e-08 .*6\.1e-05 .*float16"),
        (lambda: nn.Sequential(nn.BatchNorm1d(3)), ["0"], "two dimensions or more of its own.*'0.weight', '0.bias'"),
        (lambda: nn.Sequential(nn.Linear(3, 3, device="meta")), None, "off the meta device"),
        (lambda: "no module", None, "a torch.nn.Module"),
    ],
)
def test_what_cannot_be_suppressed_is_refused(model: Any, layers: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        choose(model(), layers)


def test_what_is_shared_elsewhere_is_no_hindrance() -> None:
    assert names(shared(), ["2"]) == ["2.weight"]
    assert names(frozen(), ["3"]) == ["3.weight"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"select": 3}, "the name of a layer"),
        ({"select": int}, "a type of module"),
        ({"minimum_kept": -1}, "minimum_kept = -1"),
        ({"minimum_kept": 1.5}, "minimum_kept = 1.5"),
        ({"lower_clip": -0.1}, "lower_clip = -0.1"),
        ({"lower_clip": math.inf}, "lower_clip = inf"),
        ({"lower_clip": math.nan}, "lower_clip = nan"),
        ({"upper_bound": 0.0}, "upper_bound = 0.0"),
        ({"lower_clip": 0.5, "upper_bound": 0.5}, "above lower_clip = 0.5"),
        ({"noise_std": -1.0}, "noise_std = -1.0"),
        ({"noise_from": 1.5}, "noise_from = 1.5"),
        ({"noise_from": 0.5}, "left out where noise_std is 0"),
    ],
)
def test_bounds_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        Layer(**{"select": "0"} | settings)


def test_numbers_of_numpy_are_numbers() -> None:
    rule = Layer("0", minimum_kept=np.int64(3), lower_clip=np.float32(0.5))  # type: ignore[arg-type]
    assert choose(network(), [rule])[0].rule.minimum_kept == 3
    ramp = Ramp.over(start_epoch=1, end_epoch=2, steps_per_epoch=np.int32(5), sparsity_end=np.float32(0.95))
    assert (ramp.end, ramp.sparsity_end) == (10, 0.95)


def test_a_layer_shows_what_differs_from_the_default() -> None:
    assert repr(Layer(nn.Conv2d, upper_bound=1.2)) == "Layer(Conv2d, upper_bound=1.2)"


def test_optimizers_that_do_not_fit_are_refused_and_nothing_stays_behind() -> None:
    model = network()
    part = optim.SGD(model[0].parameters(), lr=0.1)
    for optimizer, said in (
        (part, "trains '3.weight'"),
        (optim.SparseAdam(list(model.parameters())), "dense gradients"),
        (optim.SGD(network().parameters(), lr=0.1), "trains '0.weight'"),
        ("SGD", "a torch.optim.Optimizer"),
        (optim.SGD, "a torch.optim.Optimizer"),
    ):
        with pytest.raises(ArgumentError, match=said):
            suppression_of(model, optimizer)  # type: ignore[arg-type]
    assert not any(value._post_accumulate_grad_hooks for value in model.parameters())
    suppression_of(model, part, layers=["0"])


def test_noise_needs_a_generator() -> None:
    model = network()
    with pytest.raises(ArgumentError, match=r"torch.Generator for the noise of '0.weight'"):
        suppression_of(model, None, layers=[Layer("0", noise_std=0.1)])
    with pytest.raises(ArgumentError, match="None where no layer has noise_std"):
        suppression_of(model, None, generator=torch.Generator())
    with pytest.raises(ArgumentError, match=r"a torch\.Generator, or None"):
        suppression_of(model, None, layers=[Layer("0", noise_std=0.1)], generator=3)


def test_one_suppression_a_layer_until_it_is_finalized() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    first = suppression_of(model, optimizer, layers=["0"])
    with pytest.raises(ArgumentError, match="finalize"):
        suppression_of(model, optimizer)
    second = suppression_of(model, optimizer, layers=["3"])
    for one in (first, second):
        assert one.finalize() is model
    assert not any(value._post_accumulate_grad_hooks for value in model.parameters())
    assert not optimizer._optimizer_step_pre_hooks
    train(model, optimizer, suppression_of(model, optimizer), 24)


def test_a_fit_lets_go_of_the_model() -> None:
    """Of a suppression that nobody holds on to, too: what comes afterwards is ordinary training."""
    train_set = data.digits().take(range(200))
    model = models.MLP((64, 12, 10), seed=0)
    more: dict[str, Any] = {"epochs": 2, "batch_size": 50, "seed": 0, "progress": False, "learning_rate": 0.01}
    ramp: dict[str, Any] = {"start_epoch": 1, "end_epoch": 2, "steps_per_epoch": 4, "sparsity_end": 0.9}
    fit(model, train_set, callbacks=[Suppression(model, **ramp)], **more)
    masked = sum(int((value == 0).sum()) for value in model.parameters())
    assert masked > 700
    fit(model, train_set, **more)
    assert sum(int((value == 0).sum()) for value in model.parameters()) < masked / 2
    again = Suppression(model, **ramp)
    fit(model, train_set, callbacks=[again], **more)
    assert again.report().step == 8
    with pytest.raises(ArgumentError, match="8 steps of an earlier fit"):
        fit(model, train_set, callbacks=[again], **more)
    other = Suppression(model, **ramp)
    with pytest.raises(ArgumentError, match="each object once"):
        fit(model, train_set, callbacks=[other, other], **more)
    with pytest.raises(ArgumentError, match=r"end_epoch = '2' .* among the 4 of this training"):
        fit(model, train_set, callbacks=[Suppression(model, **ramp)], **(more | {"epochs": 1}))


def test_a_gradient_that_another_hook_takes_is_none() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def take(parameter: torch.Tensor) -> None:
        parameter.grad = None

    model[0].weight.register_post_accumulate_grad_hook(take)
    train(model, optimizer, suppression_of(model, optimizer), 24)


def test_masks_that_grow_after_a_gradient_arrived_hold_in_the_step_that_uses_it() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    suppression = suppression_of(model, optimizer, start_epoch=1, end_epoch=1, updates=1)
    inputs, labels = next(batches())
    nn.functional.cross_entropy(model(inputs), labels).backward()
    while not suppression.report().masked:
        suppression.step()
    optimizer.step()
    assert sum(int(zero.sum()) for zero in zeros(model).values()) == suppression.report().masked


def test_steps_that_cannot_be_counted_are_refused() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ArgumentError, match="optimizer"):
        suppression_of(model, None).step()
    suppression = suppression_of(model, optimizer)
    suppression.finalize()
    for call in (suppression.step, lambda: suppression.load_state_dict(suppression.state_dict())):
        with pytest.raises(ArgumentError, match="finalized"):
            call()


def test_a_model_that_diverged_is_let_go() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    suppression = suppression_of(model, optimizer)
    model[0].weight.data[0] = float("nan")
    with pytest.raises(DivergedError, match=r"'0.weight' has weights"):
        suppression.finalize()
    with pytest.raises(DivergedError):
        suppression.finalize()
    suppression_of(model, optimizer)


def test_a_parameter_that_was_replaced_is_noticed() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    suppression: Suppression = suppression_of(model, optimizer)
    model.load_state_dict(network(1).state_dict(), assign=True)
    for call in (suppression.step, suppression.finalize):
        with pytest.raises(ArgumentError, match=r"'0.weight'.*assign=True"):
            call()
