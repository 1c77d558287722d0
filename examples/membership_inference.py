"""Membership inference against a network that over-fits: learned attackers, then LiRA; about two minutes on two cores.

Trains LeNet-5 on 1,000 images of Fashion-MNIST where its files are installed, of mnist5k otherwise, or with --cifar100
DIR a VGG-16 on CIFAR-100 (hours without an accelerator). Prints, for each learned attacker, which parameters its grid
search chose and its precision, accuracy and recall on held-out records; then every attack's ROC area and the members it
finds at 1% false positives, among them LiRA from shadow models, and the verdict. --html FILE writes the whole page.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

import privet
from privet import data, models
from privet.attacks.membership import Method, Recipe
from privet.errors import FileFormatError

METHODS: tuple[Method, ...] = (
    ("knn", {"n_neighbors": [3, 5, 7]}),
    ("logistic regression", {"C": [1e-4, 1e-2, 1.0, 1e2]}),
    ("mlp", {"hidden_layer_sizes": [(64,), (32, 32)]}),
    ("random forest", {"max_depth": [5, 10, 20, None]}),
)


def examples(cifar100: Path | None) -> data.Examples:
    if cifar100 is not None:
        return data.cifar100(cifar100)
    try:
        return data.fashion_mnist()
    except FileFormatError:
        return data.mnist5k()


def builder(images: data.Examples) -> Callable[[int], nn.Module]:
    """A network for the images: seed -> network."""
    if images.inputs.shape[1] == 3:
        return lambda seed: models.VGG16(classes=images.classes, seed=seed)
    return lambda seed: models.LeNet5(classes=images.classes, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cifar100", type=Path, metavar="DIR", help="the folder with train.bin of CIFAR-100")
    parser.add_argument("--records", type=int, default=1_000, help="members, and as many others (1,000)")
    parser.add_argument("--epochs", type=int, default=30, help="of each network (30)")
    parser.add_argument("--shadows", type=int, default=16, help="networks that LiRA compares with (16)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report there")
    given = parser.parse_args()

    images = examples(given.cifar100)
    members, non_members = images.split(given.records, given.records, seed=0)
    train = Recipe(
        builder(images),
        torch.cat((members.inputs, non_members.inputs)),
        torch.cat((members.labels, non_members.labels)),
        epochs=given.epochs,
        batch_size=32,
        learning_rate=0.05 if given.cifar100 is None else 0.01,
        momentum=0.9,
    )
    network = train(np.arange(len(members)), seed=1)  # of the records, the members come first
    print(f"{type(network).__name__} trained on {len(members):,} records of {images.source}, {given.epochs} epochs")

    result = privet.audit_model(
        network,
        members,
        non_members,
        train_fn=train,
        shadows=given.shadows,
        methods=METHODS,
        slices={"class": torch.cat((members.labels, non_members.labels))},
    )
    print("learned attackers, on held-out records, as many members as others")
    for attack in result.attacks:
        if "parameters" in attack.details:
            print(f"  {attack.name}: {attack.details['parameters']}")
            for name in ("precision", "accuracy", "recall"):
                print(f"    {name:9} {attack.details[name]}")
    print()
    print(result)
    if given.html is not None:
        print(f"The page: {result.report(given.html)}")


if __name__ == "__main__":
    main()
