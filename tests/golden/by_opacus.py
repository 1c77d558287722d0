"""Regenerates by_opacus.json: clipped, averaged gradients without noise, and RDP epsilon, by Opacus.

Run, with the extra ``bench``: python tests/golden/by_opacus.py
"""

from __future__ import annotations

import importlib.metadata
import json
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXPECTED_BATCH_SIZE = 8
CLASSES = 3
NETWORKS = ("convolutional", "sequence")
NORMS = (0.05, 3.0, 1e3)  # all are clipped, some are, none is
SIZES = (1, 8, 11)  # of the drawn batch; the denominator is the expected size

CASES = [  # sampling rate, noise multiplier, steps, delta
    (256 / 60_000, 1.1, 14_062, 1e-5),
    (0.01, 4.0, 10_000, 1e-5),
    (0.01, 1.0, 1_000, 1e-9),
    (0.04, 0.8, 500, 1e-5),
    (1.0, 10.0, 40, 1e-6),
]


def numbers(*shape: int, start: int) -> Tensor:
    """Float64 numbers in [-1, 1] that no version of a random generator changes."""
    count = torch.Size(shape).numel()
    steps = torch.arange(start, start + count, dtype=torch.float64)
    return (steps * 0.7390851332151607 + 0.31).remainder(1.0).mul(2.0).sub(1.0).reshape(shape)


def network(kind: str) -> nn.Module:
    """A small network with every kind of layer that both sides have a rule for."""
    if kind == "convolutional":
        model: nn.Module = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, stride=2),
            nn.GroupNorm(2, 4),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(4 * 3 * 3, CLASSES),
        )
    else:
        model = nn.Sequential(
            nn.Embedding(7, 6), nn.Linear(6, 4), nn.LayerNorm(4), nn.Tanh(), nn.Flatten(), nn.Linear(5 * 4, CLASSES)
        )
    model.double()
    with torch.no_grad():
        for place, parameter in enumerate(model.parameters()):
            parameter.copy_(0.5 * numbers(*parameter.shape, start=1_000 * place))
    return model


def batch(kind: str, size: int) -> tuple[Tensor, Tensor]:
    """Inputs and labels of that many examples."""
    if kind == "convolutional":
        inputs = numbers(size, 1, 6, 6, start=50)
    else:
        inputs = torch.arange(size * 5).mul(11).remainder(7).reshape(size, 5)
    return inputs, torch.arange(size) % CLASSES


def flat(model: nn.Module) -> list[float]:
    """All gradients in a row, in the order of the parameters."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).tolist()


def clipped_by_opacus(kind: str, max_grad_norm: float, size: int) -> list[float]:
    """One step of Opacus without noise, on a batch of this size."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    model = network(kind)
    private: Any = GradSampleModule(model)
    optimizer = DPOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.0),
        noise_multiplier=0.0,
        max_grad_norm=max_grad_norm,
        expected_batch_size=EXPECTED_BATCH_SIZE,
    )
    inputs, labels = batch(kind, size)
    F.cross_entropy(private(inputs), labels).backward()
    optimizer.step()
    return flat(model)


def epsilon_by_opacus(rate: float, noise: float, steps: int, delta: float) -> float:
    """At the orders that Opacus has by default."""
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    return float(accountant.get_epsilon(delta))


def orders_of_opacus() -> list[float]:
    """By default."""
    from opacus.accountants import RDPAccountant

    return [float(order) for order in RDPAccountant.DEFAULT_ALPHAS]


def main() -> None:
    warnings.simplefilter("ignore")
    gradients = [
        {
            "network": kind,
            "max_grad_norm": norm,
            "size": size,
            "gradient": [float(f"{value:.12g}") for value in clipped_by_opacus(kind, norm, size)],
        }
        for kind in NETWORKS
        for norm in NORMS
        for size in SIZES
    ]
    epsilons = [
        {
            "sampling_rate": rate,
            "noise_multiplier": noise,
            "steps": steps,
            "delta": delta,
            "epsilon": epsilon_by_opacus(rate, noise, steps, delta),
        }
        for rate, noise, steps, delta in CASES
    ]
    found = {
        "source": f"Opacus {importlib.metadata.version('opacus')}: GradSampleModule and DPOptimizer with noise "
        "multiplier 0, RDPAccountant at its default orders",
        "regenerate": "tests/golden/by_opacus.py",
        "expected_batch_size": EXPECTED_BATCH_SIZE,
        "clipping_epsilon": 1e-6,
        "orders": orders_of_opacus(),
        "epsilons": epsilons,
        "gradients": gradients,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
