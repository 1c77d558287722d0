"""One record moves a sum of clipped gradients by at most C, also where its gradient cancels within it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from privet.dp.per_example.engine import Engine

_B, _EXPECTED = 8, 10.0  # a weight of 1/10 is not exact: scaled, a cancelling sum has other roundings


def _cancelling(positions: int, generator: torch.Generator) -> torch.Tensor:
    """(B, T): of the first example, a + b - (a + b) again and again, exactly 0 as it stands."""
    a, b = torch.randint(1, 1 << 22, (2, positions // 3), generator=generator).float()
    values = torch.ones(_B, positions)
    values[0] = torch.stack([a, b, -(a + b)], dim=1).flatten() * 2.0**20
    return values


def _linear(layer, x, c):
    return (layer(x) * c.unsqueeze(2)).sum((1, 2))


def _conv1d(layer, x, c):
    return (layer(x) * c.unsqueeze(1)).sum((1, 2))


def _shared(layer, x, c):
    return sum((layer(x[:, t]) * c[:, t, None]).sum(1) for t in range(x.shape[1]))


def _embedded(layer, x, c):
    """All a first, then all b, few digits each, so that they add up exactly, and then what cancels them."""
    a, b = (torch.floor(c[:, part::3] / 2.0**25) * 2.0**25 for part in (0, 1))
    return (layer(x.long().clamp(0, 4)) * torch.cat([a, b, -(a + b)], dim=1).unsqueeze(2)).sum((1, 2))


_CASES = {
    "embedding": (lambda: nn.Embedding(5, 16), (60,), 60, _embedded),
    "linear, not kept": (lambda: nn.Linear(10, 100, bias=False), (51, 10), 51, _linear),
    "linear, ghost": (lambda: nn.Linear(300, 300, bias=False), (6, 300), 6, _linear),
    "convolution, not kept": (lambda: nn.Conv1d(4, 200, 3, bias=False), (4, 14), 12, _conv1d),
    "one layer called often": (lambda: nn.Linear(10, 10, bias=False), (12, 10), 12, _shared),
}


@pytest.mark.parametrize("case", _CASES)
def test_a_gradient_that_cancels_within_an_example_stays_within_the_clip_norm(case):
    """Positions, places and calls that cancel as measured do not as they are summed."""
    make, shape, positions, loss = _CASES[case]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_B, *shape, generator=generator)
    x[0] = 1.0
    layer, data = make(), (x, _cancelling(positions, generator))
    engine = Engine(layer)
    sums = []
    for present in (1.0, 0.0):
        gradients = engine.take(lambda d: loss(layer, *d), data, _B)
        weights = (1.0 / gradients.squared_norms.sqrt()).clamp(max=1.0) / _EXPECTED
        weights[:, 0] *= present
        gradients.add_to(flat := engine.flat(), weights)
        sums.append(flat.double())
    assert float((sums[0] - sums[1]).norm()) * _EXPECTED <= 1.01
