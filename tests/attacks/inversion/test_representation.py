"""Reconstruction against a loop over single images, closed forms, and every kind of part and answer."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from privet import models, outputs
from privet.attacks.inversion import AdamDescent, Normalisation, Representation, SignDescent
from privet.attacks.inversion.observation import distance_to
from privet.attacks.inversion.priors import priors, total_variation
from privet.errors import ArgumentError, DataError
from privet.output_form import OutputForm

SHAPE = (2, 6, 9)  # neither square nor of one channel


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 4 * 7, 5)).eval()


def originals(count: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def attack(part: Any = None, **changed: Any) -> Representation:
    return Representation(network() if part is None else part, **{"image_shape": SHAPE, "start": 0.5} | changed)


def reference_loss(answer: Tensor, target: Tensor, image: Tensor, tv_weight: float, norm_weight: float) -> float:
    """Of one image, pixel by pixel."""
    channels, height, width = image.shape
    pixels = image.double().numpy()
    variation = 0.0
    for c in range(channels):
        for h in range(height):
            for w in range(width):
                if h + 1 < height:
                    variation += (pixels[c, h + 1, w] - pixels[c, h, w]) ** 2
                if w + 1 < width:
                    variation += (pixels[c, h, w + 1] - pixels[c, h, w]) ** 2
    apart = float(((answer - target) ** 2).sum() / (target**2).sum())
    return apart + (tv_weight * variation + norm_weight * float((pixels**2).sum())) / pixels.size


def test_the_loss_is_the_one_of_a_loop_over_pixels() -> None:
    part = network()
    targets = part(originals(seed=1)).detach()
    found = attack(part, tv_weight=0.7, norm_weight=0.2).reconstruct(targets, iterations=3, seed=0)
    for index in range(4):
        image = found.images[index]
        answer = part(image[None]).detach()[0]
        expected = reference_loss(answer, targets[index], image, 0.7, 0.2)
        assert float(found.losses[index]) == pytest.approx(expected, rel=1e-5)
        assert float(found.distances[index]) == pytest.approx(
            reference_loss(answer, targets[index], image, 0, 0), rel=1e-5
        )


def test_the_priors_and_their_gradient_by_hand_are_those_of_autograd() -> None:
    images = originals().double().requires_grad_()
    expected = 0.7 * total_variation(images) + 0.2 * images.square().flatten(1).mean(1)
    (gradient,) = torch.autograd.grad(expected.sum(), images)
    value, by_hand = priors(images.detach(), 0.7, 0.2)
    assert torch.allclose(value, expected.detach(), atol=1e-12)
    assert torch.allclose(by_hand, gradient, atol=1e-12)


@pytest.mark.parametrize("descent", [AdamDescent(), SignDescent()])
def test_all_at_once_is_each_by_itself(descent: Any) -> None:
    """The same first image for each: what others are in the batch does not matter."""
    part = network()
    targets = part(originals()).detach()

    together = attack(part, descent=descent).reconstruct(targets, iterations=40, seed=3)
    first = attack(part, descent=descent).reconstruct(targets[:1], iterations=40, seed=3)
    assert torch.allclose(together.images[:1], first.images, atol=1e-4)


class Recorded:
    """A descent that hears what each move is made of."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.moves = inner, []

    def begin(self, pixel_range: float) -> Any:
        mover = self.inner.begin(pixel_range)

        class Heard:
            def move(heard, images: Tensor, gradient: Tensor, share: float) -> None:
                before = images.clone()
                mover.move(images, gradient, share)
                self.moves.append(float((images - before).abs().max()))

        return Heard()


