"""Laws of weight files."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from privet.checkpoints import load_weights, save_weights
from privet.errors import ArgumentError, FileFormatError
from privet.models import MLP, LeNet5, LinearNet


def same(first: nn.Module, second: nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_what_is_saved_is_loaded(tmp_path: Path, suffix: str) -> None:
    first, second = LeNet5(seed=1), LeNet5(seed=2)
    path = tmp_path / f"net{suffix}"
    save_weights(path, first) if suffix == ".safetensors" else torch.save(first.state_dict(), path)
    assert not same(first, second)
    load_weights(path, second)
    assert same(first, second)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_transposed_and_empty_tensors_keep_their_values(tmp_path: Path) -> None:
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    first.weight = nn.Parameter(torch.rand(3, 2).t())
    first.register_buffer("none", torch.zeros(0, 4))
    second.register_buffer("none", torch.zeros(0, 4))
    save_weights(tmp_path / "a.safetensors", first)
    load_weights(tmp_path / "a.safetensors", second)
    assert same(first, second)


def test_shared_tensors_stay_shared_and_may_stand_under_one_name(tmp_path: Path) -> None:
    first, second, third = Tied(), Tied(), Tied()
    save_weights(tmp_path / "a.safetensors", first)
    load_weights(tmp_path / "a.safetensors", second)
    assert same(first, second)
    assert second.first.weight is second.second.weight
    state = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    safetensors.torch.save_file({k: v for k, v in state.items() if k != "first.weight"}, tmp_path / "b.safetensors")
    load_weights(tmp_path / "b.safetensors", third)
    assert same(first, third)
    state["second.weight"] += 1
    safetensors.torch.save_file(state, tmp_path / "c.safetensors")
    with pytest.raises(FileFormatError, match="differ"):
        load_weights(tmp_path / "c.safetensors", third)


OTHER: list[tuple[nn.Module, str]] = [
    (LinearNet(5, 3, seed=0), r"classifier.weight as float32 \(3, 5\); expected float32 \(3, 4\)"),
    (LinearNet(4, 3, seed=0).double(), "classifier.weight as float64"),
    (MLP((4, 3), seed=0), "no classifier.bias, classifier.weight; unknown classifier.fc1.bias"),
]


@pytest.mark.parametrize(("model", "message"), OTHER)
def test_weights_of_another_model_change_nothing(tmp_path: Path, model: nn.Module, message: str) -> None:
    save_weights(tmp_path / "a.safetensors", model)
    here = LinearNet(4, 3, seed=1)
    with pytest.raises(FileFormatError, match=message):
        load_weights(tmp_path / "a.safetensors", here)
    assert same(here, LinearNet(4, 3, seed=1))


@pytest.mark.parametrize("content", [LinearNet(4, 3), [torch.ones(1)], {"a": 1}, OrderedDict({1: torch.ones(1)})])
def test_torch_files_of_something_else_are_refused_unrun(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(FileFormatError, match=r"a\.pt"):
        load_weights(tmp_path / "a.pt", LinearNet(4, 3))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_truncated_files_are_refused_by_name(tmp_path: Path, suffix: str) -> None:
    model, path = LinearNet(4, 3), tmp_path / f"a{suffix}"
    save_weights(path, model) if suffix == ".safetensors" else torch.save(model.state_dict(), path)
    whole = path.read_bytes()
    for size in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(FileFormatError, match=path.name):
            load_weights(path, model)


def test_names_and_places_are_checked(tmp_path: Path) -> None:
    model = LinearNet(4, 3)
    for path in (tmp_path / "a.pt", tmp_path / "absent" / "a.safetensors"):
        with pytest.raises(ArgumentError, match="path"):
            save_weights(path, model)
    (tmp_path / "a.bin").write_bytes(b"x")
    for path in (tmp_path / "a.bin", tmp_path / "absent.safetensors"):
        with pytest.raises(FileFormatError, match=path.name):
            load_weights(path, model)
