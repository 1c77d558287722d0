"""Stop one: the network's own confidences, then the same network behind each output defense."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from privet import outputs
from privet.attacks import Target
from privet.cli.tour.scene import FALSE_POSITIVE_RATE, Row, Scene, measure
from privet.cli.tour.stop import StopResult
from privet.report import Curve, Figure, Gallery, Note, Picture, Section, Text, picture, roc_figure

__all__ = ["output_defenses"]

_SHOWN = 10


def output_defenses(scene: Scene) -> StopResult:
    """Attack the network through everything it answers, then through what each defense lets out."""
    classes = scene.members.classes
    plain = Row("none", "everything", measure(Target(scene.network, classes), scene))
    defended = tuple(
        Row(name, lets_out, measure(_target(defense, classes), scene))
        for name, lets_out, defense in (
            ("rounding", "2 decimals", outputs.Rounding(scene.network, decimals=2)),
            ("top 3", "3 classes", outputs.TopK(scene.network, k=3)),
            ("label only", "1 label", outputs.Labeling(scene.network)),
        )
    )
    rows = (plain, *defended)
    return StopResult(rows, (_leak(scene, plain), _defenses(plain, rows)))


def _target(defense: outputs.Defense, classes: int) -> Target:
    return Target(defense, classes, form=defense.output_form)


def _leak(scene: Scene, plain: Row) -> Section:
    return Section(
        "The network gives away whom it learned from",
        (
            Text(
                (
                    f"{len(scene.members):,} handwritten digits were used for training, {len(scene.non_members):,} "
                    "others "
                    "were kept apart. Then an attacker who has never seen this split shows the network one image at a "
                    "time, reads its confidence in the right answer, and says “trained on” where it is high.",
                )
            ),
            *_galleries(scene, plain),
            Note("Why the surest guesses are no proof", _why(scene, plain)),
        ),
    )


def _why(scene: Scene, plain: Row) -> str:
    top = int(np.count_nonzero(_order(plain)[:_SHOWN] < len(scene.members)))
    doubted = plain.leakage.scores
    lowest = float(np.quantile(np.concatenate((doubted.members, doubted.non_members)), 0.05))
    members, others = (float((part <= lowest).mean()) for part in (doubted.members, doubted.non_members))
    return (
        "Easy images get a high confidence whether they were trained on or not: of the first "
        f"{_SHOWN}, {top} {'was' if top == 1 else 'were'} trained on. Among the 5% that the network doubts most are "
        f"{100 * members:.1f}% of the training images and {100 * others:.1f}% of the others."
    )


def _order(plain: Row) -> NDArray[np.intp]:
    """Members, then non-members, by falling score."""
    scores = np.concatenate((plain.leakage.scores.members, plain.leakage.scores.non_members))
    return np.argsort(-scores, kind="stable")


def _galleries(scene: Scene, plain: Row) -> tuple[Gallery, Gallery]:
    order = _order(plain)
    return (
        _gallery(
            scene,
            plain,
            order[:_SHOWN],
            f"The {_SHOWN} images with the highest confidence in their label. A red frame marks an image that was "
            "trained on, a green one an image that was kept apart.",
        ),
        _gallery(scene, plain, order[-_SHOWN:], f"The {_SHOWN} with the lowest."),
    )


def _gallery(scene: Scene, plain: Row, chosen: NDArray[np.intp], caption: str) -> Gallery:
    scores = np.concatenate((plain.leakage.scores.members, plain.leakage.scores.non_members))
    images = np.concatenate((scene.members.inputs.numpy(), scene.non_members.inputs.numpy()))
    return Gallery(
        caption,
        tuple(
            Picture(
                picture(images[index]),
                f"{'trained on' if index < len(scene.members) else 'kept apart'} {_percent(np.exp(scores[index]))}",
                "member" if index < len(scene.members) else "other",
            )
            for index in chosen
        ),
    )


def _percent(share: float) -> str:
    if share > 0.999:
        return ">\N{NO-BREAK SPACE}99.9%"
    return "<\N{NO-BREAK SPACE}0.1%" if share < 0.001 else f"{100 * share:.1f}%"


def _defenses(plain: Row, rows: tuple[Row, ...]) -> Section:
    curves = [Curve(_legend(row), row.leakage.roc) for row in rows]
    smallest = 1.0 / len(plain.leakage.scores.non_members)
    words = "; ".join(f"{row.protection}: ROC area {row.leakage.auc}" for row in rows)
    return Section(
        _heading(plain, rows[1:]),
        (
            Text(
                (
                    "Output defenses wrap the finished network and pass on only part of its answer. The attack knows "
                    "the "
                    "defense and fills in what is withheld: a probability rounded to zero counts as a quarter of a "
                    "unit, "
                    "and behind labels alone the attacker can only ask whether the label is right.",
                    f"{_verdict(plain, rows[1:])} {_credible(rows)}",
                    *_surprise(plain, rows[1:]),
                )
            ),
            Figure(
                roc_figure(curves, smallest),
                "How many members an attacker finds against how many others it wrongly accuses, for every threshold, "
                "on "
                "logarithmic axes. On the dotted line the attack does no better than a coin. The left edge matters "
                "most: "
                f"there an accusation is credible. Fewer than 1 in {len(plain.leakage.scores.non_members):,} wrong "
                "accusations cannot be measured with this many images.",
                f"ROC curves, the area with its interval: {words}",
            ),
            Note(
                "No formal guarantee",
                "These defenses minimise output. None of them bounds what an attacker can learn, and one that asks "
                "about "
                "changed copies of an image, or trains networks of its own to compare with, loses little to them.",
            ),
        ),
    )


def _legend(row: Row) -> str:
    return "no defense" if row.protection == "none" else row.protection


def _helps(plain: Row, row: Row) -> bool:
    return row.leakage.auc.high < plain.leakage.auc.low


def _heading(plain: Row, defended: tuple[Row, ...]) -> str:
    if not any(row.leakage.auc.low > 0.5 for row in (plain, *defended)):
        return "The same network, saying less"
    leaking = sum(row.leakage.auc.low > 0.5 for row in defended)
    if leaking == len(defended):
        return "Saying less does not stop it"
    return "Saying less can help" if any(_helps(plain, row) for row in defended) else "The same network, saying less"


def _verdict(plain: Row, defended: tuple[Row, ...]) -> str:
    leaking = [_legend(row) for row in defended if row.leakage.auc.low > 0.5]
    if not leaking and plain.leakage.auc.low <= 0.5:
        return "This attack found nothing here that chance does not explain, with or without a defense."
    if not leaking:
        return "Behind each defense this attack finds nothing that chance does not explain."
    return f"It tells members apart behind: {', '.join(leaking)}. There the interval of the ROC area stays above 0.5."


def _surprise(plain: Row, defended: tuple[Row, ...]) -> tuple[str, ...]:
    """Where a defense made this attack better, say so and why: what the defense does, the attacker can do as well."""
    better = [row for row in defended if row.leakage.auc.low > plain.leakage.auc.high]
    if not better:
        return ()
    areas = " and ".join(f"{_legend(row)} ({row.leakage.auc.value:.2f})" for row in better)
    return (
        f"Behind {areas} the attack does even better than on the full answer ({plain.leakage.auc.value:.2f}): the "
        "finest differences between the surest answers mislead it, and the defense takes them away. Whoever sees the "
        "full answer can do the same, so the undefended network gives away at least as much.",
    )


def _credible(rows: tuple[Row, ...]) -> str:
    low = f"At {100 * FALSE_POSITIVE_RATE:g}% false positives"
    if any(row.leakage.rate.tpr.low > row.leakage.rate.fpr.high for row in rows):
        return f"{low} it finds more members than chance explains."
    return (
        f"{low} it finds no more members than chance explains: one threshold for all images is the weakest attack "
        "there is."
    )
