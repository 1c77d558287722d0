"""What every stop of the tour shares: real images, and a network that over-fitted half a thousand of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from privet import data, models, training
from privet.attacks import Target
from privet.attacks.membership import MembershipScores, loss_threshold
from privet.statistics import Estimate, RateAtRate, RocCurve, auc_interval, clopper_pearson, roc_curve, tpr_at_fpr

__all__ = [
    "BATCH_SIZE",
    "EPOCHS",
    "FALSE_POSITIVE_RATE",
    "LEARNING_RATE",
    "MOMENTUM",
    "SIZES",
    "Leakage",
    "Row",
    "Scene",
    "accuracy_of",
    "leakage_of",
    "measure",
    "network_of",
    "set_scene",
]

FALSE_POSITIVE_RATE = 0.01
_MEMBERS = 500
SIZES = (784, 512, 10)
EPOCHS, BATCH_SIZE, LEARNING_RATE, MOMENTUM = 60, 32, 0.05, 0.9


@dataclass(frozen=True)
class Scene:
    """The network under study, the images it was trained on and images it never saw.

    Attributes:
        network: trained until it knows its training images by heart.
        description: of the network and its training.
        members: what it was trained on.
        non_members: images of the same distribution that it was not trained on.
        seed: of the split, the training and the resampling.
    """

    network: nn.Module
    description: str
    members: data.Examples
    non_members: data.Examples
    seed: int


@dataclass(frozen=True)
class Leakage:
    """What one attack on one target found."""

    scores: MembershipScores
    accuracy: Estimate
    auc: Estimate
    rate: RateAtRate
    roc: RocCurve


@dataclass(frozen=True)
class Row:
    """A line of the tour's table: a protection, what it lets out, and what an attack found."""

    protection: str
    lets_out: str
    leakage: Leakage

    @property
    def attack(self) -> str:
        """The attack's name, short."""
        return self.leakage.scores.attack.removesuffix(" threshold")


def set_scene(seed: int) -> Scene:
    """Read the images, split them at random and train; the same seed gives the same scene."""
    examples = data.mnist5k()
    members, non_members = examples.split(_MEMBERS, len(examples) - _MEMBERS, seed=seed)
    network = network_of(seed)
    training.fit(network, members, epochs=EPOCHS, batch_size=BATCH_SIZE, seed=seed, optimizer=_sgd, progress=False)
    layers = "-".join(map(str, SIZES))
    description = f"{layers} perceptron, {_MEMBERS:,} training images, {EPOCHS} epochs"
    return Scene(network.eval(), description, members, non_members, seed)


def _sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=MOMENTUM)


def network_of(seed: int) -> nn.Module:
    """A network as the one under study was before training."""
    return models.MLP(SIZES, seed=seed)


def measure(target: Target, scene: Scene) -> Leakage:
    """Attack the target and state its accuracy on unseen images, each number with its interval."""
    scores = loss_threshold(target, _pair(scene.members), _pair(scene.non_members))
    return leakage_of(scores, accuracy_of(target, scene), scene)


def accuracy_of(target: Target, scene: Scene) -> Estimate:
    """How many unseen images it labels right."""
    inputs, labels = _pair(scene.non_members)
    right = int(np.count_nonzero(target.ask(inputs).argmax(1).numpy() == labels.numpy()))
    return clopper_pearson(right, len(labels))


def leakage_of(scores: MembershipScores, accuracy: Estimate, scene: Scene) -> Leakage:
    """What the scores of an attack say, each number with its interval."""
    return Leakage(
        scores,
        accuracy,
        auc_interval(scores.members, scores.non_members, seed=scene.seed),
        tpr_at_fpr(scores.members, scores.non_members, FALSE_POSITIVE_RATE),
        roc_curve(scores.members, scores.non_members),
    )


def _pair(examples: data.Examples) -> tuple[Tensor, Tensor]:
    return examples.inputs, examples.labels
