"""Gradient inversion: finds the images of a batch, reads labels off, fails in noise, refuses what it cannot do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.inversion_tables import zhu
from torch import Generator, Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, mse_loss

from privet.attacks.inversion.descent import SignDescent
from privet.attacks.inversion.gradient import GradientInversion, GradientReconstruction
from privet.attacks.inversion.gradient_loss import BoundedDescent, CosineDistance, LineSearch, SquaredDistance
from privet.attacks.inversion.measures import peak_signal_to_noise
from privet.attacks.inversion.priors import Normalisation
from privet.data import mnist5k
from privet.errors import ArgumentError, DataError

SHAPE = (1, 28, 28)
DIGITS = mnist5k()
IMAGES, LABELS = DIGITS.inputs, DIGITS.labels


def small(classes: int = 4, *, bias: bool = True, between: nn.Module | None = None, seed: int = 1) -> nn.Sequential:
    last = nn.Linear(8, classes, bias=bias)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Sigmoid() if between is None else between, last)
    generator = Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(2.0 * torch.rand(parameter.shape, generator=generator) - 1.0)
    return model


def pixels(count: int = 1, seed: int = 5) -> Tensor:
    return torch.rand((count, 1, 4, 4), generator=Generator().manual_seed(seed))


def digits(seed: int, count: int = 1) -> tuple[Tensor, Tensor]:
    """Of as many digits one image each."""
    rows = [(557 * seed + 501 * one) % 5000 for one in range(count)]
    return IMAGES[rows], LABELS[rows]


def gradients_of(model: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(cross_entropy(model(images), labels), list(model.parameters())))


def private(gradients: list[Tensor], *, share: float, noise: float, seed: int) -> list[Tensor]:
    """Clipped to a share of the length, with noise of ``noise`` times the length that is left."""
    generator = Generator().manual_seed(seed)
    numbers = torch.cat([one.flatten() for one in gradients])
    std = noise * share * float(numbers.norm()) / len(numbers) ** 0.5
    return [share * one + std * torch.randn(one.shape, generator=generator) for one in gradients]


Sent = Callable[[list[Tensor]], list[Tensor]]


def median_psnr(seeds: range, sent: Sent = lambda gradients: gradients, **settings: Any) -> float:
    found = []
    for seed in seeds:
        model, (image, label) = zhu(seed), digits(seed)
        attack = GradientInversion(model, image_shape=SHAPE, **settings)
        result = attack.reconstruct(sent(gradients_of(model, image, label)), labels=label, iterations=300, seed=seed)
        found.append(peak_signal_to_noise(result.images, image)[0])
    return float(np.median(found))


def test_finds_a_digit() -> None:
    assert median_psnr(range(3)) >= 50.0


@pytest.mark.slow
def test_finds_ten_digits() -> None:
    assert median_psnr(range(10)) >= 50.0


def test_finds_a_digit_from_a_scaled_gradient_by_its_direction_only() -> None:
    def half(gradients: list[Tensor]) -> list[Tensor]:
        return [0.5 * one for one in gradients]

    assert median_psnr(range(2), half, loss=CosineDistance(), solver=LineSearch()) >= 50.0
    assert median_psnr(range(1), half) < 20.0


@dataclass(frozen=True)
class Tiny:
    def __call__(self, found: Sequence[Tensor], observed: Sequence[Tensor]) -> Tensor:
        return 1e-8 * SquaredDistance()(found, observed)

    def solver(self) -> LineSearch:
        return LineSearch()


def test_the_unit_of_a_loss_does_not_matter_to_the_line_search() -> None:
    assert median_psnr(range(1, 2), loss=Tiny()) >= 50.0


def test_a_flipped_sign_is_caught() -> None:
    assert median_psnr(range(2), lambda gradients: [-one for one in gradients]) < 20.0


def test_clipping_and_noise_ruin_it() -> None:
    def sent(gradients: list[Tensor]) -> list[Tensor]:
        return private(gradients, share=0.5, noise=1.0, seed=7)

    assert median_psnr(range(2), sent) < 20.0
    assert median_psnr(range(2), sent, loss=CosineDistance(), solver=LineSearch()) < 20.0


def test_descent_inside_the_bounds_finds_a_digit() -> None:
    assert median_psnr(range(1, 2), loss=CosineDistance(), solver=BoundedDescent(signed=False)) >= 20.0
    assert median_psnr(range(2, 3), loss=CosineDistance()) >= 15.0


def test_the_gradient_of_a_batch_is_not_taken_for_that_of_one_image() -> None:
    model, images = small(), pixels(3)
    with pytest.raises(ArgumentError, match="of several images"):
        GradientInversion(model, image_shape=(1, 4, 4)).reconstruct(
            gradients_of(model, images, torch.tensor([0, 1, 3])), iterations=2, seed=0
        )


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_off(mode: Any) -> None:
    model, images = small(), pixels()
    sent = gradients_of(model, images, torch.tensor([2]))
    attack = GradientInversion(model, image_shape=(1, 4, 4))
    with mode():
        found = attack.reconstruct(sent, iterations=60, seed=0)
    assert float((found.images - images).abs().max()) < 0.01


def test_total_variation_smooths() -> None:
    model, images = small(between=nn.ReLU()), pixels()
    sent = gradients_of(model, images, torch.tensor([2]))
    found = [
        GradientInversion(model, image_shape=(1, 4, 4), loss=CosineDistance(), tv_weight=weight)
        .reconstruct(sent, iterations=200, seed=0)
        .images
        for weight in (0.0, 10.0)
    ]
    rough, smooth = (float(one.diff(dim=2).square().mean() + one.diff(dim=3).square().mean()) for one in found)
    assert smooth < 0.2 * rough


def test_finds_a_batch_of_two() -> None:
    model, (images, labels) = zhu(1), digits(1, 2)
    gradients = gradients_of(model, images, labels)
    attack = GradientInversion(model, image_shape=SHAPE)
    first = attack.reconstruct(gradients, labels=labels, iterations=1, seed=0)
    found = attack.reconstruct(gradients, labels=labels, iterations=400, seed=0)
    assert found.loss < 1e-4 * first.loss
    mean = IMAGES.mean(0, keepdim=True)
    for one, original in enumerate(images[:, None]):
        assert peak_signal_to_noise(found.images[one : one + 1], original) > 10.0 + peak_signal_to_noise(mean, original)


def test_normalisation_and_bounds_are_undone() -> None:
    model, (image, label) = zhu(1), digits(1)
    normalisation = Normalisation((128.0,), (255.0,))
    gradients = gradients_of(model, normalisation(255.0 * image), label)
    attack = GradientInversion(model, image_shape=SHAPE, bounds=(0.0, 255.0), normalisation=normalisation)
    found = attack.reconstruct(gradients, iterations=300, seed=0)
    assert peak_signal_to_noise(found.images, 255.0 * image, (0.0, 255.0))[0] >= 40.0


# Labels


@pytest.mark.parametrize("seed", range(8))
def test_the_label_of_one_image_is_recovered(seed: int) -> None:
    model, (image, label) = zhu(seed), digits(seed)
    attack = GradientInversion(model, image_shape=SHAPE)
    assert torch.equal(attack.reconstruct(gradients_of(model, image, label), iterations=1, seed=0).labels, label)


@pytest.mark.parametrize("between", [nn.Sigmoid(), nn.Tanh()])
@pytest.mark.parametrize("label", range(4))
def test_without_a_bias_too(between: nn.Module, label: int) -> None:
    model, image = small(bias=False, between=between), pixels()
    gradients = gradients_of(model, image, torch.tensor([label]))
    attack = GradientInversion(model, image_shape=(1, 4, 4))
    assert attack.reconstruct(gradients, iterations=1, seed=0).labels.tolist() == [label]


def test_without_a_bias_a_tie_of_rows_is_told_apart_by_the_others_or_refused() -> None:
    model, towards = small(bias=False), torch.linspace(-1.0, 1.0, 8)
    gradients = gradients_of(model, pixels(), torch.tensor([1]))
    attack = GradientInversion(model, image_shape=(1, 4, 4))
    for shares, label in ((torch.tensor([1.0, -1.0, 1e-9, 1e-9]), 1), (torch.tensor([-1.0, 1.0, 1e-9, 0.0]), 0)):
        gradients[-1] = shares[:, None] * towards
        assert attack.reconstruct(gradients, iterations=1, seed=0).labels.tolist() == [label]
    gradients[-1] = torch.tensor([1.0, -1.0, 0.0, 0.0])[:, None] * towards
    with pytest.raises(ArgumentError, match="give the labels of the images"):
        attack.reconstruct(gradients, iterations=1, seed=0)


def test_a_label_that_the_model_is_sure_of_is_counted() -> None:
    model = small()
    gradients = gradients_of(model, pixels(), torch.tensor([1]))
    gradients[-1] = torch.tensor([-1e-4, -0.3, 0.3001, 0.0])
    attack = GradientInversion(model, image_shape=(1, 4, 4))
    assert attack.reconstruct(gradients, batch_size=2, iterations=1, seed=0).labels.tolist() == [0, 1]


def test_labels_of_a_batch_are_recovered_or_refused_never_wrong() -> None:
    recovered = 0
    for seed in range(60):
        model = small(6, seed=seed)
        generator = Generator().manual_seed(seed)
        images, labels = pixels(4, seed), torch.randint(6, (4,), generator=generator)
        attack = GradientInversion(model, image_shape=(1, 4, 4))
        try:
            found = attack.reconstruct(gradients_of(model, images, labels), batch_size=4, iterations=1, seed=0)
        except ArgumentError:
            continue
        assert found.labels.tolist() == sorted(labels.tolist())
        recovered += 1
    assert recovered >= 10


def test_distinct_labels_of_four_images_are_recovered() -> None:
    model, (images, labels) = small(10), (pixels(4), torch.tensor([7, 0, 3, 4]))
    attack = GradientInversion(model, image_shape=(1, 4, 4))
    found = attack.reconstruct(gradients_of(model, images, labels), batch_size=4, iterations=1, seed=0)
    assert found.labels.tolist() == [0, 3, 4, 7]


def test_repeated_labels_are_asked_for_where_the_gradient_does_not_show_them() -> None:
    model, images, labels = small(), pixels(2), torch.tensor([1, 1])
    with torch.no_grad():
        model.get_parameter("3.bias")[1] = 5.0
    gradients = gradients_of(model, images, labels)
    with pytest.raises(ArgumentError, match=r"give the labels of the images. The gradient shows at least 1 of 2"):
        GradientInversion(model, image_shape=(1, 4, 4)).reconstruct(gradients, batch_size=2, iterations=1, seed=0)


def test_labels_of_a_batch_are_asked_for_where_there_is_noise() -> None:
    model, images, labels = small(), pixels(2), torch.tensor([0, 3])
    gradients = private(gradients_of(model, images, labels), share=1.0, noise=0.5, seed=1)
    with pytest.raises(ArgumentError, match="does not add up to 0"):
        GradientInversion(model, image_shape=(1, 4, 4)).reconstruct(gradients, batch_size=2, iterations=1, seed=0)


# Losses


def two_gradients() -> list[list[Tensor]]:
    generator = Generator().manual_seed(2)
    return [[torch.randn(shape, generator=generator) for shape in ((3, 2), (4,))] for _ in range(2)]


def test_losses_are_those_of_torch() -> None:
    found, observed = two_gradients()
    left, right = (torch.cat([one.flatten() for one in side]) for side in (found, observed))
    squared = mse_loss(left, right, reduction="sum") / right.square().sum()
    torch.testing.assert_close(SquaredDistance()(found, observed), squared)
    torch.testing.assert_close(CosineDistance()(found, observed), 1.0 - cosine_similarity(left, right, 0))


@pytest.mark.parametrize("scale", [1e-6, 0.1, 1e4])
def test_only_the_cosine_is_free_of_scale(scale: float) -> None:
    found, observed = two_gradients()
    scaled = [scale * one for one in observed]
    torch.testing.assert_close(CosineDistance()(found, scaled), CosineDistance()(found, observed))
    assert not torch.isclose(SquaredDistance()(found, scaled), SquaredDistance()(found, observed))


# Behaviour


def run(model: nn.Module, **settings: Any) -> GradientReconstruction:
    image, label = torch.full((1, 1, 4, 4), 0.4), torch.tensor([2])
    arguments: dict[str, Any] = {"iterations": 5, "seed": 0} | settings
    return GradientInversion(model, image_shape=(1, 4, 4)).reconstruct(gradients_of(model, image, label), **arguments)


def test_the_model_is_left_as_it_was_and_runs_repeat() -> None:
    model = small()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    state = torch.get_rng_state()
    first, second, other = run(model), run(model), run(model, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.images, second.images)
    assert not torch.equal(first.images, other.images)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert all(one.grad is None and one.requires_grad for one in model.parameters())


def test_more_restarts_fit_no_worse() -> None:
    losses = [run(small(), restarts=restarts).loss for restarts in (1, 2, 4)]
    assert losses == sorted(losses, reverse=True)


def test_names_and_order_mean_the_same_and_frozen_parameters_send_nothing() -> None:
    model, image, label = small(), pixels(), torch.tensor([1])
    model.get_parameter("1.bias").requires_grad_(False)
    sent = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    gradients = torch.autograd.grad(cross_entropy(model(image), label), [one for _, one in sent])
    by_name = {name: gradient for (name, _), gradient in reversed(list(zip(sent, gradients, strict=True)))}
    attack = GradientInversion(model, image_shape=(1, 4, 4))
    left, right = (attack.reconstruct(given, iterations=3, seed=0) for given in (gradients, by_name))
    assert torch.equal(left.images, right.images)
    assert left.loss == right.loss


@pytest.mark.parametrize("solver", [LineSearch(), BoundedDescent(), BoundedDescent(SignDescent(), signed=False)])
def test_progress_is_told_and_images_stay_inside(solver: Any) -> None:
    model, image, label = small(), 6.0 * pixels() - 2.5, torch.tensor([1])  # outside the bounds
    told: list[tuple[int, int, float]] = []
    attack = GradientInversion(model, image_shape=(1, 4, 4), solver=solver, tv_weight=1e-3)
    found = attack.reconstruct(
        gradients_of(model, image, label),
        iterations=20,
        restarts=2,
        seed=0,
        progress=lambda done, total, loss: told.append((done, total, loss)),
    )
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1][:2] == (40, 40)
    assert float(found.images.min()) >= 0.0
    assert float(found.images.max()) <= 1.0


# Refusals


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"model": len}, "model = 'builtin_function_or_method'"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(16, 4))}, "(Dropout) in training mode"),
        ({"model": nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 4))}, "(BatchNorm2d) in training mode"),
        ({"model": nn.Flatten()}, "parameters that require a gradient"),
        ({"model": small().requires_grad_(False)}, "parameters that require a gradient"),
        ({"model": nn.Conv2d(1, 2, 1)}, "one that answers logits (N, classes)"),
        ({"image_shape": (4, 4)}, "channels, height and width"),
        ({"image_shape": (1, 5, 4)}, "a shape that the model takes"),
        ({"bounds": (1, 0)}, "two finite numbers, the lower first"),
        ({"tv_weight": -1.0}, "tv_weight = -1.0 is not allowed; give a finite number of at least 0"),
    ],
)
def test_refuses_settings(settings: dict[str, Any], text: str) -> None:
    arguments: dict[str, Any] = {"model": small(), "image_shape": (1, 4, 4)} | settings
    with pytest.raises(ArgumentError) as caught:
        GradientInversion(**arguments)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"iterations": 0}, "iterations = 0 is not allowed; give a whole number of at least 1"),
        ({"restarts": True}, "restarts = True is not allowed; give a whole number of at least 1"),
        ({"seed": -1}, "seed = -1 is not allowed; give a whole number of at least 0"),
        ({"batch_size": 0}, "batch_size = 0 is not allowed; give a whole number of at least 1"),
        ({"labels": [1, 2], "batch_size": 3}, "batch_size = 3 is not allowed; give 2, as many as labels, or None"),
        ({"labels": [4]}, "labels = [4] is not allowed; give labels from 0 to 3, as the model has"),
        ({"labels": [-1]}, "labels = [-1] is not allowed; give labels from 0 to 3"),
        ({"labels": [1.0]}, "labels = [1.0] is not allowed; give whole numbers (B,)"),
        ({"labels": []}, "whole numbers (B,), at least one"),
        ({"labels": "two"}, "labels = 'two' is not allowed; give whole numbers (B,)"),
    ],
)
def test_refuses_arguments(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        run(small(), **arguments)
    assert text in str(caught.value)


def changed(place: int, value: Any) -> Callable[[list[Tensor]], Any]:
    return lambda gradients: [*gradients[:place], value, *gradients[place + 1 :]]


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (lambda gradients: gradients[:3], ArgumentError, "'3 tensors' is not allowed; give 4, one for each parameter"),
        (lambda gradients: gradients[0], ArgumentError, "'Tensor' is not allowed; give a sequence of tensors"),
        (lambda gradients: {"1.weight": gradients[0]}, ArgumentError, "['1.bias', '3.bias', '3.weight']"),
        (changed(1, torch.zeros(9)), ArgumentError, "'(9,) for 1.bias' is not allowed; give a tensor (8,)"),
        (changed(1, None), ArgumentError, "'NoneType for 1.bias' is not allowed; give a tensor (8,). Give zeros"),
        (changed(3, torch.full((4,), torch.nan)), DataError, "the gradient of 3.bias holds NaN or infinity"),
        (changed(3, torch.full((4,), torch.inf)), DataError, "the gradient of 3.bias holds NaN or infinity"),
        (lambda gradients: [0.0 * one for one in gradients], DataError, "there is nothing to invert"),
    ],
)
def test_refuses_gradients(change: Callable[[list[Tensor]], Any], kind: type[Exception], text: str) -> None:
    model = small()
    gradients = gradients_of(model, pixels(), torch.tensor([1]))
    with pytest.raises(kind) as caught:
        GradientInversion(model, image_shape=(1, 4, 4)).reconstruct(change(gradients), iterations=1, seed=0)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten()), 1),  # no linear layer
        (small(bias=False), 2),
        (small(2, bias=False), 1),  # two rows point against one another
        (nn.Sequential(small(), nn.LogSoftmax(1)), 1),
    ],
)
def test_asks_for_labels_that_the_gradient_does_not_show(model: nn.Module, count: int) -> None:
    images, labels = pixels(count), torch.arange(count)
    attack = GradientInversion(model, image_shape=(1, 4, 4))
    gradients = gradients_of(model, images, labels)
    with pytest.raises(ArgumentError, match=r"labels = None .* does not end in a linear layer that shows them"):
        attack.reconstruct(gradients, batch_size=count, iterations=1, seed=0)
    assert attack.reconstruct(gradients, labels=labels, iterations=1, seed=0).labels.tolist() == labels.tolist()


def test_refuses_a_model_that_was_put_in_training_mode_later() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(16, 4)).eval()
    gradients = gradients_of(model, pixels(), torch.tensor([1]))
    attack = GradientInversion(model, image_shape=(1, 4, 4))
    model.train()
    with pytest.raises(ArgumentError, match="in training mode"):
        attack.reconstruct(gradients, iterations=1, seed=0)


def test_says_when_no_run_is_finite() -> None:
    model = small()
    gradients = gradients_of(model, pixels(), torch.tensor([1]))
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(DataError, match="no run reached a finite loss"):
        GradientInversion(model, image_shape=(1, 4, 4)).reconstruct(gradients, iterations=2, seed=0)


def test_refuses_a_history_of_none() -> None:
    with pytest.raises(ArgumentError, match="history = 0 is not allowed; give a whole number of at least 1"):
        LineSearch(history=0)
