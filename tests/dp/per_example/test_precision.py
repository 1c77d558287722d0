"""What is measured and what is added are made in full float32, whatever the user lets the model run in."""

from collections.abc import Iterator

import pytest
import torch
from tests.dp.per_example.laws import problem
from tests.dp.per_example.layers import LAYERS, Layer
from torch import nn

from privet.dp.per_example.engine import Engine
from privet.dp.per_example.precision import full_precision
from privet.dp.per_example.tape import Tape
from privet.dp.per_example.use import Use

SETTINGS = (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv)


@pytest.fixture(autouse=True)
def reduced() -> Iterator[None]:
    """Products of float32 as bfloat16, as ``torch.set_float32_matmul_precision("medium")`` asks for."""
    before = [one.fp32_precision for one in SETTINGS]
    for one in SETTINGS:
        one.fp32_precision = "bf16"
    yield
    assert [one.fp32_precision for one in SETTINGS] == ["bf16", "bf16"]
    for one, precision in zip(SETTINGS, before, strict=True):
        one.fp32_precision = precision


class Watched:
    """A use that notes the settings under which each of its methods is called."""

    def __init__(self, use: Use, seen: set[tuple[str, ...]]) -> None:
        self._use, self._seen, self.parts = use, seen, use.parts

    def __getattr__(self, name: str):
        self._seen.add((name, *(one.fp32_precision for one in SETTINGS), torch.is_autocast_enabled("cpu")))
        return getattr(self._use, name)


@pytest.fixture
def seen(monkeypatch) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    real = Tape.arrived
    monkeypatch.setattr(Tape, "arrived", lambda self, use: real(self, Watched(use, found)))
    return found


def run(layer: nn.Module, data: object, loss, size: int) -> None:
    engine = Engine(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gradients = engine.take(loss, data, size)
        gradients.add_to(engine.flat(), torch.ones(1, size, dtype=torch.float64))


@pytest.mark.parametrize("layer", LAYERS, ids=lambda one: one.name)
def test_norms_and_sums_of_every_layer(layer: Layer, seen):
    case = layer.behind(torch.float32)
    run(case.model, case.data, case.loss, case.size)
    assert {one[0] for one in seen} >= {"squared_norms", "add_to"} or {one[0] for one in seen} >= {"factors", "add_to"}
    assert {one[1:] for one in seen} == {("ieee", "ieee", False)}


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, inputs):
        return self.inner(self.inner(inputs).tanh())


def test_what_is_used_more_than_once(seen):
    case = problem(Twice(), (5, 6), dtype=torch.float32)
    run(case.model, case.data, case.loss, case.size)
    assert {one[0] for one in seen} >= {"factors", "add_to"}
    assert {one[1:] for one in seen} == {("ieee", "ieee", False)}


def test_an_error_leaves_the_settings_as_they_were():
    def fails() -> None:
        with full_precision("cpu"):
            assert [one.fp32_precision for one in SETTINGS] == ["ieee", "ieee"]
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert [one.fp32_precision for one in SETTINGS] == ["bf16", "bf16"]
