"""VGG-16 for images of 32 x 32, without batch normalization."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from privet.models.checks import check_batch, check_count, check_dropout
from privet.models.initialisation import seeded

__all__ = ["VGG16"]

_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_HIDDEN = 512


class VGG16(nn.Module):
    """VGG-16 for 32 x 32: thirteen convolutions in five blocks, three linear layers, no batch normalization.

    ``net(x) == classifier(features(x).flatten(1))``. The layers are ``features.conv1_1`` ... ``features.conv5_3``
    and ``classifier.fc1`` ... ``classifier.fc3``. Weights start from He's normal distribution and biases from
    zero: under torch's own start the signal dies out over sixteen layers without normalization.

    Args:
        classes: how many numbers come out, at least 1.
        in_channels: channels of the images, at least 1.
        dropout: share of the hidden units of the classifier dropped in training, 0 <= dropout < 1; 0 for none.
        seed: draws the weights without touching torch's global random state; ``None`` draws from that state.

    Raises:
        ArgumentError: an argument is outside what is allowed, or a batch is not (N, in_channels, 32, 32).

    Example:
        >>> import torch
        >>> net = VGG16(classes=10, seed=0)
        >>> net(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])

    References:
        K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015.
        K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", 2015 (the initial weights).
    """

    def __init__(
        self, classes: int = 100, in_channels: int = 3, *, dropout: float = 0.0, seed: int | None = None
    ) -> None:
        super().__init__()
        check_count("classes", classes)
        check_count("in_channels", in_channels)
        check_dropout(dropout)
        self.classes = classes
        self.input_shape = (in_channels, 32, 32)
        with seeded(seed):
            self.features = nn.Sequential(_features(in_channels))  # (B, 512, 1, 1)
            self.classifier = nn.Sequential(_classifier(classes, dropout))
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                    assert module.bias is not None
                    nn.init.zeros_(module.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, classes) of ``inputs`` (B, in_channels, 32, 32)."""
        check_batch(inputs, self.input_shape, "VGG16")
        logits: Tensor = self.classifier(self.features(inputs).flatten(1))
        return logits


def _features(in_channels: int) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for block, widths in enumerate(_WIDTHS, start=1):
        for index, width in enumerate(widths, start=1):
            layers[f"conv{block}_{index}"] = nn.Conv2d(channels, width, 3, padding=1)
            layers[f"activation{block}_{index}"] = nn.ReLU()
            channels = width
        layers[f"pool{block}"] = nn.MaxPool2d(2)
    return layers


def _classifier(classes: int, dropout: float) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index in (1, 2):
        layers[f"fc{index}"] = nn.Linear(_HIDDEN, _HIDDEN)
        layers[f"activation{index}"] = nn.ReLU()
        if dropout:
            layers[f"dropout{index}"] = nn.Dropout(dropout)
    layers["fc3"] = nn.Linear(_HIDDEN, classes)
    return layers
