"""Images reconstructed from what LeNet-5 answers, and from its convolutional part; half a minute on two cores.

Trains two networks from different seeds on 4,000 images of Fashion-MNIST where its files are installed, of mnist5k
otherwise: one is attacked, the other judges. Inverts the answers about 30 images that neither saw, from the logits and
from the convolutional part, and prints for each the distance L2 / norm, PSNR, SSIM, the judge's confidence in the true
label and how many of the originals are found among 1,000 images, beside two baselines that need no attack; then the
same from what output defenses let out. Writes pictures to inversion.png (--picture FILE), from the best to the worst.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from privet import data, outputs
from privet.attacks import inversion
from privet.errors import FileFormatError
from privet.models import LeNet5
from privet.training import fit

IMAGES, CANDIDATES = 30, 1_000


def images() -> tuple[data.Examples, data.Examples]:
    """Images to train on, and images that no network sees."""
    try:
        train, rest = data.fashion_mnist().split(4_000, CANDIDATES, seed=0)
    except FileFormatError:
        train, rest = data.mnist5k().split(4_000, CANDIDATES, seed=0)
    return train, rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--picture", type=Path, default=Path("inversion.png"), metavar="FILE", help="(inversion.png)")
    given = parser.parse_args()
    train, unseen = images()
    attacked, judge = LeNet5(seed=1), LeNet5(seed=2)
    for seed, network in enumerate((attacked, judge), start=1):
        fit(network, train, epochs=8, batch_size=32, seed=seed, learning_rate=1e-3)
        network.eval()
    originals, labels = unseen.inputs[:IMAGES], unseen.labels[:IMAGES]

    attack = partial(inversion.Representation, image_shape=(1, 28, 28), bounds=(0.0, 1.0))
    attacks: dict[str, tuple[inversion.Representation, Any]] = {
        "convolutional part": (attack(attacked.features), attacked.features(originals)),
        "logits": (attack(attacked), attacked(originals)),
    }
    defenses = {
        "2 decimals": outputs.Rounding(attacked, 2),
        "top 3": outputs.TopK(attacked, 3),
        "label only": outputs.Labeling(attacked),
    }
    for name, served in defenses.items():
        attacks[name] = (inversion.Representation.behind(served, image_shape=(1, 28, 28)), served(originals))

    print(f"LeNet-5, {len(train):,} images of {train.source}; {IMAGES} others")
    rows, distances = {"original": originals}, np.zeros(IMAGES)
    for name, (made, observed) in attacks.items():
        found = made.reconstruct(observed, iterations=100, seed=0, progress=True)
        quality = inversion.evaluate(
            found.images,
            originals,
            labels,
            judge=judge,
            attacked=attacked,
            training=(train.inputs, train.labels),
            candidates=unseen.inputs[IMAGES:],
        )
        rows[name] = found.images
        print(f"\nfrom {name}" + (": finds originals" if quality.reidentifies else ""))
        print(quality)
        if name == "convolutional part":
            distances = quality.reconstruction.distances
    inversion.save_grid(given.picture, rows, distances)
    print(f"\nThe pictures, from best to worst by the convolutional part: {given.picture}")


if __name__ == "__main__":
    main()
