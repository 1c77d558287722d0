"""The few hot functions, in Python forms; compiled forms may take their places behind the same names.

B examples, T positions, L places of a convolution's output; weights w_b >= 0 carry clipping and averaging.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "add_weighted_outer",
    "add_weighted_rows",
    "cleared",
    "crossed_squared_norms",
    "ghost_squared_norms",
    "outer",
    "outer_squared_norms",
    "product",
    "remade",
    "scaled",
    "squared_norms",
    "unfold",
]

_FINE = 1e-5  # relative error of a squared norm that needs no margin
_COARSE = 1e-2  # relative error at which the gradient itself is looked at
_ROUNDINGS = 8.0  # by which a sum of products may be off, relative to what it is if nothing cancels; measured
_AGAIN = 1.5  # roundings, times the root of the positions, by which a gradient may differ when it is made again
_PLACES = 1 << 8  # rows from which a product may be a convolution
_PLACES_TURNED = 1 << 10  # the same where a factor is not in the order that it takes
_IMAGES = 16
_PRODUCTS = 1 << 22  # multiplications below which it is not worth the call
_LONG = 1 << 12  # terms from which the order of a sum is looked at
_GRAM_NUMBERS = 1 << 22  # numbers in a block of Gram matrices
_ROW = 1 << 13  # squares added up in float32 before float64 goes on: a million of them would lose a thousandth
_LOST = 1e-19  # below this norm squares get lost in float32
_SMALL = 1e-34  # squared norms, times the rounding of float32, that are too small to matter to any clip norm


def squared_norms(rows: Tensor) -> Tensor:
    """The squared norm of each row of (B, n), in float64; infinite or NaN where a row's is not representable."""
    whole = rows.shape[1] // _ROW * _ROW
    rest: Tensor = torch.linalg.vector_norm(rows[:, whole:], dim=1)
    squares = rest.double().square()
    if whole:
        blocks: Tensor = torch.linalg.vector_norm(rows[:, :whole].reshape(len(rows), -1, _ROW), dim=2)
        squares += blocks.double().square().sum(dim=1)
    return squares


def outer_squared_norms(left: Tensor, right: Tensor) -> Tensor:
    r"""The squared norm of each :math:`l_b r_b^T`, (B,) float64, for l (B, p) and r (B, q).

    A small factor may meet a large one; its squares must not get lost before.
    """
    norms = [torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64) for rows in (left, right)]
    product: Tensor = norms[0] * norms[1]
    return product.square()


def remade(squares: Tensor, most: Tensor, terms: int, dtype: torch.dtype) -> Tensor:
    r"""Squared norms of gradients that are made another time for the sum, with other roundings.

    Where terms cancel, other roundings remain. And two sums of n terms in any order differ by at most about
    :math:`n \epsilon / 2` of what they are if nothing cancels: below some thousand terms that is less than what the
    rounding of float32 costs anyway, and left out.

    Args:
        squares: (B,) float64, as measured.
        most: (B,) float64, the norm if nothing cancelled.
        terms: n, how many terms each gradient is the sum of.
        dtype: in which it is made.

    References:
        Higham, "Accuracy and stability of numerical algorithms", 2002, section 4.2.
    """
    eps = torch.finfo(dtype).eps
    doubtful = _ROUNDINGS * eps * most.square() > _COARSE * squares
    drift = 0.5 * eps * terms if terms >= _LONG else 0.0
    margin = torch.where(doubtful, max(drift, _AGAIN * eps * terms**0.5), drift) * most
    return torch.where(margin > 0.0, (squares.sqrt() + margin).square(), squares)


def cleared(values: Tensor, rows: Tensor) -> Tensor:
    """A copy of (B, ...) in which the examples where ``rows`` (B,) is true are 0: 0 times NaN would be NaN."""
    return values.masked_fill(rows.view(-1, *(1,) * (values.dim() - 1)), 0.0)


def scaled(values: Tensor, weights: Tensor) -> Tensor:
    """Each example of (B, ...) times its weight (B,)."""
    return values * weights.to(values.dtype).view(-1, *(1,) * (values.dim() - 1))


