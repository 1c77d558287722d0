"""Stopped in the middle of the ramp and taken up again, a run ends with the weights of one that never stopped."""

from __future__ import annotations

import copy
import io
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.suppression.test_laws import OPTIMIZERS
from tests.suppression.training import BATCHES, batches, network, suppression_of, train, zeros
from torch import nn, optim

from privet.errors import ArgumentError, CheckpointError
from privet.suppression import Layer, Suppression
from privet.training import fit, load_checkpoint, save_checkpoint

STEPS, STOP = 5 * BATCHES, 2 * BATCHES + 4
NOISY = [Layer("0", lower_clip=0.01, noise_std=0.05), Layer(nn.Linear, upper_bound=0.9, minimum_kept=5)]


def noisy(model: nn.Module, optimizer: optim.Optimizer | None, **changed: Any) -> Suppression:
    generator = torch.Generator().manual_seed(7)
    return suppression_of(model, optimizer, layers=NOISY, generator=generator, updates=5, **changed)


def run(name: str) -> tuple[nn.Module, optim.Optimizer, Suppression]:
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    return model, optimizer, noisy(model, optimizer)


def same(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.state_dict().values(), right.state_dict().values(), strict=True))


@pytest.mark.parametrize("order", ["model first", "suppression first"])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_through_a_file_of_torch(name: str, order: str) -> None:
    straight = run(name)
    train(*straight, STEPS)
    model, optimizer, suppression = run(name)
    source = batches()
    train(model, optimizer, suppression, STOP, source=source)
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), suppression.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    model, optimizer, suppression = run(name)
    taking = [model, optimizer, suppression]
    for one in (0, 1, 2) if order == "model first" else (2, 0, 1):
        taking[one].load_state_dict(states[one])
    train(model, optimizer, suppression, STEPS - STOP, source=source)
    assert same(model, straight[0])
    assert suppression.report() == straight[2].report()


def test_through_a_checkpoint_of_ones_own_loop(tmp_path: Path) -> None:
    straight = run("Adam")
    train(*straight, STEPS)
    model, optimizer, suppression = run("Adam")
    source = batches()
    train(model, optimizer, suppression, STOP, source=source)
    save_checkpoint(tmp_path / "run.safetensors", model, optimizer, callbacks=[suppression])
    model, optimizer, suppression = run("Adam")
    load_checkpoint(tmp_path / "run.safetensors", model, optimizer, callbacks=[suppression])
    train(model, optimizer, suppression, STEPS - STOP, source=source)
    assert same(model, straight[0])


class Stop(Exception):
    pass


class StopAt:
    def __init__(self, step: int, error: type[BaseException]) -> None:
        self.step, self.error = step, error

    def on_step(self, step: int, model: nn.Module, optimizer: optim.Optimizer) -> None:
        if step == self.step:
            raise self.error


@pytest.mark.parametrize("make", ["momentum", "Adam", "Adafactor", "RMSprop"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop])
@pytest.mark.parametrize("stop", [1, STOP, 4 * BATCHES])
def test_fit_goes_on_from_the_last_epoch(tmp_path: Path, make: str, error: type[BaseException], stop: int) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(BATCHES * 8, 1, 6, 6, generator=generator)
    examples = inputs, inputs.flatten(1).sum(1).sign().long() + 1
    settings: dict[str, Any] = {"epochs": 5, "batch_size": 8, "seed": 3, "optimizer": OPTIMIZERS[make]}
    settings["progress"] = False
    straight, stopped, resumed = network(), network(), network()
    fit(straight, examples, callbacks=[noisy(straight, None)], **settings)
    file = {"checkpoint": tmp_path / "run.safetensors"}
    with pytest.raises(error):
        fit(stopped, examples, callbacks=[noisy(stopped, None), StopAt(stop, error)], **settings, **file)
    suppression = noisy(resumed, None)
    fit(resumed, examples, callbacks=[suppression, StopAt(-1, error)], **settings, **file, resume=True)
    assert same(resumed, straight)
    assert suppression.report().sparsity == pytest.approx(0.88, abs=0.03)


KILLED = """
import os, signal, sys, torch
torch.set_num_threads(int(sys.argv[2]))
from privet.training import fit
from tests.suppression.test_resume import noisy
from tests.suppression.training import network
class Kill:
    def on_step(self, step, model, optimizer):
        if step == 22:
            os.kill(os.getpid(), signal.SIGKILL)
generator = torch.Generator().manual_seed(0)
inputs = torch.randn(48, 1, 6, 6, generator=generator)
model = network()
fit(model, (inputs, inputs.flatten(1).sum(1).sign().long() + 1), callbacks=[noisy(model, None), Kill()], epochs=5,
    batch_size=8, seed=3, learning_rate=0.01, progress=False, checkpoint=sys.argv[1])
"""


