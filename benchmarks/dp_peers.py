"""Opacus as the peer of private training: single steps, and an epoch as its engine runs it.

Its noise is drawn as it is by default, from PyTorch's own generator, which is not a cryptographic one.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

__all__ = ["MODES", "Opacus", "dp_lstm", "find_opacus"]

Data = tuple[Tensor, Tensor]
MODES = ("hooks", "ghost")
# What PyTorch says of every hook of Opacus on a first layer; it costs nothing.
warnings.filterwarnings("ignore", message="Full backward hook is firing")


@dataclass(frozen=True)
class Opacus:
    """How Opacus makes a model private.

    Args:
        sigma: standard deviation of the noise by the clip norm.
        max_grad_norm: the clip norm.
        learning_rate: of SGD.
    """

    sigma: float
    max_grad_norm: float
    learning_rate: float

    def step(self, mode: str, model: nn.Module, batch_size: int) -> Callable[[Data], None]:
        """What does one full step on a batch: materialized per-example gradients, or ghost clipping."""
        private, optimizer, criterion = self._parts(mode, model, batch_size)

        def step(data: Data) -> None:
            optimizer.zero_grad(set_to_none=True)
            _loss(criterion, private(data[0]), data[1], mode).backward()
            optimizer.step()

        return step

    def epoch(self, mode: str, model: nn.Module, data: Data, batch_size: int) -> None:
        """One epoch as ``PrivacyEngine.make_private`` sets it up: Poisson sampling by its own DataLoader."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the noise is not from a cryptographic generator
            engine = importlib.import_module("opacus").PrivacyEngine()
        optimizer: Any = torch.optim.SGD(model.parameters(), lr=self.learning_rate)
        criterion: Any = nn.CrossEntropyLoss()
        made = engine.make_private(
            module=model.train(),
            optimizer=optimizer,
            criterion=criterion,
            data_loader=DataLoader(TensorDataset(*data), batch_size=batch_size),
            noise_multiplier=self.sigma,
            max_grad_norm=self.max_grad_norm,
            grad_sample_mode=mode,
        )
        private, optimizer, loader = made[0], made[1], made[-1]
        criterion = made[2] if mode == "ghost" else criterion
        for inputs, labels in loader:
            optimizer.zero_grad(set_to_none=True)
            _loss(criterion, private(inputs), labels, mode).backward()
            optimizer.step()

    def epoch_of(self, mode: str, model: nn.Module, batches: Iterable[Data], batch_size: int) -> None:
        """The same epoch over batches that were drawn and collated elsewhere."""
        step = self.step(mode, model, batch_size)
        for data in batches:
            step(data)

    def _parts(self, mode: str, model: nn.Module, batch_size: int) -> tuple[Any, Any, Any]:
        modules, optimizers = (importlib.import_module(f"opacus.{room}") for room in ("grad_sample", "optimizers"))
        plain = torch.optim.SGD(model.parameters(), lr=self.learning_rate)
        settings = {
            "noise_multiplier": self.sigma,
            "max_grad_norm": self.max_grad_norm,
            "expected_batch_size": batch_size,
        }
        criterion: Any = nn.CrossEntropyLoss()
        if mode == "hooks":
            return modules.GradSampleModule(model.train()), optimizers.DPOptimizer(plain, **settings), criterion
        private = modules.GradSampleModuleFastGradientClipping(model.train(), max_grad_norm=self.max_grad_norm)
        optimizer = optimizers.DPOptimizerFastGradientClipping(plain, **settings)
        losses = importlib.import_module("opacus.utils.fast_gradient_clipping_utils")
        return private, optimizer, losses.DPLossFastGradientClipping(private, optimizer, criterion)


def _loss(criterion: Any, logits: Tensor, labels: Tensor, mode: str) -> Any:
    if labels.dim() == 1:
        return criterion(logits, labels)
    shape = {"shape": tuple(labels.shape)} if mode == "ghost" else {}  # so that a sequence is one example
    return criterion(logits.flatten(0, 1), labels.flatten(), **shape)


def dp_lstm() -> Callable[..., nn.Module]:
    """What Opacus takes in the place of nn.LSTM."""
    made: Callable[..., nn.Module] = importlib.import_module("opacus.layers").DPLSTM
    return made


def find_opacus() -> str | None:
    """Why Opacus cannot run here; None where it can."""
    try:
        importlib.import_module("opacus")
    except ImportError:
        return "not installed; ./run bench installs the extra [bench]"
    return None
