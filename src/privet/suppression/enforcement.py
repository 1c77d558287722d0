"""Keeps masked weights at zero whatever the optimizer does."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, optim
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from privet.errors import ArgumentError
from privet.suppression.layers import Chosen
from privet.suppression.mask import Mask

__all__ = ["Enforcement", "Parts"]

Parts = tuple[tuple[Chosen, Mask], ...]
# These move a weight by what they know of that weight alone: without gradient and memory, zero stays zero.
_ELEMENTWISE = (
    optim.Adadelta,
    optim.Adagrad,
    optim.Adam,
    optim.AdamW,
    optim.Adamax,
    optim.ASGD,
    optim.NAdam,
    optim.RAdam,
    optim.RMSprop,
    optim.Rprop,
    optim.SGD,
)


class Enforcement:
    """Zeroes masked entries of gradients as they arrive and before a step, and of weights after it.

    Gradients twice: as they arrive, so that a norm taken of them counts what will be used; before the step, because
    some are written into ``.grad`` by hand (private training) or changed there.

    Args:
        parts: parameters and their masks.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._parameters = [one.parameter for one, _ in parts]
        self._arrivals = [_Arrival(mask) for _, mask in parts]
        self._handles: list[RemovableHandle] = []
        self._pointers: list[int] = []
        self._weights: list[Tensor] = []  # as whole numbers, in the memory of the parameters
        self._kept: list[Tensor] = []

    def watch(self, optimizer: Optimizer) -> None:
        """Begin.

        Raises:
            ArgumentError: another suppression watches a parameter.
        """
        for one, _ in self._parts:
            hooks = one.parameter._post_accumulate_grad_hooks or {}
            if any(isinstance(hook, _Arrival) for hook in hooks.values()):
                remedy = "Another Suppression has it; call its finalize() first, or leave the layer out."
                raise ArgumentError("layers", one.name, "weights that are not suppressed yet", remedy)
        self._handles = [
            parameter.register_post_accumulate_grad_hook(arrival)  # type: ignore[no-untyped-call]
            for parameter, arrival in zip(self._parameters, self._arrivals, strict=True)
        ]
        self._handles.append(optimizer.register_step_pre_hook(self._before))
        if type(optimizer) not in _ELEMENTWISE:
            self._handles.append(optimizer.register_step_post_hook(self._after))

    def stop(self) -> None:
        """End, and leave no hook behind."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def clear_weights(self) -> None:
        """Write zero into every masked weight."""
        if self._pointers != [parameter.data_ptr() for parameter in self._parameters]:
            self._look_again()
        torch._foreach_mul_(self._weights, self._kept)

    def _look_again(self) -> None:
        """The weights are at other places: moved, converted, or their data replaced."""
        for one, mask in self._parts:
            mask.follow(one.parameter)
        self._pointers = [parameter.data_ptr() for parameter in self._parameters]
        self._kept = [mask.kept for _, mask in self._parts]
        self._weights = [one.parameter.detach().view(mask.kept.dtype) for one, mask in self._parts]

    def _before(self, *_: Any) -> None:
        for parameter, arrival in zip(self._parameters, self._arrivals, strict=True):
            if parameter.grad is not None:
                arrival.look_at(parameter.grad)

    def _after(self, *_: Any) -> None:
        self.clear_weights()


class _Arrival:
    """Zeroes the masked entries of a gradient when it has arrived in ``.grad``."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._seen: weakref.ref[Tensor] | None = None
        self._version = -1

    def __call__(self, parameter: Tensor) -> None:
        if self._mask.count:
            assert parameter.grad is not None
            self._clear(parameter.grad)

    def look_at(self, gradient: Tensor) -> None:
        """Zero them, unless that was done when it arrived and it was not changed since."""
        if self._mask.count and (
            self._seen is None or self._seen() is not gradient or gradient._version != self._version
        ):
            self._clear(gradient)

    def _clear(self, gradient: Tensor) -> None:
        self._mask.clear(gradient)
        self._seen, self._version = weakref.ref(gradient), gradient._version
