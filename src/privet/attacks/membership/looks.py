"""What a record looks like in a few numbers: its values, its layout, and the traces of how it was prepared."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["looks_of"]

_VALUES_AT_ONCE = 2**19
_MOST_ORDERED = 8_192  # values of a record that are sorted, chosen once for all records
_GRIDS = (1.0, 255.0, 256.0, 127.5)  # whole numbers, and how pixels are commonly scaled
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
_FAR = 1e15  # beyond which a square is no float32
_BLOCK = 8  # pixels, of JPEG


def looks_of(inputs: Tensor) -> Tensor:
    """Describe each record by numbers that are the same for no two ways of preparing data.

    Of all values: moments, quantiles, extremes, shares of zeros and of repeated values, the finest step between two
    values, and which of them stand on a coarser grid (half precision, whole numbers, pixels over 255). Where the last
    two dimensions are at least 4 wide: differences along either, at borders of blocks and elsewhere, centre and spread
    of the mass, means of the quadrants, and means and deviations of up to 4 channels. Each row is a function of its
    record alone.

    Args:
        inputs: (N, ...), real and finite.

    Returns:
        (N, F) float32 on the CPU; F depends on the shape of a record alone.

    Example:
        >>> looks_of(torch.zeros(2, 1, 8, 8)).shape[0]
        2
    """
    with torch.no_grad():
        size = max(1, _VALUES_AT_ONCE // max(1, inputs[0].numel()))
        chunks = [_looks(inputs[start : start + size]) for start in range(0, len(inputs), size)]
    return torch.nan_to_num(torch.cat(chunks)).clamp(-_FAR, _FAR)


def _looks(inputs: Tensor) -> Tensor:
    rows = inputs.detach().cpu()
    values = rows.double() if rows.dtype == torch.float64 else rows.float()
    flat = values.reshape(len(rows), -1)  # (n, D)
    some = _some(flat)
    parts = [_moments(flat), *_order(some), _precision(some)]
    if values.ndim >= 3 and min(values.shape[-2:]) >= 4:
        parts += [_layout(values.float()), _channels(values.float())]
    elif values.ndim == 2 and values.shape[-1] >= 2:
        steps = flat.diff(dim=1)
        parts.append(torch.stack((steps.abs().mean(1), (steps == 0).float().mean(1)), 1))
    return torch.cat([part.float() for part in parts], 1)


def _some(flat: Tensor) -> Tensor:
    """At most so many values of each record as are sorted, the same places in each (n, d)."""
    width = flat.shape[1]
    if width <= _MOST_ORDERED:
        return flat
    return flat[:, torch.randperm(width, generator=torch.Generator().manual_seed(0))[:_MOST_ORDERED]]


def _moments(flat: Tensor) -> Tensor:
    mean = flat.mean(1, keepdim=True)
    centred = flat - mean
    deviation = centred.square().mean(1, keepdim=True).sqrt()
    unit = centred / deviation.clamp_min(1e-12)
    return torch.cat((mean, deviation, unit.pow(3).mean(1, keepdim=True), unit.pow(4).mean(1, keepdim=True)), 1)


def _order(flat: Tensor) -> tuple[Tensor, ...]:
    ordered = flat.sort(1).values
    width = ordered.shape[1]
    steps = ordered.diff(dim=1) if width > 1 else torch.ones_like(ordered)
    finest = torch.where(steps > 0, steps, torch.inf).amin(1, keepdim=True).log()
    lowest, highest = ordered[:, :1], ordered[:, -1:]
    same = torch.stack(
        [(flat == value).float().mean(1) for value in (lowest, highest, torch.zeros_like(lowest))]
        + [(steps == 0).float().mean(1)],
        1,
    )
    at = [round(share * (width - 1)) for share in _SHARES]
    return lowest, highest, ordered[:, at], finest.clamp(-80.0, 80.0), same


def _precision(flat: Tensor) -> Tensor:
    """Which share of the values a coarser way of storing them would have left as they are."""
    coarser = [flat.half().to(flat.dtype), flat.bfloat16().to(flat.dtype), flat.float().to(flat.dtype)]
    shares = [(stored == flat).float().mean(1) for stored in coarser]
    for grid in _GRIDS:
        scaled = flat * grid
        shares.append(((scaled - scaled.round()).abs() <= 1e-6 * scaled.abs().clamp_min(1.0)).float().mean(1))
    return torch.stack(shares, 1)


def _layout(values: Tensor) -> Tensor:
    """How neighbours differ along the last two dimensions, and where the mass lies (n, ...)."""
    planes = values.reshape(len(values), -1, *values.shape[-2:])  # (n, C, H, W)
    found: list[Tensor] = []
    for dim in (-1, -2):
        steps = planes.diff(dim=dim)
        sizes = steps.abs()
        found += [sizes.mean((1, 2, 3)), (steps == 0).float().mean((1, 2, 3)), sizes.amax((1, 2, 3))]
        found += [steps.diff(dim=dim).abs().mean((1, 2, 3))]
        border = torch.arange(steps.shape[dim]) % _BLOCK == _BLOCK - 1
        if bool(border.any()):
            at_borders = sizes.index_select(dim, torch.nonzero(border)[:, 0]).mean((1, 2, 3))
            found.append(at_borders / sizes.mean((1, 2, 3)).clamp_min(1e-12))
    found.append(planes.diff(dim=-1).diff(dim=-2).abs().mean((1, 2, 3)))
    grain = planes.diff(n=2, dim=-1).diff(n=2, dim=-2).abs()  # what is smooth has none; noise has
    found += [grain.mean((1, 2, 3)), _quarter(grain.flatten(1))]
    mass = planes.mean(1) - planes.mean(1).amin((1, 2), keepdim=True)  # (n, H, W)
    mass = mass / mass.sum((1, 2), keepdim=True).clamp_min(1e-12)
    for dim in (-1, -2):
        profile = mass.sum(-3 - dim)  # (n, W) or (n, H)
        place = torch.linspace(-1.0, 1.0, profile.shape[1])
        centre = (profile * place).sum(1, keepdim=True)
        found += [centre[:, 0], (profile * (place - centre).square()).sum(1)]
    flat_mean = planes.mean(1)
    half = flat_mean.shape[1] // 2, flat_mean.shape[2] // 2
    for down in (slice(None, half[0]), slice(half[0], None)):
        found += [flat_mean[:, down, right].mean((1, 2)) for right in (slice(None, half[1]), slice(half[1], None))]
    return torch.stack(found, 1)


def _quarter(values: Tensor) -> Tensor:
    some = _some(values)
    return some.kthvalue(1 + some.shape[1] // 4, dim=1).values


def _channels(values: Tensor) -> Tensor:
    """Mean and deviation of each of the first four channels, where there are any (n, ...)."""
    channels = values.reshape(len(values), -1, values.shape[-2] * values.shape[-1])[:, :4]
    return torch.cat((channels.mean(2), channels.std(2, correction=0)), 1)
