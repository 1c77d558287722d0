"""A stop: the same network with most of its weights set to zero while it trains, attacked in the same way."""

from __future__ import annotations

import torch

from privet import training
from privet.attacks import Target
from privet.cli.tour.scene import BATCH_SIZE, EPOCHS, LEARNING_RATE, MOMENTUM, Row, Scene, measure, network_of
from privet.cli.tour.stop import StopResult
from privet.report import Figure, Line, Note, Section, Table, Text, line_figure
from privet.suppression import SparsityReport, Suppression

__all__ = ["suppression"]

_SPARSITY, _START, _END = 0.95, 3, 40


def suppression(scene: Scene) -> StopResult:
    """Train once more with suppression, and attack with the one threshold of the first stop.

    Args:
        scene: the network under study.

    Returns:
        A line beside that of the network without protection, and one section.
    """
    network = network_of(scene.seed)
    suppressed = Suppression(
        network,
        start_epoch=_START,
        end_epoch=_END,
        steps_per_epoch=-(-len(scene.members) // BATCH_SIZE),
        sparsity_end=_SPARSITY,
    )
    training.fit(
        network,
        scene.members,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        seed=scene.seed,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=MOMENTUM),
        progress=False,
        callbacks=[suppressed],
    )
    found = measure(Target(suppressed.finalize().eval(), scene.members.classes), scene)
    plain = measure(Target(scene.network, scene.members.classes), scene)
    row = Row(f"suppression, {100 * _SPARSITY:g}%", "everything", found)
    return StopResult((row,), (_section(Row("none", "everything", plain), row, suppressed.report()),))


def _section(plain: Row, row: Row, report: SparsityReport) -> Section:
    points = report.over_time()["all layers"]
    steps, shares = zip((0, 0.0), (points[0][0] - 1, 0.0), *points, (report.step, report.sparsity), strict=True)
    line = Line("of both layers", steps, shares)
    layers = tuple(
        (layer.name, f"{layer.weights:,}", f"{layer.masked:,}", f"{layer.sparsity:.1%}") for layer in report.layers
    )
    return Section(
        "The same network with few weights left",
        (
            Text(
                (
                    f"Trained anew on the same images; from epoch {_START} to {_END} the smallest weights were set to "
                    f"zero and kept there, until {report.sparsity:.0%} of them were gone. The hope: what is not there "
                    "cannot remember.",
                    _found(plain, row),
                )
            ),
            Figure(
                line_figure([line], "optimizer steps", "share of weights that are zero"),
                "How the weights went: fast at first, while many matter little, slowly at the end.",
                f"The share of weights that are zero rises from 0 to {report.sparsity:.1%}.",
            ),
            Table("What is left.", ("Layer", "Weights", "Set to zero", "Share"), layers),
            Note(
                "No formal guarantee",
                "No epsilon comes of this, and none may be claimed. This is one weak attack on one network; an "
                "attacker who trains networks in the same way finds more. docs/suppression.md has the table of 16 "
                "networks a row, beside early stopping, weight decay and differential privacy.",
            ),
        ),
    )


def _found(plain: Row, row: Row) -> str:
    before, after = plain.leakage, row.leakage
    words = (
        f"It is right on {100 * after.accuracy.value:.1f}% of unseen images (without: "
        f"{100 * before.accuracy.value:.1f}%), and the ROC area of the one threshold is {after.auc} (without: "
        f"{before.auc}). "
    )
    if after.auc.high < before.auc.low:
        return words + "The intervals do not meet: this attack finds less."
    if after.auc.low > before.auc.high:
        return words + "The intervals do not meet: this attack finds more."
    return words + "The intervals overlap: on this one network nothing is shown either way."
