"""Canaries: fair coins, and scores equal to a loop over single records."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from privet.attacks.membership import CanaryDesign, GradientScores, black_box
from privet.attacks.target import Target
from privet.errors import ArgumentError, DataError, LabelError
from privet.output_form import OutputForm
from privet.statistics import one_run_epsilon

# The design


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_a_design_is_plain_data_and_comes_back(count: int, seed: int) -> None:
    design = CanaryDesign.draw(count, seed=seed)
    again = CanaryDesign(**json.loads(json.dumps(design.to_json())))
    assert again == design == CanaryDesign.draw(count, seed=seed)
    assert design.included.shape == (count,)
    assert design.included.dtype == bool
    assert np.array_equal(again.included, design.included)


@pytest.mark.parametrize("seed", [None, 0])
def test_coins_are_fair_and_independent(seed: int | None) -> None:
    """20,000 coins: heads and agreements with the next ones within 4.9 standard errors; a miss in a million runs."""
    coins = CanaryDesign.draw(20_000, seed=seed).included
    limit = 4.9 * 0.5 * np.sqrt(20_000)
    assert abs(coins.sum() - 10_000) < limit
    for step in (1, 2, 3, 4, 5, 8):
        assert abs((coins == np.roll(coins, step)).sum() - 10_000) < limit


def test_system_coins_never_repeat_and_carry_no_seed() -> None:
    one, two = CanaryDesign.draw(200), CanaryDesign.draw(200)
    assert one.coins != two.coins
    assert one.seed is None


def test_seeded_coins_are_no_other_draws_of_that_seed() -> None:
    coins = CanaryDesign.draw(1_000, seed=5).included
    assert 400 < (coins == np.random.default_rng(5).integers(0, 2, 1_000)).sum() < 600


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ((0, ""), "count"),
        ((True, "8"), "count"),
        ((5, "8"), "coins"),
        ((4, "88"), "coins"),
        ((4, "G"), "coins"),
        ((4, "A"), "coins"),
        ((2, "1"), "zeros after"),
    ],
)
def test_designs_that_do_not_fit_are_refused(fields: tuple[int, str], named: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        CanaryDesign(*fields)


@pytest.mark.parametrize("seed", [-1, 0.5, "1"])
def test_seeds_that_are_none_are_refused(seed: object) -> None:
    with pytest.raises(ArgumentError, match="seed"):
        CanaryDesign.draw(10, seed=seed)  # type: ignore[arg-type]


# Black box


def records(count: int, classes: int = 3, seed: int = 0, width: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(count, width, generator=generator),
        torch.randint(0, classes, (count,), generator=generator),
    )


def network(seed: int = 0, hidden: int = 6, width: int = 4) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Dropout(0.5), nn.Linear(hidden, 3))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def test_black_box_scores_are_log_probabilities_less_those_of_before() -> None:
    (inputs, labels), after, before = records(7), network(1), network(2)
    own = [
        float(torch.log_softmax(after(x[None]).detach().double(), 1)[0, y]) for x, y in zip(inputs, labels, strict=True)
    ]
    then = [
        float(torch.log_softmax(before(x[None]).detach().double(), 1)[0, y])
        for x, y in zip(inputs, labels, strict=True)
    ]
    target = Target(after, classes=3)
    assert black_box(target, (inputs, labels)) == pytest.approx(np.array(own), abs=1e-6)
    difference = np.array(own) - np.array(then)
    assert black_box(target, (inputs, labels), Target(before, classes=3)) == pytest.approx(difference, abs=1e-6)


def test_black_box_behind_labels_says_whether_the_label_is_right() -> None:
    (inputs, labels), model = records(20), network(1)
    target = Target(lambda x: model(x).argmax(1), classes=3, form=OutputForm(labels_only=True))
    scores = black_box(target, (inputs, labels.to(torch.uint8)))
    right = (model(inputs).argmax(1) == labels).numpy()
    assert right.any()
    assert (~right).any()
    assert scores[right].min() > scores[~right].max()


def test_black_box_refuses_what_does_not_fit() -> None:
    inputs, labels = records(5)
    target = Target(network(), classes=3)
    for wrong, error in ((labels[:4], DataError), (labels.float(), LabelError), (labels + 3, LabelError)):
        with pytest.raises(error, match="canaries"):
            black_box(target, (inputs, wrong))
    with pytest.raises(ArgumentError, match="before"):
        black_box(target, (inputs, labels), Target(nn.Linear(4, 2), classes=2))


# White box


def clipped_gradients(model: nn.Module, inputs: Tensor, labels: Tensor, norm: float) -> Tensor:
    """One record at a time, by an ordinary backward pass (n, p)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rows = []
    for x, y in zip(inputs, labels, strict=True):
        loss = nn.functional.cross_entropy(model(x[None]), y[None])
        row = torch.cat([part.flatten() for part in torch.autograd.grad(loss, trained)])
        rows.append(row * min(1.0, norm / float(row.norm())))
    return torch.stack(rows)


