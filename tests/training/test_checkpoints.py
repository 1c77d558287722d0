"""Laws of checkpoints: a run that was stopped and resumed is the run that was not."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, ReduceLROnPlateau, StepLR

from privet.errors import ArgumentError, CheckpointError
from privet.models import MLP
from privet.training import EpochRecord, FitResult, fit


def blobs(n: int = 50, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    return torch.randn(n, 4, generator=generator) + functional.one_hot(labels, 4), labels


def net(width: int = 16, dropout: float = 0.3) -> nn.Module:
    parts = (MLP((4, width, 8), seed=1), nn.BatchNorm1d(8), nn.Dropout(dropout), MLP((8, 3), seed=2))
    return nn.Sequential(*parts)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Interrupt:
    """Ctrl-C at one step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step(self, step: int, model: nn.Module, optimizer: Optimizer) -> None:
        if step == self.at:
            raise KeyboardInterrupt

    def on_epoch(self, record: EpochRecord, model: nn.Module) -> None:
        pass


def run(model: nn.Module, **given: Any) -> FitResult:
    return fit(model, given.pop("examples", blobs()), **{"epochs": 5, "batch_size": 16, "seed": 3, **given})


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "momentum": lambda p: SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: Adam(p, lr=0.01),
    "adamw": lambda p: AdamW(p, lr=0.01, amsgrad=True),
}
SCHEDULERS: dict[str, Callable[[Optimizer], LRScheduler]] = {
    "step": lambda o: StepLR(o, 2, 0.3),
    "milestones": lambda o: MultiStepLR(o, [1, 3], 0.3),
    "cosine": lambda o: CosineAnnealingLR(o, 5),
    "plateau": lambda o: ReduceLROnPlateau(o, patience=0, threshold=10.0),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("at", [2, 6, 11, 20])
def test_interrupted_and_resumed_is_uninterrupted(tmp_path: Path, optimizer: str, scheduler: str, at: int) -> None:
    """Four steps an epoch: the interrupt falls into the first, second, third and fifth."""
    settings: dict[str, Any] = {
        "optimizer": OPTIMIZERS[optimizer],
        "scheduler": SCHEDULERS[scheduler],
        "validation": blobs(seed=4),
        "checkpoint": tmp_path / "run",
    }
    straight, broken, resumed = net(), net(), net()
    expected = run(straight, **{**settings, "checkpoint": None})
    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        run(broken, **settings, callbacks=[Interrupt(at)])
    assert (tmp_path / "run").exists() == (at > 4)
    nn.init.zeros_(resumed[3].classifier.fc1.weight)  # type: ignore[index, union-attr, arg-type]
    if at <= 4:
        resumed = net()
    found = run(resumed, **settings, resume=True)
    assert torch.equal(before, torch.get_rng_state())
    assert found == expected
    assert same(weights(resumed), weights(straight))


def test_more_epochs_continue_and_fewer_are_refused(tmp_path: Path) -> None:
    straight, model = net(), net()
    run(straight, epochs=4)
    run(model, epochs=2, checkpoint=tmp_path / "run")
    assert not same(weights(model), weights(straight))
    run(model, epochs=4, checkpoint=tmp_path / "run", resume=True)
    assert same(weights(model), weights(straight))
    other = net(dropout=0.3)
    nn.init.zeros_(other[3].classifier.fc1.weight)  # type: ignore[index, union-attr, arg-type]
    untouched, generator = weights(other), torch.get_rng_state()
    with pytest.raises(CheckpointError, match="4 epochs are done"):
        run(other, epochs=3, checkpoint=tmp_path / "run", resume=True)
    assert same(weights(other), untouched)
    assert torch.equal(generator, torch.get_rng_state())


def test_the_best_weights_survive_a_resume(tmp_path: Path) -> None:
    """Validation labels are shuffled, so training soon makes the validation loss worse."""
    wrong = (blobs()[0], blobs()[1].roll(1))
    settings: dict[str, Any] = {"validation": wrong, "patience": 6, "epochs": 30, "learning_rate": 0.05}
    straight, resumed = net(), net()
    expected = run(straight, **settings)
    assert expected.stopped_early
    assert expected.best_epoch is not None
    with pytest.raises(KeyboardInterrupt):
        run(net(), **settings, checkpoint=tmp_path / "run", callbacks=[Interrupt(4 * expected.best_epoch + 7)])
    found = run(resumed, **settings, checkpoint=tmp_path / "run", resume=True)
    assert found == expected
    assert same(weights(resumed), weights(straight))
    again = net()
    assert run(again, **settings, checkpoint=tmp_path / "run", resume=True) == expected
    assert same(weights(again), weights(straight))


class Scaling:
    """A callback that changes the weights by a state of its own."""

    def __init__(self) -> None:
        self.factor, self.calls = torch.ones(()), 0

    def on_step(self, step: int, model: nn.Module, optimizer: Optimizer) -> None:
        self.factor *= 0.999
        self.calls += 1
        with torch.no_grad():
            next(model.parameters()).mul_(self.factor)

    def on_epoch(self, record: EpochRecord, model: nn.Module) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self.factor, "calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.factor, self.calls = state["factor"], state["calls"]


def test_callbacks_with_a_state_are_resumed(tmp_path: Path) -> None:
    straight, resumed, last = net(), net(), Scaling()
    run(straight, callbacks=[Scaling()])
    with pytest.raises(KeyboardInterrupt):
        run(net(), checkpoint=tmp_path / "run", callbacks=[Scaling(), Interrupt(10)])
    run(resumed, checkpoint=tmp_path / "run", callbacks=[last], resume=True)
    assert last.calls == 20
    assert same(weights(resumed), weights(straight))


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "batch size": ({"batch_size": 8}, "batch_size is 16 there and 8 here"),
    "seed": ({"seed": 4}, "seed is 3 there and 4 here"),
    "learning rate": ({"learning_rate": 0.1}, "lr is 0.001 there and 0.1 here"),
    "optimizer": ({"optimizer": lambda p: SGD(p, lr=0.001)}, "Adam there and torch.optim.sgd.SGD here"),
    "scheduler": ({"scheduler": lambda o: StepLR(o, 2)}, "scheduler is none there"),
    "loss": ({"loss": partial(functional.cross_entropy, label_smoothing=0.1)}, "label_smoothing=0.1"),
    "validation": ({"validation": blobs()}, "validation is none there"),
    "one input": ({"examples": (blobs()[0].index_fill(0, torch.tensor([3]), 1.0), blobs()[1])}, "examples is 50"),
    "one label": ({"examples": (blobs()[0], (blobs()[1] + (torch.arange(50) == 7)) % 3)}, "examples is 50"),
    "callback": ({"callbacks": [Scaling()]}, "callbacks"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused_and_says_what_differs(tmp_path: Path, name: str) -> None:
    change, message = OTHERS[name]
    run(net(), epochs=1, checkpoint=tmp_path / "run")
    before, model = (tmp_path / "run").read_bytes(), net()
    untouched = weights(model)
    with pytest.raises(CheckpointError, match=message) as refused:
        run(model, **{"checkpoint": tmp_path / "run", "resume": True, **change})
    assert str(tmp_path / "run") in str(refused.value)
    assert same(weights(model), untouched)
    assert (tmp_path / "run").read_bytes() == before


@pytest.mark.parametrize(("model", "message"), [(net(17), r"float32 \(16, 4\) there"), (net(dropout=0.4), "p=0.3")])
def test_another_model_is_refused(tmp_path: Path, model: nn.Module, message: str) -> None:
    run(net(), epochs=1, checkpoint=tmp_path / "run")
    with pytest.raises(CheckpointError, match=message if "there" in message else "belongs to another run: model is"):
        run(model, checkpoint=tmp_path / "run", resume=True)


def test_a_frozen_layer_is_another_run(tmp_path: Path) -> None:
    run(net(), epochs=1, checkpoint=tmp_path / "run")
    model = net()
    next(model.parameters()).requires_grad_(False)
    with pytest.raises(CheckpointError, match="trained"):
        run(model, checkpoint=tmp_path / "run", resume=True)


def test_an_existing_checkpoint_is_not_written_over(tmp_path: Path) -> None:
    run(net(), epochs=1, checkpoint=tmp_path / "run")
    before = (tmp_path / "run").read_bytes()
    with pytest.raises(CheckpointError, match="resume=True"):
        run(net(), epochs=1, checkpoint=tmp_path / "run")
    assert (tmp_path / "run").read_bytes() == before


def test_a_damaged_checkpoint_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    run(net(), epochs=1, checkpoint=tmp_path / "run")
    whole = (tmp_path / "run").read_bytes()
    (tmp_path / "run").write_bytes(whole[:100])
    model = net()
    untouched = weights(model)
    with pytest.raises(CheckpointError):
        run(model, checkpoint=tmp_path / "run", resume=True)
    assert same(weights(model), untouched)
    assert (tmp_path / "run").read_bytes() == whole[:100]


def test_a_resume_removes_what_a_killed_write_left_and_nothing_else(tmp_path: Path) -> None:
    for name in (".run.0123456789abcdef.tmp", ".other.0123456789abcdef.tmp", ".run.mine.tmp"):
        (tmp_path / name).write_bytes(b"half")
    run(net(), epochs=1, checkpoint=tmp_path / "run", resume=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".other.0123456789abcdef.tmp", ".run.mine.tmp", "run"]


EVERY: dict[str, Callable[..., Optimizer]] = {
    name: getattr(torch.optim, name)
    for name in ("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop")
}


@pytest.mark.parametrize("name", EVERY)
def test_the_state_of_every_optimizer_of_torch_fits_itself(tmp_path: Path, name: str) -> None:
    straight, resumed = net(), net()
    run(straight, epochs=2, optimizer=EVERY[name])
    run(resumed, epochs=1, optimizer=EVERY[name], checkpoint=tmp_path / "run")
    run(resumed, epochs=2, optimizer=EVERY[name], checkpoint=tmp_path / "run", resume=True)
    assert same(weights(resumed), weights(straight))


def test_a_state_that_cannot_be_kept_is_refused_before_training(tmp_path: Path) -> None:
    class Odd(Scaling):
        def state_dict(self) -> dict[str, Any]:
            return {"odd": object()}

    with pytest.raises(ArgumentError, match=r"callbacks\.0\.odd"):
        run(net(), checkpoint=tmp_path / "run", callbacks=[Odd()], epochs=1)
    assert list(tmp_path.iterdir()) == []


KILLED = textwrap.dedent("""
    import os, random, signal, sys, time
    import torch
    from privet.checkpoints import read_snapshot
    from privet.models import MLP
    from privet.training import fit

    torch.set_num_threads(1)
    path, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    chooser = random.Random(seed)
    torch.manual_seed(0)
    inputs, labels = torch.rand(64, 8), torch.arange(64) % 3

    def train(checkpoint):
        net = torch.nn.Sequential(MLP((8, 2000, 100), seed=1), torch.nn.Dropout(0.2), MLP((100, 3), seed=2))
        resume = checkpoint is not None
        fit(net, (inputs, labels), epochs=40, batch_size=32, seed=0, checkpoint=checkpoint, resume=resume)
        return net

    tiny = torch.nn.Linear(8, 3)  # what torch loads at first use is loaded before the forks
    fit(tiny, (inputs, labels), epochs=1, batch_size=32, seed=0)

    killed, read, finished = 0, 0, False
    while not finished:
        child = os.fork()
        if child == 0:
            train(path)
            os._exit(0)
        if killed < kills:
            time.sleep(chooser.uniform(0.02, 0.25))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
        elif os.WEXITSTATUS(status) != 0:
            sys.exit("a run failed to resume")
        else:
            finished = True
        if os.path.exists(path):
            read += len(read_snapshot(path).history) > 0
    stored = read_snapshot(path)
    whole = train(None).state_dict()
    assert len(stored.history) == 40
    assert all(torch.equal(whole[name], stored.model[name]) for name in whole), "other weights"
    assert len(os.listdir(os.path.dirname(path))) == 1, os.listdir(os.path.dirname(path))
    print(killed, read)
""")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_at_any_moment_and_resumed_is_uninterrupted(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "run"), "12", "7"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    killed, read = map(int, done.stdout.split())
    assert killed >= 4
    assert read >= 3
