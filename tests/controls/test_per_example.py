"""Sabotaged per-example gradients: each planted fault is caught by the law that the real engine obeys.

The fault is planted in the library itself, in the one function that does the step, and the same law is first shown to
hold without it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.dp.per_example import test_ghost
from tests.dp.per_example.laws import Problem, law_agrees, law_norms_bound_the_sum, law_takes_out, problem
from tests.dp.per_example.test_shared import Again, Tied, TiedLinears
from torch import nn

from privet.dp.per_example import convolution, embedding, kernels, normalization
from privet.dp.per_example.convolution import _ConvolutionUse
from privet.dp.per_example.embedding import _EmbeddingUse
from privet.dp.per_example.engine import Engine, Gradients
from privet.dp.per_example.linear import LinearRule, LinearUse
from privet.dp.per_example.tape import Tape
from privet.dp.per_example.use import Given, Room


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def linear(positions: int = 3) -> Problem:
    return problem(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)), (positions, 6))


def ghost() -> Problem:
    return problem(nn.Linear(40, 30), (3, 40))


def conv() -> Problem:
    return problem(nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 2)), (3, 9, 8))


def words() -> Problem:
    return problem(nn.Sequential(nn.Embedding(4, 3, padding_idx=1), nn.Linear(3, 2)), (8,), words=4)


def norms() -> Problem:
    return problem(nn.Sequential(nn.GroupNorm(2, 4), nn.LayerNorm(6), nn.Linear(6, 3)), (4, 6))


def tied_words() -> Problem:
    return problem(Tied(), (4,), words=7)


def tied_linears() -> Problem:
    return problem(TiedLinears(), (6,))


def twice() -> Problem:
    return problem(Again(nn.Linear(6, 6), 2), (6,))


def without_bias_in_the_norm(real):
    def fault(self, room):
        found = real(self, room)
        return [*found[:-1], torch.zeros_like(found[-1])] if self._bias_rows is not None else found

    return fault


def without_bias_in_the_sum(real):
    def fault(self, views, weights, room):
        kept, self._bias_rows = self._bias_rows, None
        real(self, views, weights, room)
        self._bias_rows = kept

    return fault


def one_layer_is_not_clipped(real):
    def fault(self, views, weights, room):
        spared = [
            torch.ones_like(w) if part.slot.offset == 0 else w for part, w in zip(self.parts, weights, strict=True)
        ]
        real(self, views, spared, room)

    return fault


def mean_of_the_examples(real):
    return lambda self, flat, weights: real(self, flat, weights / weights.shape[1])


def mean_of_the_losses(real):
    return lambda self, loss, data, size: real(self, lambda batch: loss(batch) / size, data, size)


def mean_of_the_positions(real):
    def fault(self, weights, biases, inputs, grad):
        real(self, weights, biases, inputs, grad / inputs.shape[1])

    return fault


def weights_of_the_first_group(real):
    return lambda self, flat, weights: real(self, flat, weights[:1].expand_as(weights))


def norms_without_the_root(real):
    return lambda rows: real(rows).sqrt()


def positions_as_if_they_were_orthogonal(real):
    return lambda left, rights: [(left.square().sum(2) * right.square().sum(2)).sum(1).double() for right in rights]


def sharing_is_not_noticed(real):
    def fault(self, parts, inputs):
        real(self, parts, inputs)
        self._shared.clear()

    return fault


def the_last_use_alone(real):
    def fault(self):
        self._waiting = self._waiting[:1]
        real(self)

    return fault


def repeats_are_not_added_up(real):
    return lambda self, room: [self._grad.double().square().sum(dim=(1, 2))]


def padding_learns(real):
    def fault(self, inputs, extras, grad, wants_input):
        index, self._module.padding_idx = self._module.padding_idx, None
        found = real(self, inputs, extras, grad, wants_input)
        self._module.padding_idx = index
        return found

    return fault


def windows_of_the_mirror_image(real):
    return lambda inputs, kernel, stride, dilation, out: real(
        inputs.flip(3).contiguous(), kernel, stride, dilation, out
    )


def bias_of_a_norm_is_its_weight(real):
    return lambda self, parts, gradients: real(self, parts, [gradients[0]] * len(gradients))


def no_input_gradient(real):
    def fault(self, *arguments):
        found, use = real(self, *arguments)
        return (None if found is None else torch.zeros_like(found)), use

    return fault


def what_is_kept_is_overwritten(real):
    def fault(self, *shape):
        self._used = 0
        return real(self, *shape)

    return fault


def examples_swapped(real):
    return lambda self, room: [found.roll(1) for found in real(self, room)]


FAULTS: list[tuple[str, Callable[[], Problem], Any, str, Callable[..., Any]]] = [
    ("bias left out of the norm", linear, LinearUse, "squared_norms", without_bias_in_the_norm),
    ("bias left out of the sum", linear, LinearUse, "add_to", without_bias_in_the_sum),
    ("bias of a convolution left out of the norm", conv, _ConvolutionUse, "squared_norms", without_bias_in_the_norm),
    ("bias of a convolution left out of the sum", conv, _ConvolutionUse, "add_to", without_bias_in_the_sum),
    ("clip skipped on a linear layer", linear, LinearUse, "add_to", one_layer_is_not_clipped),
    ("clip skipped on a convolution", conv, _ConvolutionUse, "add_to", one_layer_is_not_clipped),
    ("clip skipped on an embedding", words, _EmbeddingUse, "add_to", one_layer_is_not_clipped),
    ("clip skipped on a norm", norms, Given, "add_to", one_layer_is_not_clipped),
    ("mean instead of sum", linear, Gradients, "add_to", mean_of_the_examples),
    ("mean of the losses", linear, Engine, "take", mean_of_the_losses),
    ("mean over positions", linear, LinearUse, "__init__", mean_of_the_positions),
    ("one group's weights for all", linear, Gradients, "add_to", weights_of_the_first_group),
    ("a norm for its square", linear, kernels, "squared_norms", norms_without_the_root),
    ("positions as if orthogonal", ghost, kernels, "ghost_squared_norms", positions_as_if_they_were_orthogonal),
    ("a tied table without its cross term", tied_words, Tape, "announce", sharing_is_not_noticed),
    ("tied layers without their cross term", tied_linears, Tape, "announce", sharing_is_not_noticed),
    ("a layer called twice without its cross term", twice, Tape, "announce", sharing_is_not_noticed),
    ("one use of a tied weight alone", tied_linears, Tape, "finish", the_last_use_alone),
    ("repeated words not added up", words, _EmbeddingUse, "squared_norms", repeats_are_not_added_up),
    ("the padding word learns", words, embedding._EmbeddingRule, "backward", padding_learns),
    ("windows of the mirror image", conv, kernels, "unfold", windows_of_the_mirror_image),
    ("a norm's bias is its weight", norms, Given, "__init__", bias_of_a_norm_is_its_weight),
    ("linear gives no gradient to its input", linear, LinearRule, "backward", no_input_gradient),
    ("layer norm gives no gradient to its input", norms, normalization._LayerNormRule, "backward", no_input_gradient),
    ("a convolution gives no gradient to its input", conv, convolution._ConvolutionRule, "backward", no_input_gradient),
    ("kept gradients are overwritten", conv, Room, "keep", what_is_kept_is_overwritten),
    ("norms of other examples", linear, LinearUse, "squared_norms", examples_swapped),
]


@pytest.mark.parametrize(
    ("make", "owner", "name", "fault"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS]
)
def test_the_table_notices(make, owner, name, fault, monkeypatch):
    law_agrees(make(), groups=2)
    monkeypatch.setattr(owner, name, fault(getattr(owner, name)))
    with pytest.raises(AssertionError, match="off by"):
        law_agrees(make(), groups=2)


def test_a_bias_that_is_forgotten_everywhere_is_missed(monkeypatch):
    """Neither in the norm nor in the sum: what the engine itself would never notice."""
    real = LinearUse.__init__

    def without(self, weights, biases, inputs, grad):
        real(self, weights, [], inputs, grad)

    law_norms_bound_the_sum(linear())
    monkeypatch.setattr(LinearUse, "__init__", without)
    law_norms_bound_the_sum(linear())
    with pytest.raises(AssertionError, match="bias"):
        law_agrees(linear())


@pytest.mark.parametrize(("make", "use"), [(linear, LinearUse), (conv, _ConvolutionUse), (norms, Given)])
def test_a_norm_too_small_for_what_is_added_is_noticed(make, use, monkeypatch):
    law_norms_bound_the_sum(make())
    real = use.squared_norms
    monkeypatch.setattr(use, "squared_norms", lambda self, room: [0.99 * found for found in real(self, room)])
    with pytest.raises(AssertionError, match="its norm was told as"):
        law_norms_bound_the_sum(make())


def poisoned(case: Problem) -> Problem:
    loud = case.data[1].clone()
    loud[2] = torch.nan
    return Problem(case.model, (case.data[0], loud))


@pytest.mark.parametrize(
    ("make", "use"), [(linear, LinearUse), (conv, _ConvolutionUse), (norms, Given), (words, _EmbeddingUse)]
)
def test_an_example_that_is_weighted_with_zero_but_not_taken_out_is_noticed(make, use, monkeypatch):
    """0 times NaN is NaN."""
    case = make()
    law_takes_out(case, poisoned(case), 2)
    monkeypatch.setattr(use, "clear", lambda self, rows: None)
    with pytest.raises(AssertionError, match="is not finite"):
        law_takes_out(case, poisoned(case), 2)


def test_a_whole_batch_that_is_taken_out_with_one_example_is_noticed(monkeypatch):
    case = linear()
    real = Gradients.add_to

    def all_or_nothing(self, flat, weights):
        if bool(self.squared_norms.isfinite().all()):
            real(self, flat, weights)

    monkeypatch.setattr(Gradients, "add_to", all_or_nothing)
    with pytest.raises(AssertionError, match="off by"):
        law_takes_out(case, poisoned(case), 2)


def test_a_ghost_norm_without_its_margin_is_noticed(monkeypatch):
    hard = test_ghost.cancelling(7828, 5, 1000, 16, 0.01912167, True)
    test_ghost.law_never_understates(*hard)
    for name in ("_ROUNDINGS", "_AGAIN"):
        monkeypatch.setattr(kernels, name, 0.0)
    with pytest.raises(AssertionError, match="it was told as"):
        test_ghost.law_never_understates(*hard)
    with pytest.raises(AssertionError, match="it was told as"):
        test_ghost.law_never_understates(*test_ghost.cancelling(3, 20, 64, 128, 1e-4, False))


def test_a_ghost_norm_with_one_rounding_for_all_sums_is_noticed(monkeypatch):
    monkeypatch.setattr(kernels, "_ROUNDINGS", 1.0)
    with pytest.raises(AssertionError, match="it was told as"):
        test_ghost.law_never_understates(*test_ghost.cancelling(7828, 5, 1000, 16, 0.01912167, True))


def test_a_ghost_norm_that_adds_its_margin_but_never_looks_again_is_noticed(monkeypatch):
    monkeypatch.setattr(kernels, "_SMALL", float("inf"))
    with pytest.raises(AssertionError, match="it was told as"):
        test_ghost.law_never_understates(*test_ghost.cancelling(3, 20, 64, 128, 1e-4, False))


def test_a_plain_norm_summed_in_one_go_is_noticed(monkeypatch):
    alike = torch.full((1, 2_000_000), 0.49626)
    test_ghost.law_plain_norm(alike)
    monkeypatch.setattr(kernels, "_ROW", 1 << 30)
    with pytest.raises(AssertionError, match="it was told as"):
        test_ghost.law_plain_norm(alike)