def add_weighted_rows(out: Tensor, gradients: Tensor, weights: Tensor) -> None:
    r"""Add :math:`\sum_b w_b G_b` for G of shape (B, *out.shape)."""
    flat = out.view(-1)
    torch.addmv(flat, gradients.reshape(len(gradients), -1).t(), weights.to(out.dtype), out=flat)


def add_weighted_outer(out: Tensor, left: Tensor, right: Tensor, weights: Tensor) -> None:
    r"""Add :math:`\sum_b w_b \sum_t l_{bt} r_{bt}^T` to (p, q), for l (B, T, p) and r (B, T, q)."""
    if left.numel() <= right.numel():
        left = scaled(left, weights)
    else:
        right = scaled(right, weights)
    if left.transpose(0, 1).is_contiguous():  # positions first, as recurrences have them: any order gives the sum
        left, right = left.transpose(0, 1), right.transpose(0, 1)
    rows, columns = left.flatten(0, 1), right.flatten(0, 1)
    if not _fits_convolution(rows, columns.shape[1], _PLACES_TURNED):
        torch.addmm(out, rows.t(), columns, out=out)
        return
    shape = out.new_empty(()).expand(*out.shape, 1, 1)
    once, none = (1, 1), (0, 0)
    out.add_(
        torch.ops.aten.convolution_backward(
            _image(rows), _image(columns), shape, None, once, none, once, False, none, 1, (False, True, False)
        )[1].view_as(out)
    )


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What a linear layer gives, (N, p), for rows (N, q), weight (p, q) and bias (p,)."""
    if not _fits_convolution(rows, len(weight), _PLACES if weight.is_contiguous() else _PLACES_TURNED):
        return F.linear(rows, weight, bias)
    found = torch.conv2d(_image(rows), weight.unsqueeze(2).unsqueeze(3), bias)
    return found.permute(0, 2, 3, 1).reshape(len(rows), -1)


def _fits_convolution(rows: Tensor, columns: int, places: int) -> bool:
    """Whether a convolution with a kernel of one place does a large product in less time, which is oneDNN's then.

    Products of float32 are MKL's otherwise, which takes twice as long on some processors.
    """
    return (
        rows.dtype == torch.float32
        and rows.is_cpu
        and len(rows) >= places
        and rows.numel() * columns >= _PRODUCTS
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )


def _image(rows: Tensor) -> Tensor:
    """Rows (N, q) as images of q channels, which lie last in memory.

    One of N places; but with one thread PyTorch leaves fewer than 16 images to MKL.
    """
    images = _IMAGES if torch.get_num_threads() == 1 and len(rows) % _IMAGES == 0 else 1
    return rows.reshape(images, len(rows) // images, 1, -1).permute(0, 3, 1, 2)  # (images, q, N / images, 1)


def outer(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    r""":math:`G_b = \sum_t l_{bt} r_{bt}^T`, (B, p, q), for l (B, T, p) and r (B, T, q)."""
    if out is None:
        return torch.bmm(left.mT, right)
    return torch.bmm(left.mT, right, out=out)


def ghost_squared_norms(left: Tensor, rights: Sequence[Tensor]) -> list[Tensor]:
    r"""The squared norm of each :math:`\sum_t l_{bt} r_{bt}^T` from two Gram matrices, without making it.

    .. math:: \|G_b\|^2 = \sum_{t,s} (l_{bt} \cdot l_{bs}) (r_{bt} \cdot r_{bs})

    Where positions cancel, the sum of products loses digits: its rounding error grows with
    :math:`M_b = (\sum_t \|l_{bt}\| \|r_{bt}\|)^2`, not with the norm. So that the norm is never understated, the
    error is added where it matters, and where it would be large the gradient itself is made and measured, and what
    rounding may change when it is made another time is added.

    Args:
        left: (B, T, p).
        rights: each (B, T, q); the Gram matrix of ``left`` serves all of them.

    Returns:
        (B,) float64, for each of ``rights``.

    References:
        Goodfellow, "Efficient per-example gradient computations", 2015; Li et al., "Large language models can be
        strong differentially private learners", 2022, section 4.
    """
    examples, positions = left.shape[:2]
    block = max(1, _GRAM_NUMBERS // max(1, positions * positions))
    found: list[list[Tensor]] = [[] for _ in rights]
    for start in range(0, examples, block):
        some = slice(start, start + block)
        gram = torch.bmm(left[some], left[some].mT)
        for norms, right in zip(found, rights, strict=True):
            norms.append(_ghost(left[some], right[some], gram))
    return [torch.cat(norms) for norms in found]


def _ghost(left: Tensor, right: Tensor, left_gram: Tensor) -> Tensor:
    result, most, doubtful = _of_grams(left_gram, torch.bmm(right, right.mT))
    if bool(doubtful.any()):
        rows = doubtful.nonzero().flatten()
        made = [squared_norms(outer(left[row, None], right[row, None]).flatten(1)) for row in rows.tolist()]
        result[rows] = remade(torch.cat(made), most[rows], left.shape[1], left.dtype)
    return result


def crossed_squared_norms(lefts: Sequence[Tensor], rights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    r"""The squared norm of each :math:`\sum_i \sum_t l_{ibt} r_{ibt}^T`, cross terms and all, from Gram matrices.

    Args:
        lefts: each (B, T_i, p), or places (B, T_i) of whole numbers, for vectors with a one there and zeros elsewhere.
        rights: each (B, T_i, q).

    Returns:
        (B,) float64, never understated, as :func:`ghost_squared_norms` has it; and whether an example's rounding is too
        large to be told, so that its gradient itself has to be made.
    """
    positions = sum(right.shape[1] for right in rights)
    block = max(1, _GRAM_NUMBERS // max(1, positions * positions))
    found = []
    for start in range(0, len(rights[0]), block):
        some = slice(start, start + block)
        right = torch.cat([one[some] for one in rights], dim=1)
        result, _, doubtful = _of_grams(
            _left_gram([one[some] for one in lefts], right.dtype), torch.bmm(right, right.mT)
        )
        found.append((result, doubtful))
    results, doubts = (torch.cat(part) for part in zip(*found, strict=True))
    return results, doubts


def _left_gram(lefts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """All inner products of the vectors of several factors, (b, S, S)."""

    def block(one: Tensor, other: Tensor) -> Tensor:
        if one.dim() == 3 and other.dim() == 3:
            return torch.bmm(one, other.mT)
        if one.dim() == 2 and other.dim() == 2:
            return (one.unsqueeze(2) == other.unsqueeze(1)).to(dtype)
        if one.dim() == 3:
            return one.gather(2, other.unsqueeze(1).expand(-1, one.shape[1], -1))
        return block(other, one).mT

    return torch.cat([torch.cat([block(one, other) for other in lefts], dim=2) for one in lefts], dim=1)


def _of_grams(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From two Gram matrices (b, T, T): squared norms with their error, the norms if nothing cancelled, and doubts."""
    squares = torch.linalg.vecdot(left.flatten(1), right.flatten(1)).double()
    diagonals = [gram.diagonal(dim1=1, dim2=2).double().sqrt().clamp_min(_LOST) for gram in (left, right)]
    most = (diagonals[0] * diagonals[1]).sum(1)  # (b,)
    error = _ROUNDINGS * torch.finfo(right.dtype).eps * most.square()
    result: Tensor = squares + (error - _FINE * squares).clamp_min(0.0)
    return result, most, (error > _COARSE * squares) & (error > _SMALL)


def unfold(
    inputs: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], out: Tensor
) -> Tensor:
    """Copy what each place of a convolution sees: (b, C, *size), padded already, to (b, C * kernel, places).

    Args:
        inputs: contiguous.
        kernel: its size in each dimension.
        stride: of the convolution.
        dilation: of the convolution.
        out: a buffer of the result's shape.
    """
    b, channels, *size = inputs.shape
    steps = inputs.stride()
    places = [
        (length - far * (taps - 1) - 1) // step + 1
        for length, taps, step, far in zip(size, kernel, stride, dilation, strict=True)
    ]
    windows = inputs.as_strided(
        (b, channels, *kernel, *places),
        (
            *steps[:2],
            *(by * far for by, far in zip(steps[2:], dilation, strict=True)),
            *(by * step for by, step in zip(steps[2:], stride, strict=True)),
        ),
    )
    out.view(b, channels, *kernel, *places).copy_(windows)
    return out
