"""One linear layer: logistic regression."""

from __future__ import annotations

from torch import Tensor, nn

from privet.errors import ArgumentError
from privet.models.checks import check_count
from privet.models.initialisation import seeded

__all__ = ["LinearNet"]


class LinearNet(nn.Module):
    """One linear layer over flattened inputs; under cross-entropy, logistic regression.

    ``net(x) == classifier(features(x))``: ``features`` flattens, ``classifier`` is the layer.

    Args:
        features: numbers per example, at least 1.
        classes: how many numbers come out, at least 1.
        seed: draws the weights without touching torch's global random state; ``None`` draws from that state.

    Raises:
        ArgumentError: an argument is outside what is allowed, or the examples of a batch do not have
            ``features`` numbers.

    Example:
        >>> import torch
        >>> LinearNet(64, 10, seed=0)(torch.zeros(2, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, features: int, classes: int, *, seed: int | None = None) -> None:
        super().__init__()
        check_count("features", features)
        check_count("classes", classes)
        self.classes = classes
        self.features = nn.Flatten()
        with seeded(seed):
            self.classifier = nn.Linear(features, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, classes) of ``inputs`` (B, ...)."""
        numbers = self.classifier.in_features
        if inputs.dim() < 2 or inputs.flatten(1).shape[1] != numbers:
            allowed = f"(N, ...) with {numbers} numbers an example for LinearNet"
            raise ArgumentError("inputs.shape", tuple(inputs.shape), allowed)
        logits: Tensor = self.classifier(self.features(inputs))
        return logits
