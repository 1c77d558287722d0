"""A scattering transform as plain convolutions: nothing in it is trained, and each image has its own."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Scattering", "morlet"]


def _gaussian(sigma: float, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    line = torch.arange(-radius, radius + 1, dtype=torch.float64)
    down, across = torch.meshgrid(line, line, indexing="ij")
    return down, across, torch.exp(-(down**2 + across**2) / (2.0 * sigma**2))


def morlet(sigma: float, frequency: float, angle: float, slant: float, radius: int) -> Tensor:
    """Real and imaginary part of a wave under a bell, of sum 0 (2, 2 radius + 1, 2 radius + 1).

    The bell is narrower along the wave than across, by ``slant``.
    """
    down, across, _ = _gaussian(sigma, radius)
    along = across * math.cos(angle) + down * math.sin(angle)
    aside = -across * math.sin(angle) + down * math.cos(angle)
    bell = torch.exp(-(along**2 + (slant * aside) ** 2) / (2.0 * sigma**2))
    wave = torch.complex(torch.cos(frequency * along), torch.sin(frequency * along)) * bell
    made = wave - bell * (wave.sum() / bell.sum())
    made = made / (2.0 * math.pi * sigma**2 / slant)
    return torch.stack([made.real, made.imag])


class Scattering(nn.Module):
    r"""Moduli of wavelets at two scales, averaged over 4 x 4 pixels: images (B, 1, H, W) -> (B, 81, H / 4, W / 4).

    Of the image x: :math:`x * \phi`, :math:`|x * \psi_\lambda| * \phi` at 2 scales and 8 angles, and
    :math:`||x * \psi_\lambda| * \psi_\mu| * \phi` of the finer and then the coarser scale.

    References:
        J. Bruna, S. Mallat, "Invariant scattering convolution networks", 2013. F. Tramèr, D. Boneh, "Differentially
        private learning needs better features (or much more data)", 2021 (under private training).
    """

    angles = 8
    waves0: Tensor
    waves1: Tensor
    bell: Tensor

    def __init__(self) -> None:
        super().__init__()
        for scale in (0, 1):
            sigma, frequency = 0.8 * 2**scale, 0.75 * math.pi / 2**scale
            radius = math.ceil(3.0 * sigma) + 1
            waves = [
                morlet(sigma, frequency, math.pi * k / self.angles, 4.0 / self.angles, radius)
                for k in range(self.angles)
            ]
            self.register_buffer(f"waves{scale}", torch.cat(waves).unsqueeze(1).float())  # (16, 1, k, k)
        _, _, bell = _gaussian(3.2, 9)
        self.register_buffer("bell", (bell / bell.sum())[None, None].float())

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, H, W), H and W multiples of 4."""
        fine, coarse = self._moduli(images, self.waves0), self._moduli(images, self.waves1)  # (B, 8, H, W)
        b, angles, height, width = fine.shape
        second = self._moduli(fine.reshape(-1, 1, height, width), self.waves1).view(b, angles**2, height, width)
        every = torch.cat([images, fine, coarse, second], dim=1)
        means = self._convolve(every.reshape(-1, 1, height, width), self.bell, 4)
        return means.view(b, -1, *means.shape[2:])

    def _moduli(self, images: Tensor, waves: Tensor) -> Tensor:
        parts = self._convolve(images, waves, 1)  # real and imaginary by turns
        return (parts[:, ::2].square() + parts[:, 1::2].square()).sqrt()

    @staticmethod
    def _convolve(images: Tensor, kernels: Tensor, stride: int) -> Tensor:
        radius = kernels.shape[-1] // 2
        return F.conv2d(F.pad(images, [radius] * 4, mode="reflect"), kernels, stride=stride)
