"""Many multilayer perceptrons trained side by side: the same steps as one by one, in less time.

Only chains of linear layers and pointwise functions are trained this way, because only for them the gradient is short
to write down. Small layers are stacked and multiplied together; large ones are multiplied network by network, by the
product that is the fastest for them. The gradient of a weight is added to its velocity by the product itself, and
nothing is computed that no weight needs. Values are kept with the features first: (K, H, B) for K networks, H features
and a batch of B; every product and sum over them is faster so.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from privet.attacks.membership.fleet.chain import Chain, Link

__all__ = ["Descent", "train_stacked"]

_TOGETHER = 2  # networks of a large layer that are trained in turns: more of them do not stay in the cache
_TOGETHER_SMALL = 16
_LARGE = 500_000  # multiplications a network and batch: from there on, network by network is faster
_SMALLEST_SCALE = 2.0**-20  # of a velocity, before it is multiplied out
_ONE_DNN = bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_linear_pointwise")
_PRODUCT: Any = torch.ops.mkldnn._linear_pointwise if _ONE_DNN else None  # (M, K), (N, K) -> (M, N)


@dataclass(frozen=True)
class Descent:
    """Stochastic gradient descent: ``v = momentum v + gradient + weight_decay w``, then ``w = w - learning_rate v``."""

    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float


def train_stacked(
    networks: Sequence[nn.Module],
    chain: Chain,
    inputs: Tensor,
    labels: Tensor,
    orders: Sequence[Iterator[Tensor]],
    descent: Descent,
    together: int | None = None,
) -> None:
    r"""Train networks of one architecture in place, each on its own records, by the mean cross-entropy of a batch.

    .. math:: \nabla_z = \frac{1}{B} (\mathrm{softmax}(z) - e_y)

    They are dealt out to as many threads as torch uses, so that every core trains its own.

    Args:
        networks: K networks, alike up to their weights, of the device and type of ``inputs``.
        chain: what they are.
        inputs: (P, ...) of all records.
        labels: (P,) int64.
        orders: for each network and each epoch, the records (n,) int64 in their order; n is the same for all.
        descent: how the weights are moved.
        together: how many networks are trained in one run; by default as many as is fast.
    """
    on_cpu = inputs.device.type == "cpu"
    threads = torch.get_num_threads() if on_cpu else 1
    if together is None:
        large = any(_is_large(_linear(networks[0], link.linear), descent.batch_size) for link in chain)
        together = _TOGETHER if large else _TOGETHER_SMALL if on_cpu else len(networks)
    parts = _parts(len(networks), threads, together)
    flat, stop = inputs.flatten(1), threading.Event()
    _keep_freed_memory()

    def train(part: slice) -> None:
        _train(networks[part], chain, flat, labels, orders[part], descent, stop)

    if threads == 1 or len(parts) == 1:
        for part in parts:
            train(part)
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for _ in pool.map(train, parts):
            pass
    finally:
        stop.set()  # else the others would train on to their end after Ctrl-C
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _parts(count: int, threads: int, together: int) -> list[slice]:
    """Runs of networks of nearly equal numbers: at most ``together`` each, and as many for each thread."""
    number = min(count, threads * -(-count // (threads * together)))
    bounds = [count * part // number for part in range(number + 1)]
    return [slice(start, end) for start, end in pairwise(bounds)]


@cache
def _keep_freed_memory() -> None:
    """Let glibc keep what is freed, up to 64 MB, instead of handing back and clearing the same pages at every step.

    It sets its thresholds by the largest block freed so far; this one is never touched, so it costs nothing.
    """
    torch.empty(31 << 18)  # 32.5 MB of float32


@torch.no_grad()
def _train(
    networks: Sequence[nn.Module],
    chain: Chain,
    inputs: Tensor,
    labels: Tensor,
    orders: Sequence[Iterator[Tensor]],
    descent: Descent,
    stop: threading.Event,
) -> None:
    run = _Run(networks, chain, descent)
    for order in zip(*orders, strict=True):
        rows = torch.stack(order)  # (K, n)
        wanted = labels[rows].unsqueeze(1)  # (K, 1, n)
        for start in range(0, rows.shape[1], descent.batch_size):
            if stop.is_set():
                return
            chosen = rows[:, start : start + descent.batch_size]  # (K, B)
            batch = inputs.index_select(0, chosen.flatten()).view(*chosen.shape, -1)  # (K, B, I)
            run.step(batch.mT, wanted[..., start : start + descent.batch_size])
    run.write_back()


class _Run:
    """K networks and how fast their weights move.

    A velocity is kept as ``v = scale u``: then ``v = momentum v + g`` is ``u = u + g / scale`` with a scale
    ``momentum`` times smaller, an addition that a product does while it writes. A pass over all weights is saved. The
    one division is that of the gradient of the logits, which all others are linear in.
    """

    def __init__(self, networks: Sequence[nn.Module], chain: Chain, descent: Descent) -> None:
        self._layers = [_Layer(networks, link, descent) for link in chain]
        self._descent = descent
        self._scale = 1.0
        self._minus_one = next(networks[0].parameters()).new_tensor([[[-1.0]]])

    def step(self, inputs: Tensor, labels: Tensor) -> None:
        """One step: inputs (K, I, B), labels (K, 1, B)."""
        values = [inputs]
        for layer in self._layers:
            values.append(layer.forward(values[-1]))
        self._rescale()
        gradient = values.pop().softmax(1)  # (K, C, B)
        gradient.scatter_add_(1, labels, self._minus_one.expand(labels.shape)).div_(labels.shape[2] * self._scale)
        for layer in reversed(self._layers):
            gradient = layer.backward(gradient, values.pop(), needs_input=layer is not self._layers[0])
        weights = [weight for layer in self._layers for weight in layer.weights]
        moved = [unscaled for layer in self._layers for unscaled in layer.unscaled]
        if self._descent.weight_decay:
            torch._foreach_add_(moved, weights, alpha=self._descent.weight_decay / self._scale)
        torch._foreach_add_(weights, moved, alpha=-self._descent.learning_rate * self._scale)

    def _rescale(self) -> None:
        if self._descent.momentum:
            self._scale *= self._descent.momentum
        if self._scale < _SMALLEST_SCALE:
            torch._foreach_mul_([unscaled for layer in self._layers for unscaled in layer.unscaled], self._scale)
            self._scale = 1.0

    def write_back(self) -> None:
        """Give the networks what was learned."""
        for layer in self._layers:
            layer.write_back()


class _Layer:
    """A link of the chain for K networks.

    Attributes:
        weights: those of a small layer in one tensor (K, H, I), those of a large one (H, I) each where they are, and
            the biases (K, H, 1) at the end.
        unscaled: of each of them its velocity, in units of the scale.
    """

    def __init__(self, networks: Sequence[nn.Module], link: Link, descent: Descent) -> None:
        self._linear = [_linear(network, link.linear) for network in networks]
        self._functions = link.after
        self._only_relu = [type(function) for function in link.after] == [nn.ReLU]
        self._adds = descent.momentum > 0  # without momentum nothing is left of the last velocity
        self._large = _is_large(self._linear[0], descent.batch_size)
        self._biased = self._linear[0].bias is not None
        weights = [linear.weight.detach() for linear in self._linear]
        self.weights = weights if self._large else [torch.stack(weights)]
        if self._biased:
            self.weights.append(torch.stack([linear.bias.detach() for linear in self._linear]).unsqueeze(2))
        self.unscaled = [torch.zeros_like(weight) for weight in self.weights]

    def forward(self, inputs: Tensor) -> Tensor:
        """(K, H, B) from (K, I, B)."""
        sums = self._sums_of(inputs)
        if self._only_relu:
            self._values = sums.relu_()
            return self._values
        if not self._functions:
            return sums
        with torch.enable_grad():
            self._sums = self._values = sums.requires_grad_()
            for function in self._functions:
                self._values = function(self._values)
        return self._values.detach()

    def backward(self, gradient: Tensor, inputs: Tensor, *, needs_input: bool) -> Tensor:
        """Add to the velocities by the gradient of the values (K, H, B), and give that of the inputs (K, I, B)."""
        if self._only_relu:
            gradient = torch.ops.aten.threshold_backward(gradient, self._values, 0)
        elif self._functions:
            (gradient,) = torch.autograd.grad(self._values, self._sums, gradient)
        if self._biased:
            total = gradient.sum(2, keepdim=True)
            self.unscaled[-1] = self.unscaled[-1].add_(total) if self._adds else total
        if self._large:
            self._add_apart(gradient, inputs)
        else:
            self.unscaled[0].baddbmm_(gradient, inputs.mT, beta=int(self._adds))
        if not needs_input:
            return gradient
        if self._large:
            pairs = zip(self._linear, gradient.unbind(), strict=True)
            return torch.stack([linear.weight.mT @ one for linear, one in pairs])
        return self.weights[0].mT.bmm(gradient)

    def _sums_of(self, inputs: Tensor) -> Tensor:
        if not self._large:
            stacked = self.weights[0]
            return torch.baddbmm(self.weights[1], stacked, inputs) if self._biased else stacked.bmm(inputs)
        pairs = zip(self.weights, inputs.mT.unbind(), strict=False)
        sums = torch.stack([_PRODUCT(weight, one, None, "none", [], "") for weight, one in pairs])
        return sums.add_(self.weights[-1]) if self._biased else sums

    def _add_apart(self, gradient: Tensor, inputs: Tensor) -> None:
        for index, (one, given) in enumerate(zip(gradient.unbind(), inputs.unbind(), strict=True)):
            if self._adds:
                self.unscaled[index] = _PRODUCT.binary(one, self.unscaled[index], given, None, "add")
            else:
                self.unscaled[index] = _PRODUCT(one, given, None, "none", [], "")

    def write_back(self) -> None:
        """Give the networks what was learned; large weights were moved where they are."""
        for index, linear in enumerate(self._linear):
            if not self._large:
                linear.weight.copy_(self.weights[0][index])
            if self._biased:
                linear.bias.copy_(self.weights[-1][index, :, 0])


def _linear(network: nn.Module, name: str) -> nn.Linear:
    linear = network.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    return linear


def _is_large(linear: nn.Linear, batch: int) -> bool:
    weight = linear.weight
    fits = weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.is_contiguous()
    return fits and _ONE_DNN and batch * weight.numel() >= _LARGE