def test_a_killed_process_goes_on(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(48, 1, 6, 6, generator=generator)
    examples = inputs, inputs.flatten(1).sum(1).sign().long() + 1
    settings: dict[str, Any] = {"epochs": 5, "batch_size": 8, "seed": 3, "learning_rate": 0.01, "progress": False}
    straight, resumed = network(), network()
    fit(straight, examples, callbacks=[noisy(straight, None)], **settings)
    file = str(tmp_path / "run.safetensors")
    arguments = [sys.executable, "-c", KILLED, file, str(torch.get_num_threads())]
    done = subprocess.run(arguments, cwd=Path(__file__).parents[2], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    fit(resumed, examples, callbacks=[noisy(resumed, None), StopAt(-1, Stop)], **settings, checkpoint=file, resume=True)
    assert same(resumed, straight)


def test_fit_refuses_what_does_not_fit_before_any_work(tmp_path: Path) -> None:
    model = network()
    examples = torch.randn(48, 1, 6, 6), torch.zeros(48, dtype=torch.int64)
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 8, "seed": 3, "progress": False}
    before = copy.deepcopy(model.state_dict())
    bound = suppression_of(model, optim.SGD(model.parameters(), lr=0.1))
    for callback, said in (
        (suppression_of(model, None, steps_per_epoch=7), "steps_per_epoch = 7 .* 6, as many as fit takes"),
        (suppression_of(network(), None), "the model that Suppression was made with"),
        (bound, "None, for fit makes one of its own"),
    ):
        with pytest.raises(ArgumentError, match=said):
            fit(model, examples, callbacks=[callback], **settings)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    bound.finalize()
    file = {"checkpoint": tmp_path / "run.safetensors"}
    fit(model, examples, callbacks=[(first := suppression_of(model, None))], **settings, **file)
    first.finalize()
    other = suppression_of(model, None, sparsity_end=0.8)
    with pytest.raises(CheckpointError, match="another run: callbacks"):
        fit(model, examples, callbacks=[other], **settings | {"epochs": 5}, **file, resume=True)


def test_a_fit_that_ended_before_its_first_step_can_be_begun_again(tmp_path: Path) -> None:
    model = network()
    examples = torch.randn(48, 1, 6, 6), torch.zeros(48, dtype=torch.int64)
    settings: dict[str, Any] = {"epochs": 5, "batch_size": 8, "seed": 3, "progress": False}
    file = tmp_path / "run.safetensors"
    file.write_bytes(b"no checkpoint")
    suppression = suppression_of(model, None)
    with pytest.raises(CheckpointError):
        fit(model, examples, callbacks=[suppression], **settings, checkpoint=file, resume=True)
    fit(model, examples, callbacks=[suppression], **settings)
    assert suppression.report().masked == 635
    with pytest.raises(ArgumentError, match="30 steps of an earlier fit"):
        fit(model, examples, callbacks=[suppression], **settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.update(version=2), "version 2"),
        (lambda state: state["settings"].update(sparsity=[0.0, 0.5]), "its sparsity are"),
        (lambda state: state["settings"]["layers"].pop("0.weight"), "its layers are"),
        (lambda state: state["masked"].pop("0.weight"), "not a state"),
        (lambda state: state["masked"].update({"0.weight": torch.ones(2, dtype=torch.bool)}), r"there; here"),
        (lambda state: state["masked"].update({"0.weight": torch.ones(4, 1, 3, 3)}), "float32"),
        (lambda state: state.update(history=torch.zeros(3, 9)), "8 layers"),
        (lambda state: state.update(generator=None), "noise"),
        (lambda state: state.pop("step"), "not a state"),
        (lambda state: state.update(step=-5), "step = -5"),
        (lambda state: state.update(step=3.7), "step = 3.7"),
        (lambda state: state.update(released="False"), "released = 'False'"),
        (lambda state: state.update(history=state["history"][:0]), "a history that ends with"),
        (lambda state: state["masked"]["0.weight"].fill_(True), "a history that ends with"),
        (lambda state: state.update(generator=state["generator"][:8]), "generator cannot be used"),
        (lambda state: state["settings"]["layers"]["0.weight"].update(lower_clip="0.3"), "its layers are"),
        (lambda state: state.clear(), "not a state"),
    ],
)
def test_another_state_is_refused_and_nothing_changes(change: Any, said: str) -> None:
    model, optimizer, suppression = run("SGD")
    train(model, optimizer, suppression, STOP)
    before = suppression.state_dict()
    state = copy.deepcopy(before)
    change(state)
    with pytest.raises(CheckpointError, match=said):
        suppression.load_state_dict(state)
    after = suppression.state_dict()
    assert str(after) == str(before)


