"""The networks that a configuration may name without a file of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import nn

from privet.data import Examples
from privet.models import MLP, VGG16, LeNet5, LinearNet, ResNetGN

__all__ = ["builders_for"]


def builders_for(records: Examples, seed: int) -> Mapping[str, Callable[..., nn.Module]]:
    """By name, what makes a network for such records from its ``arguments``.

    Args:
        records: their shape and number of classes count.
        seed: of the first weights.
    """
    shape, classes = tuple(records.inputs.shape[1:]), records.classes
    return {
        "lenet5": lambda: LeNet5(classes, shape[0], shape[-1], seed=seed),
        "mlp": lambda hidden=(256,): MLP((math.prod(shape), *hidden, classes), seed=seed),
        "linear": lambda: LinearNet(math.prod(shape), classes, seed=seed),
        "resnet-gn": lambda **sizes: ResNetGN(classes, shape[0], **sizes, seed=seed),
        "vgg16": lambda dropout=0.0: VGG16(classes, shape[0], dropout=dropout, seed=seed),
    }
