"""Which rule handles which module. Exact types only: a subclass may compute something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from privet.dp.per_example.convolution import convolution
from privet.dp.per_example.embedding import embedding
from privet.dp.per_example.linear import linear
from privet.dp.per_example.normalization import group_norm, layer_norm, rms_norm
from privet.dp.per_example.slots import Part, PartOf, Slot
from privet.dp.per_example.tape import Handler
from privet.errors import UnsupportedLayerError

__all__ = ["RULES", "handlers"]

RULES: dict[type[nn.Module], Callable[[str, Any, PartOf], Handler]] = {
    nn.Linear: linear,
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Embedding: embedding,
    nn.LayerNorm: layer_norm,
    nn.GroupNorm: group_norm,
    nn.RMSNorm: rms_norm,
}


def handlers(model: nn.Module, slots: Sequence[Slot]) -> dict[nn.Module, Handler]:
    """A handler for each module that owns trainable parameters.

    Raises:
        UnsupportedLayerError: for a module without a rule, by name, with what to do.
    """
    by_parameter = {id(slot.parameter): slot for slot in slots}
    found: dict[nn.Module, Handler] = {}
    for name, module in model.named_modules():
        own = {key: value for key, value in module.named_parameters(recurse=False) if id(value) in by_parameter}
        if not own:
            continue
        rule = RULES.get(type(module))
        if rule is None:
            raise UnsupportedLayerError(f"layer {name!r} ({type(module).__name__}) has no rule.")

        def part(key: str, own: dict[str, nn.Parameter] = own) -> Part | None:
            return Part(by_parameter[id(own[key])]) if key in own else None

        found[module] = rule(name, module, part)
    return found
