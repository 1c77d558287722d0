"""Training shadow models: a recipe side by side and in processes, next to an ordinary loop over a data loader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from benchmarks.harness import Call, Work
from privet.attacks.membership.fleet import Processes, Recipe, ShadowJob
from privet.data import mnist5k
from privet.models import MLP, LeNet5

NAME = "shadow-fleet"
_RECORDS, _EPOCHS, _BATCH, _LEARNING_RATE, _MOMENTUM = 2_000, 10, 64, 0.05, 0.9
_LOOP = "data loader, one after the other"


def works() -> list[Work]:
    """Sixteen multilayer perceptrons, and eight small convolutional networks."""
    return [
        _work("mlp-784-256-10", _perceptron, 16, {"side by side": _side_by_side}, rounds=5),
        _work("lenet5", _convolutional, 8, {"processes": _processes}, rounds=3),
    ]


def _work(name: str, build: _Build, shadows: int, ways: dict[str, _Way], rounds: int) -> Work:
    def set_up(way: _Way) -> Callable[[], Call]:
        return lambda: way(_recipe(build), _jobs(shadows))

    methods = {_LOOP: set_up(_loop), "recipe, one after the other": set_up(_one_by_one)}
    methods.update({f"recipe, {name}": set_up(way) for name, way in ways.items()})
    return Work(f"{shadows}-{name}, {_EPOCHS} epochs of {_RECORDS:,}", methods, baseline=_LOOP, rounds=rounds)


def _perceptron(seed: int) -> nn.Module:
    return MLP((784, 256, 10), seed=seed)


def _convolutional(seed: int) -> nn.Module:
    return LeNet5(seed=seed)


_Build = Callable[[int], nn.Module]
_Way = Callable[[Recipe, list[ShadowJob]], Call]


def _recipe(build: _Build) -> Recipe:
    pool = mnist5k()
    return Recipe(build, pool.inputs, pool.labels, _EPOCHS, _BATCH, _LEARNING_RATE, _MOMENTUM)


def _jobs(shadows: int) -> list[ShadowJob]:
    generator = np.random.default_rng(0)
    halves = [generator.permutation(5_000)[:_RECORDS] for _ in range(shadows)]
    return [ShadowJob(number, number // 2, half, number) for number, half in enumerate(halves)]


def _loop(recipe: Recipe, jobs: list[ShadowJob]) -> Call:
    """What is written without a library: nothing of the recipe's own training is used."""
    records = TensorDataset(recipe.inputs, recipe.labels)

    def call() -> list[nn.Module]:
        networks = []
        for job in jobs:
            network = recipe.build(job.seed).train()
            generator = torch.Generator().manual_seed(job.seed)
            part = Subset(records, job.indices.tolist())
            loader = DataLoader(part, recipe.batch_size, shuffle=True, generator=generator)
            optimizer = torch.optim.SGD(network.parameters(), recipe.learning_rate, recipe.momentum)
            for _ in range(recipe.epochs):
                for inputs, labels in loader:
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(network(inputs), labels).backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
            networks.append(network)
        return networks

    return call


def _one_by_one(recipe: Recipe, jobs: list[ShadowJob]) -> Call:
    return lambda: [recipe(job.indices, job.seed) for job in jobs]


def _side_by_side(recipe: Recipe, jobs: list[ShadowJob]) -> Call:
    return lambda: recipe.train_many([job.indices for job in jobs], [job.seed for job in jobs])


@dataclass(frozen=True)
class _Train:
    """What a process does with a job: train; the row that it gives back says nothing."""

    train_fn: Recipe

    def __call__(self, job: ShadowJob) -> NDArray[np.float32]:
        self.train_fn(job.indices, job.seed)
        return np.zeros((1, 1), dtype=np.float32)


def _processes(recipe: Recipe, jobs: list[ShadowJob]) -> Call:
    """With the start of the processes, which every fleet pays once."""
    return lambda: list(Processes().run(jobs, _Train(recipe)))