def by_loop(
    model: nn.Module, released: Tensor, norm: float, others: tuple[Tensor, Tensor] | None, whiten: bool
) -> NDArray[np.float64]:
    rows = clipped_gradients(model, *records(9), norm).double()
    direction = released.double()
    if others is not None:
        known = clipped_gradients(model, *others, norm).double().sum(0) + rows.sum(0) / 2
        direction = direction - known / (len(others[1]) + 4.5)
    if whiten:
        gram = rows @ rows.T
        rows = torch.linalg.inv(gram + 0.3 * gram.diagonal().mean() * torch.eye(9)) @ rows
    found: NDArray[np.float64] = (rows @ direction).numpy()
    return found


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("norm", [0.3, 1.0, 50.0])
def test_gradient_scores_equal_a_loop_over_single_canaries(norm: float, known: bool, whiten: bool) -> None:
    others = records(11, seed=1) if known else None
    seen = GradientScores(*records(9), others=others, whiten=whiten, max_grad_norm=norm, chunk=4)
    expected = np.zeros(9)
    for step in range(3):
        model = network(step)
        released = torch.randn(3 * 6 + 3 + 6 * 4 + 6, generator=torch.Generator().manual_seed(step))
        seen.observe(model, released)
        expected += by_loop(model, released, norm, others, whiten)
    assert seen.steps == 3
    assert seen.scores == pytest.approx(expected, rel=1e-4, abs=1e-5)
    if norm == 0.3:
        assert not np.allclose(expected, sum(by_loop(network(s), released, 50.0, others, whiten) for s in range(3)))


def test_the_three_forms_of_a_gradient_are_one() -> None:
    model = network()
    nn.functional.cross_entropy(model(records(5)[0]), records(5)[1]).backward()
    parts = [parameter.grad for parameter in model.parameters()]
    scores = []
    for released in (None, parts, torch.cat([part.flatten() for part in parts if part is not None])):
        seen = GradientScores(*records(9))
        seen.observe(model, released)  # type: ignore[arg-type]
        scores.append(seen.scores)
    assert np.array_equal(scores[0], scores[1])
    assert np.array_equal(scores[0], scores[2])
    assert np.abs(scores[0]).min() > 0.0


def test_frozen_parameters_and_buffers_are_read_and_not_scored() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)
            self.register_buffer("scale", torch.tensor(2.0))
            self.first.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.first(x) * self.scale)
            return out

    model = Scaled()
    seen = GradientScores(*records(6))
    seen.observe(model, torch.ones(18))
    assert seen.scores == pytest.approx(clipped_gradients(model, *records(6), 1.0).sum(1).numpy(), abs=1e-5)