@pytest.mark.parametrize("descent", [AdamDescent(0.1), SignDescent(0.1)])
def test_steps_are_shares_of_the_range_and_fall_along_a_half_cosine(descent: Any) -> None:
    """Adam's first step is its whole step: its moments are corrected for where they began."""
    heard = Recorded(descent)
    attack(descent=heard, bounds=(0, 50), tv_weight=0.0).reconstruct(torch.randn(2, 5), iterations=40, seed=0)
    assert heard.moves[0] == pytest.approx(0.1 * 50, rel=1e-4)
    assert heard.moves[-1] < 0.02 * 50 * 0.1
    if isinstance(descent, SignDescent):
        expected = [5.0 * 0.5 * (1 + math.cos(math.pi * step / 40)) for step in range(40)]
        assert heard.moves == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_label_wins_by_a_margin_and_absent_classes_are_far_but_not_infinitely() -> None:
    cpu = torch.device("cpu")
    distance, _ = distance_to(torch.tensor([1]), OutputForm(labels_only=True), cpu)
    assert distance(torch.tensor([[0.0, 0.5]])).tolist() == pytest.approx([0.25])
    assert distance(torch.tensor([[0.0, 1.0]])).tolist() == [0.0]
    top, _ = distance_to(Top(torch.tensor([[0.5]]), torch.tensor([[0]])), OutputForm(k=1, probabilities=True), cpu)
    sure = float(top(torch.tensor([[300.0, 0.0]])))
    assert sure == pytest.approx(0.5 * math.log(0.5) * 2 + 0.5 * 100.0, rel=1e-5)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(4, track_running_stats=False), nn.LSTM(4, 4, 2, dropout=0.5)])
def test_layers_that_mix_or_draw_are_refused(layer: nn.Module) -> None:
    net = nn.Sequential(network(), layer)
    if isinstance(layer, nn.BatchNorm2d):
        net.eval()
    with pytest.raises(ArgumentError, match=r"without running statistics|in training mode"):
        attack(net)


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(nn.functional.dropout(images, 0.5, True))


def centred(images: Tensor) -> Tensor:
    return network()(images - images.mean(0))


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (Dropped().eval(), "another answer about the same image.*random"),
        (centred, "another answer about the same image.*other images of its batch"),
        (lambda images: network()(images)[:1], r"answers \(1, 5\)"),
        (lambda images: (network()(images),), "answers a tuple"),
        (lambda images: network()(images).detach(), "answers without a gradient"),
        (lambda images: network()(images[:, :1]), r"image_shape = \(2, 6, 9\).*The network says"),
    ],
)
def test_what_does_not_answer_about_each_image_is_refused(part: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        attack(part).reconstruct(torch.randn(4, 5), iterations=2, seed=0)


def test_a_defense_without_behind_and_behind_without_a_defense_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"Use Representation\.behind"):
        attack(outputs.TopK(network(), 3))
    with pytest.raises(ArgumentError, match=r"in a defense of privet\.outputs"):
        Representation.behind(network(), image_shape=SHAPE)  # type: ignore[arg-type]


def test_other_arguments_that_cannot_be() -> None:
    observed = torch.randn(2, 5)
    with pytest.raises(ArgumentError, match="descent = 'adam'"):
        attack(descent="adam")
    with pytest.raises(ArgumentError, match="progress = None"):
        attack().reconstruct(observed, iterations=1, seed=0, progress=None)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"2\^64"):
        attack().reconstruct(observed, iterations=1, seed=2**70)


def test_in_inference_mode_it_works_too() -> None:
    with torch.inference_mode():
        net = network()
        observed = net(originals())
    net = network()
    with torch.inference_mode():
        found = attack(net).reconstruct(observed, iterations=3, seed=0)
    assert torch.equal(found.images, attack(net).reconstruct(observed.clone(), iterations=3, seed=0).images)


def test_an_invertible_network_is_inverted() -> None:
    part = nn.Sequential(nn.Flatten(), nn.Linear(108, 150)).eval()
    images = originals()
    found = attack(part, tv_weight=0.0, norm_weight=0.0).reconstruct(part(images).detach(), iterations=600, seed=0)
    assert float((found.images - images).abs().max()) < 0.02


