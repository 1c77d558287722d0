"""A stop: images reconstructed from what the network says of them, before and after its answers are defended."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from privet import data, outputs, training
from privet.attacks.inversion import InversionQuality, Quality, Representation, evaluate, from_best_to_worst
from privet.cli.tour.scene import BATCH_SIZE, EPOCHS, LEARNING_RATE, MOMENTUM, Scene, network_of
from privet.cli.tour.stop import StopResult
from privet.report import Cell, Gallery, Note, Picture, Section, Table, Text, picture

__all__ = ["inversion"]

_IMAGES, _SHOWN, _CANDIDATES, _ITERATIONS = 100, 8, 1_000, 100
_LAYER = "features.fc1"


def inversion(scene: Scene) -> StopResult:
    """Invert what the network answers about images that it never saw, from a layer and from each defense.

    Args:
        scene: the network under study.

    Returns:
        No line of the table of membership, and one section.
    """
    others = scene.non_members
    originals, labels = others.inputs[:_IMAGES], others.labels[:_IMAGES]
    given: dict[str, Any] = {
        "judge": _judge(scene),
        "attacked": scene.network,
        "training": (scene.members.inputs, scene.members.labels),
        "candidates": others.inputs[_IMAGES : _IMAGES + _CANDIDATES - 1],
    }
    found: dict[str, tuple[Tensor, InversionQuality]] = {}
    for name, attack, observed in _attacks(scene.network, originals):
        images = attack.reconstruct(observed, iterations=_ITERATIONS, seed=scene.seed).images
        found[name] = (images, evaluate(images, originals, labels, **given))
    return StopResult((), (_section(originals, found),))


def _attacks(network: nn.Module, originals: Tensor) -> list[tuple[str, Representation, Any]]:
    shape = originals.shape[1:]
    with torch.no_grad():
        hidden = network.get_submodule(_LAYER)(originals.flatten(1))
        everything = network(originals)
    rows = [
        ("a hidden layer", Representation(network, layer=_LAYER, image_shape=shape), hidden),
        ("the full answer", Representation(network, image_shape=shape), everything),
    ]
    defenses = {"the top 3": outputs.TopK(network, 3), "the label": outputs.Labeling(network)}
    return rows + [
        (name, Representation.behind(served, image_shape=shape), served(originals)) for name, served in defenses.items()
    ]


def _judge(scene: Scene) -> nn.Module:
    """Trained on images of its own, from other first weights: it was not fooled when the attacked one was."""
    judge = network_of(scene.seed + 1)
    examples: data.Examples = scene.non_members.take(range(len(scene.non_members) - 1_000, len(scene.non_members)))
    training.fit(
        judge,
        examples,
        epochs=EPOCHS // 4,
        batch_size=BATCH_SIZE,
        seed=scene.seed,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=MOMENTUM),
        progress=False,
    )
    return judge.eval()


def _section(originals: Tensor, found: dict[str, tuple[Tensor, InversionQuality]]) -> Section:
    best = next(iter(found.values()))[1]
    chosen = from_best_to_worst(best.reconstruction.distances, _SHOWN)
    galleries = [_gallery("The originals", originals, chosen, None)]
    galleries += [_gallery(f"From {name}", images, chosen, quality) for name, (images, quality) in found.items()]
    baseline = next(iter(found.values()))[1].class_mean
    rows = [(f"from {name}", quality.reconstruction) for name, (_, quality) in found.items()]
    cells = tuple(
        (
            name,
            Cell(one.reidentified, (0.0, 1.0), chance=1.0 / best.candidates, percent=True),
            str(one.relative_l2),
            str(one.ssim),
            str(one.confidence),
        )
        for name, one in (*rows, ("the mean image of the class", baseline))
    )
    return Section(
        "What an image looked like",
        (
            Text(
                (
                    "Whoever has the network can search for an image that it answers in the same way. Here it is done "
                    f"for {_IMAGES} images that the network never saw: from the numbers of its hidden layer, as split "
                    "services pass them on, and from what it answers, in full and behind two defenses.",
                    _meaning(found),
                )
            ),
            *galleries,
            Table(
                f"Found: how often the original is the nearest of {best.candidates:,} images; the dotted mark is a "
                "guess. Distance: of the pixels, 0 is perfect and 1 is a black image. Confidence: of a network trained "
                "on other images, in the true digit. All with 95% intervals.",
                ("Reconstructed", "Found", "Distance", "SSIM", "Confidence"),
                cells,
            ),
            Note(
                "How to read it",
                "Pictures are sorted by how well the hidden layer's came out, from the best to the worst. A picture of "
                "the right digit proves little: whoever knows the label can draw one, and that is the last line of the "
                "table. Only where originals are found more often than by that line has the image itself come out. No "
                "formal guarantee follows from a failed reconstruction.",
            ),
        ),
    )


def _meaning(found: dict[str, tuple[Tensor, InversionQuality]]) -> str:
    qualities = {name: quality for name, (_, quality) in found.items()}
    baseline = next(iter(qualities.values())).class_mean
    counts = [f"{_count(quality.reconstruction)} from {name}" for name, quality in qualities.items()]
    said = f"Found again, of {_IMAGES}: {', '.join(counts)}, and {_count(baseline)} by the mean image of the class."
    out = [name for name, quality in qualities.items() if quality.reidentifies]
    kept = [name for name in qualities if name not in out]
    said += f" So images come out of {_listed(out)}" if out else " So of none of them is it shown that images come out"
    return f"{said}; of {_listed(kept)} that is not shown, nor ruled out." if out and kept else f"{said}."


def _count(quality: Quality) -> int:
    return round(quality.reidentified.value * quality.reidentified.n)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _gallery(caption: str, images: Tensor, chosen: Any, quality: InversionQuality | None) -> Gallery:
    distances = None if quality is None else quality.reconstruction.distances
    return Gallery(
        caption,
        tuple(
            Picture(
                picture(images[index].numpy()),
                "original" if distances is None else f"{distances[index]:.2f}",
            )
            for index in chosen
        ),
    )
