"""Any other module that owns trainable parameters: torch.func.vmap over the module as a unit, children and all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call, vjp, vmap
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from privet.dp.per_example.slots import Part, PartOf
from privet.dp.per_example.tape import Handler, Tape
from privet.dp.per_example.use import Given
from privet.errors import PrivetError, UnsupportedLayerError

__all__ = ["fallback"]

_CONSTANTS = (type(None), bool, int, float, str, torch.dtype, torch.device)


class _Plain(nn.Module):
    """Calls a module's forward as its class has it, whatever stands on the instance while a tape runs."""

    def __init__(self, unit: nn.Module) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, arguments: Sequence[Any], named: dict[str, Any]) -> Any:
        forward: Any = type(self.unit).forward
        return forward(self.unit, *arguments, **named)


class _Unit:
    """A module whose equations are not known, and its trainable parameters."""

    def __init__(self, name: str, module: nn.Module, part: PartOf) -> None:
        self.name, self.module = name, module
        self._plain = _Plain(module)
        self._named: dict[str, Part] = {}
        seen: set[int] = set()
        for key, parameter in module.named_parameters():
            found = part(key)
            if found is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                self._named[key] = found
        self.parts = tuple(self._named.values())

    def values(self) -> dict[str, Tensor]:
        """The trainable parameters' numbers, cut off from the graph."""
        return {f"unit.{key}": part.value() for key, part in self._named.items()}

    def run(self, values: dict[str, Tensor], spec: TreeSpec, leaves: Sequence[Any]) -> Any:
        """The module's output with other numbers for its parameters."""
        arguments, named = tree_unflatten(list(leaves), spec)
        return functional_call(self._plain, values, (arguments, named))

    def refusal(self, reason: str) -> UnsupportedLayerError:
        who = f"layer {self.name!r}" if self.name else "the model itself"
        return UnsupportedLayerError(
            f"{who} ({type(self.module).__name__}) has no rule of its own, and torch.func.vmap cannot take its "
            f"per-example gradients: {reason}. Write it from layers that privet knows (linear, convolution, embedding, "
            "normalization within the example, attention; nn.LSTM in place of a cell), or give bare parameters by "
            "privet.dp.Expand."
        )


@dataclass
class _Call:
    """One call of a unit: its arguments' shape and, once it ran, its output's."""

    unit: _Unit
    tape: Tape
    spec: TreeSpec
    leaves: list[Any]
    places: list[int]  # of the tensors among the leaves
    autocast: tuple[str, bool, torch.dtype]
    returned: TreeSpec | None = None
    made: list[bool] | None = None  # which of the output's leaves are tensors

    def with_tensors(self, tensors: Sequence[Tensor]) -> list[Any]:
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        return leaves

    def as_in_forward(self) -> AbstractContextManager[Any]:
        device, enabled, dtype = self.autocast
        return torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False)


