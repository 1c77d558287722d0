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

    Attributes:
        steps: of the optimizer, since :meth:`end_step`.
        touched: whether weights were changed in place between :meth:`end_step` and the optimizer's next step.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._parameters = [one.parameter for one, _ in parts]
        self._arrivals = [_Arrival(mask) for _, mask in parts]
        self._handles: list[RemovableHandle] = []
        self._pointers: list[int] = []
        self._after_step: list[int] | None = None
        self.steps, self.touched = 0, False
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
        nothing_over_nothing = any(group.get("eps", 1.0) == 0.0 for group in optimizer.param_groups)
        if type(optimizer) not in _ELEMENTWISE or nothing_over_nothing:
            self._handles.append(optimizer.register_step_post_hook(self._after))

    def stop(self) -> None:
        """End, and leave no hook behind."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def forget_steps(self) -> None:
        """Weights may be put back from a checkpoint now."""
        self.steps, self.touched, self._after_step = 0, False, None

    def end_step(self) -> None:
        """Write zero into every masked weight, and watch them until the optimizer's next step."""
        self.clear_weights()
        self.steps, self._after_step = 0, [parameter._version for parameter in self._parameters]

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
        self.steps += 1
        if self.steps == 1 and self._after_step is not None:
            self.touched |= self._after_step != [parameter._version for parameter in self._parameters]
        for parameter, arrival in zip(self._parameters, self._arrivals, strict=True):
            if parameter.grad is not None:
                arrival.look_at(parameter.grad)

    def _after(self, *_: Any) -> None:
        self.clear_weights()


class _Arrival:
    """Zeroes the masked entries of a gradient when it has arrived in ``.grad``."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._seen: weakref.ref[Tensor] | None = None  # until the step: what holds on to a gradient is in the way
        self._versions = (-1, -1)

    def __call__(self, parameter: Tensor) -> None:
        gradient = parameter.grad
        assert gradient is not None
        if self._mask.count:
            self._mask.clear(gradient)
        self._seen, self._versions = weakref.ref(gradient), (gradient._version, self._mask.version)

    def look_at(self, gradient: Tensor) -> None:
        """Zero them, unless that was done when it arrived and neither it nor the mask was changed since."""
        seen, self._seen = self._seen, None
        unchanged = seen is not None and seen() is gradient
        if not unchanged or (gradient._version, self._mask.version) != self._versions:
            self._mask.clear(gradient)
