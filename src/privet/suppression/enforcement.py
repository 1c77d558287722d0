"""Keeps masked weights at zero whatever the optimizer does."""

from __future__ import annotations

import hashlib
import weakref
from typing import Any

import torch
from torch import Tensor, nn, optim
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
        watched: parameters that nothing but the optimizer may change; none unless private training makes its gradients.
        touched: whether one was changed in place, or was another after a resume than at the stop.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._parameters = [one.parameter for one, _ in parts]
        self._arrivals = [_Arrival(mask) for _, mask in parts]
        self._handles: list[RemovableHandle] = []
        self._pointers: list[int] = []
        self.watched: list[nn.Parameter] = []
        self.steps, self.touched = 0, False
        self._versions: list[int] | None = None  # of what is watched, when it was as it should be
        self._expected: str | None = None  # its digest, as a checkpoint has it
        self._clears_after = True
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
        self._clears_after = type(optimizer) not in _ELEMENTWISE or nothing_over_nothing
        if self._clears_after or self.watched:
            self._handles.append(optimizer.register_step_post_hook(self._after))

    def stop(self) -> None:
        """End, and leave no hook behind."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def digest(self) -> str:
        """Of what is watched, as it is now."""
        found = hashlib.sha256()
        for parameter in self.watched:
            values = parameter.detach().cpu().contiguous().reshape(-1)
            found.update(values.view(torch.uint8).numpy().data)
        return found.hexdigest()

    def expect(self, digest: str | None) -> None:
        """What is watched will be put back from a checkpoint, and have this digest at the optimizer's next step."""
        self.steps, self.touched, self._versions, self._expected = 0, False, None, digest

    def look(self) -> None:
        """Notice what was changed since it was last as it should be."""
        self.touched |= self._versions is not None and self._versions != self._now()

    def begin(self) -> None:
        """What is watched is as it should be."""
        self._versions = self._now()

    @property
    def untouched(self) -> bool:
        """Whether the optimizer alone changed what is watched since :meth:`end_step`."""
        self.look()
        return not self.touched

    def end_step(self) -> None:
        """Write zero into every masked weight; nothing may change until the optimizer's next step."""
        self.clear_weights()
        self.steps, self._versions = 0, self._now()

    def _now(self) -> list[int]:
        return [parameter._version for parameter in self.watched]

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
        self.look()
        if self._expected is not None and self.watched:
            self.touched |= self._expected != self.digest()
            self._expected = None
        for parameter, arrival in zip(self._parameters, self._arrivals, strict=True):
            if parameter.grad is not None:
                arrival.look_at(parameter.grad)

    def _after(self, *_: Any) -> None:
        if self._clears_after:
            self.clear_weights()
        self._versions = self._now()


class _Arrival:
    """Zeroes the masked entries of a gradient when it has arrived in ``.grad``."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._seen: weakref.ref[Tensor] | None = None  # until the step: what holds on to a gradient is in the way
        self._versions = (-1, -1)

    def __call__(self, parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is None:  # another hook took it
            return
        if self._mask.count:
            self._mask.clear(gradient)
        self._seen, self._versions = weakref.ref(gradient), (gradient._version, self._mask.version)

    def look_at(self, gradient: Tensor) -> None:
        """Zero them, unless that was done when it arrived and neither it nor the mask was changed since."""
        seen, self._seen = self._seen, None
        unchanged = seen is not None and seen() is gradient
        if not unchanged or (gradient._version, self._mask.version) != self._versions:
            self._mask.clear(gradient)
