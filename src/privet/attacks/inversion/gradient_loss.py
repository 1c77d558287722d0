"""How far one gradient is from another, and how images move until they give the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from privet.attacks.inversion.arguments import whole_number
from privet.attacks.inversion.descent import AdamDescent, Descent
from privet.attacks.inversion.priors import Pixels

__all__ = ["BoundedDescent", "CosineDistance", "LineSearch", "MatchingLoss", "Solver", "SquaredDistance"]

Objective = Callable[[Tensor], Tensor]
Tell = Callable[[int, float], None]
# torch's L-BFGS forgets steps of a curvature below 1e-10, so that small losses would never converge
_FIRST, _LEAST = 1e6, 1e-30


class Solver(Protocol):
    """A way to make an objective of images small."""

    @property
    def dtype(self) -> torch.dtype:
        """The least precision that it computes with."""

    def solve(self, objective: Objective, start: Tensor, pixels: Pixels, iterations: int, tell: Tell) -> Tensor:
        """The best images found (B, C, H, W), inside the bounds, from ``start``; ``tell`` hears of steps and losses."""


class MatchingLoss(Protocol):
    """A distance of gradients."""

    def __call__(self, found: Sequence[Tensor], observed: Sequence[Tensor]) -> Tensor:
        """The distance (), differentiable by ``found``; a tensor a parameter on both sides."""

    def solver(self) -> Solver:
        """What makes it small where nothing else is asked for."""


@dataclass(frozen=True)
class SquaredDistance:
    r"""The squared distance of all numbers, relative: :math:`\|g' - g\|^2 / \|g\|^2`.

    It compares lengths as well: of a gradient that was clipped the length is unknown, and :class:`CosineDistance` fits.

    Example:
        >>> float(SquaredDistance()([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 1.0])]))
        0.5

    References:
        L. Zhu, Z. Liu, S. Han, "Deep leakage from gradients", 2019, equation 4 (there not relative).
    """

    def __call__(self, found: Sequence[Tensor], observed: Sequence[Tensor]) -> Tensor:
        """The distance (), where not all of ``observed`` is zero."""
        apart = [(one - other).square().sum() for one, other in zip(found, observed, strict=True)]
        return torch.stack(apart).sum() / _inner(observed, observed)

    def solver(self) -> Solver:
        """L-BFGS."""
        return LineSearch()


@dataclass(frozen=True)
class CosineDistance:
    r"""One minus the cosine of the angle: :math:`1 - \langle g', g \rangle / (\|g'\| \|g\|)`, all parameters as one.

    It lies in [0, 2] and is the same for any multiple of a gradient, as clipping or a learning rate makes it.

    Example:
        >>> float(CosineDistance()([torch.tensor([0.0, 2.0])], [torch.tensor([1.0, 0.0])]))
        1.0

    References:
        J. Geiping, H. Bauermeister, H. Dröge, M. Moeller, "Inverting gradients - how easy is it to break privacy in
        federated learning?", 2020, equation 4.
    """

    def __call__(self, found: Sequence[Tensor], observed: Sequence[Tensor]) -> Tensor:
        """The distance (), where neither gradient is zero."""
        least = torch.finfo(found[0].dtype).tiny
        one, other = (_inner(side, side).clamp_min(least).sqrt() for side in (found, observed))
        # Half the squared distance of unit vectors is the same number, and loses no digits where it is small.
        apart = [(left / one - right / other).square().sum() for left, right in zip(found, observed, strict=True)]
        return torch.stack(apart).sum() / 2.0

    def solver(self) -> Solver:
        """Adam by the signs of gradients, inside the bounds."""
        return BoundedDescent()


@dataclass(frozen=True)
class LineSearch:
    """L-BFGS with a line search by the strong Wolfe conditions, in 64 bits; images are clamped at the end only.

    The gradient of a distance of gradients is a second derivative of the model: this suits smooth activations
    (sigmoid, tanh, softplus) and fails with ReLU, whose second derivative is zero.

    Args:
        history: how many past steps shape the next one, at least 1.

    Raises:
        ArgumentError: ``history`` is below 1.

    References:
        J. Nocedal, S. Wright, "Numerical optimization", 2006, algorithms 7.5 and 3.5 (by torch).
    """

    history: int = 100
    dtype: torch.dtype = field(default=torch.float64, init=False)

    def __post_init__(self) -> None:
        whole_number("history", self.history)

    def solve(self, objective: Objective, start: Tensor, pixels: Pixels, iterations: int, tell: Tell) -> Tensor:
        """The best images of at most this many iterations; it ends earlier where no step makes the objective less."""
        images = start.clone().requires_grad_()
        best = _Best(start)
        search = torch.optim.LBFGS(
            [images],
            max_iter=iterations,
            max_eval=25 * iterations + 1,  # a line search takes at most 25
            tolerance_grad=0.0,
            tolerance_change=0.0,
            history_size=self.history,
            line_search_fn="strong_wolfe",
        )
        scale, told = 0.0, 0

        def closure() -> Tensor:
            nonlocal scale, told
            loss = objective(images)
            best.keep(images, loss)
            scale = scale or _FIRST / max(float(loss.detach()), _LEAST)
            loss = scale * loss
            (images.grad,) = torch.autograd.grad(loss, images)
            done = int(search.state[images].get("n_iter", 0)) - 1
            if done > told:
                told = done
                tell(done, best.loss)
            return loss.detach()

        search.step(closure)  # type: ignore[no-untyped-call]
        tell(iterations, best.loss)
        return best.images.clamp(pixels.low, pixels.high)


@dataclass(frozen=True)
class BoundedDescent:
    """Step by step down the gradient, clamped to the bounds after each step.

    Args:
        descent: how images move.
        signed: whether it is given the signs of the gradient alone, as Geiping et al. (2020) do with Adam.
    """

    descent: Descent = field(default_factory=AdamDescent)
    signed: bool = True
    dtype: torch.dtype = field(default=torch.float32, init=False)

    def solve(self, objective: Objective, start: Tensor, pixels: Pixels, iterations: int, tell: Tell) -> Tensor:
        """The best images of this many steps."""
        mover = self.descent.begin(pixels.range)
        images = start.clone()
        best = _Best(start)
        for step in range(iterations):
            images.requires_grad_()
            loss = objective(images)
            (gradient,) = torch.autograd.grad(loss, images)
            best.keep(images, loss)
            images = images.detach()
            mover.move(images, gradient.sign() if self.signed else gradient, step / iterations)
            images.clamp_(pixels.low, pixels.high)
            tell(step + 1, best.loss)
        best.keep(images, objective(images))
        return best.images


class _Best:
    """The images of the smallest loss; NaN is never smaller."""

    def __init__(self, start: Tensor) -> None:
        self.images, self.loss = start, float("inf")

    def keep(self, images: Tensor, loss: Tensor) -> None:
        value = float(loss.detach())
        if value < self.loss:
            self.images, self.loss = images.detach().clone(), value


def _inner(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    return torch.stack([(one * other).sum() for one, other in zip(left, right, strict=True)]).sum()