def fallback(name: str, module: nn.Module, part: PartOf) -> Handler:
    """How a module without a rule is called: forward on the batch, then the gradients of one example at a time.

    In the backward pass the module runs again on each example alone (vectorised). Its outputs have to be those of
    the forward pass; otherwise it is random, keeps a state, or lets examples see one another, and is refused.

    Tensors among its arguments, however nested, have the examples in their first dimension, and so have those
    it returns.
    """
    unit = _Unit(name, module, part)

    def call(tape: Tape, *arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return type(module).forward(module, *arguments, **named)
        leaves, spec = tree_flatten((list(arguments), named))
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        strange = [leaf for leaf in leaves if not isinstance(leaf, (Tensor, *_CONSTANTS))]
        if strange:
            raise unit.refusal(f"it got an argument of type {type(strange[0]).__name__}, which may hold anything")
        if not places:
            raise unit.refusal("it got no tensor whose first dimension is the examples")
        tensors = [leaves[place] for place in places]
        for tensor in tensors:
            tape.check_call(name, tensor)
        tape.announce(unit.parts, tensors[0])
        device = tensors[0].device.type
        autocast = (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        constants = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        taken = _Call(unit, tape, spec, constants, places, autocast)
        outputs: tuple[Any, ...] = _Vectorised.apply(tape.anchor, taken, *tensors)  # type: ignore[no-untyped-call]
        assert taken.returned is not None
        return tree_unflatten(list(outputs), taken.returned)

    return call


class _Vectorised(torch.autograd.Function):
    """Forward the module itself; backward, for each example on its own, the gradients by parameters and inputs."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, call: _Call, *tensors: Tensor) -> tuple[Any, ...]:
        outputs = _forward(call, tensors)
        ctx.call = call
        found = [output for output in outputs if isinstance(output, Tensor)]
        ctx.mark_non_differentiable(*[output for output in found if not output.is_floating_point()])
        # copies: what follows may change an output in place
        ctx.save_for_backward(*tensors, *[output.clone() for output in found if output.is_floating_point()])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        tensors = ctx.saved_tensors[: len(call.places)]
        expected = ctx.saved_tensors[len(call.places) :]
        floating = [grad for grad, kept in zip(grads, call.made or [], strict=True) if kept]
        wanted = [i for i in range(len(tensors)) if ctx.needs_input_grad[2 + i]]
        try:
            with call.as_in_forward():
                outputs, by_parameter, by_input = _recomputed(call, tensors, floating, wanted)
        except PrivetError:
            raise
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise call.unit.refusal(_told(error)) from error
        for output, other in zip(outputs, expected, strict=True):
            if not _agree(output, other):
                raise call.unit.refusal(
                    "an example alone does not give what it gives in the batch; the layer is random, keeps a state, or "
                    "its examples influence one another"
                )
        call.tape.arrived(Given(call.unit.parts, by_parameter))
        results: list[Tensor | None] = [None] * len(tensors)
        for i, gradient in zip(wanted, by_input, strict=True):
            results[i] = gradient
        return None, None, *results


def _forward(call: _Call, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """The module's output, flattened; its arguments and buffers stay as they are."""
    unit = call.unit
    before = _state(unit.module), [tensor._version for tensor in tensors]
    with torch.enable_grad():  # of numbers cut off from the graph: only what came in another way makes one
        output = unit.run(unit.values(), call.spec, call.with_tensors([tensor.detach() for tensor in tensors]))
    after = _state(unit.module), [tensor._version for tensor in tensors]
    if before[0] != after[0]:
        raise unit.refusal(
            "it changes its buffers, or keeps tensors on itself, in the forward pass; examples could influence later "
            "ones, and gradients through what is kept would be lost"
        )
    if before[1] != after[1]:
        raise unit.refusal("it changes its input in place")
    leaves, call.returned = tree_flatten(output)
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            if leaf.dim() < 1 or leaf.shape[0] != call.tape.size:
                raise unit.refusal(
                    f"it returned a tensor of shape {tuple(leaf.shape)} in a batch of {call.tape.size}; the first "
                    "dimension has to be the examples"
                )
            if leaf.requires_grad:
                raise unit.refusal(
                    "it uses a tensor that requires gradients and is neither its own parameter nor an argument, and "
                    "they would be lost"
                )
        elif not isinstance(leaf, _CONSTANTS):
            raise unit.refusal(f"it returned a {type(leaf).__name__}; tensors, and tuples or dicts of them, are known")
    call.made = [isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in leaves]
    own = {value.untyped_storage().data_ptr() for value in unit.values().values()}
    return tuple(  # copies of parameters: what follows may change an output in place
        leaf.clone() if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() in own else leaf
        for leaf in leaves
    )


def _recomputed(
    call: _Call, tensors: Sequence[Tensor], grads: Sequence[Tensor | None], wanted: Sequence[int]
) -> tuple[Sequence[Tensor], list[Tensor], Sequence[Tensor]]:
    """Every example alone: outputs, gradients by the parameters (B, *shape), gradients by the wanted inputs."""
    unit, values = call.unit, call.unit.values()

    def one(example: tuple[Tensor, ...], grad: list[Tensor]) -> tuple[Any, Any, Any]:
        def run(values: dict[str, Tensor], chosen: list[Tensor]) -> tuple[Tensor, ...]:
            inputs = list(example)
            for i, tensor in zip(wanted, chosen, strict=True):
                inputs[i] = tensor
            output = unit.run(values, call.spec, call.with_tensors([tensor.unsqueeze(0) for tensor in inputs]))
            leaves, _ = tree_flatten(output)
            return tuple(leaf.squeeze(0) for leaf, kept in zip(leaves, call.made or [], strict=True) if kept)

        made: Any = vjp(run, values, [example[i] for i in wanted])
        outputs, pull = made
        by_value, by_input = pull(tuple(grad))
        return outputs, by_value, by_input

    whole = [grad for grad in grads if grad is not None]
    outputs, by_value, by_input = vmap(one)(tuple(tensors), whole)
    return outputs, [by_value[key] for key in values], by_input


def _state(module: nn.Module) -> list[tuple[int, int]]:
    """Which tensors lie in the module besides its parameters, and how often they were changed."""
    kept = [value for one in module.modules() for value in (*one._buffers.values(), *vars(one).values())]
    return [(id(value), value._version) for value in kept if isinstance(value, Tensor)]


def _agree(output: Tensor, expected: Tensor) -> bool:
    """Equal but for the rounding of other kernels, where both are finite."""
    if output.shape != expected.shape:
        return False
    both = output.isfinite() & expected.isfinite()
    difference = (output - expected).where(both, torch.zeros_like(output)).abs()
    scale = expected.where(both, torch.zeros_like(expected)).abs()
    if output.numel() == 0:
        return True
    return bool(difference.amax() <= torch.finfo(output.dtype).eps ** 0.5 * scale.amax())


def _told(error: Exception) -> str:
    """Why vmap could not, in the first words of what it said."""
    text = str(error)
    in_place = "it changes a tensor in place that was made outside of it or without the examples"
    by_value = "what it computes depends on the values of tensors (if, while, .item())"
    known = {
        "random operation": "it draws random numbers, which would differ between the forward pass and its repetition",
        ".item()": by_value,
        "data-dependent control flow": by_value,
        "inplace arithmetic": in_place,
        "in-place": in_place,
        "doesn't match the broadcast shape": in_place,
    }
    for sign, reason in known.items():
        if sign in text:
            return reason
    first = next(iter(text.strip().splitlines()), "")
    return f"{type(error).__name__}: {first[:200].rstrip('.')}"
