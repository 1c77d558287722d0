"""Walk the tour: set the scene, visit each stop, print the table, write the page."""

from __future__ import annotations

import math
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from privet import __version__, report, training
from privet.cli.tour.budget import budget
from privet.cli.tour.inversion import inversion
from privet.cli.tour.membership import membership
from privet.cli.tour.output_defenses import output_defenses
from privet.cli.tour.private_training import private_training
from privet.cli.tour.scene import FALSE_POSITIVE_RATE, Row, Scene, set_scene
from privet.cli.tour.stop import Stop, StopResult
from privet.cli.tour.suppression import suppression
from privet.errors import ArgumentError
from privet.report import Card, Cell, Page, Section, Table, Text, write_estimate
from privet.statistics import Estimate

__all__ = ["STOPS", "walk"]

STOPS = (
    Stop("attack it, defend its answers, attack again", output_defenses),
    Stop("train networks like it, attack each answer with them", membership),
    Stop("set most weights to zero while training, attack again", suppression),
    Stop("reconstruct images from its answers, and from defended ones", inversion),
    Stop("plan a private training within a budget", budget),
    Stop("train it privately, attack it again", private_training),
)


def walk(folder: Path, seed: int) -> Path:
    """Visit every stop and write ``report.html`` into ``folder``.

    Args:
        folder: made if it does not exist.
        seed: of everything random in the tour.

    Returns:
        The path of the report.
    """
    console = Console()
    _make(folder)
    begun = time.monotonic()
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        BarColumn(20),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("train a network until it over-fits", total=1)
        scene = set_scene(seed)
        progress.update(task, completed=1)
        results = []
        for stop in STOPS:
            task = progress.add_task(stop.title, total=1)
            results.append(stop.visit(scene))
            progress.update(task, completed=1)
    rows = tuple(row for result in results for row in result.rows)
    console.print(_terminal_table(rows))
    path = report.write_html(_page(scene, results, rows, time.monotonic() - begun), folder / "report.html")
    console.print(f"The report: [bold]{path}[/bold]  (one file; open it in a browser)", soft_wrap=True)
    return path


def _make(folder: Path) -> None:
    """Find out before the work whether its result can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ArgumentError("output", str(folder), "a folder that can be written to", f"({error.strerror})") from None


def _terminal_table(rows: tuple[Row, ...]) -> RichTable:
    confidence = f"{100 * rows[0].leakage.auc.confidence:g}%"
    table = RichTable(
        title="What an attacker learns about the training images",
        caption=f"with {confidence} intervals; a coin has ROC area 0.500 and finds {FALSE_POSITIVE_RATE:.3f} there",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name in ("Protection", "Attack", "Accuracy", "ROC area", f"Found at {100 * FALSE_POSITIVE_RATE:g}% FPR"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        found = row.leakage
        rate = str(found.rate.tpr) if found.rate.reached else "no such threshold"
        table.add_row(row.protection, row.attack, f"{100 * found.accuracy.value:.1f}%", str(found.auc), rate)
    return table


def _columns() -> tuple[str, ...]:
    percent = f"{100 * FALSE_POSITIVE_RATE:g}%"
    return (
        "Protection",
        "Lets out",
        "Attack",
        "Accuracy on unseen",
        "ROC area",
        f"Found at {percent} false alarms",
        "Realised false alarms",
    )


def _cells(row: Row, scales: tuple[tuple[float, float], tuple[float, float]]) -> tuple[str | Cell, ...]:
    found = row.leakage
    return (
        row.protection,
        row.lets_out,
        row.attack,
        Cell(found.accuracy, (0.0, 1.0), percent=True),
        Cell(found.auc, scales[0], chance=0.5),
        *(
            Cell(rate, scales[1], chance=FALSE_POSITIVE_RATE, percent=True) if found.rate.reached else words
            for rate, words in (
                (found.rate.tpr, "no such threshold"),
                (found.rate.fpr, "more records share the top score"),
            )
        ),
    )


def _scales(rows: tuple[Row, ...]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Of the area and of the rates, wide enough for the largest of them."""
    area = max(row.leakage.auc.high for row in rows)
    rate = max(end for row in rows for end in (row.leakage.rate.tpr.high, row.leakage.rate.fpr.high))
    return (0.45, min(1.0, math.ceil(20 * area) / 20)), (0.0, min(1.0, math.ceil(20 * rate) / 20))


