"""What is done to weights that are kept: held within bounds, and, where they are large, blurred."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from privet.errors import ArgumentError
from privet.suppression.layers import Chosen, Layer

__all__ = ["add_noise", "check_generator", "hold"]


@torch.no_grad()
def hold(weights: Tensor, rule: Layer) -> None:
    """Move magnitudes into ``lower_clip`` ... ``upper_bound``, signs kept; of masked weights, too: clear them after."""
    if rule.lower_clip:
        torch.copysign(weights.abs().clamp_(rule.lower_clip, rule.upper_bound), weights, out=weights)
    else:
        weights.clamp_(-rule.upper_bound, rule.upper_bound)


@torch.no_grad()
def add_noise(weights: Tensor, masked: Tensor, rule: Layer, generator: Generator) -> None:
    """Add Gaussian noise to the kept weights from ``noise_from`` of the largest magnitude on.

    Args:
        weights: of one layer.
        masked: bool, of the same shape; where True no noise is added.
        rule: how much, and to which.
        generator: draws for every weight of the layer, so that what it draws next does not depend on the weights.
    """
    sizes = weights.abs().masked_fill_(masked, 0.0)
    large = (sizes >= rule.noise_from * sizes.max()) & ~masked
    noise = torch.randn(weights.shape, generator=generator, device=generator.device)
    weights.add_(torch.where(large, noise.to(weights) * rule.noise_std, 0.0))


def check_generator(generator: object, chosen: tuple[Chosen, ...]) -> Generator | None:
    """Refuse a generator that is missing where noise is asked for.

    Raises:
        ArgumentError: there is none, or it is no generator.
    """
    noisy = [one.name for one in chosen if one.rule.noise_std]
    if generator is not None and not isinstance(generator, Generator):
        raise ArgumentError("generator", generator, "a torch.Generator, or None")
    if noisy and generator is None:
        allowed = f"a torch.Generator for the noise of {', '.join(map(repr, noisy))}"
        raise ArgumentError("generator", None, allowed, "For example torch.Generator().manual_seed(0).")
    if generator is not None and not noisy:
        raise ArgumentError("generator", generator, "None where no layer has noise_std", "It would draw nothing.")
    return generator
