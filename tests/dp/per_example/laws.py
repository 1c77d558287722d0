"""What the engine must obey for every layer, held against a loop over single examples in float64.

Each law raises AssertionError when it is broken.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from privet.dp.batches import map_tensors
from privet.dp.per_example.engine import Engine, Gradients
from privet.dp.per_example.reference import per_example_gradients

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}  # relative to the largest norm of a parameter's gradient


def random_(model: nn.Module, seed: int = 0, scale: float = 0.6) -> nn.Module:
    """Every parameter anew."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


@dataclass(frozen=True)
class Problem:
    """A model, B examples (inputs, targets) and a loss for each."""

    model: nn.Module
    data: tuple[Tensor, Tensor]
    memory_format: torch.memory_format = torch.contiguous_format

    @property
    def size(self) -> int:
        return len(self.data[0])

    def loss_of(self, model: nn.Module) -> Callable[[Any], Tensor]:
        def per_example_loss(data: Any) -> Tensor:
            inputs, targets = data
            if inputs.dim() == 4:
                inputs = inputs.contiguous(memory_format=self.memory_format)
            return (model(inputs).sin() * targets).flatten(1).sum(dim=1)

        return per_example_loss

    @property
    def loss(self) -> Callable[[Any], Tensor]:
        return self.loss_of(self.model)

    def rows(self, keep: Tensor) -> "Problem":
        return Problem(self.model, (self.data[0][keep], self.data[1][keep]), self.memory_format)

    def truth(self) -> dict[str, Tensor]:
        """By the loop, in float64."""
        exact = deepcopy(self.model).double()
        data = map_tensors(self.data, lambda values: values.double() if values.is_floating_point() else values)
        return per_example_gradients(exact, self.loss_of(exact), data, self.size)


def problem(
    model: nn.Module,
    shape: Sequence[int],
    size: int = 5,
    words: int = 0,
    dtype: torch.dtype = torch.float64,
    memory_format: torch.memory_format = torch.contiguous_format,
    seed: int = 1,
) -> Problem:
    """Random weights, inputs (words below ``words`` if that is given) and targets."""
    generator = torch.Generator().manual_seed(seed)
    model = random_(model, seed).to(dtype)
    if words:
        inputs = torch.randint(0, words, (size, *shape), generator=generator)
    else:
        inputs = torch.randn(size, *shape, generator=generator, dtype=torch.float64).to(dtype)
    with torch.no_grad():
        output = model(inputs)
    targets = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(dtype)
    return Problem(model, (inputs, targets), memory_format)


def in_groups(model: nn.Module, groups: int) -> list[list[str]] | None:
    """The names of the trainable parameters dealt out to as many groups as there are names, at most ``groups``."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return [names[start::groups] for start in range(min(groups, len(names)))]


def sums(engine: Engine, gradients: Gradients, weights: Tensor) -> dict[str, Tensor]:
    """The weighted sum, added to a buffer of ones that must be left alone between the parameters."""
    flat = torch.ones_like(engine.flat())
    gradients.add_to(flat, weights)
    views = engine.views(flat)
    found = {name: view.double() - 1.0 for name, view in views.items()}
    for view in views.values():
        view.fill_(1.0)
    assert bool((flat == 1.0).all()), "numbers between the parameters were changed"
    return found


def close(found: Tensor, wanted: Tensor, most: float, what: str) -> None:
    error = (found.double() - wanted.double()).abs().max().item() if wanted.numel() else 0.0
    assert error <= most, f"{what}: off by {error:.3g}, allowed {most:.3g}"


def law_agrees(case: Problem, groups: int = 1, tolerance: float | None = None) -> Gradients:
    """Norms, any weighted sum and the gradients themselves are those of the loop over single examples."""
    wanted = case.truth()
    dtype = next(case.model.parameters()).dtype
    relative = TOLERANCE[dtype] if tolerance is None else tolerance
    engine = Engine(case.model, in_groups(case.model, groups))
    engine.take(case.loss, map_tensors(case.data, lambda values: values.flip(0)), case.size)  # leaves nothing behind
    gradients = engine.take(case.loss, case.data, case.size)
    members: list[list[str]] = [[] for _ in engine.ranges]
    for slot in engine.slots:
        members[slot.group].append(slot.name)
    found = gradients.per_example()
    assert list(engine.views(engine.flat())) == [name for group in members for name in group]
    assert set(found) == set(wanted)
    assert gradients.squared_norms.shape == (len(members), case.size)
    assert gradients.squared_norms.dtype == torch.float64
    for group, names in enumerate(members):
        squares = torch.stack([wanted[name].reshape(case.size, -1).square().sum(dim=1) for name in names]).sum(dim=0)
        close(gradients.squared_norms[group], squares, 2 * relative * squares.max().item(), f"norms of {names}")
    weights = 2 * torch.rand(len(members), case.size, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    total = sums(engine, gradients, weights)
    for group, names in enumerate(members):
        for name in names:
            largest = wanted[name].reshape(case.size, -1).norm(dim=1).max().item()
            close(found[name], wanted[name], relative * largest, f"gradients of {name}")
            exact = torch.einsum("b,b...->...", weights[group], wanted[name])
            rounding = 2 * torch.finfo(dtype).eps  # of the ones that the sum was added to
            close(total[name], exact, relative * largest * weights[group].sum().item() + rounding, f"sum of {name}")
    return gradients


def law_norms_bound_the_sum(case: Problem, loss: Callable[[Any], Tensor] | None = None, relative: float = 1e-5) -> None:
    """What is added with weight 1 for one example and 0 for the others has the norm that was told for it."""
    engine = Engine(case.model)
    gradients = engine.take(case.loss if loss is None else loss, case.data, case.size)
    for index in range(case.size):
        flat = engine.flat()
        weights = torch.zeros(1, case.size)
        weights[0, index] = 1.0
        gradients.add_to(flat, weights)
        told = gradients.squared_norms[0, index].sqrt().item()
        norm = flat.double().norm().item()
        assert norm <= told * (1 + relative), f"example {index} adds {norm}, its norm was told as {told}"
        assert norm >= told * (1 - 10 * relative), f"example {index} adds {norm}, its norm was told as {told}"


def law_takes_out(case: Problem, poisoned: Problem, bad: int) -> None:
    """With one example that is not finite, the others' sum is finite, and what it is without that example."""
    others = torch.arange(case.size) != bad
    engine = Engine(case.model)
    weights = torch.rand(1, case.size, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.5
    alone = case.rows(others)
    wanted = sums(engine, engine.take(alone.loss, alone.data, alone.size), weights[:, others])
    gradients = engine.take(poisoned.loss, poisoned.data, poisoned.size)
    assert not bool(gradients.squared_norms[:, bad].isfinite().any())
    assert bool(gradients.squared_norms[:, others].isfinite().all())
    found = sums(engine, gradients, weights)
    for name, value in found.items():
        assert bool(value.isfinite().all()), f"{name} is not finite"
        close(value, wanted[name], 1e-9 * (1.0 + wanted[name].abs().max().item()), f"sum of {name}")
