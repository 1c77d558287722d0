"""nn.Embedding: rows of a table, looked up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privet.dp.per_example import kernels
from privet.dp.per_example.slots import Part, PartOf
from privet.dp.per_example.tape import Handler, Tape
from privet.dp.per_example.use import Factors, Room, Use
from privet.errors import UnsupportedLayerError

__all__ = ["embedding"]


class _EmbeddingUse:
    """Per example: the output gradients of equal indices are added up in the table's rows."""

    def __init__(self, part: Part, indices: Tensor, grad: Tensor) -> None:
        """Take indices (B, T) and output gradients (B, T, d); those of the padding index are 0."""
        self.parts: Sequence[Part] = [part]
        self._indices, self._grad = indices, grad

    def squared_norms(self, room: Room) -> list[Tensor]:
        examples = len(self._indices)
        rows = self.parts[0].shape[0]
        owner = torch.arange(examples, device=self._indices.device).unsqueeze(1)
        keys, place = torch.unique(owner * rows + self._indices, return_inverse=True)
        sums = _summed(self._grad, place, len(keys))
        norms = torch.zeros(examples, dtype=torch.float64, device=self._grad.device)
        norms.index_add_(0, keys // rows, kernels.squared_norms(sums))
        return [kernels.remade(norms, self.most_norms()[0], self._indices.shape[1], self._grad.dtype)]

    def most_norms(self) -> list[Tensor]:
        return [torch.linalg.vector_norm(self._grad, dim=2, dtype=torch.float64).sum(dim=1)]

    def factors(self) -> list[Factors | None]:
        return [Factors(self._indices, self._grad)]

    def add_to(self, views: Sequence[Tensor], weights: Sequence[Tensor], room: Room) -> None:
        views[0].add_(_summed(kernels.scaled(self._grad, weights[0]), self._indices, len(views[0])))

    def per_example(self, start: int, stop: int) -> list[Tensor]:
        table = self.parts[0].shape
        found = self._grad.new_zeros((stop - start) * table[0], table[1])
        owner = torch.arange(stop - start, device=self._indices.device).unsqueeze(1)
        places = (owner * table[0] + self._indices[start:stop]).flatten()
        return [found.index_add_(0, places, self._grad[start:stop].flatten(0, 1)).view(stop - start, *table)]

    def clear(self, rows: Tensor) -> None:
        self._grad = kernels.cleared(self._grad, rows)


def _summed(grad: Tensor, rows: Tensor, count: int) -> Tensor:
    """The sum of grad (B, T, d) in each of ``count`` rows, (count, d); many times faster than ``index_add_``."""
    found: Tensor = torch.ops.aten.embedding_dense_backward(grad, rows, count, -1, False)
    return found


class _EmbeddingRule:
    """A look-up."""

    def __init__(self, name: str, module: nn.Embedding, part: Part) -> None:
        self.name = name
        self.parts: Sequence[Part] = [part]
        self._module, self._part = module, part

    def forward(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return F.embedding(inputs, self._module.weight.detach()), ()

    def backward(
        self, inputs: Tensor, extras: tuple[Tensor, ...], grad: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, Use]:
        weight = self._module.weight
        rows = len(inputs)
        indices = inputs.reshape(rows, -1)
        grad = grad.to(weight.dtype).reshape(rows, -1, weight.shape[1])
        if self._module.padding_idx is not None:
            grad = grad.masked_fill((indices == self._module.padding_idx).unsqueeze(2), 0.0)
        return None, _EmbeddingUse(self._part, indices, grad)


def embedding(name: str, module: nn.Embedding, part: PartOf) -> Handler:
    """How an nn.Embedding is called.

    Raises:
        UnsupportedLayerError: it renormalises its rows, scales by the frequency in the batch, or is sparse.
    """
    edits = {
        "max_norm": (module.max_norm is not None, "it changes rows of the table by what a batch holds"),
        "scale_grad_by_freq": (module.scale_grad_by_freq, "it scales by how often a word is in the whole batch"),
        "sparse": (module.sparse, "which rows a batch uses would be visible; a noisy gradient is dense"),
    }
    for option, (chosen, why) in edits.items():
        if chosen:
            raise UnsupportedLayerError(f"layer {name!r}: nn.Embedding with {option} is refused: {why}. Leave it out.")
    weight = part("weight")
    assert weight is not None  # a frozen table is no business of the engine
    rule = _EmbeddingRule(name, module, weight)

    def call(tape: Tape, input: Tensor) -> Tensor:
        if torch.is_grad_enabled() and input.dim() > 1 and len(input) == 1 < tape.size:
            input = input.expand(tape.size, *input.shape[1:])  # positions (1, T), the same for every example
        return tape.call(rule, input)

    return call