def _page(scene: Scene, results: list[StopResult], rows: tuple[Row, ...], seconds: float) -> Page:
    plain = rows[0].leakage
    trained = training.evaluate(scene.network, scene.members)
    return Page(
        title="What a network remembers",
        lead=_lead(plain.auc, len(scene.members)),
        cards=(
            Card(f"{100 * trained.accuracy:.0f}%", "right on the images it was trained on"),
            Card(f"{100 * plain.accuracy.value:.1f}%", "right on images it never saw"),
            _simple(plain.auc),
            *_strongest(rows),
        ),
        sections=(*(section for result in results for section in result.sections), _summary(rows), _how_to_read(scene)),
        provenance=(
            ("Images", scene.members.source),
            ("Network", scene.description),
            ("Seed", str(scene.seed)),
            ("Again", f"privet demo --seed {scene.seed}"),
            (
                "Versions",
                f"privet {__version__}, torch {version('torch')}, numpy {np.__version__}, Python "
                f"{platform.python_version()}",
            ),
            ("Machine", f"{platform.machine()}, {torch.get_num_threads()} threads, {seconds:.0f} s"),
        ),
    )


def _lead(auc: Estimate, members: int) -> str:
    if auc.low <= 0.5:
        return (
            f"A network was trained on {members} handwritten digits. One simple attack on its answers could not tell "
            "them "
            "from images it had never seen. That is no proof that nothing else could."
        )
    return (
        f"A network was trained on {members} handwritten digits until it knew them by heart. Its answers alone tell "
        "those "
        f"images from others it never saw, better than chance: the ROC area is {auc.value:.2f}, and with "
        f"{100 * auc.confidence:g}% confidence at least {auc.low:.2f}."
    )


def _strongest(rows: tuple[Row, ...]) -> tuple[Card, ...]:
    """What an attacker with networks of its own finds on the undefended network."""
    found = next((row.leakage.rate for row in rows if (row.protection, row.attack) == ("none", "LiRA")), None)
    if found is None:
        return ()
    tone = "leak" if found.tpr.low > found.fpr.high else "plain"
    said = f"of them found by networks like it, 1 in {round(1 / FALSE_POSITIVE_RATE)} others wrongly accused"
    shares = write_estimate(found.tpr, percent=True)
    return (Card(shares.value, said, tone, f"{shares.low}–{shares.high}"),)


def _simple(auc: Estimate) -> Card:
    said = write_estimate(auc, chance=0.5, digits=2)
    tone = "leak" if auc.low > 0.5 else "plain"
    return Card(said.value, "ROC area of a simple attack; 0.50 is a coin", tone, f"{said.low}–{said.high}")


def _summary(rows: tuple[Row, ...]) -> Section:
    return Section(
        "All in one table",
        (
            Table(
                f"Each figure with its {100 * rows[0].leakage.auc.confidence:g}% interval; the dotted mark is where "
                "a coin "
                "would stand.",
                _columns(),
                tuple(_cells(row, _scales(rows)) for row in rows),
            ),
        ),
    )


def _how_to_read(scene: Scene) -> Section:
    return Section(
        "How to read this page",
        (
            Text(
                (
                    "A member is a record the model was trained on. An attack gives every record a score; whoever "
                    "scores "
                    "above a threshold is called a member. Lower the threshold and it finds more members, and "
                    "accuses more "
                    "records that are none.",
                    "The ROC area is the probability that a random member scores above a random non-member: 0.5 is "
                    "guessing, 1 is certainty. It is an average, and averages hide the few records that are exposed "
                    "most, so the share of members found at a small share of false accusations stands beside it.",
                    "Every figure has an interval. The threshold for a false positive rate comes from the "
                    "non-members alone; "
                    "members are counted above it (Clopper-Pearson), and the true rate of that threshold has an "
                    "interval of "
                    "its own (an order statistic). The interval of the ROC area joins a bootstrap and a score "
                    "interval.",
                    "What this page cannot say: that a model is private. An attack gives a lower limit of what leaks. "
                    "The next one may find more.",
                )
            ),
        ),
    )
