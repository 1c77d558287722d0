"""Whether a network is a chain of linear layers and pointwise functions, and which."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Chain", "Link", "chain_of", "same_architecture"]

_POINTWISE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign,
    nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Tanhshrink, nn.Identity,
)  # fmt: skip
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True, eq=False)
class Link:
    """A linear layer, by its name in the network, and the pointwise functions after it."""

    linear: str
    after: tuple[nn.Module, ...]


Chain = tuple[Link, ...]


def chain_of(network: nn.Module, inputs: Tensor) -> Chain | None:
    """The network as a chain of linear layers and pointwise functions, if that is all it is.

    The network is run once and watched: each layer must be given the very output of the one before, and the chain must
    then give what the network gave. Layers of another kind, buffers, hooks, shared or frozen weights, another number
    type than that of the inputs, and arithmetic between the layers make it something else.

    Args:
        network: any network, in the mode in which it is to be trained.
        inputs: a few of its inputs (B, ...).

    Returns:
        The chain from the flattened inputs to the logits, or None.
    """
    leaves = {name: module for name, module in network.named_modules() if not list(module.children())}
    if not all(type(module) in (nn.Linear, nn.Flatten, *_POINTWISE) for module in leaves.values()):
        return None
    if any(getattr(module, name) for module in network.modules() for name in _HOOKS) or list(network.buffers()):
        return None
    linear = [module for module in leaves.values() if isinstance(module, nn.Linear)]
    owned = [id(weight) for module in linear for weight in module.parameters()]
    if not owned or len(set(owned)) < len(owned) or set(owned) != {id(weight) for weight in network.parameters()}:
        return None
    for weight in network.parameters():
        plain = weight.requires_grad and not weight._backward_hooks
        if not plain or (weight.dtype, weight.device) != (inputs.dtype, inputs.device):
            return None
    return _watched(network, leaves, inputs)


def same_architecture(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks are alike up to the values of their weights."""

    def shapes(network: nn.Module) -> list[tuple[object, ...]]:
        return [(name, weight.shape, weight.dtype, weight.device) for name, weight in network.named_parameters()]

    return type(one) is type(other) and repr(one) == repr(other) and shapes(one) == shapes(other)


def _watched(network: nn.Module, leaves: dict[str, nn.Module], inputs: Tensor) -> Chain | None:
    calls: list[tuple[str, Tensor, Tensor]] = []

    def watch(name: str) -> Any:
        return lambda _, given, output: calls.append((name, given[0], output))

    hooks = [module.register_forward_hook(watch(name)) for name, module in leaves.items()]
    try:
        with torch.no_grad():
            logits = network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    links: list[tuple[str, list[nn.Module]]] = []
    last: Tensor | None = None
    for name, given, output in calls:
        module = leaves[name]
        if links and given is not last:
            return None
        if isinstance(module, nn.Linear):
            links.append((name, []))
        elif not isinstance(module, nn.Flatten):  # flattening rows of numbers does nothing; see _same_answer
            if not links:
                return None
            links[-1][1].append(_out_of_place(module))
        last = output
    names = [name for name, _ in links]
    linear = {name for name, module in leaves.items() if isinstance(module, nn.Linear)}
    if last is None or logits is not last or len(names) != len(linear) or set(names) != linear:
        return None
    return _same_answer(tuple(Link(name, tuple(after)) for name, after in links), network, inputs, last)


def _out_of_place(function: nn.Module) -> nn.Module:
    """The function, with nothing overwritten that its derivative needs."""
    copied = copy.copy(function)
    if hasattr(copied, "inplace"):
        setattr(copied, "inplace", False)  # noqa: B010  (a module's attributes are typed as tensors)
    return copied


def _same_answer(chain: Chain, network: nn.Module, inputs: Tensor, logits: Tensor) -> Chain | None:
    """The chain, if it answers as the network does: an operation in place leaves no other trace."""
    values = inputs.flatten(1)
    with torch.no_grad():
        for link in chain:
            layer = network.get_submodule(link.linear)
            if not isinstance(layer, nn.Linear) or values.shape[1] != layer.in_features:
                return None
            values = layer(values)
            for function in link.after:
                values = function(values)
    return chain if torch.equal(values, logits) else None
