"""Laws of checkpoints: a run that was stopped and resumed is the run that was not."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, ReduceLROnPlateau, StepLR

from privet.errors import ArgumentError, CheckpointError, FileWriteError
from privet.models import MLP
from privet.training import EpochRecord, FitResult, fit, load_checkpoint, save_checkpoint, save_weights
from privet.training.snapshots import read_snapshot, write_snapshot


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


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(net(), epochs=1, checkpoint=path)
    whole = path.read_bytes()
    chooser = random.Random(0)
    damaged = [b"", b"x", whole[:7], whole[: len(whole) // 2], whole[:-1], whole + b"x", b"\x80\x04K\x01."]
    places = [8, 40, len(whole) - 1, *(chooser.randrange(len(whole)) for _ in range(60))]
    damaged += [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in places]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=str(path)):
            read_snapshot(path)
    save_weights(tmp_path / "weights.safetensors", net())
    for foreign in (tmp_path / "weights.safetensors", tmp_path, tmp_path / "absent"):
        with pytest.raises(CheckpointError, match=foreign.name):
            read_snapshot(foreign)
    path.write_bytes(whole[:100])
    model = net()
    untouched = weights(model)
    with pytest.raises(CheckpointError):
        run(model, checkpoint=path, resume=True)
    assert same(weights(model), untouched)
    assert path.read_bytes() == whole[:100]


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({}, tmp_path / "run", {"format": "privet checkpoint", "version": "2"})
    with pytest.raises(CheckpointError, match="version '2'"):
        read_snapshot(tmp_path / "run")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    save_checkpoint(tmp_path / "run", model, optimizer)
    before = (tmp_path / "run").read_bytes()

    def fail(*given: Any, **named: Any) -> None:
        assert (tmp_path / "run").read_bytes() == before
        raise OSError("no space left")

    monkeypatch.setattr(os, failing, fail) if failing == "fsync" else monkeypatch.setattr(Path, "replace", fail)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    with pytest.raises(FileWriteError, match="run cannot be written: no space left"):
        save_checkpoint(tmp_path / "run", model, optimizer)
    assert (tmp_path / "run").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_a_resume_removes_what_a_killed_write_left_and_nothing_else(tmp_path: Path) -> None:
    for name in (".run.0123456789abcdef.tmp", ".other.0123456789abcdef.tmp", ".run.mine.tmp"):
        (tmp_path / name).write_bytes(b"half")
    run(net(), epochs=1, checkpoint=tmp_path / "run", resume=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".other.0123456789abcdef.tmp", ".run.mine.tmp", "run"]


def test_save_and_load_put_every_state_back(tmp_path: Path) -> None:
    generator, model = torch.Generator().manual_seed(1), net()
    optimizer = AdamW(model.parameters(), lr=0.1, betas=(0.8, 0.9))
    scheduler = StepLR(optimizer, 1, 0.5)
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    scheduler.step()
    expected = weights(model)
    with torch.random.fork_rng(devices=[]):
        save_checkpoint(tmp_path / "run", model, optimizer, scheduler=scheduler, generator=generator)
        drawn, shuffled = torch.rand(3), torch.randperm(9, generator=generator)
        other = net()
        again = AdamW(other.parameters(), lr=0.3)
        schedule = StepLR(again, 1, 0.1)
        load_checkpoint(tmp_path / "run", other, again, scheduler=schedule, generator=generator)
        assert torch.equal(drawn, torch.rand(3))
        assert torch.equal(shuffled, torch.randperm(9, generator=generator))
    assert same(weights(other), expected)
    assert again.param_groups[0]["lr"] == 0.05
    assert again.param_groups[0]["betas"] == (0.8, 0.9)
    assert schedule.state_dict() == scheduler.state_dict()
    for parameter, twin in zip(model.parameters(), other.parameters(), strict=True):
        assert same(optimizer.state[parameter], again.state[twin])


def test_what_does_not_fit_is_refused_before_anything_changes(tmp_path: Path) -> None:
    model, other = net(), net()
    save_checkpoint(tmp_path / "run", model, SGD(model.parameters(), lr=0.1), configuration={"a": 1})
    with torch.no_grad():
        next(other.parameters()).add_(1)
    before = weights(other)
    optimizer = SGD(other.parameters(), lr=0.2)
    scheduler = StepLR(SGD([nn.Parameter(torch.zeros(1))], lr=0.1), 1)
    for wrong in ({"configuration": {"a": 2}}, {"generator": torch.Generator()}, {"callbacks": [Scaling()]},
                  {"scheduler": scheduler}):  # fmt: skip
        with pytest.raises(CheckpointError, match="belongs to another run"):
            load_checkpoint(tmp_path / "run", other, optimizer, **wrong)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="belongs to another optimizer"):
        load_checkpoint(tmp_path / "run", other, Adam(other.parameters()))
    snapshot = read_snapshot(tmp_path / "run")
    write_snapshot(tmp_path / "run", replace(snapshot, model={**snapshot.model, "more": torch.ones(1)}))
    with pytest.raises(CheckpointError, match="more is float32"):
        load_checkpoint(tmp_path / "run", other, optimizer)
    assert same(weights(other), before)
    assert optimizer.param_groups[0]["lr"] == 0.2


MISFITS: dict[str, Callable[[dict[Any, Any]], Any]] = {
    "another shape": lambda state: state[0].update(exp_avg=torch.zeros(3)),
    "broadcastable": lambda state: state[1].update(exp_avg_sq=torch.zeros(1)),
    "a row of steps": lambda state: state[0].update(step=torch.zeros(2)),
    "no such parameter": lambda state: state.update({99: state[0]}),
    "no mapping": lambda state: state.update({0: torch.zeros(1)}),
}


@pytest.mark.parametrize("name", MISFITS)
def test_an_optimizer_state_of_other_shapes_is_refused_before_anything_changes(tmp_path: Path, name: str) -> None:
    run(net(), epochs=1, checkpoint=tmp_path / "run")
    snapshot = read_snapshot(tmp_path / "run")
    MISFITS[name](snapshot.optimizer["state"])
    write_snapshot(tmp_path / "run", snapshot)
    model = net()
    untouched = weights(model)
    with pytest.raises(CheckpointError, match=r"belongs to another optimizer: .*parameter (0|1|99) "):
        run(model, checkpoint=tmp_path / "run", resume=True)
    assert same(weights(model), untouched)


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
    from privet.errors import CheckpointError
    from privet.models import MLP
    from privet.training import fit
    from privet.training.snapshots import read_snapshot

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
