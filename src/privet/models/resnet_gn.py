"""A small residual network with group normalization."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from privet.errors import ArgumentError
from privet.models.checks import check_count, check_counts
from privet.models.initialisation import seeded

__all__ = ["ResNetGN"]


class ResNetGN(nn.Module):
    """A residual network with group normalization: what it says of one example depends on no other.

    A 3 x 3 convolution, then one residual block a width, each after the first halving height and width, then the
    mean over all places and one linear layer. ``net(x) == classifier(features(x).flatten(1))``.

    Args:
        classes: how many numbers come out, at least 1.
        in_channels: channels of the images, at least 1; their height and width are free.
        widths: channels of the blocks, each a multiple of ``groups``.
        groups: groups of channels that are normalized together, at least 1.
        seed: draws the weights without touching torch's global random state; ``None`` draws from that state.

    Raises:
        ArgumentError: an argument is outside what is allowed, or a batch is not (N, in_channels, height, width).

    Example:
        >>> import torch
        >>> net = ResNetGN(seed=0)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])

    References:
        K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2016.
        Y. Wu, K. He, "Group normalization", 2018.
    """

    def __init__(
        self,
        classes: int = 10,
        in_channels: int = 3,
        widths: Sequence[int] = (16, 32, 64),
        groups: int = 8,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_count("classes", classes)
        check_count("in_channels", in_channels)
        check_count("groups", groups)
        check_counts("widths", widths)
        for index, width in enumerate(widths):
            if width % groups:
                raise ArgumentError(f"widths[{index}]", width, f"a multiple of groups = {groups}")
        self.classes = classes
        self.in_channels = in_channels
        with seeded(seed):
            layers: OrderedDict[str, nn.Module] = OrderedDict(
                conv=nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False),
                norm=nn.GroupNorm(groups, widths[0]),
                activation=nn.ReLU(),
            )
            channels = widths[0]
            for index, width in enumerate(widths, start=1):
                layers[f"block{index}"] = _Block(channels, width, groups, stride=1 if index == 1 else 2)
                channels = width
            layers["pool"] = nn.AdaptiveAvgPool2d(1)  # (B, widths[-1], 1, 1)
            self.features = nn.Sequential(layers)
            self.classifier = nn.Linear(channels, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, classes) of ``inputs`` (B, in_channels, height, width)."""
        if inputs.dim() != 4 or inputs.shape[1] != self.in_channels:
            allowed = f"(N, {self.in_channels}, height, width) for ResNetGN"
            raise ArgumentError("inputs.shape", tuple(inputs.shape), allowed)
        logits: Tensor = self.classifier(self.features(inputs).flatten(1))
        return logits


class _Block(nn.Module):
    """``relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))``."""

    def __init__(self, before: int, after: int, groups: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups, after)
        self.activation1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, after)
        self.activation2 = nn.ReLU()
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride=stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        inner = self.activation1(self.norm1(self.conv1(inputs)))
        outputs: Tensor = self.activation2(self.norm2(self.conv2(inner)) + self.shortcut(inputs))
        return outputs
