"""Suppression while training: LeNet-5 ends with 5% of its weights; under a minute on two cores.

Trains twice for 10 epochs, with SGD at 0.1 in batches of 32, on 10,000 images of Fashion-MNIST where its files are
installed, on 4,000 of mnist5k otherwise: plainly, and with suppression from epoch 3 on. Prints the accuracy of both on
images they never saw, and how many weights of each layer are left; --plot FILE draws how they went. There is no formal
guarantee: whether it protects is measured in docs/suppression.md.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from rich.console import Console

from privet import data
from privet.errors import FileFormatError
from privet.models import LeNet5
from privet.suppression import Layer, Suppression
from privet.training import evaluate, fit

EPOCHS, BATCH = 10, 32
LAYERS = (
    Layer("features.conv1", minimum_kept=10, lower_clip=0.005),
    Layer("features.conv2", minimum_kept=150, lower_clip=0.005),
    Layer("classifier.fc1", noise_std=0.01),
    Layer("classifier.fc2", noise_std=0.01),
    Layer("classifier.fc3", minimum_kept=50),
)


def images() -> tuple[data.Examples, data.Examples]:
    """Images to train on, and images to look at after."""
    try:
        train, _ = data.fashion_mnist().split(10_000, 1, seed=0)
        return train, data.fashion_mnist(train=False)
    except FileFormatError:
        train, unseen = data.mnist5k().split(4_000, 1_000, seed=0)
        return train, unseen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw sparsity over the steps (.png, .svg, .pdf)")
    given = parser.parse_args()
    train, unseen = images()
    mean, spread = train.inputs.mean(), train.inputs.std()

    plain, network = LeNet5(seed=0), LeNet5(seed=0)
    suppression = Suppression(
        network,
        layers=LAYERS,
        start_epoch=3,
        end_epoch=EPOCHS,
        steps_per_epoch=math.ceil(len(train) / BATCH),
        sparsity_end=0.95,
        generator=torch.Generator().manual_seed(0),  # of the noise
    )
    for model, callbacks in ((plain, []), (network, [suppression])):
        fit(
            model,
            ((train.inputs - mean) / spread, train.labels),
            epochs=EPOCHS,
            batch_size=BATCH,
            seed=0,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
            callbacks=callbacks,
        )
    suppression.finalize()

    print(f"LeNet-5, {len(train):,} images of {train.source}, {EPOCHS} epochs")
    for name, model in (("plain", plain), ("suppressed", network)):
        accuracy = evaluate(model, ((unseen.inputs - mean) / spread, unseen.labels)).accuracy
        print(f"  {name:10}  accuracy {accuracy:.3f} on {len(unseen):,} others")
    Console().print(suppression.report())
    if given.plot is not None:
        suppression.report().plot(given.plot)
        print(f"The picture: {given.plot}")


if __name__ == "__main__":
    main()
