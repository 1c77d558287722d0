"""LeNet-5 for images of 28 x 28 or 32 x 32."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from privet.errors import ArgumentError
from privet.models.checks import check_activation, check_batch, check_count
from privet.models.initialisation import seeded

__all__ = ["LeNet5"]


class LeNet5(nn.Module):
    """LeNet-5 with rectified units and max-pooling: two convolutions, three linear layers.

    ``net(x) == classifier(features(x).flatten(1))``. The layers are ``features.conv1``, ``features.conv2``,
    ``classifier.fc1``, ``classifier.fc2`` and ``classifier.fc3``; the names of the weights follow and stay.

    Args:
        classes: how many numbers come out, at least 1.
        in_channels: channels of the images, at least 1.
        image_size: 28 (the first convolution pads by 2) or 32 (it does not); both give 16 x 5 x 5 features.
        activation: makes the non-linear modules, for example ``nn.Tanh``.
        pool: makes the pooling modules from their width, for example ``nn.AvgPool2d``.
        seed: draws the weights without touching torch's global random state; ``None`` draws from that state.

    Raises:
        ArgumentError: an argument is outside what is allowed, or a batch is not (N, in_channels, size, size).

    Example:
        >>> import torch
        >>> net = LeNet5(seed=0)
        >>> net(torch.zeros(2, 1, 28, 28)).shape, net.features(torch.zeros(2, 1, 28, 28)).shape
        (torch.Size([2, 10]), torch.Size([2, 16, 5, 5]))

    References:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", 1998.
    """

    def __init__(
        self,
        classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
        pool: Callable[[int], nn.Module] = nn.MaxPool2d,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_count("classes", classes)
        check_count("in_channels", in_channels)
        if image_size not in (28, 32):
            raise ArgumentError("image_size", image_size, "28 or 32", "Resize or pad the images.")
        check_activation("activation", activation)
        check_activation("pool", pool)
        self.classes = classes
        self.input_shape = (in_channels, image_size, image_size)
        with seeded(seed):
            self.features = nn.Sequential(
                OrderedDict(
                    conv1=nn.Conv2d(in_channels, 6, 5, padding=2 if image_size == 28 else 0),  # (B, 6, 28, 28)
                    activation1=activation(),
                    pool1=pool(2),  # (B, 6, 14, 14)
                    conv2=nn.Conv2d(6, 16, 5),  # (B, 16, 10, 10)
                    activation2=activation(),
                    pool2=pool(2),  # (B, 16, 5, 5)
                )
            )
            self.classifier = nn.Sequential(
                OrderedDict(
                    fc1=nn.Linear(16 * 5 * 5, 120),
                    activation3=activation(),
                    fc2=nn.Linear(120, 84),
                    activation4=activation(),
                    fc3=nn.Linear(84, classes),
                )
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, classes) of ``inputs`` (B, in_channels, image_size, image_size)."""
        check_batch(inputs, self.input_shape, "LeNet5")
        logits: Tensor = self.classifier(self.features(inputs).flatten(1))
        return logits
