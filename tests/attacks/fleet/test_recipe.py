"""Recipes: side by side is the same as one by one, which is the same as an ordinary loop; all else is refused."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from privet.attacks.membership.fleet import stacked
from privet.attacks.membership.fleet.chain import chain_of
from privet.attacks.membership.fleet.recipe import Recipe
from privet.errors import ArgumentError, DataError, DivergedError, LabelError

RECORDS, FEATURES, CLASSES = 90, 6, 3


def pool() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(RECORDS, 2, FEATURES // 2, generator=generator)
    return inputs, torch.randint(0, CLASSES, (RECORDS,), generator=generator)


def perceptron(
    *widths: int, function: Callable[[], nn.Module] = nn.ReLU, bias: bool = True
) -> Callable[[int], nn.Module]:
    def build(seed: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise((*widths, CLASSES)):
            layers += [nn.Linear(before, after, bias=bias), function(), nn.Flatten()]
        return nn.Sequential(*layers[:-2])  # drawn from the global state, which the recipe seeds

    return build


def recipe(build: Callable[[int], nn.Module], **changed: Any) -> Recipe:
    settings: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 0.05,
        "momentum": 0.9,
        "weight_decay": 0.01,
    }
    inputs, labels = pool()
    return Recipe(build, **(settings | {"inputs": inputs, "labels": labels} | changed))


def draws(count: int, size: int) -> list[Any]:
    return [np.random.default_rng(number).permutation(RECORDS)[:size] for number in range(count)]


def ordinary(training: Recipe, indices: Any, seed: int) -> nn.Module:
    """The reference: the formula of SGD in a loop, by autograd, on the recipe's own order of the records."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = training.build(seed).train()
        velocity = [torch.zeros_like(weight) for weight in network.parameters()]
        generator = np.random.default_rng([seed, 1])
        for _ in range(training.epochs):
            order = indices[generator.permutation(len(indices))]
            for start in range(0, len(order), training.batch_size):
                batch = order[start : start + training.batch_size]
                log_p = network(training.inputs[batch]).log_softmax(1)
                loss = -log_p[torch.arange(len(batch)), training.labels[batch]].mean()
                gradients = torch.autograd.grad(loss, list(network.parameters()))
                with torch.no_grad():
                    for weight, speed, gradient in zip(network.parameters(), velocity, gradients, strict=True):
                        speed.mul_(training.momentum).add_(gradient + training.weight_decay * weight)
                        weight.sub_(training.learning_rate * speed)
    return network


def threads_of_a_new_thread() -> int:
    """What torch was told last, in whichever thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def assert_same(one: nn.Module, other: nn.Module, tolerance: float = 1e-4) -> None:
    for (name, found), expected in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance), name


@settings(max_examples=25)
@given(
    function=st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, nn.Sigmoid, lambda: nn.ELU(inplace=True), nn.Identity]),
    widths=st.lists(st.integers(1, 9), max_size=2),
    bias=st.booleans(),
    momentum=st.sampled_from([0.0, 0.01, 0.9]),
    weight_decay=st.sampled_from([0.0, 0.05]),
    batch_size=st.sampled_from([3, 8, 100]),
    large=st.booleans(),
    together=st.integers(1, 4),
    threads=st.sampled_from([1, 2]),
)
def test_side_by_side_is_one_by_one_is_an_ordinary_loop(
    function: Callable[[], nn.Module],
    widths: list[int],
    bias: bool,
    momentum: float,
    weight_decay: float,
    batch_size: int,
    large: bool,
    together: int,
    threads: int,
) -> None:
    build, inputs = perceptron(FEATURES, *widths, function=function, bias=bias), pool()[0]
    changed: dict[str, Any] = {"momentum": momentum, "weight_decay": weight_decay, "batch_size": batch_size}
    if large:
        training = recipe(build, **changed)
    else:  # twice as many digits say more, but the product of large layers is of float32
        training = recipe(lambda seed: build(seed).double(), inputs=inputs.double(), **changed)
    indices, seeds = draws(3, 20), [5, 0, 2**63]
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacked, "_LARGE", 0 if large else 10**9)
        patch.setattr(stacked, "_TOGETHER", together)
        patch.setattr(stacked, "_TOGETHER_SMALL", together)
        torch.set_num_threads(threads)
        try:
            assert training.stackable
            found = training.train_many(indices, seeds)
            assert threads_of_a_new_thread() == torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
    for network, rows, seed in zip(found, indices, seeds, strict=True):
        expected = ordinary(training, rows, seed)
        assert_same(network, expected, tolerance=1e-4 if large else 1e-12)
        assert_same(training(rows, seed), expected, tolerance=1e-4 if large else 1e-12)


@pytest.mark.parametrize("large", [True, False])
def test_many_small_steps_with_a_velocity_that_is_scaled_again(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacked, "_LARGE", 0 if large else 10**9)
    training = recipe(perceptron(FEATURES, 5), epochs=12, batch_size=1, momentum=0.5, learning_rate=0.01)
    indices = draws(2, 30)  # 360 steps: the scale is multiplied out every 20
    for network, rows, seed in zip(training.train_many(indices, [1, 2]), indices, [1, 2], strict=True):
        assert_same(network, ordinary(training, rows, seed))


def test_float64_is_stacked_to_its_own_rounding() -> None:
    inputs, labels = pool()
    training = recipe(lambda seed: perceptron(FEATURES, 5)(seed).double(), inputs=inputs.double(), labels=labels)
    assert training.stackable
    (network,) = training.train_many(draws(1, 30), [4])
    assert_same(network, ordinary(training, draws(1, 30)[0], 4), tolerance=1e-12)


def test_sets_of_other_sizes_and_networks_of_another_kind_are_trained_too() -> None:
    def build(seed: int) -> nn.Module:
        return perceptron(FEATURES, 4 if seed < 10 else 5)(seed)

    training, seeds = recipe(build), [1, 2, 11, 3]
    indices = [draws(1, size)[0] for size in (20, 33, 20, 20)]
    for network, rows, seed in zip(training.train_many(indices, seeds), indices, seeds, strict=True):
        assert_same(network, ordinary(training, rows, seed))


class Between(nn.Module):
    """A multilayer perceptron with something between its layers that is no module."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Linear(FEATURES, 4), nn.Linear(4, CLASSES), between

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.last(self.between(self, self.first(inputs.flatten(1))))
        return logits


