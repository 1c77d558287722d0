"""One forward, one backward: the norm of every example's gradient, and any weighted sum of them.

A layer inside :meth:`Engine.take` computes the gradient of its input alone and notes its input and its output's
gradient. From these follow each example's squared norm, by two small Gram matrices (*ghost*) or by making the
per-example gradient, whichever is cheaper, and afterwards the weighted sum.

References:
    Bu et al., "Differentially private optimization on large model at small cost", 2023 (book-keeping).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction

from privet.dp.per_example.precision import full_precision
from privet.dp.per_example.rules import handlers, refuse
from privet.dp.per_example.slots import Slot, lay_out
from privet.dp.per_example.tape import Handler, Tape
from privet.dp.per_example.use import Room
from privet.errors import PrivateTrainingError, UnsupportedLayerError

__all__ = ["Engine", "Gradients", "PerExampleLoss", "check_losses", "no_fast_path"]

PerExampleLoss = Callable[[Any], Tensor]
"""From collated data of B examples to their losses, (B,)."""


class Gradients:
    """The per-example gradients of one batch, not yet summed; good until the engine's next :meth:`Engine.take`.

    Attributes:
        squared_norms: (G, B) float64, of each example's gradient in each group; NaN or infinite where it is.
        losses: (B,), of each example.
    """

    def __init__(self, tape: Tape, losses: Tensor, room: Room, slots: Sequence[Slot]) -> None:
        """Use :meth:`Engine.take`."""
        self.squared_norms, self.losses = tape.squares, losses
        self._uses, self._room, self._slots = tape.uses, room, slots

    def add_to(self, flat: Tensor, weights: Tensor) -> None:
        r"""Add :math:`\sum_b w_{gb} \nabla_b` to the flat buffer.

        Examples whose squared norm is not finite are taken out, whatever their weight.

        Args:
            flat: from :meth:`Engine.flat`.
            weights: (G, B), finite; what is too small for the parameters' dtype to hold in full counts as 0.
        """
        weights = weights.masked_fill(weights.abs() < torch.finfo(flat.dtype).tiny, 0.0)
        bad = ~self.squared_norms.isfinite().all(dim=0)
        if bool(bad.any()):
            weights = weights.masked_fill(bad, 0.0)
            for use in self._uses:
                use.clear(bad)
        with torch.no_grad(), full_precision(flat.device.type):
            for use in self._uses:
                views = [part.view(flat) for part in use.parts]
                use.add_to(views, [weights[part.slot.group] for part in use.parts], self._room)

    def per_example(self) -> dict[str, Tensor]:
        """Each parameter's per-example gradient, (B, *shape): B times the memory of the model. For checks."""
        size = self.squared_norms.shape[1]
        with torch.no_grad():
            found = {slot.name: slot.parameter.new_zeros(size, *slot.parameter.shape) for slot in self._slots}
            for use in self._uses:
                for part, gradient in zip(use.parts, use.per_example(0, size), strict=True):
                    whole = found[part.slot.name]
                    (whole if part.stop is None else whole[:, part.start : part.stop]).add_(gradient)
        return found


