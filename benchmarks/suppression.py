"""Training with suppression next to plain training and to PyTorch's own pruning: LeNet-5, 1,000 updates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import prune

from benchmarks.harness import Call, Work
from privet.data import mnist5k
from privet.models import LeNet5
from privet.suppression import Ramp, Suppression

NAME = "suppression"
_IMAGES, _BATCH, _LEARNING_RATE = 60_000, 32, 0.1
_STEPS = _IMAGES // _BATCH
_START, _END, _UPDATES, _SPARSITY = 3, 10, 1_000, 0.95
_CALL = 75  # steps; five updates
_WARM_UP = 2  # calls, of the harness
_PLAIN = "plain training"
_AfterStep = Callable[[nn.Module, torch.optim.Optimizer], Callable[[], object]]


def works() -> list[Work]:
    """A whole training, in calls of a few steps, so that a slow moment of the machine meets all methods alike.

    The second work is the ramp alone: the epochs before it, where nothing is masked, are no part of what is timed.
    """
    methods = {_PLAIN: _plain, "privet.suppression": _suppression, "torch.nn.utils.prune": _pruning}
    return [
        Work(
            f"lenet5, {name}",
            {method: _set_up(after_step, before) for method, after_step in methods.items()},
            baseline=_PLAIN,
            rounds=(_END * _STEPS - before) // _CALL - _WARM_UP,
        )
        for name, before in (("10 epochs of 60,000", 0), ("its epochs 3 to 10", (_START - 1) * _STEPS))
    ]


def _set_up(after_step: _AfterStep, before: int) -> Callable[[], Call]:
    def set_up() -> Call:
        images = mnist5k()
        network = LeNet5(seed=0).train()
        optimizer = torch.optim.SGD(network.parameters(), lr=_LEARNING_RATE)
        stepped = after_step(network, optimizer)
        generator = torch.Generator().manual_seed(0)

        def train(steps: int) -> None:
            for _ in range(steps):
                rows = torch.randint(len(images), (_BATCH,), generator=generator)
                optimizer.zero_grad()
                outputs = network(images.inputs[rows])
                nn.functional.cross_entropy(outputs, images.labels[rows]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                stepped()

        train(before)
        return lambda: train(_CALL)

    return set_up


def _plain(network: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    return lambda: None


def _suppression(network: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    suppression = Suppression(
        network,
        optimizer,
        start_epoch=_START,
        end_epoch=_END,
        steps_per_epoch=_STEPS,
        updates=_UPDATES,
        sparsity_end=_SPARSITY,
    )
    return suppression.step


def _pruning(network: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """The same ramp by magnitude pruning as it is usually written: taken off and put on anew at every update."""
    ramp = Ramp.over(
        start_epoch=_START, end_epoch=_END, steps_per_epoch=_STEPS, updates=_UPDATES, sparsity_end=_SPARSITY
    )
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    done = 0

    def stepped() -> None:
        nonlocal done
        done += 1
        if ramp.updates_at(done):
            for layer in layers:
                if prune.is_pruned(layer):
                    prune.remove(layer, "weight")  # type: ignore[no-untyped-call]
                prune.l1_unstructured(layer, "weight", amount=ramp.sparsity(done))  # type: ignore[no-untyped-call]

    return stepped
