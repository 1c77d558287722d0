"""A training written down, so that many networks can be trained at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from privet.attacks.membership.fleet.chain import Chain, chain_of, same_architecture
from privet.attacks.membership.fleet.stacked import Descent, train_stacked
from privet.errors import ArgumentError, DataError, DivergedError, LabelError

__all__ = ["Recipe"]

_FLOATING = (torch.float32, torch.float64)
_LOOKED_AT = 8  # records, to see what a network is


@dataclass(frozen=True, eq=False)
class Recipe:
    r"""Stochastic gradient descent on the mean cross-entropy, with a new order of the records in every epoch.

    .. math:: v \leftarrow \mu v + \nabla_w L + \lambda w, \qquad w \leftarrow w - \eta v

    A recipe is a ``train_fn``: called with records and a seed it trains one network. Because it says *what* the
    training is and not only how it runs, :meth:`train_many` can train many networks side by side. That wins for
    multilayer perceptrons, linear layers and pointwise functions between them: for 784-256-10 in batches of 64 a step
    takes a third of the processor time of one over a data loader, and every core trains networks of its own (the
    benchmark ``shadow-fleet`` measures it). Convolutions spend their time in the arithmetic of a single network
    already: those are trained one by one, and gain from several processes instead.

    Both ways take the same records in the same order and differ by rounding only.

    Args:
        build: makes an untrained network from a seed, as ``lambda seed: MLP((784, 256, 10), seed=seed)``. What it draws
            from torch's global random state is drawn from the seed, too.
        inputs: (P, ...) of the whole pool, float32 or float64.
        labels: (P,) int64.
        epochs: at least 1.
        batch_size: at least 1; the last batch of an epoch is smaller where the records do not divide.
        learning_rate: the step size, positive.
        momentum: the share of the velocity that stays, from 0 up to but not including 1.
        weight_decay: at least 0; the share of each weight that is added to its gradient.

    Raises:
        ArgumentError: an argument is outside what is allowed.
        DataError: inputs and labels differ in number, or there are none.
        LabelError: labels are not integers from 0.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> inputs = torch.randn(60, 4, generator=generator)
        >>> labels = (inputs[:, 0] > 0).long()
        >>> recipe = Recipe(lambda seed: nn.Linear(4, 2), inputs, labels, epochs=5, batch_size=8, learning_rate=0.1)
        >>> halves = [np.arange(30), np.arange(30, 60)]
        >>> first, second = recipe.train_many(halves, seeds=[1, 2])
        >>> torch.allclose(second.weight, recipe(halves[1], seed=2).weight, atol=1e-5)
        True
    """

    build: Callable[[int], nn.Module]
    inputs: Tensor
    labels: Tensor
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        build: object = self.build
        if isinstance(build, nn.Module) or not callable(build):
            raise ArgumentError("build", self.build, "a function from a seed to an untrained network")
        counts: dict[str, object] = {"epochs": self.epochs, "batch_size": self.batch_size}
        for name, count in counts.items():
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ArgumentError(name, count, "an integer of at least 1")
        _check_number("learning_rate", self.learning_rate, 0.0, math.inf, "a positive number", open_below=True)
        _check_number("momentum", self.momentum, 0.0, 1.0, "a number from 0 up to but not including 1")
        _check_number("weight_decay", self.weight_decay, 0.0, math.inf, "a number of at least 0")
        _check_records(self.inputs, self.labels)

    def __call__(self, indices: NDArray[np.int64], seed: int) -> nn.Module:
        """Train one network.

        Args:
            indices: the records of the pool to train on (n,), at least one.
            seed: of the weights, the order of the records, and whatever the network draws; from 0 to 2^64 - 1.

        Returns:
            The trained network.

        Raises:
            ArgumentError: there are no indices, one is not in the pool, or ``build`` makes no network.
            DivergedError: a weight became NaN or infinite.
        """
        rows = self._rows("indices", indices)
        with _seeded(seed, self.inputs.device):
            network = self._built(seed)
            self._train(network, rows, seed)
        _check_trained(network, seed)
        return network

    def train_many(self, indices: Sequence[NDArray[np.int64]], seeds: Sequence[int]) -> list[nn.Module]:
        """Train a network for each seed: those that can be stacked side by side, the others one by one.

        Args:
            indices: for each network the records of the pool to train on. Those of equal numbers go together.
            seeds: one for each.

        Returns:
            The trained networks, in this order.

        Raises:
            ArgumentError: as for one network, or there are not as many seeds as sets of records.
            DivergedError: a weight became NaN or infinite.
        """
        if len(indices) != len(seeds):
            raise ArgumentError("seeds", seeds, f"{len(indices)} of them, one for each set of records")
        rows = [self._rows(f"indices[{number}]", one) for number, one in enumerate(indices)]
        chain = self._chain
        if chain is None:
            return [self(one, seed) for one, seed in zip(indices, seeds, strict=True)]
        networks = []
        for seed in seeds:
            with _seeded(seed, self.inputs.device):
                networks.append(self._built(seed))
        alike = [same_architecture(network, networks[0]) for network in networks]
        descent = Descent(self.batch_size, self.learning_rate, self.momentum, self.weight_decay)
        for size in sorted({len(one) for one in rows}):
            group = [k for k, one in enumerate(rows) if len(one) == size and alike[k]]
            orders = [self._orders(rows[k], seeds[k]) for k in group]
            train_stacked([networks[k] for k in group], chain, self.inputs, self.labels, orders, descent)
        for k, seed in enumerate(seeds):
            if not alike[k]:
                networks[k] = self(indices[k], seed)
            _check_trained(networks[k], seed)
        return networks

    @property
    def stackable(self) -> bool:
        """Whether :meth:`train_many` trains the networks side by side: a chain of linear layers and functions."""
        return self._chain is not None

    @cached_property
    def _chain(self) -> Chain | None:
        with _seeded(0, self.inputs.device):
            network = self._built(0)
            chain = chain_of(network, self.inputs[:_LOOKED_AT])
            if chain is not None:
                with torch.no_grad():
                    self._check_logits(network(self.inputs[:1]))
            return chain

    @cached_property
    def _classes(self) -> int:
        return int(self.labels.max()) + 1

    def _check_logits(self, logits: object) -> None:
        if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < self._classes:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            allowed = f"a function from a seed to a network of logits (B, {self._classes}) or more, as the labels need"
            raise ArgumentError("build", found, allowed)

    def _rows(self, name: str, indices: NDArray[np.int64]) -> Tensor:
        given = np.asarray(indices)
        if given.ndim != 1 or not len(given) or given.dtype.kind not in "iu":
            raise ArgumentError(name, indices, "a row of integers, at least one")
        if given.min() < 0 or given.max() >= len(self.inputs):
            wrong = given.min() if given.min() < 0 else given.max()
            raise ArgumentError(name, int(wrong), f"integers from 0 to {len(self.inputs) - 1}, records of the pool")
        return torch.from_numpy(given.astype(np.int64)).to(self.inputs.device)

    def _built(self, seed: int) -> nn.Module:
        network: object = self.build(seed)
        if not isinstance(network, nn.Module):
            raise ArgumentError(
                "build", self.build, f"a function that returns a network, not a {type(network).__name__}"
            )
        return network.train()

    def _orders(self, rows: Tensor, seed: int) -> Iterator[Tensor]:
        """The records of each epoch in their order, (n,)."""
        generator = np.random.default_rng([seed, 1])  # not the stream that the weights are drawn from
        for _ in range(self.epochs):
            yield rows[torch.from_numpy(generator.permutation(len(rows))).to(rows.device)]

    def _train(self, network: nn.Module, rows: Tensor, seed: int) -> None:
        optimizer = torch.optim.SGD(
            network.parameters(), self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay, fused=True
        )
        for order in self._orders(rows, seed):
            for batch in order.split(self.batch_size):  # type: ignore[no-untyped-call]
                optimizer.zero_grad()
                logits = network(self.inputs[batch])
                self._check_logits(logits)
                loss = nn.functional.cross_entropy(logits, self.labels[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()


def _check_number(name: str, value: object, low: float, high: float, allowed: str, *, open_below: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < high:
        raise ArgumentError(name, value, allowed)
    if open_below and value == low:
        raise ArgumentError(name, value, allowed)


def _check_records(inputs: object, labels: object) -> None:
    if not isinstance(inputs, Tensor) or inputs.dtype not in _FLOATING or inputs.ndim < 2:
        found = f"{inputs.dtype} {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ArgumentError("inputs", found, "a tensor (P, ...) of float32 or float64")
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        found = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise LabelError(f"labels are {found}; give a tensor (P,) of int64.")
    if len(inputs) != len(labels) or not len(labels):
        raise DataError(f"{len(inputs)} inputs and {len(labels)} labels; give as many of each, and at least one.")
    if int(labels.min()) < 0:
        raise LabelError(f"a label is {int(labels.min())}; give integers from 0.")


def _check_trained(network: nn.Module, seed: int) -> None:
    for name, weight in network.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise DivergedError(f"Training with seed {seed} ended with {name} not finite. Lower the learning rate.")


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw what is drawn inside from ``seed``, and leave the global random state as it was."""
    given: object = seed
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or not 0 <= given < 2**64:
        raise ArgumentError("seed", seed, "an integer from 0 to 2^64 - 1")
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        torch.manual_seed(int(seed))
        yield
