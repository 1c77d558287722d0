"""A multilayer perceptron."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from privet.errors import ArgumentError
from privet.models.checks import check_activation, check_counts
from privet.models.initialisation import seeded

__all__ = ["MLP"]


class MLP(nn.Module):
    """A multilayer perceptron over flattened inputs.

    ``net(x) == classifier(features(x).flatten(1))``: ``features`` are the hidden layers ``fc1`` ..., ``classifier``
    is the last one. An MLP of two sizes has no hidden layer.

    Args:
        sizes: numbers per example, then the widths of the layers, then the classes; at least two.
        activation: makes the non-linear modules, for example ``nn.Tanh``.
        seed: draws the weights without touching torch's global random state; ``None`` draws from that state.

    Raises:
        ArgumentError: an argument is outside what is allowed, or the examples of a batch do not have
            ``sizes[0]`` numbers.

    Example:
        >>> import torch
        >>> net = MLP((784, 256, 10), seed=0)
        >>> net(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self, sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU, *, seed: int | None = None
    ) -> None:
        super().__init__()
        check_counts("sizes", sizes, fewest=2)
        check_activation("activation", activation)
        self.sizes = tuple(sizes)
        self.classes = self.sizes[-1]
        hidden: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        with seeded(seed):
            for index, (before, after) in enumerate(pairwise(self.sizes[:-1]), start=1):
                hidden[f"fc{index}"] = nn.Linear(before, after)
                hidden[f"activation{index}"] = activation()
            self.features = nn.Sequential(hidden)
            last = nn.Linear(self.sizes[-2], self.sizes[-1])
            self.classifier = nn.Sequential(OrderedDict([(f"fc{len(self.sizes) - 1}", last)]))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, classes) of ``inputs`` (B, ...), ``sizes[0]`` numbers an example."""
        if inputs.dim() < 2 or inputs.flatten(1).shape[1] != self.sizes[0]:
            allowed = f"(N, ...) with {self.sizes[0]} numbers an example for MLP{self.sizes}"
            raise ArgumentError("inputs.shape", tuple(inputs.shape), allowed)
        logits: Tensor = self.classifier(self.features(inputs))
        return logits
