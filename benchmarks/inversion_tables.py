"""What comes out of a network: images from representations, defended answers and gradients, on real data.

``./run python -m benchmarks.inversion_tables`` makes the two tables of docs/inversion.md, on Fashion-MNIST and mnist5k.
About five minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.pages import put
from privet import data, models, outputs, training
from privet.attacks.inversion import (
    BoundedDescent,
    CosineDistance,
    GradientInversion,
    InversionQuality,
    LineSearch,
    Quality,
    Representation,
    SquaredDistance,
    evaluate,
)
from privet.attacks.inversion.gradient_loss import MatchingLoss, Solver
from privet.attacks.inversion.measures import peak_signal_to_noise
from privet.errors import ArgumentError
from privet.statistics import Estimate

MARKS = {
    name: (f"<!-- {name}: ./run python -m benchmarks.inversion_tables -->", f"<!-- end of {name} -->")
    for name in ("answers", "gradients")
}
TRAINED, EPOCHS, IMAGES, CANDIDATES, ITERATIONS = 5_000, 10, 200, 1_000, 100
_SHAPE = (1, 28, 28)


@dataclass(frozen=True)
class Answered:
    """Images from what a network answered: estimates as [value, low, high]."""

    observed: str
    relative_l2: list[float]
    ssim: list[float]
    confidence: list[float]
    found: list[float]


@dataclass(frozen=True)
class Sent:
    """Images from gradients: decibels of each image of each run, and how often all labels were read off."""

    sent: str
    matched: str
    iterations: int
    batch: int
    psnr: list[list[float]]
    labels: list[bool]


def answered() -> Iterator[Answered]:
    """LeNet-5, its convolutional part and what defenses leave of its answers, beside both baselines."""
    yield from _of(data.fashion_mnist().split(TRAINED, 1, seed=0)[0], data.fashion_mnist(train=False), "")
    trained, unseen = data.mnist5k().split(3_000, 1_999, seed=0)
    yield from _of(trained, unseen, "MNIST: ")


def _of(trained: data.Examples, unseen: data.Examples, before: str) -> Iterator[Answered]:
    attacked, judge = (_trained(trained, seed) for seed in (1, 2))
    originals, labels = unseen.inputs[:IMAGES], unseen.labels[:IMAGES]

    def quality(attack: Representation, observed: Any) -> InversionQuality:
        return evaluate(
            attack.reconstruct(observed, iterations=ITERATIONS, seed=0).images,
            originals,
            labels,
            judge=judge,
            attacked=attacked,
            training=(trained.inputs, trained.labels),
            candidates=unseen.inputs[IMAGES : IMAGES + CANDIDATES - 1],
        )

    with torch.no_grad():
        features, logits = attacked.features(originals), attacked(originals)
    found = quality(Representation(attacked.features, image_shape=_SHAPE), features)
    yield _line(f"{before}convolutional part", found.reconstruction)
    yield _line(f"{before}logits", quality(Representation(attacked, image_shape=_SHAPE), logits).reconstruction)
    defended = {
        "2 decimals": outputs.Rounding(attacked, 2),
        "top 3": outputs.TopK(attacked, 3),
        "label only": outputs.Labeling(attacked),
    }
    for name, served in defended.items():
        attack = Representation.behind(served, image_shape=_SHAPE)
        yield _line(f"{before}{name}", quality(attack, served(originals)).reconstruction)
    yield _line(f"{before}*class mean*", found.class_mean)
    yield _line(f"{before}*nearest other*", found.nearest_other)


def _trained(images: data.Examples, seed: int) -> models.LeNet5:
    network = models.LeNet5(seed=seed)
    training.fit(network, images, epochs=EPOCHS, batch_size=32, seed=seed, learning_rate=1e-3, progress=False)
    return network.eval()


def _line(observed: str, one: Quality) -> Answered:
    return Answered(observed, *map(_ends, (one.relative_l2, one.ssim, one.confidence, one.reidentified)))


def _ends(estimate: Estimate) -> list[float]:
    return [round(float(end), 5) for end in (estimate.value, estimate.low, estimate.high)]


Client = Callable[[list[Tensor], Generator], list[Tensor]]


def plain(gradients: list[Tensor], generator: Generator) -> list[Tensor]:
    """As they are."""
    return gradients


def privately(clip: float, noise: float, gradients: list[Tensor], generator: Generator) -> list[Tensor]:
    """As private training sends the gradient of one record: clipped, and noised by ``noise`` times the clip norm."""
    share = min(1.0, clip / float(torch.cat([one.flatten() for one in gradients]).norm()))
    return [share * one + noise * clip * torch.randn(one.shape, generator=generator) for one in gradients]


def zhu(seed: int) -> nn.Module:
    """The network of Zhu et al. (2019), all parameters uniform in (-0.5, 0.5)."""
    model = nn.Sequential(
        nn.Conv2d(1, 12, 5, stride=2, padding=2),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, stride=2, padding=2),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, padding=2),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(588, 10),
    )
    generator = Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
    return model


def smooth(seed: int) -> nn.Module:
    """LeNet-5 with sigmoids and average pooling."""
    return models.LeNet5(seed=seed, activation=nn.Sigmoid, pool=nn.AvgPool2d)


def usual(seed: int) -> nn.Module:
    """LeNet-5 with ReLU and max pooling."""
    return models.LeNet5(seed=seed)


@dataclass(frozen=True)
class _Matched:
    name: str
    loss: MatchingLoss
    solver: Solver


_SQUARED = _Matched("squared, L-BFGS", SquaredDistance(), LineSearch())
_COSINE = _Matched("cosine, L-BFGS", CosineDistance(), LineSearch())
_SIGNED = _Matched("cosine, signed Adam", CosineDistance(), BoundedDescent())


@dataclass(frozen=True)
class _Case:
    name: str
    make: Callable[[int], nn.Module]
    matched: _Matched
    iterations: int
    batch: int = 1
    client: Client = plain

    def attack(self, model: nn.Module) -> GradientInversion:
        return GradientInversion(
            model,
            image_shape=_SHAPE,
            loss=self.matched.loss,
            solver=self.matched.solver,
            tv_weight=0.01 if self.make is usual else 0.0,
        )


_SENT = (
    _Case("DLG's LeNet, 1 image", zhu, _SQUARED, 300),
    *(_Case(f"DLG's LeNet, {count} images", zhu, _SQUARED, 600, count) for count in (2, 4, 8)),
    _Case("DLG's LeNet, 1 image clipped to 0.3", zhu, _SQUARED, 300, 1, partial(privately, 0.3, 0.0)),
    _Case("DLG's LeNet, 1 image clipped to 0.3", zhu, _COSINE, 300, 1, partial(privately, 0.3, 0.0)),
    *(
        _Case(f"the same, noise multiplier {noise:g}", zhu, _COSINE, 300, 1, partial(privately, 0.3, noise))
        for noise in (1e-4, 1e-3, 1e-2, 1.0)
    ),
    *(
        _Case(f"LeNet-5, sigmoid, average pooling, {count} image{'s' * (count > 1)}", smooth, _SIGNED, 500, count)
        for count in (1, 2, 8)
    ),
    _Case("LeNet-5, ReLU, max pooling, 1 image", usual, _SIGNED, 2_000),
)


def sent() -> Iterator[Sent]:
    """Untrained networks, images of mnist5k of different digits."""
    digits = data.mnist5k()
    for case in _SENT:
        decibels, read = [], []
        for seed in range(10 if case.batch == 1 else 5):
            model = case.make(seed)
            rows = sorted((557 * seed + 501 * one) % len(digits) for one in range(case.batch))  # rising labels
            images, labels = digits.inputs[rows], digits.labels[rows]
            gradients = torch.autograd.grad(cross_entropy(model(images), labels), list(model.parameters()))
            observed = case.client(list(gradients), Generator().manual_seed(seed))
            attack = case.attack(model)
            found = attack.reconstruct(observed, labels=labels, iterations=case.iterations, seed=seed)
            decibels.append([round(float(value), 2) for value in peak_signal_to_noise(found.images, images)])
            read.append(_reads(attack, observed, labels))
        yield Sent(case.name, case.matched.name, case.iterations, case.batch, decibels, read)


def _reads(attack: GradientInversion, observed: list[Tensor], labels: Tensor) -> bool:
    try:
        found = attack.reconstruct(observed, batch_size=len(labels), iterations=1, seed=0)
    except ArgumentError:  # it asks for them
        return False
    return bool(torch.equal(found.labels, labels))


def answers_table(lines: list[Answered]) -> str:
    """In Markdown."""
    text = ["| observed | L2 / norm | SSIM | confidence | found, % |", "|---|---|---|---|---|"]
    for line in lines:
        cells = [_shown(ends, 1) for ends in (line.relative_l2, line.ssim, line.confidence)]
        text.append(f"| {' | '.join([line.observed, *cells, _shown(line.found, 100)])} |")
    return "\n".join(text)


def gradients_table(lines: list[Sent]) -> str:
    """In Markdown: the median over images, and the range over them."""
    text = ["| gradient of | matched by | iterations | PSNR, dB | labels read off |", "|---|---|---|---|---|"]
    for line in lines:
        values = torch.tensor(line.psnr).flatten()
        cells = [line.sent, line.matched, str(line.iterations)]
        cells.append(f"{values.quantile(0.5):.0f} ({values.min():.0f} to {values.max():.0f})")
        text.append(f"| {' | '.join([*cells, f'{sum(line.labels)} of {len(line.labels)}'])} |")
    return "\n".join(text)


def _shown(ends: list[float], scale: int) -> str:
    digits = {1: 3, 100: 1}[scale]
    value, low, high = (f"{scale * end:.{digits}f}" for end in ends)
    return f"{value} [{low}, {high}]"


def main() -> None:
    """Measure, print; with ``--json`` and ``--docs`` write it down, too."""
    parser = argparse.ArgumentParser(prog="./run python -m benchmarks.inversion_tables", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the lines there, for a record")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="put the tables between the marks in this page")
    given = parser.parse_args()
    console = Console(stderr=True)
    first = list(track(answered(), "answers", 14, console=console))
    second = list(track(sent(), "gradients", len(_SENT), console=console))
    tables = {"answers": answers_table(first), "gradients": gradients_table(second)}
    print("\n\n".join(tables.values()))
    if given.json is not None:
        lines = {"answers": list(map(asdict, first)), "gradients": list(map(asdict, second))}
        given.json.write_text(json.dumps(lines, indent=1) + "\n")
    if given.docs is not None:
        given.docs.write_text(put(given.docs.read_text(), {MARKS[name]: table for name, table in tables.items()}))


if __name__ == "__main__":
    main()
