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

__all__ = ["FALSE_POSITIVE_RATE", "SIZES", "Leakage", "Row", "Scene", "measure", "set_scene"]

FALSE_POSITIVE_RATE = 0.01
_MEMBERS = 500
SIZES = (784, 512, 10)
_EPOCHS = 60


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


def set_scene(seed: int) -> Scene:
    """Read the images, split them at random and train; the same seed gives the same scene."""
    examples = data.mnist5k()
    members, non_members = examples.split(_MEMBERS, len(examples) - _MEMBERS, seed=seed)
    network = models.MLP(SIZES, seed=seed)
    training.fit(network, members, epochs=_EPOCHS, batch_size=32, seed=seed, optimizer=_sgd, progress=False)
    layers = "-".join(map(str, SIZES))
    description = f"{layers} perceptron, {_MEMBERS:,} training images, {_EPOCHS} epochs"
    return Scene(network.eval(), description, members, non_members, seed)


def _sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def measure(target: Target, scene: Scene) -> Leakage:
    """Attack the target and state its accuracy on unseen images, each number with its interval."""
    members, non_members = _pair(scene.members), _pair(scene.non_members)
    scores = loss_threshold(target, members, non_members)
    right = int(np.count_nonzero(target.ask(non_members[0]).argmax(1).numpy() == non_members[1].numpy()))
    return Leakage(
        scores,
        clopper_pearson(right, len(non_members[1])),
        auc_interval(scores.members, scores.non_members, seed=scene.seed),
        tpr_at_fpr(scores.members, scores.non_members, FALSE_POSITIVE_RATE),
        roc_curve(scores.members, scores.non_members),
    )


def _pair(examples: data.Examples) -> tuple[Tensor, Tensor]:
    return examples.inputs, examples.labels
