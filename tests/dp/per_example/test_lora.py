"""Adapters on a frozen network: right, and what is frozen costs nothing."""

from __future__ import annotations

import pytest
import torch
from benchmarks.dp_networks import SmallGPT
from tests.dp.per_example.laws import law_agrees, law_norms_bound_the_sum, problem, random_
from torch import Tensor, nn

from privet.dp import examine
from privet.dp.per_example.engine import Engine


class Adapted(nn.Module):
    """A frozen layer with a low-rank one beside it."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs) + 0.5 * self.up(self.down(inputs))


def test_an_adapter_of_ones_own() -> None:
    frozen = nn.Sequential(nn.Conv1d(3, 3, 1), nn.LSTM(6, 6, batch_first=True)).requires_grad_(False)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen, self.adapted = frozen, Adapted(nn.Linear(6, 4), 2)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.adapted(self.frozen[1](self.frozen[0](inputs))[0])

    case = problem(Model(), (3, 6))
    law_agrees(case, groups=2)
    gradients = Engine(case.model).take(case.loss, case.data, case.size)
    assert sorted(gradients.per_example()) == ["adapted.down.weight", "adapted.up.weight"]
    assert len(gradients._uses) == 2


def test_adapters_of_peft() -> None:
    peft = pytest.importorskip("peft")
    words = peft.get_peft_model(SmallGPT(11, 4, 16, 2, 2), peft.LoraConfig(r=2, target_modules=["qkv", "tokens"]))
    law_agrees(problem(words, (4,), words=11))  # a table's adapter is made of bare parameters: by vmap
    linear = peft.get_peft_model(SmallGPT(11, 4, 16, 2, 2), peft.LoraConfig(r=2, target_modules=["qkv", "out"]))
    case = problem(linear, (4,), words=11)
    random_(case.model, seed=3, scale=0.3)
    law_agrees(case)
    law_norms_bound_the_sum(problem(linear.float(), (4,), words=11, dtype=torch.float32))
    uses = Engine(case.model).take(case.loss, case.data, case.size)._uses
    assert len(uses) == 2 * 2 * 2
    diagnosis = examine(linear, lambda data: linear(data).square().flatten(1).sum(dim=1), case.data[0], case.size)
    assert diagnosis.ready
