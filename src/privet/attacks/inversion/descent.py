"""How images move down a loss: by the sign of the gradient, or by Adam; the step falls along a half cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from privet.errors import ArgumentError

__all__ = ["AdamDescent", "Descent", "Mover", "SignDescent"]


class Mover(Protocol):
    """One run of a descent over one batch of images."""

    def move(self, images: Tensor, gradient: Tensor, share: float) -> None:
        """Move ``images`` (N, ...) in place against ``gradient``; ``share`` in [0, 1) of the run is done."""


class Descent(Protocol):
    """A way to descend."""

    def begin(self, pixel_range: float) -> Mover:
        """A run that remembers nothing of others, over pixels of this range (high - low)."""


@dataclass(frozen=True)
class SignDescent:
    r"""Every pixel by the same amount: :math:`x \leftarrow x - a_t \operatorname{sign}(g)`.

    Args:
        step: the first amount a_0 as a share of the range of pixels, in (0, 1]; a_t falls to 0 along a half cosine.

    Raises:
        ArgumentError: ``step`` is out of range.
    """

    step: float = 0.03

    def __post_init__(self) -> None:
        _check_step(self.step)

    def begin(self, pixel_range: float) -> Mover:
        """A run."""
        return _SignMover(self.step * pixel_range)


@dataclass(frozen=True)
class AdamDescent:
    """Adam (Kingma and Ba, 2015), each pixel by its own moments.

    Args:
        step: the first step size as a share of the range of pixels, in (0, 1]; it falls to 0 along a half cosine.

    Raises:
        ArgumentError: ``step`` is out of range.
    """

    step: float = 0.1

    def __post_init__(self) -> None:
        _check_step(self.step)

    def begin(self, pixel_range: float) -> Mover:
        """A run."""
        return _AdamMover(self.step * pixel_range)


@dataclass
class _SignMover:
    step: float

    def move(self, images: Tensor, gradient: Tensor, share: float) -> None:
        images.add_(gradient.sign(), alpha=-self.step * _half_cosine(share))


@dataclass
class _AdamMover:
    step: float
    done: int = 0
    first: Tensor | None = None
    second: Tensor | None = None
    decays: tuple[float, float] = field(default=(0.9, 0.999))

    def move(self, images: Tensor, gradient: Tensor, share: float) -> None:
        if self.first is None or self.second is None:
            self.first, self.second = torch.zeros_like(images), torch.zeros_like(images)
        self.done += 1
        for moment, value, decay in zip(
            (self.first, self.second), (gradient, gradient.square()), self.decays, strict=True
        ):
            moment.lerp_(value, 1.0 - decay)
        first = self.first / (1.0 - self.decays[0] ** self.done)
        spread = (self.second / (1.0 - self.decays[1] ** self.done)).sqrt_().add_(1e-12)
        images.addcdiv_(first, spread, value=-self.step * _half_cosine(share))


def _half_cosine(share: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * share))


def _check_step(step: object) -> None:
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0.0 < step <= 1.0:
        raise ArgumentError("step", step, "a share of the range of pixels, above 0 and at most 1")
