"""The arithmetic of the defenses: row by row, exact, the same in eager mode and in an exported graph.

Everything is computed in float64 (float32 where a device has no float64) and only then brought to the network's own
type. So a value is what float64 arithmetic says, rounded once, and two runtimes whose ``exp`` differs in the last
place still agree on which side of a rounding boundary a probability lies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["digits", "every_row_is_finite", "finite_rows", "first_largest", "largest", "probabilities", "rounded"]

_BLOCK = 2**18  # elements of a block that stays in the cache
_UNIT = 2.0**23  # from here to 2^24 float32 holds just the whole numbers, so adding it rounds, halves to even
_WHOLE = 2.0**53  # from here on every float is a whole number, so rounding would change nothing but lose precision


def digits(dtype: torch.dtype) -> int:
    """The decimals that ``dtype`` tells apart for every value up to 1: float16 3, bfloat16 2, float32 6, float64 15."""
    return math.floor(math.log10(1 / torch.finfo(dtype).eps))


def finite_rows(scores: Tensor) -> Tensor:
    """Which rows hold neither NaN nor infinity, ``(..., 1)``."""
    return torch.isfinite(scores).all(dim=-1, keepdim=True)


def every_row_is_finite(scores: Tensor) -> bool:
    """Whether no value is NaN or infinite.

    A finite sum proves it in one pass, for NaN and infinity never leave a sum; only a sum that overflowed needs a look
    at each value.
    """
    return math.isfinite(scores.sum(dtype=_at_least_single(scores.dtype))) or bool(torch.isfinite(scores).all())


def probabilities(scores: Tensor) -> Tensor:
    """The softmax over the last axis, in the type of ``scores``."""
    return _softmax(scores).to(scores.dtype)


def rounded(scores: Tensor, decimals: int, *, softmax: bool, whole: bool) -> Tensor:
    """``round(x * 10^d) / 10^d``, halves to even, where x is ``scores`` or their softmax, in the type of ``scores``.

    Args:
        scores: what to round, ``(..., classes)``.
        decimals: the d of the equation.
        softmax: round the softmax over the last axis.
        whole: treat all rows alike, as a graph must; else rows that float32 decides are done in float32.
    """
    if softmax and not whole and scores.device.type == "cpu" and scores.dtype != torch.float64:
        flat = scores.reshape(-1, scores.shape[-1])  # (rows, classes)
        return _rounded_softmax_in_single(flat, decimals).to(scores.dtype).reshape(scores.shape)
    return _rounded_rows(scores, decimals, softmax).to(scores.dtype)


def _rounded_softmax_in_single(flat: Tensor, decimals: int) -> Tensor:
    """The same as in float64, mostly in float32: only rows with a value too near to a boundary are done in float64.

    The relative error of a float32 softmax over C classes is below (C + 40) 2^-24 for every value that does not round
    to zero anyway (the sum adds C places, ``x - max`` at most 15, ``exp``, quotient and scale a few). Each value is
    rounded raised by twice that; lowered by as much it is at most 1/2 below, or the row is undecided.
    """
    scale, error = 10.0**decimals, (flat.shape[-1] + 40) * 2.0**-23
    unit = torch.full((), _UNIT)
    result = torch.empty(flat.shape, dtype=torch.float32)
    farthest = torch.empty(flat.shape[:1])  # (rows,)
    block = max(1, _BLOCK // flat.shape[-1])  # the same small buffer again and again stays in the cache
    small = torch.empty(min(block, len(flat)), flat.shape[-1])
    for start in range(0, len(flat), block):
        rows = slice(start, min(start + block, len(flat)))
        near, below = result[rows], small[: rows.stop - start]
        torch.softmax(flat[rows].to(torch.float32), dim=-1, out=below)
        torch.add(unit, below, alpha=scale * (1 + error), out=near).sub_(_UNIT)
        torch.add(near, below, alpha=-scale * (1 - error), out=below)
        torch.amax(below, dim=-1, out=farthest[rows])
        near.div_(scale)
    undecided = (farthest >= 0.5).nonzero().squeeze(-1)
    if len(undecided) > 0:
        result[undecided] = _rounded_rows(flat[undecided], decimals, softmax=True).to(torch.float32)
    return result


def _rounded_rows(scores: Tensor, decimals: int, softmax: bool) -> Tensor:
    # A tensor, because some devices multiply by the reciprocal of a plain number, which is off by one place.
    scale = torch.full((), 10.0**decimals, dtype=_wide(scores), device=scores.device)
    if softmax:
        return _softmax(scores).mul_(scale).round_().div_(scale)
    wide = scores.to(_wide(scores))
    near = torch.round(wide * scale) / scale
    near = torch.where(near == 0, 0.0, near)  # -0.0 would tell the sign of what was rounded away
    return torch.where(wide.abs() < _WHOLE, near, wide)


def _softmax(scores: Tensor) -> Tensor:
    # Widened first: the ONNX form of softmax(dtype=...) computes in the narrow type and widens the result.
    return torch.softmax(scores.to(_wide(scores)), dim=-1)


def largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest of each row and where they are, in descending order; of equals the lowest index first."""
    keys = scores.to(_at_least_single(scores.dtype))
    if torch.onnx.is_in_onnx_export():
        # ONNX has no stable sort; its TopK is defined to put the lower index first.
        indices = torch.topk(keys, k, dim=-1, largest=True, sorted=True).indices
    else:
        indices = torch.sort(keys, dim=-1, descending=True, stable=True).indices[..., :k]
        # A slice would carry the whole ranking along, to whoever saves it or looks at its storage.
        indices = indices.clone(memory_format=torch.contiguous_format)
    return torch.gather(scores, -1, indices), indices


def first_largest(scores: Tensor) -> Tensor:
    """Where the largest of each row is; of equals the lowest index (``torch.argmax`` promises the first)."""
    return torch.argmax(scores.to(_at_least_single(scores.dtype)), dim=-1)


def _at_least_single(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _wide(scores: Tensor) -> torch.dtype:
    return torch.float32 if scores.device.type == "mps" else torch.float64
