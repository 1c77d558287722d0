"""How the networks of the suppression table are trained, a row each; one network is one job of one process."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from privet import data, dp, models, training
from privet.accounting import Ledger
from privet.attacks.inversion import Representation
from privet.attacks.inversion.measures import relative_distance
from privet.attacks.membership import Pool, inclusion, signal_row
from privet.suppression import Suppression

SEED, MEMBERS = 0, 5_000
BLOCKS = 8  # of two networks
EPOCHS, BATCH, LEARNING_RATE, FALLING = 40, 32, 0.1, 0.95  # the learning rate falls by this factor an epoch
RAMP = (3, 20)
SPARSITIES = (0.5, 0.8, 0.95, 0.99)
DECAYS = (1e-3, 5e-3)
EPSILONS, DELTA = (1.0, 3.0, 8.0), 1e-5
PRIVATE_BATCH, PRIVATE_EPOCHS, PRIVATE_RATE, CLIP_NORM = 250, 20, 1.0, 1.0
ITERATIONS = 100  # of an inversion
INVERTED, CANDIDATES = 50, 1_000  # images for each network, and among how many they are looked for
LOOKS = (*range(1, 11), *range(12, EPOCHS + 1, 2))  # epochs at which the unprotected networks are looked at

_NUMBERS = (int, float, tuple)
Train = Callable[[data.Examples, int], Iterable[tuple[int, nn.Module]]]


def rows() -> dict[str, Train]:
    """How each row's networks are trained, by the name of its folder."""
    trained: dict[str, Train] = {"plain": _plain}
    trained |= {f"suppressed-{100 * sparsity:g}": _suppressed(sparsity) for sparsity in SPARSITIES}
    trained |= {f"decay-{decay:g}": _decayed(decay) for decay in DECAYS}
    trained |= {f"epsilon-{epsilon:g}": _private(epsilon) for epsilon in EPSILONS}
    return trained


def _fit(network: nn.Module, members: data.Examples, seed: int, weight_decay: float = 0.0, **more: Any) -> nn.Module:
    training.fit(
        network,
        members,
        epochs=EPOCHS,
        batch_size=BATCH,
        seed=seed,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=LEARNING_RATE, weight_decay=weight_decay),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, FALLING),
        progress=False,
        **more,
    )
    return network


class _Looks:
    """Copies of the network as it was after some epochs."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, nn.Module]] = []

    def on_epoch(self, record: training.EpochRecord, model: nn.Module) -> None:
        if record.epoch in LOOKS:
            copied = models.LeNet5()
            copied.load_state_dict(model.state_dict())
            self.seen.append((record.epoch, copied))


def _plain(members: data.Examples, seed: int) -> list[tuple[int, nn.Module]]:
    looks = _Looks()
    _fit(models.LeNet5(seed=seed), members, seed, callbacks=[looks])
    return looks.seen


def _suppressed(sparsity: float) -> Train:
    def train(members: data.Examples, seed: int) -> list[tuple[int, nn.Module]]:
        network = models.LeNet5(seed=seed)
        suppression = Suppression(
            network,
            start_epoch=RAMP[0],
            end_epoch=RAMP[1],
            steps_per_epoch=math.ceil(len(members) / BATCH),
            sparsity_end=sparsity,
        )
        _fit(network, members, seed, callbacks=[suppression])
        return [(EPOCHS, suppression.finalize())]

    return train


def _decayed(decay: float) -> Train:
    def train(members: data.Examples, seed: int) -> list[tuple[int, nn.Module]]:
        return [(EPOCHS, _fit(models.LeNet5(seed=seed), members, seed, weight_decay=decay))]

    return train


def _private(epsilon: float) -> Train:
    """Seeded, so that the table can be made again; what is measured is the same as with secret noise."""

    def train(members: data.Examples, seed: int) -> list[tuple[int, nn.Module]]:
        network = models.LeNet5(seed=seed)
        optimizer = torch.optim.SGD(network.parameters(), lr=PRIVATE_RATE)
        plan = dp.Plan(
            dataset_size=len(members),
            expected_batch_size=PRIVATE_BATCH,
            epochs=PRIVATE_EPOCHS,
            delta=DELTA,
            noise=1.0,
            target_epsilon=epsilon,
            clipping=dp.FixedNorm(CLIP_NORM),
        )
        ledger = Ledger.in_memory(plan.relation, plan.unit)
        with dp.make_private(network, plan, ledger=ledger, test_run=dp.TestRun(seed=seed)) as private:
            for batch in private.batches((members.inputs, members.labels)):
                private.backward(lambda part: F.cross_entropy(network(part[0]), part[1], reduction="none"), batch)
                optimizer.step()
        return [(PRIVATE_EPOCHS, network)]

    return train


@cache
def _images() -> tuple[data.Examples, Pool, data.Examples]:
    """Ten thousand images as one set, as a pool, and ten thousand that no network is trained on."""
    pool = data.fashion_mnist().split(2 * MEMBERS, 1, seed=SEED)[0]
    first, rest = pool.take(range(MEMBERS)), pool.take(range(MEMBERS, 2 * MEMBERS))
    unseen = data.fashion_mnist(train=False)
    return pool, Pool.of((first.inputs, first.labels), (rest.inputs, rest.labels), pool.classes), unseen


def membership() -> NDArray[np.bool_]:
    """Which images each network is trained on, (16, 10,000); the two of a block share none."""
    return np.concatenate([inclusion(2 * MEMBERS, MEMBERS, block, SEED) for block in range(BLOCKS)])


def settings() -> dict[str, Any]:
    """All numbers that what is in the folder depends on."""
    found = {
        name: value
        for name, value in globals().items()
        if name.isupper() and name[0] != "_" and isinstance(value, _NUMBERS)
    }
    here: dict[str, Any] = json.loads(json.dumps(found))
    return here


def train_one(folder: Path, row: str, number: int) -> None:
    """Train one network of a row and write what is needed of it, in one step."""
    path = folder / row / f"{number}.npz"
    if path.exists():
        return
    torch.set_num_threads(1)
    images, pool, unseen = _images()
    members = images.take(np.flatnonzero(membership()[number]))
    trained = list(rows()[row](members, number))
    inverted = [_invert(network.eval(), unseen, number) for _, network in trained]
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".tmp.npz")
    np.savez(
        half,
        epochs=[epoch for epoch, _ in trained],
        signals=np.stack([signal_row(network, pool)[:, 0] for _, network in trained]),
        accuracy=[training.evaluate(network, unseen).accuracy for _, network in trained],
        zeros=[_zeros(network) for _, network in trained],
        found=[found for found, _ in inverted],
        distance=[distance for _, distance in inverted],
    )
    half.replace(path)


def _invert(network: nn.Module, unseen: data.Examples, number: int) -> tuple[float, float]:
    """Invert what the convolutional part answers about images it never saw: the share found, and relative L2."""
    originals = unseen.inputs[number * INVERTED : (number + 1) * INVERTED]  # other ones for each network
    others = unseen.inputs[CANDIDATES : 2 * CANDIDATES - 1]
    with torch.no_grad():
        answers = network.features(originals)  # type: ignore[operator]
    attack = Representation(network, layer="features", image_shape=originals.shape[1:])
    again = attack.reconstruct(answers, iterations=ITERATIONS, seed=number).images
    nearest = torch.cdist(again.flatten(1), others.flatten(1)).min(1).values
    found = (again - originals).flatten(1).norm(dim=1) < nearest
    return float(found.double().mean()), float(np.mean(relative_distance(again, originals)))


def _zeros(network: nn.Module) -> float:
    weights: list[Tensor] = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
