"""Which modules own trainable parameters, and what takes their per-example gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.utils import parametrize

from privet.dp.per_example.attention import attention
from privet.dp.per_example.convolution import convolution, transposed_convolution
from privet.dp.per_example.embedding import embedding
from privet.dp.per_example.expand import Expand, expand
from privet.dp.per_example.linear import linear
from privet.dp.per_example.normalization import group_norm, instance_norm, layer_norm, rms_norm
from privet.dp.per_example.prelu import prelu
from privet.dp.per_example.recurrent import recurrent
from privet.dp.per_example.slots import PartOf
from privet.dp.per_example.tape import Handler

__all__ = ["RULES", "LayerRule", "Owner", "owners"]

LayerRule = Callable[[str, Any, PartOf], Handler]

RULES: dict[type[nn.Module], LayerRule] = {
    nn.Linear: linear,
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Conv3d: convolution,
    nn.ConvTranspose1d: transposed_convolution,
    nn.ConvTranspose2d: transposed_convolution,
    nn.ConvTranspose3d: transposed_convolution,
    nn.Embedding: embedding,
    nn.LayerNorm: layer_norm,
    nn.GroupNorm: group_norm,
    nn.RMSNorm: rms_norm,
    nn.InstanceNorm1d: instance_norm,
    nn.InstanceNorm2d: instance_norm,
    nn.InstanceNorm3d: instance_norm,
    nn.PReLU: prelu,
    Expand: expand,
    nn.RNN: recurrent,
    nn.GRU: recurrent,
    nn.LSTM: recurrent,
    nn.MultiheadAttention: attention,
}
"""Exact types only: a subclass may compute something else."""


@dataclass(frozen=True, eq=False)
class Owner:
    """A module whose trainable parameters are taken care of in one piece.

    Attributes:
        name: as in ``named_modules``; empty for the model itself.
        module: the module.
        rule: of its exact type; None where it is a unit of the fallback.
        whole: its children are taken along and have no handlers of their own.
    """

    name: str
    module: nn.Module
    rule: LayerRule | None
    whole: bool

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trainable ones that it takes care of, by their names in the module."""
        named = self.module.named_parameters(recurse=self.whole, remove_duplicate=False)
        return {key: value for key, value in named if value.requires_grad}

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        """The module and, of a whole one, everything below it; names as in the model."""
        if not self.whole:
            yield self.name, self.module
            return
        yield from self.module.named_modules(prefix=self.name)


def owners(model: nn.Module) -> list[Owner]:
    """Every owner in the model, each once, in the order of ``named_modules``."""
    found: list[Owner] = []
    seen: set[nn.Module] = set()

    def visit(name: str, module: nn.Module) -> None:
        if module in seen:
            return
        seen.add(module)
        rule = _rule(module)
        if _owns(module, rule):
            whole = rule is None or rule is attention
            found.append(Owner(name, module, rule, whole))
            if whole:
                return
        for key, child in module.named_children():
            visit(f"{name}.{key}" if name else key, child)

    visit("", model)
    return found


def _rule(module: nn.Module) -> LayerRule | None:
    if type(module) is nn.MultiheadAttention and type(module.out_proj) not in (
        NonDynamicallyQuantizableLinear,
        nn.Linear,
    ):
        return None  # its weight may be computed from others
    if isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.track_running_stats:
        return None  # in eval mode it is a scale and a shift
    return RULES.get(type(module))


def _owns(module: nn.Module, rule: LayerRule | None) -> bool:
    if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
        return True
    taken: list[nn.Module] = []
    if isinstance(module, nn.MultiheadAttention):
        taken = [module]
    elif parametrize.is_parametrized(module):
        parametrizations = module.parametrizations
        assert isinstance(parametrizations, nn.Module)
        taken = [parametrizations]
    elif rule is None:  # such children have no forward: whoever holds them uses what is in them
        taken = [child for child in module.children() if isinstance(child, nn.ParameterList | nn.ParameterDict)]
    return any(parameter.requires_grad for child in taken for parameter in child.parameters())