class Ends(nn.Module):
    def __init__(self, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.before, self.after = nn.Linear(FEATURES, 4), nn.Linear(4, CLASSES), before, after

    def forward(self, inputs: Tensor) -> Tensor:
        return self.after(self.last(self.first(self.before(inputs.flatten(1)))))


def shared() -> nn.Module:
    layer = nn.Linear(FEATURES, FEATURES)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer, nn.Linear(FEATURES, CLASSES))


def tied() -> nn.Module:
    first, second = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.Linear(FEATURES, CLASSES))


class Counts(nn.Sequential):
    """Remembers how often it was asked."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(FEATURES, CLASSES))
        self.register_buffer("asked", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.asked += 1
        logits: Tensor = super().forward(inputs)
        return logits


def frozen() -> nn.Module:
    network = perceptron(FEATURES, 4)(0)
    next(network.parameters()).requires_grad_(False)
    return network


def hooked() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, CLASSES))
    network[1].register_forward_hook(lambda _module, _given, output: output * 2)
    return network


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, 4), nn.Dropout(0.5), nn.Linear(4, CLASSES)),
    "batch norm": lambda: nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES)),
    "normalised": lambda: nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, 4), nn.LayerNorm(4), nn.Linear(4, CLASSES)),
    "convolution": lambda: nn.Sequential(nn.Conv1d(2, 4, 2), nn.Flatten(), nn.Linear(8, CLASSES)),
    "a relu that is no module": lambda: Between(lambda _, values: values.relu()),
    "a relu in place": lambda: Between(lambda _, values: values.relu_()),
    "cut off": lambda: Between(lambda _, values: values.detach()),
    "a residual": lambda: Between(lambda _, values: values + 1),
    "called twice": lambda: Between(lambda self, values: self.first(values @ self.first.weight)),
    "functional dropout": lambda: Between(lambda self, values: nn.functional.dropout(values, training=self.training)),
    "scaled inputs": lambda: Ends(lambda values: values * 2, lambda values: values),
    "scaled logits": lambda: Ends(lambda values: values, lambda values: values * 2),
    "scaled logits in place": lambda: Ends(lambda values: values, lambda values: values.mul_(2)),
    "shared": shared,
    "tied": tied,
    "a buffer": Counts,
    "frozen": frozen,
    "hooked": hooked,
    "linear along another side": lambda: nn.Sequential(nn.Linear(3, 4), nn.Flatten(), nn.Linear(8, CLASSES)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_chain_is_not_stacked_and_trained_all_the_same(name: str) -> None:
    training = recipe(lambda seed: OTHERS[name](), epochs=1, batch_size=8)
    assert not training.stackable
    indices = draws(2, 16)
    if name == "cut off":
        return  # its first layer has no gradient
    many = training.train_many(indices, [1, 2])
    for network, rows, seed in zip(many, indices, [1, 2], strict=True):
        assert_same(network, training(rows, seed), tolerance=1e-6)


def test_a_chain_names_its_layers_and_their_functions() -> None:
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(FEATURES, 4), nn.Flatten(), nn.Tanh(), nn.Flatten(), nn.Linear(4, CLASSES)
    )
    chain = chain_of(network, pool()[0][:5])
    assert chain is not None
    assert [(link.linear, [type(function) for function in link.after]) for link in chain] == [
        ("1", [nn.Tanh]),
        ("5", []),
    ]
    assert not any(module._forward_hooks for module in network.modules())


def test_the_global_random_state_is_neither_read_nor_moved() -> None:
    training = recipe(lambda seed: OTHERS["dropout"]())
    rows = draws(1, 20)[0]
    state = torch.get_rng_state()
    first = training(rows, 3)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(7)
    assert_same(first, training(rows, 3), tolerance=0)
    assert not torch.equal(next(first.parameters()), next(training(rows, 4).parameters()))


def test_a_training_that_diverges_says_so() -> None:
    training = recipe(perceptron(FEATURES, 5), learning_rate=1e30)
    for train in (lambda: training(draws(1, 20)[0], 1), lambda: training.train_many(draws(2, 20), [1, 2])):
        with pytest.raises(DivergedError, match="Lower the learning rate"):
            train()


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"epochs": 0}, ArgumentError, "epochs = 0"),
        ({"epochs": True}, ArgumentError, "epochs = True"),
        ({"batch_size": 2.5}, ArgumentError, "batch_size = 2.5"),
        ({"learning_rate": 0.0}, ArgumentError, "learning_rate = 0.0"),
        ({"learning_rate": float("nan")}, ArgumentError, "learning_rate = nan"),
        ({"momentum": 1.0}, ArgumentError, "momentum = 1.0"),
        ({"weight_decay": -0.1}, ArgumentError, "weight_decay = -0.1"),
        ({"inputs": torch.zeros(RECORDS)}, ArgumentError, "inputs"),
        ({"inputs": torch.zeros(RECORDS, 2, dtype=torch.int64)}, ArgumentError, "inputs"),
        ({"inputs": torch.zeros(RECORDS - 1, 2)}, DataError, f"{RECORDS - 1} inputs and {RECORDS} labels"),
        ({"labels": torch.zeros(RECORDS)}, LabelError, "float32"),
        ({"labels": torch.full((RECORDS,), -1)}, LabelError, "-1"),
    ],
)
def test_what_cannot_be_trained_is_refused_when_it_is_written_down(
    changed: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        recipe(perceptron(FEATURES), **changed)
    with pytest.raises(ArgumentError, match="build"):
        recipe(perceptron(FEATURES)(0))  # type: ignore[arg-type]


@pytest.mark.parametrize("indices", [[], [[1]], [0.5], [RECORDS], [-1], [True]])
def test_records_that_are_not_in_the_pool_are_refused(indices: Any) -> None:
    training = recipe(perceptron(FEATURES))
    for train in (lambda: training(indices, 0), lambda: training.train_many([draws(1, 3)[0], indices], [0, 1])):
        with pytest.raises(ArgumentError, match="indices"):
            train()


def test_seeds_and_networks_that_are_none_are_refused() -> None:
    training = recipe(perceptron(FEATURES))
    with pytest.raises(ArgumentError, match="seed = -1"):
        training(draws(1, 3)[0], -1)
    with pytest.raises(ArgumentError, match="seeds"):
        training.train_many(draws(2, 3), [1])
    with pytest.raises(ArgumentError, match="a network, not a int"):
        recipe(lambda seed: seed)(draws(1, 3)[0], 0)  # type: ignore[arg-type, return-value]
    with pytest.raises(ArgumentError, match="build"):
        recipe(lambda seed: nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, CLASSES - 1)))(draws(1, 30)[0], 0)


def test_an_error_in_one_thread_comes_through_and_threads_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, *_: Any) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(stacked._Run, "step", broken)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError, match="planted"):
            recipe(perceptron(FEATURES)).train_many(draws(4, 20), [1, 2, 3, 4])
        assert threads_of_a_new_thread() == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
