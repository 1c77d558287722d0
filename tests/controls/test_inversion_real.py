"""On real images: what comes out of LeNet-5's convolutional part, and what does not come out of a label."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from benchmarks import inversion as benchmark

from privet import data, models, outputs, training
from privet.attacks.inversion import InversionQuality, Representation, SignDescent, evaluate
from privet.attacks.inversion.measures import relative_distance

pytestmark = pytest.mark.slow

IMAGES, CANDIDATES = 100, 1_000
SETTINGS: dict[str, Any] = {"image_shape": (1, 28, 28)}


@pytest.fixture(scope="module")
def scene() -> dict[str, Any]:
    train, unseen = data.mnist5k().split(3_000, IMAGES + CANDIDATES - 1, seed=0)
    networks = []
    for seed in (1, 2):
        network = models.LeNet5(seed=seed)
        training.fit(network, train, epochs=5, batch_size=32, seed=seed, learning_rate=1e-3, progress=False)
        networks.append(network.eval())
    return {"train": train, "unseen": unseen, "attacked": networks[0], "judge": networks[1]}


def quality(scene: dict[str, Any], attack: Representation, observed: Any) -> InversionQuality:
    train, unseen = scene["train"], scene["unseen"]
    return evaluate(
        attack.reconstruct(observed, iterations=100, seed=0).images,
        unseen.inputs[:IMAGES],
        unseen.labels[:IMAGES],
        judge=scene["judge"],
        attacked=scene["attacked"],
        training=(train.inputs, train.labels),
        candidates=unseen.inputs[IMAGES:],
    )


def test_from_the_convolutional_part_ten_times_the_baseline(scene: dict[str, Any]) -> None:
    """The exact interval of 100 images; among 1,000 candidates each."""
    network = scene["attacked"]
    with torch.no_grad():
        observed = network.features(scene["unseen"].inputs[:IMAGES])
    found = quality(scene, Representation(network.features, **SETTINGS), observed)
    assert found.candidates == CANDIDATES
    assert found.reconstruction.reidentified.low > 10 * found.class_mean.reidentified.value
    assert found.reconstruction.reidentified.low > 3 * found.class_mean.reidentified.high
    assert found.reidentifies
    assert found.reconstruction.relative_l2.high < found.class_mean.relative_l2.low


@pytest.mark.parametrize("part", [lambda network: network, lambda network: network.features], ids=["logits", "part"])
def test_at_equal_iterations_images_are_no_further_than_a_loop_s(part: Any) -> None:
    """The loop of the benchmark, one image at a time."""
    originals = data.mnist5k().split(2_000, benchmark._IMAGES, seed=0)[1].inputs
    torch.manual_seed(0)
    loop = relative_distance(torch.cat(benchmark._loop(part)()).detach(), originals).mean()
    for make in (Representation, partial(Representation, descent=SignDescent())):
        found: Any = benchmark._at_once(part, make)()
        assert relative_distance(found.images, originals).mean() < loop


def test_from_a_label_no_more_than_the_baseline(scene: dict[str, Any]) -> None:
    served = outputs.Labeling(scene["attacked"])
    observed = served(scene["unseen"].inputs[:IMAGES])
    found = quality(scene, Representation.behind(served, **SETTINGS), observed)
    assert not found.reidentifies
    assert found.reconstruction.relative_l2.low > found.class_mean.relative_l2.high
