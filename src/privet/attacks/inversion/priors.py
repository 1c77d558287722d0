"""What natural images are like: neighbouring pixels agree, and few are far from the middle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from privet.errors import ArgumentError

__all__ = ["Normalisation", "Pixels", "check_channels", "check_weight", "priors", "total_variation"]


@dataclass(frozen=True)
class Pixels:
    """The values that pixels may have.

    Args:
        low: the least.
        high: the most, above ``low``.

    Raises:
        ArgumentError: an end is not finite, or they are reversed.
    """

    low: float
    high: float

    @classmethod
    def of(cls, bounds: object) -> Pixels:
        """Bounds as a pair (low, high)."""
        if not isinstance(bounds, Sequence) or isinstance(bounds, str) or len(bounds) != 2:
            raise ArgumentError("bounds", bounds, "a pair of numbers (low, high), such as (0, 1)")
        low, high = bounds
        numbers = all(
            isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end) for end in bounds
        )
        if not numbers or not low < high:
            raise ArgumentError("bounds", tuple(bounds), "two finite numbers, the lower first")
        return cls(float(low), float(high))

    @property
    def range(self) -> float:
        """From the least to the most."""
        return self.high - self.low

    def share(self, images: Tensor) -> Tensor:
        """Where images lie between the ends, in [0, 1]."""
        return (images - self.low) / self.range


@dataclass(frozen=True)
class Normalisation:
    """What stands between pixels and the network: (x - mean) / spread, a number a channel or one for all.

    Args:
        mean: is taken off.
        spread: is divided by, above 0.

    Raises:
        ArgumentError: the numbers are not finite, a spread is not above 0, or there are not as many of each.
    """

    mean: tuple[float, ...]
    spread: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.spread) or not all(map(math.isfinite, self.mean)):
            raise ArgumentError("normalisation", (self.mean, self.spread), "as many finite means as spreads")
        if not all(math.isfinite(one) and one > 0.0 for one in self.spread):
            raise ArgumentError("normalisation", self.spread, "spreads that are finite and above 0")

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) as the network takes them."""
        mean, spread = (images.new_tensor(part)[:, None, None] for part in (self.mean, self.spread))
        return (images - mean) / spread


def check_channels(normalisation: Normalisation | None, image_shape: tuple[int, int, int]) -> Normalisation | None:
    """Refuse a normalisation of other channels than the images have.

    Raises:
        ArgumentError: it has neither one number nor one for each channel.
    """
    if normalisation is not None and len(normalisation.mean) not in (1, image_shape[0]):
        allowed = f"means of 1 or {image_shape[0]} channels, as the images have"
        raise ArgumentError("normalisation", normalisation.mean, allowed)
    return normalisation


def total_variation(images: Tensor) -> Tensor:
    r"""Squared differences of neighbours, :math:`\frac{1}{CHW} \sum (\Delta_h x)^2 + (\Delta_w x)^2`, an image (N,).

    Args:
        images: (N, C, H, W), as shares of the range of pixels.

    References:
        A. Mahendran, A. Vedaldi, "Understanding deep image representations by inverting them", 2015, section 2.
    """
    down = (images[:, :, 1:] - images[:, :, :-1]).square().sum((1, 2, 3))
    across = (images[..., 1:] - images[..., :-1]).square().sum((1, 2, 3))
    return (down + across) / math.prod(images.shape[1:])


def priors(images: Tensor, tv_weight: float, norm_weight: float) -> tuple[Tensor, Tensor]:
    """Both priors, weighted, and their gradient by hand: a third of the operations that autograd takes.

    Args:
        images: (N, C, H, W), as shares of the range of pixels.
        tv_weight: of :func:`total_variation`.
        norm_weight: of the mean square of an image (there the power alpha = 6 of images with their mean taken off).

    Returns:
        Their sum (N,), and its gradient (N, C, H, W).
    """
    numbers = math.prod(images.shape[1:])
    scale = 2.0 * tv_weight / numbers
    down, across = images[:, :, 1:] - images[:, :, :-1], images[..., 1:] - images[..., :-1]
    gradient = images * (2.0 * norm_weight / numbers)
    for steps, ahead, behind in (
        (down, gradient[:, :, 1:], gradient[:, :, :-1]),
        (across, gradient[..., 1:], gradient[..., :-1]),
    ):
        ahead.add_(steps, alpha=scale)
        behind.sub_(steps, alpha=scale)
    squares = down.square().flatten(1).sum(1) + across.square().flatten(1).sum(1)
    value = (tv_weight * squares + norm_weight * images.square().flatten(1).sum(1)) / numbers
    return value, gradient


def check_weight(name: str, value: object) -> float:
    """A weight of a prior, 0 for none.

    Raises:
        ArgumentError: it is negative, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < math.inf:
        raise ArgumentError(name, value, "a finite number of at least 0")
    return float(value)
