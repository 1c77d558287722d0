"""nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d to 3d and nn.RMSNorm: normalisation within one example."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privet.dp.per_example.slots import Part, PartOf
from privet.dp.per_example.tape import Handler, Tape
from privet.dp.per_example.use import Given, Use

__all__ = ["group_norm", "instance_norm", "layer_norm", "rms_norm"]

InstanceNorm = nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d


class _LayerNormRule:
    r"""y = (x - mean) rstd w + b over the last dimensions; :math:`G_b = \sum_t g_{bt} \hat x_{bt}`."""

    def __init__(self, name: str, module: nn.LayerNorm, parts: tuple[Part | None, Part | None]) -> None:
        self.name = name
        self._module, self._parts = module, parts
        self.parts: Sequence[Part] = [part for part in parts if part is not None]

    def forward(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        weight, bias = _values(self._module)
        output, mean, rstd = torch.native_layer_norm(
            inputs, self._module.normalized_shape, weight, bias, self._module.eps
        )
        return output, (mean, rstd)

    def backward(
        self, inputs: Tensor, extras: tuple[Tensor, ...], grad: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, Use]:
        mean, rstd = extras
        weight, bias = _values(self._module)
        assert weight is not None
        grad = grad.to(inputs.dtype)
        by_input: Tensor | None = None
        if wants_input:
            by_input = torch.ops.aten.native_layer_norm_backward(
                grad, inputs, self._module.normalized_shape, mean, rstd, weight, bias, [True, False, False]
            )[0]
        found = []
        shape = weight.shape
        for part, is_weight in zip(self._parts, (True, False), strict=True):
            if part is not None:
                product = grad.to(weight.dtype)
                if is_weight:
                    product = (inputs.to(weight.dtype) - mean).mul_(rstd).mul_(product)
                found.append(product.reshape(len(inputs), -1, *shape).sum(dim=1))
        return by_input, Given(self.parts, found)


class _GroupNormRule:
    """As one example of B * G groups, the batch has the gradient of each example's weight in one call."""

    def __init__(
        self, name: str, module: nn.GroupNorm | InstanceNorm, groups: int, parts: tuple[Part | None, Part | None]
    ) -> None:
        self.name = name
        self._module, self._groups, self._parts = module, groups, parts
        self.parts: Sequence[Part] = [part for part in parts if part is not None]

    def forward(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        weight, bias = _values(self._module)
        examples, channels = inputs.shape[:2]
        output, mean, rstd = torch.native_group_norm(
            inputs.contiguous(),
            weight,
            bias,
            examples,
            channels,
            inputs[0, 0].numel(),
            self._groups,
            self._module.eps,
        )
        return output, (mean, rstd)

    def backward(
        self, inputs: Tensor, extras: tuple[Tensor, ...], grad: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, Use]:
        mean, rstd = extras
        weight, _ = _values(self._module)
        assert weight is not None
        examples, channels = inputs.shape[:2]
        by_input, by_weight, by_bias = torch.ops.aten.native_group_norm_backward(
            grad.to(inputs.dtype).reshape(1, -1, *inputs.shape[2:]).contiguous(),  # the call reads past strides
            inputs.reshape(1, -1, *inputs.shape[2:]).contiguous(),
            mean.view(1, -1),
            rstd.view(1, -1),
            weight.to(mean.dtype).repeat(examples),  # under autocast wider than the inputs
            1,
            examples * channels,
            inputs[0, 0].numel(),
            examples * self._groups,
            [wants_input, True, True],
        )
        made = [
            gradient.to(weight.dtype).view(examples, channels)
            for part, gradient in zip(self._parts, (by_weight, by_bias), strict=True)
            if part is not None
        ]
        return (by_input.view_as(inputs) if wants_input else None), Given(self.parts, made)


class _RMSNormRule:
    r"""y = x rstd w with :math:`rstd = (mean(x^2) + eps)^{-1/2}`."""

    def __init__(self, name: str, module: nn.RMSNorm, part: Part) -> None:
        self.name = name
        self._module = module
        self.parts: Sequence[Part] = [part]

    def forward(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        module = self._module
        return F.rms_norm(inputs, tuple(module.normalized_shape), module.weight.detach(), module.eps), ()

    def backward(
        self, inputs: Tensor, extras: tuple[Tensor, ...], grad: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, Use]:
        weight = self._module.weight.detach()
        dims = tuple(range(-weight.dim(), 0))
        given: object = self._module.eps
        wide = torch.float64 if inputs.dtype == torch.float64 else torch.float32
        eps = given if isinstance(given, float) else torch.finfo(wide).eps
        values, grad = inputs.to(weight.dtype), grad.to(weight.dtype)
        rstd = (values.square().mean(dim=dims, keepdim=True) + eps).rsqrt()
        normal = values * rstd
        by_input = None
        if wants_input:
            inner = grad * weight
            by_input = rstd * (inner - normal * (inner * normal).mean(dim=dims, keepdim=True))
        made = (grad * normal).reshape(len(inputs), -1, *weight.shape).sum(dim=1)
        return by_input, Given(self.parts, [made])


def layer_norm(name: str, module: nn.LayerNorm, part: PartOf) -> Handler:
    """How an nn.LayerNorm is called."""
    return _calling(_LayerNormRule(name, module, (part("weight"), part("bias"))))


def group_norm(name: str, module: nn.GroupNorm, part: PartOf) -> Handler:
    """How an nn.GroupNorm is called."""
    return _calling(_GroupNormRule(name, module, module.num_groups, (part("weight"), part("bias"))))


def instance_norm(name: str, module: InstanceNorm, part: PartOf) -> Handler:
    """How an nn.InstanceNorm1d, 2d or 3d is called: as group normalisation, each channel a group."""
    rule = _GroupNormRule(name, module, module.num_features, (part("weight"), part("bias")))
    dims = module._get_no_batch_dim() + 1

    def call(tape: Tape, input: Tensor) -> Tensor:
        tape.check_dims(type(module).__name__, name, input, dims)
        return tape.call(rule, input)

    return call


def rms_norm(name: str, module: nn.RMSNorm, part: PartOf) -> Handler:
    """How an nn.RMSNorm is called."""
    weight = part("weight")
    assert weight is not None  # a frozen weight is no business of the engine
    return _calling(_RMSNormRule(name, module, weight))


def _calling(rule: _LayerNormRule | _GroupNormRule | _RMSNormRule) -> Handler:
    def call(tape: Tape, input: Tensor) -> Tensor:
        return tape.call(rule, input)

    return call


def _values(module: nn.LayerNorm | nn.GroupNorm | InstanceNorm) -> tuple[Tensor | None, Tensor | None]:
    """The weight and the bias, cut off from the graph."""
    found: list[Tensor | None] = [getattr(module, name) for name in ("weight", "bias")]
    weight, bias = (None if value is None else value.detach() for value in found)
    return weight, bias
