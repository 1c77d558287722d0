"""The small networks that examples, tests and benchmarks train: plain ``torch.nn`` modules.

Each has ``features`` and ``classifier`` with ``net(x) == classifier(features(x).flatten(1))``, takes a ``seed``
by keyword, and refuses a batch of the wrong shape with one error.
"""

from __future__ import annotations

from privet.models.lenet5 import LeNet5
from privet.models.linear_net import LinearNet
from privet.models.mlp import MLP
from privet.models.resnet_gn import ResNetGN
from privet.models.vgg16 import VGG16

__all__ = ["MLP", "VGG16", "LeNet5", "LinearNet", "ResNetGN"]