class Engine:
    """Takes per-example gradients of a model that stays as it is.

    Modules are matched by their exact type. While :meth:`take` runs, those with trainable parameters have another
    ``forward``; before and after it the model is the user's own.

    Args:
        model: its trainable parameters at this moment are the ones gradients are taken by.
        groups: a partition of their names, for clipping in groups; None for one group.

    Raises:
        UnsupportedLayerError: a module's per-example gradients are not known, by name, with what to do.
        PrivateTrainingError: nothing is trainable, or dtypes or devices are mixed.
    """

    def __init__(self, model: nn.Module, groups: Sequence[Sequence[str]] | None = None) -> None:
        """See the class."""
        refuse(model)
        self.model = model
        self.slots, self.ranges = lay_out(model, groups)
        self._handlers: dict[nn.Module, Handler] = handlers(model, self.slots)
        inner = {part for module in self._handlers for part in module.modules() if part is not module}
        self._owned = {module: [] if module in inner else _owned(module) for module in self._handlers}
        first = self.slots[0].parameter
        self._room = Room(first.dtype, first.device)
        self._anchor = torch.zeros((), dtype=first.dtype, device=first.device, requires_grad=True)

    def flat(self) -> Tensor:
        """A new flat buffer of zeros for the sum of the gradients of all parameters."""
        return self._anchor.new_zeros(self.ranges[-1][1])

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Each parameter's view of a flat buffer."""
        return {slot.name: slot.view(flat) for slot in self.slots}

    def take(self, per_example_loss: PerExampleLoss, data: object, size: int) -> Gradients:
        """Run the loss forward and backward.

        Args:
            per_example_loss: from ``data`` to the losses (B,).
            data: B examples.
            size: B >= 1.

        Raises:
            PrivateTrainingError: the losses are not one for each example, or a gradient goes past the engine.
            UnsupportedLayerError: a layer was used in a way that is not known.
        """
        with torch.enable_grad():
            tape = Tape(size, len(self.ranges), self._anchor, self._room)
            with no_fast_path(), self._listening(tape):
                losses = per_example_loss(data)
                check_losses(losses, size)
                self._check_paths(losses)
                tape.start_backward()
                torch.autograd.backward(losses, torch.ones_like(losses), inputs=[self._anchor])
        with torch.no_grad(), full_precision(self._anchor.device.type):
            tape.finish()
        return Gradients(tape, losses.detach(), self._room, self.slots)

    @contextmanager
    def _listening(self, tape: Tape) -> Iterator[None]:
        changed = []
        try:
            for module, handler in self._handlers.items():
                if "forward" in module.__dict__:
                    raise UnsupportedLayerError(
                        f"{type(module).__name__} has a forward of its own, set on the instance; put it in a class."
                    )
                module.forward = _bound(handler, tape, self._owned[module])
                changed.append(module)
            yield
        finally:
            for module in changed:
                del module.__dict__["forward"]

    def _check_paths(self, losses: Tensor) -> None:
        """Look at every leaf of the graph: the anchor is the only one that a gradient may reach."""
        seen: set[object] = set()
        queue = [losses.grad_fn]
        while queue:
            node = queue.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if isinstance(node, CheckpointFunction._backward_cls):
                raise UnsupportedLayerError(
                    "a part of the model is run under activation checkpointing, which calls its layers again during "
                    "the backward pass. Switch checkpointing off; use a smaller max_physical_batch."
                )
            leaf = getattr(node, "variable", None)
            if isinstance(leaf, Tensor) and leaf is not self._anchor:
                raise PrivateTrainingError(self._unseen(leaf))
            queue += [following for following, _ in node.next_functions]

    def _unseen(self, leaf: Tensor) -> str:
        for name, parameter in self.model.named_parameters():
            if parameter is leaf:
                return (
                    f"parameter {name!r} is used outside the forward pass of the layer that owns it (as in "
                    "F.linear(h, layer.weight), or a penalty on the weights in the loss); its per-example gradient is "
                    "not known there. Call the layer itself; give weight decay to the optimizer."
                )
        return (
            f"a tensor of shape {tuple(leaf.shape)} that is no parameter of the model requires gradients; they would "
            "be neither clipped nor noised. Make it a parameter of a layer of the model, or detach it."
        )


@contextmanager
def no_fast_path() -> Iterator[None]:
    """Encoders in eval mode call their layers, and hand on no nested tensors, in which examples have no place."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def check_losses(losses: object, size: int, differentiable: bool = True) -> None:
    """Refuse what is not one (differentiable) loss for each example."""
    if not isinstance(losses, Tensor):
        raise PrivateTrainingError(f"the per-example loss returned {type(losses).__name__}, not a tensor (B,).")
    if losses.shape != (size,):
        mean = " It looks like a mean or a sum: use reduction='none'." if losses.dim() == 0 else ""
        raise PrivateTrainingError(
            f"the per-example loss returned shape {tuple(losses.shape)} for {size} examples; one loss for each "
            f"example is needed, shape ({size},).{mean} Average over positions and outputs, never over examples."
        )
    if not losses.is_floating_point():
        raise PrivateTrainingError(f"the per-example losses are {losses.dtype}; they need a floating-point dtype.")
    if differentiable and losses.grad_fn is None:
        raise PrivateTrainingError(
            "the per-example losses do not depend on any trainable parameter (a no_grad, a detach, or another model?)."
        )


_Owned = list[tuple[dict[str, nn.Parameter | None], str, nn.Parameter | None]]


def _owned(module: nn.Module) -> _Owned:
    """Where each parameter of a module is kept, and which one that is."""
    return [(part._parameters, key, value) for part in module.modules() for key, value in part._parameters.items()]


def _bound(handler: Handler, tape: Tape, owned: _Owned) -> Callable[..., Any]:
    def forward(*arguments: Any, **named: Any) -> Any:
        for place, key, value in owned:
            if place.get(key) is not value:
                raise PrivateTrainingError(
                    f"a parameter {key!r} is another one than before (assigned anew, or torch.func.functional_call?). "
                    "Change parameters in place, or begin anew with the model as it is."
                )
        return handler(tape, *arguments, **named)

    return forward
