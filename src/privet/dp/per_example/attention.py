"""nn.MultiheadAttention: the projections are linear rules on rows of one weight, the rest is ordinary autograd."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privet.dp.per_example.linear import LinearRule
from privet.dp.per_example.slots import Part, PartOf
from privet.dp.per_example.tape import Handler, Tape
from privet.dp.per_example.use import Given, Use
from privet.errors import ArgumentError, UnsupportedLayerError

__all__ = ["attention"]

Projected = tuple[Tensor, Tensor, Tensor]


class _AppendRule:
    """One learned position more at the end of every example's keys or values; its gradient is the output's there."""

    def __init__(self, name: str, row: Tensor, part: Part) -> None:
        """Take the row (1, 1, E)."""
        self.name = name
        self._row = row
        self.parts: Sequence[Part] = [part]

    def forward(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return _appended(inputs, self._row), ()

    def backward(
        self, inputs: Tensor, extras: tuple[Tensor, ...], grad: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, Use]:
        made = grad[:, -1:].to(self._row.dtype).reshape(len(grad), 1, 1, -1)  # (B, 1, 1, E)
        return (grad[:, :-1] if wants_input else None), Given(self.parts, [made])


def _appended(inputs: Tensor, row: Tensor) -> Tensor:
    return torch.cat([inputs, row.detach().expand(len(inputs), -1, -1)], dim=1)


class _Attention:
    """One nn.MultiheadAttention; everything in it has the examples first."""

    def __init__(self, name: str, module: nn.MultiheadAttention, part: PartOf) -> None:
        self._name, self._module, self._part = name, module, part

    def __call__(
        self,
        tape: Tape,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        module = self._module
        if not torch.is_grad_enabled():
            options: Any = (key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal)
            plain: tuple[Tensor, Tensor | None] = type(module).forward(module, query, key, value, *options)
            return plain
        self._check(tape, query, key, value)
        if is_causal and attn_mask is None:
            raise ArgumentError("is_causal", True, "an attn_mask along with it, as nn.MultiheadAttention asks for")
        padding, mask = (_additive(given, query.dtype) for given in (key_padding_mask, attn_mask))
        causal = is_causal and padding is None and not need_weights
        q, k, v = self._projected(tape, query, key, value)
        merged = self._merged(None if causal else mask, padding, len(q), q.shape[1], k.shape[1])
        k, v, more = self._extended(tape, k, v)
        if merged is not None and more:
            merged = F.pad(merged, (0, more))
        heads = module.num_heads
        q, k, v = (
            tensor.view(*tensor.shape[:2], heads, -1).transpose(1, 2) for tensor in (q, k, v)
        )  # (B, H, T, E / H)
        dropout = module.dropout if module.training else 0.0
        weights = None
        if need_weights:
            mixed, weights = _weighed(q, k, v, merged, dropout)
            weights = weights.mean(dim=1) if average_attn_weights else weights
        else:
            bias = None if merged is None else merged.view(-1, 1 if len(merged) == 1 else heads, *merged.shape[1:])
            mixed = F.scaled_dot_product_attention(q, k, v, bias, dropout, causal)
        output = self._linear(tape, mixed.transpose(1, 2).flatten(2), "out_proj.weight", "out_proj.bias")
        return (output if module.batch_first else output.transpose(0, 1)), weights

    def _check(self, tape: Tape, query: Tensor, key: Tensor, value: Tensor) -> None:
        axis = 0 if self._module.batch_first else 1
        for role, tensor in (("query", query), ("key", key), ("value", value)):
            if tensor.is_nested:
                raise UnsupportedLayerError(
                    f"layer {self._name!r} (MultiheadAttention) got a nested {role}; its examples have no common "
                    "shape. Pass padded tensors and key_padding_mask; give nn.TransformerEncoder "
                    "enable_nested_tensor=False."
                )
            if tensor.dim() != 3 or tensor.shape[axis] != tape.size:
                kind = "(B, T, E)" if axis == 0 else "(T, B, E), since batch_first is False,"
                raise UnsupportedLayerError(
                    f"layer {self._name!r} (MultiheadAttention) got a {role} of shape {tuple(tensor.shape)} in a batch "
                    f"of {tape.size}; it has to be {kind} with B = {tape.size}. Keep an axis of examples all the way "
                    "(unbatched inputs do not have one); make the layer with batch_first=True."
                )

    def _projected(self, tape: Tape, query: Tensor, key: Tensor, value: Tensor) -> Projected:
        """What PyTorch does: one product where all three are one tensor, two where key and value are."""
        same_all, same_kv = query is key and key is value, key is value
        if not self._module.batch_first:
            query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))
        e = self._module.embed_dim
        if not self._module._qkv_same_embed_dim:
            q = self._linear(tape, query, "q_proj_weight", "in_proj_bias", bias_rows=(0, e))
            k = self._linear(tape, key, "k_proj_weight", "in_proj_bias", bias_rows=(e, 2 * e))
            return q, k, self._linear(tape, value, "v_proj_weight", "in_proj_bias", bias_rows=(2 * e, 3 * e))
        if same_all:
            q, k, v = self._packed(tape, query, 0, 3 * e).chunk(3, dim=-1)
        elif same_kv:
            q = self._packed(tape, query, 0, e)
            k, v = self._packed(tape, key, e, 3 * e).chunk(2, dim=-1)
        else:
            q, k = self._packed(tape, query, 0, e), self._packed(tape, key, e, 2 * e)
            v = self._packed(tape, value, 2 * e, 3 * e)
        return q, k, v

    def _packed(self, tape: Tape, inputs: Tensor, start: int, stop: int) -> Tensor:
        return self._linear(tape, inputs, "in_proj_weight", "in_proj_bias", (start, stop), (start, stop))

    def _linear(
        self,
        tape: Tape,
        inputs: Tensor,
        weight: str,
        bias: str,
        weight_rows: tuple[int, int] | None = None,
        bias_rows: tuple[int, int] | None = None,
    ) -> Tensor:
        matrix, vector = self._value(weight, weight_rows), self._value(bias, bias_rows)
        parts = self._rows(weight, weight_rows), self._rows(bias, bias_rows)
        assert matrix is not None
        if parts == (None, None):  # frozen
            return F.linear(inputs, matrix, vector)
        return tape.call(LinearRule(f"{self._name}.{weight}", matrix, vector, parts), inputs)

    def _value(self, key: str, rows: tuple[int, int] | None) -> Tensor | None:
        """The numbers of now: a slice made once would not follow a parameter whose data is exchanged."""
        owner: Any = self._module.out_proj if key.startswith("out_proj.") else self._module
        whole: Tensor | None = getattr(owner, key.removeprefix("out_proj."))
        if whole is None:
            return None
        return whole.detach() if rows is None else whole.detach()[slice(*rows)]

    def _rows(self, key: str, rows: tuple[int, int] | None) -> Part | None:
        whole = self._part(key)
        return whole if whole is None or rows is None else Part(whole.slot, *rows)

    def _merged(self, mask: Tensor | None, padding: Tensor | None, b: int, t: int, s: int) -> Tensor | None:
        """Both masks as one to add: (1 or B * heads, 1 or T, S)."""
        heads = self._module.num_heads
        if mask is not None:
            allowed = ((t, s), (b * heads, t, s))
            if tuple(mask.shape) not in allowed:
                raise ArgumentError("attn_mask.shape", tuple(mask.shape), f"{allowed[0]} or {allowed[1]}")
            mask = mask.unsqueeze(0) if mask.dim() == 2 else mask
        if padding is None:
            return mask
        if tuple(padding.shape) != (b, s):
            raise ArgumentError("key_padding_mask.shape", tuple(padding.shape), f"{(b, s)}, (batch, key positions)")
        each = padding.view(b, 1, 1, s).expand(-1, heads, -1, -1).reshape(b * heads, 1, s)
        return each if mask is None else mask + each

    def _extended(self, tape: Tape, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, int]:
        """Keys and values with what the module puts behind them, and how many positions that is."""
        module, more = self._module, 0
        if module.bias_k is not None and module.bias_v is not None:
            k = self._append(tape, k, "bias_k", module.bias_k)
            v = self._append(tape, v, "bias_v", module.bias_v)
            more += 1
        if module.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
            more += 1
        return k, v, more

    def _append(self, tape: Tape, inputs: Tensor, key: str, row: Tensor) -> Tensor:
        part = self._part(key)
        if part is None:
            return _appended(inputs, row)
        return tape.call(_AppendRule(f"{self._name}.{key}", row, part), inputs)


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask to add to the scores: where a boolean one is true, minus infinity."""
    if mask is None or mask.is_floating_point():
        return mask
    if mask.dtype != torch.bool:
        raise ArgumentError("mask.dtype", mask.dtype, "a boolean mask, or a floating-point one to be added")
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -math.inf)


def _weighed(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> tuple[Tensor, Tensor]:
    """The mixed values (B, H, T, d), and the weights (B, H, T, S) as they were used, after dropout."""
    b, heads = q.shape[:2]
    q, k, v = (tensor.flatten(0, 1) for tensor in (q, k, v))
    scaled = q * math.sqrt(1.0 / q.shape[2])
    scores = torch.bmm(scaled, k.mT) if mask is None else torch.baddbmm(mask, scaled, k.mT)
    weights = scores.softmax(dim=-1)
    if dropout > 0.0:
        weights = F.dropout(weights, dropout)
    mixed = torch.bmm(weights, v)
    return mixed.view(b, heads, *mixed.shape[1:]), weights.view(b, heads, *weights.shape[1:])


def attention(name: str, module: nn.MultiheadAttention, part: PartOf) -> Handler:
    """How an nn.MultiheadAttention is called; it takes the parameters of its ``out_proj`` along."""
    return _Attention(name, module, part)