def test_a_state_is_a_copy() -> None:
    model, optimizer, suppression = run("SGD")
    train(model, optimizer, suppression, STOP)
    state = suppression.state_dict()
    masked, rows = int(state["masked"]["3.weight"].sum()), len(state["history"])
    train(model, optimizer, suppression, BATCHES)
    assert int(state["masked"]["3.weight"].sum()) == masked < suppression.report().layers[1].masked
    assert len(state["history"]) == rows


def test_copies_go_on_by_themselves() -> None:
    straight = run("Adam")
    train(*straight, STEPS)
    first = run("Adam")
    source = batches()
    train(*first, STOP, source=source)
    second = copy.deepcopy(first)
    rest = [next(source) for _ in range(STEPS - STOP)]
    for one in (first, second):
        train(*one, STEPS - STOP, source=iter(rest))
        assert same(one[0], straight[0])
        assert one[2].report() == straight[2].report()
    alone = copy.deepcopy(first[0])
    assert same(alone, first[0])
    assert not any(value._post_accumulate_grad_hooks for value in alone.parameters())


def test_the_finalized_model_is_an_ordinary_one(tmp_path: Path) -> None:
    model, optimizer, suppression = run("Adam")
    train(model, optimizer, suppression, STEPS)
    report = suppression.report()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.5)
    assert suppression.finalize() is model
    assert suppression.finalize() is model
    count = {layer.name: layer.masked for layer in report.layers}
    assert {name: int(zero.sum()) for name, zero in zeros(model).items()} == count
    assert list(model.state_dict()) == list(network().state_dict())
    before = copy.deepcopy(model.state_dict())
    optimizer.zero_grad()
    model(torch.ones(1, 1, 6, 6)).sum().backward()
    assert int((model.get_parameter("0.weight").grad == 0).sum()) < 36
    optimizer.step()
    after = copy.deepcopy(model.state_dict())
    assert not torch.equal(after["0.weight"], before["0.weight"])
    suppression.finalize()  # it was let go; what is trained since is not touched
    assert all(torch.equal(after[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "bound", [{"minimum_kept": 3}, {"lower_clip": 0.02}, {"upper_bound": 1.0}, {"noise_std": 0.1}, {"noise_from": 0.5}]
)
def test_a_state_of_other_bounds_is_refused(bound: dict[str, Any]) -> None:
    model, generator = network(), torch.Generator().manual_seed(0)
    rule: dict[str, Any] = {"lower_clip": 0.01, "noise_std": 0.2}
    state = suppression_of(model, None, layers=[Layer("0", **rule)], generator=generator).state_dict()
    other = suppression_of(model, None, layers=[Layer("0", **rule | bound)], generator=generator)
    with pytest.raises(CheckpointError, match="its layers are"):
        other.load_state_dict(state)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_models(backend: str) -> None:
    straight, model = network(), network()
    optimizers = [optim.SGD(one.parameters(), lr=0.1, momentum=0.9) for one in (straight, model)]
    compiled = torch.compile(model, backend=backend)
    for given in (compiled, model):
        torch.manual_seed(0)
        suppression = suppression_of(given, optimizers[1], layers=["0", nn.Linear])
        assert [layer.name for layer in suppression.report().layers] == ["0.weight", "3.weight", "5.weight"]
        if given is compiled:
            suppression.finalize()
    train(straight, optimizers[0], suppression_of(straight, optimizers[0]), STEPS)
    train(compiled, optimizers[1], suppression, STEPS)  # type: ignore[arg-type]
    for left, right in zip(straight.parameters(), model.parameters(), strict=True):
        assert torch.allclose(left, right, atol=1e-5)
        assert torch.equal(left == 0, right == 0)


def test_a_compiled_optimizer() -> None:
    straight, model = network(), network()
    optimizers = [optim.SGD(one.parameters(), lr=0.1, momentum=0.9) for one in (straight, model)]
    suppressions = [suppression_of(one, made) for one, made in zip((straight, model), optimizers, strict=True)]
    train(straight, optimizers[0], suppressions[0], STEPS)
    step = torch.compile(optimizers[1].step, backend="eager")
    source = batches()
    for _ in range(STEPS):
        inputs, labels = next(source)
        optimizers[1].zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        step()
        suppressions[1].step()
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(straight.parameters(), model.parameters(), strict=True))
    assert suppressions[0].report().masked == suppressions[1].report().masked


def test_the_object_itself_is_not_written() -> None:
    with pytest.raises(TypeError, match=r"save its state_dict\(\)"):
        torch.save(run("SGD")[2], io.BytesIO())