def test_bounds_and_normalisation_are_those_of_the_pixels() -> None:
    part = nn.Sequential(nn.Flatten(), nn.Linear(108, 150)).eval()
    images = 255.0 * originals()
    normalise = Normalisation((100.0, 30.0), (50.0, 80.0))
    targets = part(normalise(images)).detach()
    settings: dict[str, Any] = {"bounds": (0, 255), "normalisation": normalise, "tv_weight": 0.0, "norm_weight": 0.0}
    found = attack(part, **settings).reconstruct(targets, iterations=600, seed=0)
    assert float((found.images - images).abs().max()) < 5.0
    narrow = attack(part, **settings | {"bounds": (50, 120)}).reconstruct(targets, iterations=20, seed=0)
    assert 50.0 <= float(narrow.images.min()) < float(narrow.images.max()) <= 120.0


def test_more_work_never_fits_worse_and_restarts_keep_the_best_of_each() -> None:
    part = network()
    targets = part(originals()).detach()
    runs = [attack(part).reconstruct(targets, iterations=count, seed=0) for count in (1, 10, 100)]
    means = [float(run.losses.mean()) for run in runs]
    assert means == sorted(means, reverse=True)
    several = attack(part).reconstruct(targets, iterations=10, restarts=4, seed=0)
    assert bool((several.losses <= runs[1].losses).all())
    assert bool((several.losses < runs[1].losses).any())


def test_it_is_repeatable_and_leaves_the_network_and_the_global_state_alone() -> None:
    part = network()
    targets = part(originals()).detach()
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in part.state_dict().items()}
    first, second = (attack(part).reconstruct(targets, iterations=5, seed=1) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(state[name], value) for name, value in part.state_dict().items())
    assert all(value.grad is None for value in part.parameters())
    other = attack(part).reconstruct(targets, iterations=5, seed=2)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("layer", ["features.conv1", "features.pool2", "classifier.fc1", None])
def test_a_layer_by_name_is_that_part_of_the_network(layer: str | None) -> None:
    net = models.LeNet5(seed=0).eval()
    images = torch.rand(2, 1, 28, 28)
    seen: list[Tensor] = []
    module = net if layer is None else net.get_submodule(layer)
    handle = module.register_forward_hook(lambda *given: seen.append(given[2].detach()))
    net(images)
    handle.remove()
    settings: dict[str, Any] = {"image_shape": (1, 28, 28)}
    found = Representation(net, layer=layer, **settings).reconstruct(seen[0], iterations=5, seed=0)
    assert found.images.shape == images.shape
    assert not any(one._forward_hooks for one in net.modules())
    if layer == "features.pool2":
        whole = Representation(net.features, **settings).reconstruct(seen[0], iterations=5, seed=0)
        assert torch.allclose(whole.images, found.images)


def test_a_vgg_layer_of_three_channels() -> None:
    net = models.VGG16(classes=10, seed=0).eval()
    images = torch.rand(2, 3, 32, 32)
    targets = net.features[:5](images).detach()
    name = next(name for name, module in net.named_modules() if module is net.features[4])
    found = Representation(net, image_shape=(3, 32, 32), layer=name, start=0.5).reconstruct(
        targets, iterations=8, seed=0
    )
    start = Representation(net, image_shape=(3, 32, 32), layer=name, start=0.5).reconstruct(
        targets, iterations=1, seed=0
    )
    assert bool((found.losses < start.losses).all())


@pytest.mark.parametrize(
    "defend",
    [
        lambda net: outputs.Rounding(net, 2),
        lambda net: outputs.TopK(net, 3),
        lambda net: outputs.TopK(outputs.Rounding(net, 1), 1),
        lambda net: outputs.TopK(net, 3, softmax=False),
        lambda net: outputs.Rounding(net, 3, softmax=False),
        outputs.Labeling,
    ],
    ids=["2 decimals", "top 3", "top 1 of 1 decimal", "top 3 logits", "rounded logits", "label"],
)
def test_behind_a_defense_the_answer_is_matched(defend: Any) -> None:
    net = network()
    for value in net.parameters():
        value.data *= 3.0
    served = defend(net)
    observed = served(originals())
    found = Representation.behind(served, image_shape=SHAPE, start=0.5, tv_weight=0.01, norm_weight=0.0).reconstruct(
        observed, iterations=200, seed=0
    )
    again = served(found.images)
    labels = observed if isinstance(observed, Tensor) and observed.dim() == 1 else None
    if labels is not None:
        assert torch.equal(again, labels)
    else:
        values, wanted = (again[0], observed[0]) if isinstance(observed, tuple) else (again, observed)
        assert float((values - wanted).abs().mean()) < 0.06 * float(wanted.abs().max())


