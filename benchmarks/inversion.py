"""Image inversion of thirty images at once next to one at a time: LeNet-5, 100 iterations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.harness import Call, Work
from privet.attacks.inversion import Representation, SignDescent
from privet.data import mnist5k
from privet.models import LeNet5
from privet.training import fit

NAME = "inversion"
_IMAGES, _ITERATIONS, _SHAPE = 30, 100, (1, 28, 28)
_LOOP = "loop over single images"


def works() -> list[Work]:
    """From the logits and from the convolutional part of one trained network."""
    parts: tuple[tuple[str, Callable[[LeNet5], nn.Module]], ...] = (
        ("logits", lambda network: network),
        ("convolutional part", lambda network: network.features),
    )
    return [
        Work(
            f"lenet5, {_IMAGES} images x {_ITERATIONS} iterations, {name}",
            {
                _LOOP: partial(_loop, part),
                "privet, Adam": partial(_at_once, part, Representation),
                "privet, sign": partial(_at_once, part, partial(Representation, descent=SignDescent())),
            },
            baseline=_LOOP,
            rounds=5,
        )
        for name, part in parts
    ]


def _scene(part: Callable[[LeNet5], nn.Module]) -> tuple[nn.Module, Tensor]:
    train, unseen = mnist5k().split(2_000, _IMAGES, seed=0)
    network = LeNet5(seed=0)
    fit(network, train, epochs=3, batch_size=32, seed=0, learning_rate=1e-3, progress=False)
    inverted = part(network.eval()).eval()
    with torch.no_grad():
        return inverted, inverted(unseen.inputs)


def _at_once(part: Callable[[LeNet5], nn.Module], make: Callable[..., Representation]) -> Call:
    inverted, targets = _scene(part)
    attack = make(inverted, image_shape=_SHAPE)
    return lambda: attack.reconstruct(targets, iterations=_ITERATIONS, seed=0)


def _loop(part: Callable[[LeNet5], nn.Module]) -> Call:
    """One image after the other, as it is written without a library: the same losses, sign descent."""
    inverted, targets = _scene(part)

    def call() -> list[Tensor]:
        found = []
        for target in targets:
            image = 0.05 * torch.rand(1, *_SHAPE)
            for _ in range(_ITERATIONS):
                image.requires_grad_()
                apart = nn.functional.mse_loss(inverted(image)[0], target) / target.square().mean()
                down, across = image.diff(dim=2).square().sum(), image.diff(dim=3).square().sum()
                loss = apart + (down + across) / image.numel() + 0.1 * image.square().mean()
                (gradient,) = torch.autograd.grad(loss, image)
                image = (image.detach() - 0.03 * gradient.sign()).clamp(0.0, 1.0)
            found.append(image)
        return found

    return call
