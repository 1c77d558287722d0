"""How many examples go through a model at once: it follows the memory there is, and changes no result."""

import pytest
import torch
from tests.dp.training import data, loss_of, mlp, plan, private_of, train
from torch import nn

from privet.dp import TestRun, physical
from privet.dp.per_example.engine import Engine
from privet.dp.physical import largest_batch
from privet.errors import ArgumentError


def of(model: nn.Module, free: int, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(physical, "_free_bytes", lambda device: free)
    return largest_batch(Engine(model), loss_of(model), data(8), 8)


def test_it_is_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of(mlp(), 1, monkeypatch) == 1


def test_it_grows_with_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [of(mlp(), free, monkeypatch) for free in (1 << 16, 1 << 20, 1 << 24)]
    assert found[0] < found[1] < found[2]
    assert found[2] == pytest.approx(256 * found[0], rel=0.2)


def test_it_falls_with_what_an_example_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = nn.Sequential(nn.Linear(6, 500), nn.Tanh(), nn.Linear(500, 3))
    assert 20 * of(wide, 1 << 24, monkeypatch) < of(mlp(), 1 << 24, monkeypatch)


def test_weights_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen layer as large as the memory: it is there already."""
    big = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
    big.register_parameter("unused", nn.Parameter(torch.zeros(1 << 18), requires_grad=False))
    small = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
    assert of(big, 1 << 20, monkeypatch) == of(small, 1 << 20, monkeypatch)


def test_the_memory_of_this_machine_is_found() -> None:
    assert physical._free_bytes(torch.device("cpu")) > 1 << 20


def test_little_memory_cuts_the_batch_and_not_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    found, sizes = [], []
    for free in (1 << 30, 1):
        monkeypatch.setattr(physical, "_free_bytes", lambda device, free=free: free)
        model = mlp()
        private = private_of(model, plan(), test_run=TestRun(1))
        found.append(torch.stack(train(private, model)))
        sizes.append(private._max_physical_batch)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
    assert sizes[1] == 1
    assert sizes[0] is not None
    assert sizes[0] > 8


@pytest.mark.parametrize("most", [0, -1, 2.0, True])
def test_another_limit_is_refused(most: object) -> None:
    with pytest.raises(ArgumentError, match="max_physical_batch"):
        private_of(mlp(), plan(), max_physical_batch=most)