class Boxes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"boxes": images.flatten(1)[:, :4], "logits": self.network(images)}


@pytest.mark.parametrize("keep", [(), ("boxes",)])
def test_behind_a_defense_of_a_part_of_the_answer(keep: tuple[str, ...]) -> None:
    whole = Boxes().eval()
    part, plain = outputs.Rounding(whole, 2, part="logits", keep=keep), outputs.Rounding(whole.network, 2)
    observed = plain(originals())
    assert torch.equal(part(originals())[0] if keep else part(originals()), observed)
    found = [
        Representation.behind(one, image_shape=SHAPE).reconstruct(one(originals()), iterations=5, seed=0).images
        for one in (part, plain)
    ]
    assert torch.equal(*found)


def test_a_function_gets_images_of_the_type_of_its_targets() -> None:
    net = network().double()
    observed = net(originals().double()).detach()
    found = attack(lambda images: net(images)).reconstruct(observed, iterations=3, seed=0)
    assert found.images.dtype == torch.float64
    assert attack().reconstruct(observed.float(), iterations=3, seed=0).images.dtype == torch.float32


class Top(NamedTuple):
    values: Tensor
    indices: Tensor


def test_distances_are_zero_where_the_answer_is_the_observed_one() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0, -1.0], [0.0, 0.5, 2.0, -4.0]])
    cpu = torch.device("cpu")
    probabilities = logits.softmax(1)
    top = probabilities.topk(2)
    given: list[tuple[Any, OutputForm]] = [
        (logits, OutputForm()),
        (probabilities, OutputForm(probabilities=True)),
        (Top(*top), OutputForm(k=2, probabilities=True)),
        (Top(*logits.topk(2)), OutputForm(k=2)),
        (logits.argmax(1), OutputForm(labels_only=True)),
    ]
    for observed, form in given:
        distance, count = distance_to(observed, form, cpu)
        assert count == 2
        assert distance(logits).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
        assert bool((distance(logits.flip(1)) > 0.01).all())
    distance, _ = distance_to(probabilities, OutputForm(probabilities=True), cpu)
    other = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    p, q = probabilities.double().numpy(), other.double().softmax(1).numpy()
    assert distance(other).tolist() == pytest.approx((p * np.log(p / q)).sum(1).tolist(), rel=1e-5)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"image_shape": (6, 9)}, "channels, height and width"),
        ({"image_shape": (2, 0, 9)}, "image_shape = 0"),
        ({"bounds": (1, 0)}, "the lower first"),
        ({"bounds": (0, float("inf"))}, "two finite numbers"),
        ({"bounds": 1}, "a pair of numbers"),
        ({"tv_weight": -1.0}, "tv_weight = -1.0"),
        ({"norm_weight": float("nan")}, "norm_weight = nan"),
        ({"layer": "9"}, "the name of a module within"),
        ({"start": 2.0}, "start = 2.0"),
        ({"normalisation": Normalisation((0.0,) * 3, (1.0,) * 3)}, "means of 1 or 2 channels"),
    ],
)
def test_settings_that_cannot_be_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        attack(**changed)


