"""Measures against loops and closed forms; evaluations that would flatter are refused."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from privet import data, models, outputs, training
from privet.attacks.inversion import InversionQuality, Representation, evaluate
from privet.attacks.inversion.measures import nearest, peak_signal_to_noise, relative_distance, similarity
from privet.errors import ArgumentError, DataError
from privet.statistics import clopper_pearson, mean_interval


def images(count: int, seed: int, shape: tuple[int, ...] = (1, 8, 8)) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def test_distances_and_decibels_are_those_of_a_loop() -> None:
    left, right = images(5, 0, (3, 5, 7)), images(5, 1, (3, 5, 7))
    for index in range(5):
        a, b = left[index].double().numpy().ravel(), right[index].double().numpy().ravel()
        distance = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True))) / math.sqrt(sum(y * y for y in b))
        assert relative_distance(left, right)[index] == pytest.approx(distance, rel=1e-9)
        error = sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)
        assert peak_signal_to_noise(left, right)[index] == pytest.approx(-10 * math.log10(error), rel=1e-9)
        scaled = peak_signal_to_noise(255 * left, 255 * right, (0.0, 255.0))[index]
        assert scaled == pytest.approx(-10 * math.log10(error), rel=1e-5)
    assert peak_signal_to_noise(left, left).tolist() == [100.0] * 5
    assert relative_distance(torch.zeros_like(left), right).tolist() == pytest.approx([1.0] * 5)
    with pytest.raises(DataError, match="original 0 is zero"):
        relative_distance(left, torch.zeros_like(left))


def test_structural_similarity_is_the_definition_for_one_window() -> None:
    """An image as large as the kernel has one window: means, variances and covariance of all of its pixels."""
    left, right = images(3, 0, (1, 7, 7)), images(3, 1, (1, 7, 7))
    for index in range(3):
        x, y = left[index].double().numpy().ravel(), right[index].double().numpy().ravel()
        c1, c2 = 0.01**2, 0.03**2
        covariance = np.cov(x, y)
        top = (2 * x.mean() * y.mean() + c1) * (2 * covariance[0, 1] + c2)
        bottom = (x.mean() ** 2 + y.mean() ** 2 + c1) * (covariance[0, 0] + covariance[1, 1] + c2)
        assert similarity(left, right)[index] == pytest.approx(top / bottom, rel=1e-5)
    assert similarity(images(2, 0, (3, 4, 9)), images(2, 0, (3, 4, 9))).tolist() == pytest.approx([1.0, 1.0])
    with pytest.raises(DataError, match="3 by 3"):
        similarity(images(2, 0, (1, 2, 9)), images(2, 1, (1, 2, 9)))


def test_the_nearest_is_that_of_a_loop() -> None:
    left, right = images(6, 0), images(20, 1)
    expected = [min(range(20), key=lambda k: float((one - right[k]).norm())) for one in left]
    assert nearest(left, right).tolist() == expected


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_interval_of_a_mean_covers(shift: float) -> None:
    """2,000 draws of 30 normal values at 95%: 1,900 +- 44 (4.5 standard errors) cover; shifted ones hardly ever."""
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(2_000):
        found = mean_interval(generator.normal(shift, 1.0, 30))
        covered += found.low <= 0.0 <= found.high
    assert (1_856 <= covered <= 1_944) if shift == 0.0 else covered < 20


def test_few_values_have_student_s_interval() -> None:
    values = [0.1, 0.4, 0.2, 0.9, 0.3]
    found = mean_interval(values)
    reach = stats.t.ppf(0.975, 4) * np.std(values, ddof=1) / math.sqrt(5)
    assert (found.low, found.high) == pytest.approx((np.mean(values) - reach, np.mean(values) + reach), rel=1e-9)


def test_an_interval_ends_where_no_value_can_be() -> None:
    found = mean_interval([1.0, 1.0, 1.0, 1.0, 0.5], least=0.0, most=1.0)
    assert (found.value, found.high) == (0.9, 1.0)
    with pytest.raises(DataError, match="values from 0 to 1"):
        mean_interval([0.5, 0.5, 0.5, 0.5, 1.5], least=0.0, most=1.0)


@pytest.fixture(scope="module")
def scene() -> dict[str, Any]:
    """A network that was trained on digits, a judge from another seed, and what the attack has to find."""
    train, rest = data.digits().split(1_000, 700, seed=0)
    networks = []
    for seed in (1, 2):
        network = models.MLP((64, 64, 10), seed=seed)
        training.fit(network, train, epochs=15, batch_size=32, seed=seed, learning_rate=0.01, progress=False)
        networks.append(network.eval())
    originals, labels = rest.inputs[:40], rest.labels[:40]
    attacked, judge = networks
    attack = Representation(attacked, layer="features.fc1", image_shape=(1, 8, 8), tv_weight=0.02, norm_weight=0.0)
    targets = attacked.get_submodule("features.fc1")(originals.flatten(1)).detach()
    return {
        "images": attack.reconstruct(targets, iterations=100, seed=0).images,
        "originals": originals,
        "labels": labels,
        "judge": judge,
        "attacked": attacked,
        "training": (train.inputs, train.labels),
        "candidates": rest.inputs[40:],
    }


def judged(scene: dict[str, Any], **changed: Any) -> InversionQuality:
    given = scene | changed
    return evaluate(given.pop("images"), given.pop("originals"), given.pop("labels"), **given)


def test_a_good_reconstruction_beats_both_baselines(scene: dict[str, Any]) -> None:
    found = judged(scene)
    assert found.reidentifies
    assert found.candidates == 661
    assert found.reconstruction.reidentified.low > 10 * found.class_mean.reidentified.value
    assert found.reconstruction.relative_l2.high < found.nearest_other.relative_l2.low
    assert found.reconstruction.ssim.low > found.class_mean.ssim.high
    assert found.reconstruction.confidence.value > 0.8
    assert "nearest other" in str(found)
    assert max(map(len, str(found).splitlines())) <= 80
    assert len(found.reconstruction.distances) == 40


def test_each_number_is_the_plain_mean(scene: dict[str, Any]) -> None:
    found = judged(scene)
    logits = scene["judge"](scene["images"]).detach().double().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    own = [row[label] for row, label in zip(shares, scene["labels"].tolist(), strict=True)]
    assert found.reconstruction.confidence.value == pytest.approx(float(np.mean(own)), rel=1e-6)
    hits = 0
    for image, original in zip(scene["images"], scene["originals"], strict=True):
        distances = [float((image - other).norm()) for other in (original, *scene["candidates"])]
        hits += int(np.argmin(distances)) == 0
    assert found.reconstruction.reidentified == clopper_pearson(hits, 40)
    classes = scene["training"][1]
    mean = torch.stack([scene["training"][0][classes == label].mean(0) for label in scene["labels"]])
    expected = mean_interval(relative_distance(mean, scene["originals"]), least=0.0)
    assert found.class_mean.relative_l2.low == pytest.approx(expected.low, rel=1e-6)


def test_the_nearest_other_is_the_nearest_training_image(scene: dict[str, Any]) -> None:
    inputs, originals = scene["training"][0], scene["originals"]
    others = torch.stack([min(inputs, key=lambda one: float((one - original).norm())) for original in originals])
    expected = mean_interval(relative_distance(others, originals), least=0.0)
    assert judged(scene).nearest_other.relative_l2.value == pytest.approx(expected.value, rel=1e-9)


def test_the_verdict_asks_that_the_intervals_do_not_meet(scene: dict[str, Any]) -> None:
    found = judged(scene)
    for ours, by_class, said in ((12, 1, True), (5, 1, False), (2, 1, False), (1, 0, False)):
        one = dataclasses.replace(found.reconstruction, reidentified=clopper_pearson(ours, 40))
        other = dataclasses.replace(found.class_mean, reidentified=clopper_pearson(by_class, 40))
        assert dataclasses.replace(found, reconstruction=one, class_mean=other).reidentifies is said


def test_an_original_that_stands_beside_a_copy_is_not_found() -> None:
    """Equally near is not nearer."""
    generator = torch.Generator().manual_seed(0)
    originals, training = (torch.rand(size, 1, 4, 4, generator=generator) for size in (6, 20))
    candidates = originals + torch.where(torch.rand(6, 1, 4, 4, generator=generator) < 0.5, -0.001, 0.001)
    between = (originals + candidates.clamp(0, 1)) / 2.0
    found = evaluate(
        between.double(),
        originals.double(),
        torch.zeros(6, dtype=torch.int64),
        judge=nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double().eval(),
        attacked=None,
        training=(training, torch.zeros(20, dtype=torch.int64)),
        candidates=(2 * between - originals).double(),
    )
    assert found.reconstruction.reidentified.value < 1.0


def test_bounds_are_those_of_the_pixels(scene: dict[str, Any]) -> None:
    """With too wide ones noise has 54 dB and a similarity of 0.99."""
    noise = torch.rand(scene["originals"].shape, generator=torch.Generator().manual_seed(0))
    for bounds, said in (((0, 255), "span 1"), ((0, 0.5), "hold the originals, 0 to 1"), ((1, 0), "the lower first")):
        with pytest.raises(ArgumentError, match=said):
            judged(scene, images=noise, bounds=bounds)
    plain = judged(scene)
    scaled = judged(
        scene | {name: 255 * scene[name] for name in ("images", "originals", "candidates")},
        training=(255 * scene["training"][0], scene["training"][1]),
        judge=Scaled(scene["judge"]).eval(),
        bounds=(0, 255),
    )
    for measure in ("psnr", "ssim", "relative_l2", "confidence"):
        ours, theirs = (getattr(one.reconstruction, measure).value for one in (scaled, plain))
        assert ours == pytest.approx(theirs, rel=1e-4)


class Scaled(nn.Module):
    def __init__(self, judge: nn.Module) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.judge(images / 255)
        return found


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        (lambda judge: nn.Sequential(judge, nn.Softmax(1)), "one that answers probabilities.*leave its own out"),
        (lambda judge: nn.Sequential(judge, nn.Linear(10, 3)), r"logits \(N, 10 classes or more\)"),
        (lambda judge: nn.Sequential(judge, nn.Unflatten(1, (5, 2))), r"\(40, 5, 2\)"),
        (lambda judge: judge.forward, "a network without a defense"),
        (lambda judge: outputs.TopK(judge, 3), "a network without a defense"),
    ],
)
def test_a_judge_that_answers_something_else_is_refused(scene: dict[str, Any], judge: Any, said: str) -> None:
    made = judge(scene["judge"])
    with pytest.raises(ArgumentError, match=said):
        judged(scene, judge=made.eval() if isinstance(made, nn.Module) else made)


def test_evaluation_against_the_wrong_images_finds_nothing(scene: dict[str, Any]) -> None:
    """Planted: the originals are those of others."""
    order = torch.arange(40).roll(1)
    found = judged(scene, originals=scene["originals"][order], labels=scene["labels"][order])
    assert not found.reidentifies
    assert found.reconstruction.relative_l2.low > judged(scene).reconstruction.relative_l2.high


def test_the_sign_of_the_gradient_flipped_finds_nothing(scene: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *given, **named: tuple(-one for one in grad(*given, **named)))
    attacked = scene["attacked"]
    attack = Representation(attacked, layer="features.fc1", image_shape=(1, 8, 8), tv_weight=0.02, norm_weight=0.0)
    targets = attacked.get_submodule("features.fc1")(scene["originals"].flatten(1)).detach()
    assert not judged(scene, images=attack.reconstruct(targets, iterations=100, seed=0).images).reidentifies


@pytest.mark.parametrize("offset", [0.0, 255.0, 1_000.0])
def test_near_copies_are_told_apart_wherever_the_pixels_lie(scene: dict[str, Any], offset: float) -> None:
    """Noise of 0.01 on the reconstructions, of 0.02 on copies among the candidates."""
    generator = torch.Generator().manual_seed(0)
    originals = scene["originals"].double() + offset
    noise = [torch.randn(originals.shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    found = judged(
        scene,
        originals=originals,
        images=originals + 0.01 * noise[0],
        candidates=originals + 0.02 * noise[1],
        training=(scene["training"][0].double() + offset, scene["training"][1]),
        bounds=(offset, offset + 1.0),
    )
    assert found.reconstruction.reidentified.value == 1.0


def test_a_judge_that_is_not_independent_is_refused(scene: dict[str, Any]) -> None:
    attacked = scene["attacked"]
    shared = nn.Sequential(attacked.features, nn.Flatten(), nn.Linear(64, 10)).eval()
    for judge in (attacked, copy.deepcopy(attacked), shared):
        with pytest.raises(ArgumentError, match="trained independently"):
            judged(scene, judge=judge)
    with pytest.raises(ArgumentError, match="evaluation mode"):
        judged(scene, judge=copy.deepcopy(scene["judge"]).train())
    assert judged(scene, attacked=None).reidentifies


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda scene: {"images": scene["images"][:, :, 1:]}, "shape"),
        (lambda scene: {"images": scene["images"] * float("nan")}, "reconstructions hold NaN"),
        (lambda scene: {"labels": scene["labels"][:3]}, "one class for each of 40"),
        (lambda scene: {"training": (scene["training"][0][:, :, 1:], scene["training"][1])}, "training of shape"),
        (lambda scene: {"candidates": scene["candidates"][:0]}, "candidates of shape"),
        (lambda scene: {"candidates": scene["candidates"] * float("nan")}, "candidates hold NaN"),
        (lambda scene: {"training": (scene["training"][0], scene["training"][1][:5])}, "training labels of shape"),
        (
            lambda scene: {"candidates": torch.cat((scene["candidates"], scene["training"][0][7:8]))},
            "candidate 660 is among the training images",
        ),
        (
            lambda scene: {"candidates": torch.cat((scene["candidates"], scene["originals"][3:4])).double()},
            "original 3 is among",
        ),
        (
            lambda scene: {"candidates": torch.cat((scene["candidates"], scene["originals"][3:4]))},
            "original 3 is among",
        ),
        (
            lambda scene: {
                "training": (
                    torch.cat((scene["training"][0], scene["originals"][5:6])),
                    torch.cat((scene["training"][1], scene["labels"][5:6])),
                )
            },
            "original 5 is among the training",
        ),
        (lambda scene: {"labels": scene["labels"] + 10}, "no image of class"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(scene: dict[str, Any], change: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        judged(scene, **change(scene))
