"""Laws of the training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from privet.errors import ArgumentError, DataError, DivergedError, LabelError, TrainingRefusedError
from privet.models import MLP, LinearNet
from privet.outputs import Labeling, Rounding, TopK
from privet.training import EpochRecord, evaluate, fit


def blobs(n: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    return torch.randn(n, 4, generator=generator) + 3 * functional.one_hot(labels, 4), labels


def net(seed: int = 1) -> nn.Module:
    return nn.Sequential(MLP((4, 16, 8), seed=seed), nn.Dropout(0.3), MLP((8, 3), seed=seed))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Pairs(Dataset[tuple[Tensor, int]]):
    def __init__(self, examples: tuple[Tensor, Tensor]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples[1])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.examples[0][index], int(self.examples[1][index])


@dataclass(frozen=True)
class Held:
    inputs: Tensor
    labels: Tensor


def test_learns() -> None:
    model = LinearNet(4, 3, seed=1)
    before = evaluate(model, blobs(seed=9)).accuracy
    result = fit(model, blobs(), epochs=30, batch_size=16, seed=0, learning_rate=0.05)
    assert [record.epoch for record in result.history] == list(range(1, 31))
    assert result.history[-1].loss < result.history[0].loss / 2
    assert evaluate(model, blobs(seed=9)).accuracy > max(before, 0.85)


def test_same_seed_same_bits_other_seed_other_bits_and_the_global_state_untouched() -> None:
    found = []
    for seed, ambient in ((0, 1), (0, 2), (5, 1)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(ambient)
            before, model = torch.get_rng_state(), net()
            fit(model, blobs(), epochs=2, batch_size=16, seed=seed)
            assert torch.equal(before, torch.get_rng_state())
            found.append(weights(model))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_is_the_bare_loop() -> None:
    """Full batches leave nothing to shuffle but the order of a sum, so a bare loop must agree."""
    inputs, labels = blobs()
    model, twin = LinearNet(4, 3, seed=1).double(), LinearNet(4, 3, seed=1).double()
    result = fit(model, (inputs.double(), labels), epochs=5, batch_size=60, seed=0, optimizer=sgd)
    optimizer = sgd(twin.parameters())
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = functional.cross_entropy(twin(inputs.double()), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    for left, right in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)
    assert [record.loss for record in result.history] == pytest.approx(losses, rel=1e-10)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def test_every_example_once_an_epoch_in_an_order_that_changes() -> None:
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(1, 20)

        def forward(self, inputs: Tensor) -> Tensor:
            if self.training:
                seen.append(inputs.flatten())
            return self.inner(inputs)

    inputs = torch.arange(20.0)[:, None]
    fit(Spy(), (inputs / 20, torch.arange(20)), epochs=2, batch_size=6, seed=0)
    assert [len(one) for one in seen] == [6, 6, 6, 2] * 2
    first, second = torch.cat(seen[:4]), torch.cat(seen[4:])
    assert torch.equal(first.sort().values, inputs.flatten() / 20)
    assert torch.equal(second.sort().values, inputs.flatten() / 20)
    assert not torch.equal(first, second)


FORMS: list[Callable[[tuple[Tensor, Tensor]], Any]] = [
    lambda e: Held(*e),
    lambda e: TensorDataset(*e),
    Pairs,
    list,
    lambda e: [*Pairs(e)],
    lambda e: (e[0].numpy(), e[1].numpy()),
    lambda e: (read_only(e[0].flip(0).numpy())[::-1], e[1]),
]


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_examples_trains_alike(form: Callable[[tuple[Tensor, Tensor]], Any]) -> None:
    one, other = net(), net()
    fit(one, blobs(), epochs=2, batch_size=16, seed=0)
    fit(other, form(blobs()), epochs=2, batch_size=16, seed=0)
    assert same(weights(one), weights(other))


def with_label(index: int, value: int) -> tuple[Tensor, Tensor]:
    inputs, labels = blobs()
    labels[index] = value
    return inputs, labels


def with_input(value: float) -> tuple[Tensor, Tensor]:
    inputs, labels = blobs()
    inputs[7, 2] = value
    return inputs, labels


REFUSED: dict[str, tuple[Any, type[DivergedError], str]] = {
    "too large": (with_label(5, 3), LabelError, "label 3 at index 5 .* 3 classes"),
    "negative": (with_label(9, -1), LabelError, "label -1 at index 9"),
    "ignored": (with_label(59, -100), LabelError, "label -100 at index 59"),
    "float": ((blobs()[0], blobs()[1].float()), LabelError, "at index 0 is of torch.float32"),
    "one-hot": ((blobs()[0], functional.one_hot(blobs()[1])), LabelError, r"\(60, 3\)"),
    "nan": (with_input(float("nan")), DataError, "input 7 "),
    "infinity": (with_input(float("-inf")), DataError, "input 7 "),
    "lengths": ((blobs()[0], blobs()[1][:5]), DataError, "5 labels"),
    "none": ((torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)), DataError, "no examples"),
    "shape": ((torch.zeros(3, 5), torch.zeros(3, dtype=torch.int64)), ArgumentError, r"inputs.shape = \(1, 5\)"),
    "type": ((torch.zeros(3, 4).double(), torch.zeros(3, dtype=torch.int64)), DataError, "model refuses"),
    "array, label": ((blobs()[0].numpy(), with_label(5, 3)[1].numpy()), LabelError, "label 3 at index 5"),
    "array, unsigned": (
        (blobs(1)[0].numpy(), np.array([2**63], dtype=np.uint64)),
        LabelError,
        "label 9223372036854775808 at index 0 is too large",
    ),
    "array, text": ((np.array(["a"]), np.array([0])), ArgumentError, "array of <U1"),
    "array, other order": ((np.zeros((2, 4), ">f4"), np.array([0, 1])), ArgumentError, "array of >f4"),
    "data set, too large": (Pairs(with_label(5, 3)), LabelError, "label 3 at index 5"),
    "data set, nan": (Pairs(with_input(float("nan"))), DataError, "input 7 "),
    "data set, float": ([(torch.zeros(4), 1.0)], LabelError, "label 1.0 at index 0"),
    "data set, shapes": ([(torch.zeros(4), 1), (torch.zeros(5), 1)], DataError, "input 1 is"),
    "number": (3, ArgumentError, "an object of type int"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_examples_are_refused_before_anything_changes(name: str) -> None:
    examples, error, message = REFUSED[name]
    model = net()
    before = weights(model)
    with pytest.raises(error, match=message):
        fit(model, examples, epochs=1, batch_size=8, seed=0)
    with pytest.raises(error, match=message):
        fit(model, blobs(), validation=examples, epochs=1, batch_size=8, seed=0)
    with pytest.raises(error, match=message):
        evaluate(model, examples)
    assert same(before, weights(model))


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"epochs": True},
        {"batch_size": 0},
        {"batch_size": 2.0},
        {"seed": -1},
        {"seed": None},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"learning_rate": 0.1, "optimizer": sgd},
        {"optimizer": sgd([nn.Parameter(torch.zeros(1))])},
        {"optimizer": lambda parameters: None},
        {"epochs": np.True_},
        {"epochs": torch.tensor(True)},
        {"batch_size": np.int64(0)},
        {"batch_size": np.float64(2.0)},
        {"patience": 2},
        {"patience": 0, "validation": blobs()},
        {"resume": True},
        {"checkpoint": "no/such/folder/run"},
        {"loss": lambda outputs, labels: functional.cross_entropy(outputs, labels, reduction="none")},
    ],
)
def test_bad_arguments_are_refused(change: dict[str, Any]) -> None:
    given: dict[str, Any] = {"epochs": 1, "batch_size": 8, "seed": 0, **change}
    model = net()
    before = weights(model)
    with pytest.raises(ArgumentError):
        fit(model, blobs(), **given)
    assert same(before, weights(model))


def test_a_model_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(ArgumentError, match="require gradients"):
        fit(LinearNet(4, 3).requires_grad_(False), blobs(), epochs=1, batch_size=8, seed=0)


def test_a_loss_that_is_not_finite_names_epoch_and_step() -> None:
    calls = []

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        calls.append(1)
        return functional.cross_entropy(outputs, labels) * (float("nan") if len(calls) == 6 else 1.0)

    model = net()
    with pytest.raises(DivergedError, match="loss is nan at epoch 2, step 2"):
        fit(model, blobs(), epochs=3, batch_size=16, seed=0, loss=loss)
    assert len(calls) == 6
    assert all(torch.isfinite(tensor).all() for tensor in model.parameters())


def test_weights_that_are_not_finite_stop_the_epoch() -> None:
    with pytest.raises(DivergedError, match="weight"):
        fit(LinearNet(4, 3), blobs(), epochs=1, batch_size=60, seed=0,
            optimizer=lambda p: torch.optim.SGD(p, lr=float("inf")))  # fmt: skip


class Worse(nn.Module):
    """Whatever it learns, its validation answers get worse from the third epoch on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = LinearNet(4, 3, seed=1)
        self.register_buffer("epoch", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.inner(inputs)
        if self.training:
            return outputs
        return outputs * 0 + functional.one_hot(torch.zeros(len(inputs), dtype=torch.int64), 3) * (self.epoch - 2).abs()


class Ageing:
    def __init__(self) -> None:
        self.kept: dict[int, dict[str, Tensor]] = {}

    def on_step(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        model.get_buffer("epoch").fill_((step + 3) // 4)

    def on_epoch(self, record: EpochRecord, model: nn.Module) -> None:
        self.kept[record.epoch] = weights(model)


@pytest.mark.parametrize(("epochs", "stopped"), [(10, True), (4, False), (5, False)])
def test_patience_stops_and_gives_the_best_weights_back(epochs: int, stopped: bool) -> None:
    model, ageing = Worse(), Ageing()
    wrong = (blobs()[0], torch.ones(60, dtype=torch.int64))
    result = fit(model, blobs(), validation=wrong, epochs=epochs, batch_size=16, seed=0, patience=3, callbacks=[ageing])
    assert len(result.history) == min(epochs, 5)
    assert (result.best_epoch, result.stopped_early) == (2, stopped)
    assert same(weights(model), ageing.kept[2])
    assert not same(weights(model), ageing.kept[len(result.history)])


def test_without_patience_the_last_weights_stay() -> None:
    model, ageing = Worse(), Ageing()
    wrong = (blobs()[0], torch.ones(60, dtype=torch.int64))
    result = fit(model, blobs(), validation=wrong, epochs=4, batch_size=16, seed=0, callbacks=[ageing])
    assert result.best_epoch == 2
    assert same(weights(model), ageing.kept[4])


def test_the_scheduler_steps_once_an_epoch() -> None:
    rates = []

    class Rates(Ageing):
        def on_step(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
            rates.append(optimizer.param_groups[0]["lr"])

    fit(net(), blobs(), epochs=3, batch_size=30, seed=0, learning_rate=1.0, callbacks=[Rates()],
        scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5))  # fmt: skip
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_modes_are_put_back_part_by_part() -> None:
    model = net().train()
    model[1].eval()  # type: ignore[index, operator]
    fit(model, blobs(), validation=blobs(), epochs=1, batch_size=16, seed=0)
    assert (model.training, model[1].training) == (True, False)  # type: ignore[index]


def test_looking_for_the_classes_leaves_batch_statistics_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    before = weights(model)
    with pytest.raises(LabelError):
        fit(model, with_label(0, 8), epochs=1, batch_size=8, seed=0)
    assert same(before, weights(model))


def test_silent_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    fit(net(), blobs(), epochs=1, batch_size=16, seed=0, progress=True)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_bar_of_ones_own_is_filled() -> None:
    with Progress(disable=True) as bar:
        fit(net(), blobs(), epochs=2, batch_size=16, seed=0, progress=bar)
        assert [(task.completed, task.total) for task in bar.tasks] == [(8, 8)]
        assert bar.tasks[0].description.startswith("epoch 2/2 loss ")


def test_integers_of_numpy_are_integers(tmp_path: Path) -> None:
    one, other = net(), net()
    fit(one, blobs(), epochs=2, batch_size=16, seed=3, validation=blobs(), patience=2)
    given = {"epochs": np.int64(2), "batch_size": np.uint8(16), "seed": np.uint64(3), "patience": np.int32(2)}
    fit(other, blobs(), validation=blobs(), checkpoint=tmp_path / "run", **given)  # type: ignore[arg-type]
    assert same(weights(one), weights(other))
    assert evaluate(one, blobs(), batch_size=np.int16(7)) == evaluate(one, blobs(), batch_size=7)  # type: ignore[arg-type]


def test_an_optimizer_that_needs_a_closure_is_refused_before_the_first_step() -> None:
    model = net()
    before = weights(model)
    with pytest.raises(
        ArgumentError, match=r"optimizer = 'LBFGS' is not allowed; give one whose step needs no closure"
    ):
        fit(model, blobs(), epochs=1, batch_size=16, seed=0, optimizer=lambda p: torch.optim.LBFGS(p))
    assert same(weights(model), before)


@pytest.mark.parametrize(("n", "batch_size"), [(49, 16), (17, 16), (1, 16), (5, 1)])
def test_one_example_alone_is_refused_before_the_start_where_a_layer_needs_more(n: int, batch_size: int) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    before = weights(model)
    with pytest.raises(ArgumentError, match=rf"batch_size = {batch_size} .* The layer '1' \(BatchNorm1d\)"):
        fit(model, blobs(n), epochs=1, batch_size=batch_size, seed=0)
    assert same(weights(model), before)
    fit(model[:1], blobs(n), epochs=1, batch_size=batch_size, seed=0)


class Frozen(nn.BatchNorm1d):
    def train(self, mode: bool = True) -> Frozen:
        return super().train(False)


@pytest.mark.parametrize("model", [
    nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 3)),
    nn.Sequential(nn.Linear(4, 3), Frozen(3)),
])  # fmt: skip
def test_one_example_alone_is_taken_where_it_is_enough(model: nn.Module) -> None:
    assert len(fit(model, blobs(17), epochs=1, batch_size=16, seed=0).history) == 1


@pytest.mark.parametrize("defend", [lambda net: Rounding(net, 2), Labeling, lambda net: TopK(net, 1)])
def test_a_defended_network_is_refused_and_named_so(defend: Callable[[nn.Module], nn.Module]) -> None:
    model = net().eval()
    before = weights(model)
    with pytest.raises(TrainingRefusedError, match="origin_network"):
        fit(defend(model), blobs(), epochs=1, batch_size=16, seed=0)
    assert same(weights(model), before)


class Spoilt(nn.Module):
    """Answers NaN in evaluation alone, from the second epoch on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.steps = LinearNet(4, 3, seed=1), 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.steps += self.training
        outputs: Tensor = self.inner(inputs)
        return outputs if self.training or self.steps < 8 else outputs * float("nan")


def test_validation_answers_that_are_not_finite_stop_the_epoch() -> None:
    with pytest.raises(DivergedError, match="validation output or loss is NaN or infinite at epoch 2"):
        fit(Spoilt(), blobs(), validation=blobs(), epochs=3, batch_size=16, seed=0)


TYPO, STEPS = type("Typo", (), {"on_epoch_end": print}), type("Steps", (), {"on_step": print})


@pytest.mark.parametrize("callback", [3, lambda: 1, TYPO(), STEPS])
def test_a_callback_that_would_never_be_called_is_refused(callback: object) -> None:
    with pytest.raises(ArgumentError, match=r"callbacks = .*on_start, on_step, on_epoch or on_end"):
        fit(net(), blobs(), epochs=1, batch_size=16, seed=0, callbacks=[callback])  # type: ignore[list-item]
