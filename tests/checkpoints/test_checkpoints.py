"""Laws of checkpoints: what is saved is put back whole, or refused before anything changes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import StepLR

from privet.checkpoints import load_checkpoint, read_snapshot, save_checkpoint, save_weights, write_snapshot
from privet.errors import CheckpointError, FileWriteError
from privet.models import MLP


def net() -> nn.Module:
    return nn.Sequential(MLP((4, 16, 8), seed=1), nn.BatchNorm1d(8), nn.Dropout(0.3), MLP((8, 3), seed=2))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def saved(path: Path) -> None:
    """A checkpoint of ``net`` after one step of Adam."""
    model = net()
    optimizer = Adam(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    save_checkpoint(path, model, optimizer)


class Scaling:
    """An object with a state."""

    def state_dict(self) -> dict[str, Any]:
        return {"factor": torch.ones(())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise AssertionError("put back although the run was refused")


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "run"
    saved(path)
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
    saved(tmp_path / "run")
    snapshot = read_snapshot(tmp_path / "run")
    MISFITS[name](snapshot.optimizer["state"])
    write_snapshot(tmp_path / "run", snapshot)
    model = net()
    untouched = weights(model)
    with pytest.raises(CheckpointError, match=r"belongs to another optimizer: .*parameter (0|1|99) "):
        load_checkpoint(tmp_path / "run", model, Adam(model.parameters()))
    assert same(weights(model), untouched)
