"""A stop: an attacker who trains networks of its own, against the plain network and behind each defense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from privet import outputs
from privet.attacks import Target
from privet.attacks.membership import (
    ONE_QUERY,
    MembershipScores,
    Pool,
    Recipe,
    inclusion,
    label_only,
    lira,
    shifts_and_flips,
    signal_row,
)
from privet.cli.tour.scene import (
    BATCH_SIZE,
    EPOCHS,
    FALSE_POSITIVE_RATE,
    LEARNING_RATE,
    MOMENTUM,
    Leakage,
    Row,
    Scene,
    accuracy_of,
    leakage_of,
    network_of,
)
from privet.cli.tour.stop import StopResult
from privet.output_form import OutputForm
from privet.report import Curve, Figure, Note, Section, Text, roc_figure

__all__ = ["membership"]

_OTHERS, _BLOCKS = 1_000, 6
_DEFENSES: tuple[tuple[str, str, Callable[[nn.Module], outputs.Defense] | None], ...] = (
    ("none", "everything", None),
    ("rounding", "2 decimals", lambda network: outputs.Rounding(network, decimals=2)),
    ("top 3", "3 classes", lambda network: outputs.TopK(network, k=3)),
    ("label only", "1 label", outputs.Labeling),
)


def membership(scene: Scene) -> StopResult:
    """Train shadow networks once, put each defense around them, and compare what the target answers with what they do.

    Args:
        scene: the network under study.

    Returns:
        A line for each defense, and one section.
    """
    others = scene.non_members.take(range(_OTHERS))
    pool = Pool.of((scene.members.inputs, scene.members.labels), (others.inputs, others.labels), scene.members.classes)
    blocks = [inclusion(len(pool), pool.members, block, scene.seed) for block in range(_BLOCKS)]
    included = np.concatenate(blocks)  # (K, P)
    shadows = _shadows(scene, pool, included)
    rows = tuple(
        Row(name, lets_out, _attacked(scene, pool, included, shadows, make)) for name, lets_out, make in _DEFENSES
    )
    return StopResult(rows, (_section(pool, rows, len(shadows)),))


def _shadows(scene: Scene, pool: Pool, included: NDArray[np.bool_]) -> list[nn.Module]:
    """Networks trained as the one under study was, each on other images."""
    recipe = Recipe(
        network_of,
        pool.inputs,
        pool.labels,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        momentum=MOMENTUM,
    )
    seeds = np.random.SeedSequence(scene.seed).generate_state(len(included))
    return list(recipe.train_many([np.flatnonzero(row) for row in included], [int(seed) for seed in seeds]))


def _attacked(
    scene: Scene,
    pool: Pool,
    included: NDArray[np.bool_],
    shadows: list[nn.Module],
    make: Callable[[nn.Module], outputs.Defense] | None,
) -> Leakage:
    def served(network: nn.Module) -> Callable[..., Any]:
        return network.eval() if make is None else make(network.eval())

    target = served(scene.network)
    form = target.output_form if isinstance(target, outputs.Defense) else OutputForm()
    queries = shifts_and_flips(flip=False) if form.labels_only else ONE_QUERY
    signals = np.stack([signal_row(served(shadow), pool, form, queries) for shadow in shadows])  # (K, P, Q)
    asked = signal_row(target, pool, form, queries)
    scores = label_only(signals, included, asked) if form.labels_only else lira(signals, included, asked, form=form)
    evidence = MembershipScores(
        "LiRA" if not form.labels_only else "votes", scores[: pool.members], scores[pool.members :]
    )
    return leakage_of(evidence, accuracy_of(Target(target, pool.classes, form), scene), scene)


def _section(pool: Pool, rows: tuple[Row, ...], shadows: int) -> Section:
    curves = [Curve(_defense(row), row.leakage.roc) for row in rows]
    words = "; ".join(f"{_defense(row)}: ROC area {row.leakage.auc}" for row in rows)
    others = len(pool) - pool.members
    return Section(
        "An attacker who trains networks of its own",
        (
            Text(
                (
                    f"{shadows} more networks were trained in the same way, each on other {pool.members:,} of these "
                    "images, so that for every image some have seen it and some have not. Is what the network under "
                    "study says about an image more like what the former say, or the latter? Each image is compared "
                    "with itself, so that easy and hard ones are no longer mixed up. The networks of the attacker pass "
                    "through the same defense; behind labels alone it asks about shifted copies and counts how often "
                    "the label is right.",
                    _found(rows),
                )
            ),
            Figure(
                roc_figure(curves, 1.0 / others),
                f"The same network, {pool.members:,} images it was trained on and {others:,} others, on logarithmic "
                "axes: the curves of the likelihood-ratio attack (LiRA). On the dotted line it does no better than a "
                "coin.",
                f"ROC curves, the area with its interval: {words}",
            ),
            Note(
                "What this does not say",
                "Where this attack finds nothing, another may. privet audit runs all of them, with controls that show "
                "how small a leak they would have found.",
            ),
        ),
    )


def _found(rows: tuple[Row, ...]) -> str:
    percent = f"{100 * FALSE_POSITIVE_RATE:g}%"
    beyond = [row for row in rows if row.leakage.rate.tpr.low > row.leakage.rate.fpr.high]
    if not beyond:
        return f"At {percent} false positives it finds no more members than chance explains."
    shares = ", ".join(f"{100 * row.leakage.rate.tpr.value:.0f}% with {_defense(row)}" for row in beyond)
    return f"Wrongly accusing 1 image in {round(1 / FALSE_POSITIVE_RATE)}, it finds of the members: {shares}."


def _defense(row: Row) -> str:
    return "no defense" if row.protection == "none" else row.protection
