"""The first look at model and loss: what mixes examples, draws, or keeps something of them is refused."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.dp.training import SIZE, Data, Loss, data, loss_of, mlp, plan, private_of
from torch import Tensor, nn

from privet.dp import Expand, Private
from privet.dp.per_example.engine import Engine, Gradients
from privet.dp.probe import probe
from privet.errors import PrivateTrainingError

Mixed = Callable[[nn.Module], Callable[[Data], Tensor]]


def train_by(private: Private, loss: Callable[[Data], Tensor]) -> None:
    for batch in private.batches(data()):
        private.backward(loss, batch)


def centred(model: nn.Module) -> Callable[[Data], Tensor]:
    return lambda d: loss_of(model)((d[0] - d[0].mean(dim=0), d[1]))


def by_size(model: nn.Module) -> Callable[[Data], Tensor]:
    return lambda d: loss_of(model)(d) / len(d[0])


def turned(model: nn.Module) -> Callable[[Data], Tensor]:
    return lambda d: F.cross_entropy(model(d[0]).roll(1, dims=0), d[1], reduction="none")


def weighted(model: nn.Module) -> Callable[[Data], Tensor]:
    return lambda d: loss_of(model)(d) * loss_of(model)(d).detach().softmax(dim=0)


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("mixed", [centred, by_size, turned, weighted])
def test_losses_that_depend_on_other_examples_are_refused(mixed: Mixed, size: int) -> None:
    model = mlp()
    with pytest.raises(PrivateTrainingError, match="depends on the others"):
        probe(Engine(model), mixed(model), data(size), size)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_ordinary_losses_pass(size: int) -> None:
    model = mlp()
    found = probe(Engine(model), loss_of(model), data(size), size)
    assert found.examples in (3, 4)
    assert found.worst < 1e-4


def test_dropout_is_left_out() -> None:
    model = nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.5), nn.Linear(50, 3))
    assert probe(Engine(model), loss_of(model), data(8), 8).worst < 1e-4
    before, after = (model(data(8)[0]) for _ in range(2))
    assert not torch.equal(before, after)  # and there again afterwards


def test_random_numbers_in_the_loss_are_refused() -> None:
    model = mlp()
    with pytest.raises(PrivateTrainingError, match="random"):
        probe(Engine(model), lambda d: loss_of(model)((d[0] + torch.randn_like(d[0]), d[1])), data(8), 8)


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("seen", torch.zeros(6))

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen += inputs.detach().sum(dim=0)
        return self.layer(inputs)


def test_a_buffer_that_keeps_something_is_refused() -> None:
    model = Counts()
    with pytest.raises(PrivateTrainingError, match="'seen'"):
        probe(Engine(model), loss_of(model), data(8), 8)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_mean_is_refused(reduction: str) -> None:
    model = mlp()
    with pytest.raises(PrivateTrainingError, match="reduction='none'"):
        probe(Engine(model), lambda d: F.cross_entropy(model(d[0]), d[1], reduction=reduction), data(8), 8)


def test_wrong_gradients_of_the_engine_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, original = mlp(), Gradients.add_to

    def half(gradients: Gradients, flat: Tensor, weights: Tensor) -> None:
        original(gradients, flat, 0.5 * weights)

    monkeypatch.setattr(Gradients, "add_to", half)
    with pytest.raises(PrivateTrainingError, match="differs"):
        probe(Engine(model), loss_of(model), data(8), 8)


def test_wrong_norms_of_the_engine_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, take = mlp(), Engine.take

    def lower(engine: Engine, *arguments: Any) -> Gradients:
        found = take(engine, *arguments)
        found.squared_norms = 0.5 * found.squared_norms
        return found

    monkeypatch.setattr(Engine, "take", lower)
    with pytest.raises(PrivateTrainingError, match="norm"):
        probe(Engine(model), loss_of(model), data(8), 8)


def test_examples_that_are_not_finite_do_not_stop_it() -> None:
    model, (inputs, labels) = mlp(), data(8)
    inputs[1] = torch.nan
    assert probe(Engine(model), loss_of(model), (inputs, labels), 8).worst < 1e-4


def test_the_first_batch_is_looked_at_before_anything_is_released() -> None:
    model = mlp()
    private = private_of(model, plan())
    with pytest.raises(PrivateTrainingError, match="depends on the others"):
        train_by(private, centred(model))
    assert not private.ledger.events()


def test_one_example_alone_settles_nothing() -> None:
    """Copies of it cannot show what examples do to each other; the next batch is looked at again."""
    model = mlp()
    private = private_of(model, plan())
    private.check(centred(model), data(1), 1)
    with pytest.raises(PrivateTrainingError, match="depends on the others"):
        train_by(private, centred(model))


def test_it_is_done_once_for_each_loss() -> None:
    model, calls = mlp(), []
    private = private_of(model, plan(), max_physical_batch=SIZE)

    def counted(seen: list[int]) -> Loss:
        def loss(part: Data) -> Tensor:
            seen.append(1)
            return loss_of(model)(part)

        return loss

    private.check(counted([]), data(8), 8)
    batches = private.batches(data())
    for _ in range(6):
        private.backward(partial(counted(calls)), next(batches))
    assert len(calls) <= 6, "the same code, though another function each time"
    batch = next(batch for batch in batches if batch.size > 1)
    with pytest.raises(PrivateTrainingError, match="depends on the others"):
        private.backward(lambda part: loss_of(model)((part[0] - part[0].mean(0), part[1])), batch)


@pytest.mark.parametrize("spared", [lambda losses: losses.isfinite().all(), lambda losses: losses.detach().max() < 1e6])
def test_a_loss_that_gives_up_a_whole_batch_is_refused(spared: Callable[[Tensor], Tensor]) -> None:
    """The records of this batch are all fine; one that is not would decide what the others add."""
    model = mlp()

    def loss(part: Data) -> Tensor:
        losses = loss_of(model)(part)
        return losses if bool(spared(losses)) else losses * 0.0

    with pytest.raises(PrivateTrainingError, match="a record that is NaN changes the gradients of the others"):
        private_of(model, plan()).check(loss, data(8), 8)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_dropout_between_recurrent_layers_is_left_out_of_the_comparison(kind: type[nn.Module]) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = kind(4, 3, 2, dropout=0.5, batch_first=True), nn.Linear(3, 2)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.out(self.rnn(inputs)[0][:, -1])
            return found

    torch.manual_seed(0)
    model, data = Last().train(), torch.randn(5, 6, 4)
    probe(Engine(model), lambda x: model(x).square().sum(dim=1), data, 5)


def test_a_bare_parameter_s_batch_may_change_in_place_afterwards() -> None:
    class Adding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.positions = nn.Linear(4, 3), Expand(torch.ones(3))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            hidden: torch.Tensor = self.first(inputs)
            hidden += self.positions(hidden)
            return hidden

    model = Adding()
    probe(Engine(model), lambda x: model(x).square().sum(dim=1), torch.randn(5, 4), 5)