def test_the_model_is_left_as_it_was_and_dropout_is_off() -> None:
    model = network().train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    one, two = GradientScores(*records(9)), GradientScores(*records(9))
    for seen in (one, two):
        seen.observe(model, torch.ones(51))
    assert np.array_equal(one.scores, two.scores)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_scores_cannot_be_changed_from_outside() -> None:
    seen = GradientScores(*records(9))
    seen.scores[:] = 1.0
    assert seen.scores.max() == 0.0


def scores_of_a_training(design: CanaryDesign) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """White- and black-box scores of clipped training, without noise, on the canaries that were in."""
    canaries, others = records(design.count, width=40), records(100, seed=1, width=40)
    trained = torch.from_numpy(design.included)
    inputs, labels = torch.cat((others[0], canaries[0][trained])), torch.cat((others[1], canaries[1][trained]))
    model = network(hidden=32, width=40)
    seen = GradientScores(*canaries, others=others, whiten=True)
    for _ in range(30):
        released = clipped_mean(model, inputs, labels)
        seen.observe(model, released)
        weights = nn.utils.parameters_to_vector(model.parameters()).detach()
        nn.utils.vector_to_parameters(weights - 5.0 * released, model.parameters())
    before = Target(network(hidden=32, width=40), classes=3)
    return seen.scores, black_box(Target(model, classes=3), canaries, before)


def clipped_mean(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """What a step without noise would release."""
    seen = GradientScores(inputs, labels)
    return torch.cat(list(seen._gradients(model, (inputs, labels)))).mean(0)


def test_training_without_noise_is_found_and_other_coins_are_not() -> None:
    design = CanaryDesign.draw(200, seed=0)
    white, black = scores_of_a_training(design)
    assert one_run_epsilon(white, design.included, 0.0, guesses=100).epsilon_low >= 3.0  # 3.46: all guesses right
    assert one_run_epsilon(black, design.included, 0.0, guesses=100).epsilon_low > 0.5
    for scores in (white, black):  # of 100 other designs nominally 5; more than 14 has a probability below 0.02%
        others = (CanaryDesign.draw(200, seed=seed).included for seed in range(1, 101))
        assert sum(one_run_epsilon(scores, coins, 0.0, guesses=100).epsilon_low > 0.0 for coins in others) <= 14


@pytest.mark.parametrize(
    ("released", "said"),
    [
        (None, "None, None"),
        (torch.ones(50), "flat tensor of 51 values"),
        ([torch.ones(51)], "each trainable parameter"),
        ([torch.ones(6, 4), torch.ones(6), torch.ones(6, 3), torch.ones(3)], "each trainable parameter"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(released: object, said: str) -> None:
    seen = GradientScores(*records(9))
    with pytest.raises(ArgumentError, match=said):
        seen.observe(network(), released)  # type: ignore[arg-type]
    assert seen.steps == 0


def test_what_is_not_finite_or_no_class_is_refused_and_not_counted() -> None:
    inputs, labels = records(9)
    inputs[4] = torch.nan
    seen = GradientScores(inputs, labels)
    with pytest.raises(DataError, match="canary 4 at step 0"):
        seen.observe(network(), torch.ones(51))
    assert seen.steps == 0
    assert seen.scores.max() == 0.0
    with pytest.raises(LabelError, match="label 5"):
        GradientScores(records(9)[0], labels + 3).observe(network(), torch.ones(51))


def test_what_cannot_be_scored_is_refused_before_work() -> None:
    inputs, labels = records(9)
    with pytest.raises(DataError, match="9 inputs and 8 labels"):
        GradientScores(inputs, labels[:8])
    with pytest.raises(LabelError, match="label 0 is -1"):
        GradientScores(inputs, torch.full((9,), -1))
    with pytest.raises(DataError, match="one shape"):
        GradientScores(inputs, labels, others=(torch.zeros(3, 5), torch.zeros(3, dtype=torch.int64)))
    with pytest.raises(ArgumentError, match="max_grad_norm"):
        GradientScores(inputs, labels, max_grad_norm=0.0)
    with pytest.raises(ArgumentError, match="chunk"):
        GradientScores(inputs, labels, chunk=0)
