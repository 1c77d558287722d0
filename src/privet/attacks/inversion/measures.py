"""Measures of one image against another."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privet.errors import DataError

__all__ = ["nearest", "peak_signal_to_noise", "relative_distance", "separations", "similarity"]

Floats = NDArray[np.float64]
_MOST_DB = 100.0
_KERNEL = 7


def relative_distance(images: Tensor, originals: Tensor) -> Floats:
    r"""The distance :math:`\|x' - x\|_2 / \|x\|_2` of each image (N,).

    Raises:
        DataError: an original is zero everywhere.
    """
    lengths = originals.double().flatten(1).norm(dim=1)
    if not bool((lengths > 0).all()):
        raise DataError(f"original {int((lengths == 0).int().argmax())} is zero everywhere; leave it out.")
    found: Floats = ((images.double() - originals.double()).flatten(1).norm(dim=1) / lengths).numpy()
    return found


def peak_signal_to_noise(images: Tensor, originals: Tensor, bounds: tuple[float, float] = (0.0, 1.0)) -> Floats:
    r"""The peak signal-to-noise ratio :math:`20 \log_{10}(high - low) - 10 \log_{10} \overline{(x' - x)^2}` in dB (N,).

    At most 100, which equal images have.
    """
    squares = (images.double() - originals.double()).square().flatten(1).mean(1).numpy()
    with np.errstate(divide="ignore"):
        decibels = 20.0 * np.log10(bounds[1] - bounds[0]) - 10.0 * np.log10(squares)
    found: Floats = np.minimum(decibels, _MOST_DB)
    return found


def similarity(images: Tensor, originals: Tensor, bounds: tuple[float, float] = (0.0, 1.0)) -> Floats:
    """Structural similarity of each image (N,), at most 1, with a kernel no larger than the image.

    References:
        Z. Wang, A. Bovik, H. Sheikh, E. Simoncelli, "Image quality assessment", 2004 (by scikit-image).
    """
    from skimage.metrics import structural_similarity  # a worker that trains shadows need not load it

    size = min(_KERNEL, *images.shape[-2:])
    kernel = size - 1 + size % 2  # odd
    if kernel < 3:
        raise DataError(f"images of {tuple(images.shape[-2:])} pixels; structural similarity takes at least 3 by 3.")
    return np.array(
        [
            structural_similarity(  # type: ignore[no-untyped-call]
                one, other, win_size=kernel, data_range=bounds[1] - bounds[0], channel_axis=0
            )
            for one, other in zip(images.double().numpy(), originals.double().numpy(), strict=True)
        ]
    )


def nearest(images: Tensor, candidates: Tensor) -> Tensor:
    """Which candidate is nearest to each image (N,), by the distance of pixels."""
    return separations(images, candidates).argmin(1)


def separations(images: Tensor, candidates: Tensor) -> Tensor:
    """The distance of every image from every candidate (N, K), from differences: products would cancel."""
    left, right = images.flatten(1).double(), candidates.flatten(1).double()
    return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")