@pytest.mark.parametrize(
    ("targets", "error", "said"),
    [
        (torch.zeros(3, 5), DataError, "zero everywhere"),
        (torch.full((3, 5), float("nan")), DataError, "answer 0 holds NaN"),
        (torch.rand(3, 4), ArgumentError, r"\(3, 5\)"),
        (torch.rand(5), ArgumentError, r"answers \(N, ...\)"),
        (torch.zeros(3, 5, dtype=torch.int64), ArgumentError, "floating-point"),
        (torch.rand(0, 5), ArgumentError, "at least one"),
        ("answers", ArgumentError, "a tensor or an array"),
    ],
)
def test_targets_that_cannot_be_are_refused(targets: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        attack().reconstruct(targets, iterations=2, seed=0)


@pytest.mark.parametrize(
    ("observed", "form", "error", "said"),
    [
        (torch.full((2, 4), 0.25), OutputForm(probabilities=True), ArgumentError, r"\(2, 5\)"),
        (torch.full((2, 5), 3.0), OutputForm(probabilities=True), DataError, "no probabilities"),
        (torch.full((2, 5, 5), 0.2), OutputForm(probabilities=True), ArgumentError, r"probabilities \(N, classes\)"),
        (torch.tensor([1, 7]), OutputForm(labels_only=True), ArgumentError, "classes 1 to 7"),
        (Top(torch.full((2, 1), 0.9), torch.tensor([[0], [9]])), OutputForm(k=1), ArgumentError, "classes 0 to 9"),
    ],
)
def test_defended_answers_that_cannot_be_are_refused(
    observed: Any, form: OutputForm, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        attack(form=form).reconstruct(observed, iterations=2, seed=0)


def test_where_all_was_rounded_away_any_image_will_do() -> None:
    net = network()
    observed = torch.zeros(3, 5)
    observed[1, 2] = 1.0
    form = OutputForm(decimals=0, probabilities=True)
    found = attack(net, form=form, norm_weight=0.0).reconstruct(observed, iterations=60, seed=0)
    assert found.distances[[0, 2]].tolist() == [0.0, 0.0]
    assert int(net(found.images)[1].argmax()) == 2


def test_rounded_probabilities_are_at_no_distance_from_themselves() -> None:
    net = network()
    served = outputs.Rounding(net, 2)
    images = originals()
    distance, _ = distance_to(served(images), served.output_form, torch.device("cpu"))
    assert bool((distance(net(images)) < 0.001).all())


def test_modes_that_would_answer_otherwise_each_time_are_refused() -> None:
    for layer in (nn.Dropout(), nn.BatchNorm2d(4), nn.InstanceNorm2d(4, track_running_stats=True), nn.RReLU()):
        net = nn.Sequential(nn.Conv2d(2, 4, 3), layer, nn.Flatten(), nn.Linear(112, 5))
        with pytest.raises(ArgumentError, match="evaluation mode"):
            attack(net)
        ready = attack(net.eval())
        net.train()
        with pytest.raises(ArgumentError, match="evaluation mode"):
            ready.reconstruct(torch.rand(2, 5), iterations=2, seed=0)


def test_random_targets_are_not_reached_and_it_says_so() -> None:
    targets = 50.0 * torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    found = attack().reconstruct(targets, iterations=50, seed=0)
    assert bool((found.distances > 0.5).all())


def test_half_precision_and_layers_behind_a_defense_are_refused() -> None:
    with pytest.raises(ArgumentError, match="float32 or float64"):
        attack(network().bfloat16()).reconstruct(torch.rand(2, 5), iterations=2, seed=0)
    with pytest.raises(ArgumentError, match="None behind a defense"):
        Representation.behind(outputs.Labeling(network()), image_shape=SHAPE, layer="0")


def test_it_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        assert bool(attack().reconstruct(torch.rand(2, 5), iterations=2, seed=0).losses.isfinite().all())


def test_progress_is_told() -> None:
    told: list[tuple[int, int, float]] = []
    attack().reconstruct(torch.rand(2, 5), iterations=3, restarts=2, seed=0, progress=lambda *given: told.append(given))
    assert [(done, total) for done, total, _ in told] == [(step, 6) for step in range(1, 7)]
