"""What suppression buys: accuracy and membership leakage of LeNet-5 beside other ways to train it, on Fashion-MNIST.

``./run python -m benchmarks.suppression_leakage`` trains 16 networks a row, each on 5,000 of 10,000 images, attacks
each with the other 14 outside its block as shadows, and prints the table of docs/suppression.md. Finished networks are
kept in a folder, so that a run that was stopped goes on. About 45 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from scipy.stats import t as student

from benchmarks.suppression_rows import (
    BLOCKS,
    DECAYS,
    EPSILONS,
    INVERTERS,
    LOOKS,
    SEED,
    SPARSITIES,
    invert_one,
    membership,
    rows,
    train_one,
)
from privet.attacks.membership import lira_rotated
from privet.statistics import Estimate, clopper_pearson, mean_interval, pooled_auc, pooled_tpr_at_fpr

RATES = (0.001, 0.01)
START, END = "<!-- table: ./run python -m benchmarks.suppression_leakage -->", "<!-- end of table -->"


@dataclass(frozen=True)
class Line:
    """A row of the table: estimates as [value, low, high]."""

    protection: str
    epochs: int
    accuracy: list[float]
    auc: dict[str, list[float]]
    tpr: dict[str, dict[str, list[float]]]
    sparsity: float
    inversion: dict[str, list[float]]


def train_all(folder: Path) -> None:
    """Train what is not in the folder yet, two networks at a time."""
    jobs = [(row, number) for row in rows() for number in range(2 * BLOCKS)]
    again = [(row, number) for row in rows() for number in range(INVERTERS)]
    work = joblib.Parallel(n_jobs=joblib.cpu_count(), return_as="generator_unordered")
    with Progress(console=Console(stderr=True)) as progress:
        for name, one, todo in (("networks", train_one, jobs), ("inverted", invert_one, again)):
            task = progress.add_task(name, total=len(todo))
            for _ in work(joblib.delayed(one)(folder, row, number) for row, number in todo):
                progress.advance(task)


def read(folder: Path) -> list[Line]:
    """All lines of the table, from what was trained."""
    lines = [_line("none", folder, "plain", len(LOOKS) - 1)]
    percents = [f"{100 * sparsity:g}" for sparsity in SPARSITIES]
    lines += [_line(f"suppression, {percent}%", folder, f"suppressed-{percent}") for percent in percents]
    curve = np.mean([part["accuracy"] for part in _parts(folder, "plain")], axis=0)  # of the looks
    for sparsity, line in zip(SPARSITIES, lines[1:], strict=True):
        look = int(np.argmax(curve >= line.accuracy[0])) if (curve >= line.accuracy[0]).any() else int(curve.argmax())
        lines.append(_line(f"early stopping, as accurate as {100 * sparsity:g}%", folder, "plain", look))
    lines += [_line(f"weight decay {decay:g}", folder, f"decay-{decay:g}") for decay in DECAYS]
    lines += [_line(f"DP, epsilon {epsilon:g}", folder, f"epsilon-{epsilon:g}") for epsilon in EPSILONS]
    return lines


def _parts(folder: Path, row: str) -> list[Any]:
    return [np.load(folder / row / f"{number}.npz", allow_pickle=False) for number in range(2 * BLOCKS)]


def _line(protection: str, folder: Path, row: str, look: int = 0) -> Line:
    networks = _parts(folder, row)
    inverted = [np.load(folder / row / f"inverted-{number}.npz", allow_pickle=False) for number in range(INVERTERS)]
    found = np.concatenate([part["found"][look] for part in inverted])
    distances = np.concatenate([part["distances"][look] for part in inverted])
    signals = np.stack([network["signals"][look] for network in networks])  # (16, P)
    accuracy = np.array([network["accuracy"][look] for network in networks])
    member, blocks = membership(), np.repeat(np.arange(BLOCKS), 2)
    scores = {"loss threshold": signals, "LiRA": lira_rotated(signals[:, :, None], member, blocks)}
    return Line(
        protection,
        int(networks[0]["epochs"][look]),
        _mean(accuracy),
        {name: _ends(pooled_auc(score, member, seed=SEED)) for name, score in scores.items()},
        {
            name: {f"{rate:g}": _ends(pooled_tpr_at_fpr(score, member, rate, seed=SEED).tpr) for rate in RATES}
            for name, score in scores.items()
        },
        float(np.mean([network["zeros"][look] for network in networks])),
        {
            "found": _ends(clopper_pearson(int(found.sum()), len(found))),
            "relative L2": _ends(mean_interval(distances)),
        },
    )


def _ends(estimate: Estimate) -> list[float]:
    return [round(float(value), 5) for value in (estimate.value, estimate.low, estimate.high)]


def _mean(values: NDArray[np.float64]) -> list[float]:
    """Over trainings, each on other images and from other weights: Student's t at 95%."""
    mean, error = values.mean(), values.std(ddof=1) / math.sqrt(len(values))
    reach = float(student.ppf(0.975, len(values) - 1)) * error
    return [round(float(value), 5) for value in (mean, mean - reach, mean + reach)]


def table(lines: list[Line]) -> str:
    """The lines in Markdown."""
    head = (
        "| training | epochs | accuracy | ROC area, threshold | ROC area, LiRA | LiRA at 0.1% | LiRA at 1% | inverted |"
    )
    text = [head, "|---|---|---|---|---|---|---|---|"]
    for line in lines:
        cells = [line.protection, str(line.epochs), _shown(line.accuracy, 100)]
        cells += [_shown(line.auc["loss threshold"], 1), _shown(line.auc["LiRA"], 1)]
        cells += [_shown(line.tpr["LiRA"][f"{rate:g}"], 100) for rate in RATES]
        cells.append(_shown(line.inversion["found"], 100))
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def _shown(ends: list[float], scale: int) -> str:
    digits = {1: 3, 100: 1}[scale]
    value, low, high = (f"{scale * end:.{digits}f}" for end in ends)
    return f"{value} [{low}, {high}]"


def main() -> None:
    """Train, measure, print; with ``--json`` and ``--docs`` write it down, too."""
    parser = argparse.ArgumentParser(prog="./run python -m benchmarks.suppression_leakage", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("suppression-leakage"), help="keeps finished networks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the lines there, for a record")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="put the table between the marks in this page")
    given = parser.parse_args()
    train_all(given.folder)
    lines = read(given.folder)
    print(table(lines))
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    if given.docs is not None:
        before, _, rest = given.docs.read_text().partition(START)
        _, _, after = rest.partition(END)
        given.docs.write_text(f"{before}{START}\n{table(lines)}\n{END}{after}")


if __name__ == "__main__":
    main()
