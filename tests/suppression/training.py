"""A small network with convolutions, and a loop that trains it with suppression."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from privet.suppression import Suppression

BATCHES, BATCH = 6, 8


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),  # 36 weights
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 10),  # 640
        nn.ReLU(),
        nn.Linear(10, 3),  # 30
    )


def batches(seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        inputs = torch.randn(BATCH, 1, 6, 6, generator=generator)
        yield inputs, inputs.flatten(1).sum(1).sign().long() + 1


def suppression_of(model: nn.Module, optimizer: torch.optim.Optimizer | None, **changed: Any) -> Suppression:
    settings: dict[str, Any] = {"start_epoch": 2, "end_epoch": 4, "steps_per_epoch": BATCHES, "sparsity_end": 0.9}
    return Suppression(model, optimizer, **settings | changed)


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        return loss

    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer.step(closure)
    else:
        closure()
        optimizer.step()


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    suppression: Suppression,
    steps: int,
    look: Callable[[int], None] = lambda step: None,
    source: Iterator[tuple[Tensor, Tensor]] | None = None,
) -> None:
    source = batches() if source is None else source
    for step in range(1, steps + 1):
        one_step(model, optimizer, next(source))
        suppression.step()
        look(step)


def zeros(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter == 0 for name, parameter in model.named_parameters() if parameter.dim() > 1}
