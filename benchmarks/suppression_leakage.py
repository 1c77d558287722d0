"""What suppression buys: accuracy and membership leakage of LeNet-5 beside other ways to train it, on Fashion-MNIST.

``./run python -m benchmarks.suppression_leakage`` trains 16 networks a row, each on 5,000 of 10,000 images, attacks
each with the other 14 outside its block as shadows, and prints the tables of docs/suppression.md. Finished networks are
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
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

from benchmarks.suppression_rows import (
    BLOCKS,
    DECAYS,
    EPSILONS,
    LOOKS,
    SEED,
    SPARSITIES,
    membership,
    rows,
    settings,
    train_one,
)
from privet.attacks.membership import lira_rotated
from privet.statistics import Estimate, pooled_auc, pooled_tpr_at_fpr

Floats = NDArray[np.float64]
RATES = (0.001, 0.01)
_OF_A_NETWORK = ("accuracy", "found", "distance")
START, END = "<!-- table: ./run python -m benchmarks.suppression_leakage -->", "<!-- end of table -->"


@dataclass(frozen=True)
class Line:
    """A row of the tables: estimates as [value, low, high]; ``beside``: less those of early stopping."""

    training: str
    epochs: int
    accuracy: list[float]
    auc: dict[str, list[float]]
    tpr: dict[str, dict[str, list[float]]]
    sparsity: float
    found: list[float]
    distance: list[float]
    beside: dict[str, list[float]]


@dataclass(frozen=True)
class _Networks:
    """What is known of the 16 networks of a row, after so many epochs."""

    epochs: int
    accuracy: Floats  # (16,)
    signals: Floats  # (16, P)
    lira: Floats  # (16, P)
    sparsity: float
    found: Floats  # (16,)
    distance: Floats  # (16,)


def train_all(folder: Path) -> None:
    """Train what is not in the folder yet, two networks at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "settings.json"
    if kept.exists() and json.loads(kept.read_text()) != settings():
        raise SystemExit(f"{folder} holds networks of other settings. Give another --folder, or remove it.")
    kept.write_text(json.dumps(settings(), indent=1) + "\n")
    todo = [(row, number) for row in rows() for number in range(2 * BLOCKS)]
    work = joblib.Parallel(n_jobs=joblib.cpu_count(), return_as="generator_unordered")
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("networks", total=len(todo))
        for _ in work(joblib.delayed(train_one)(folder, row, number) for row, number in todo):
            progress.advance(task)


def read(folder: Path) -> list[Line]:
    """All lines of the tables, from what was trained."""
    lines = [_line("none", _networks(folder, "plain", len(LOOKS) - 1))]
    curve = np.mean([part["accuracy"] for part in _parts(folder, "plain")], axis=0)
    stopped = []
    for sparsity in SPARSITIES:
        percent = f"{100 * sparsity:g}%"
        suppressed = _networks(folder, f"suppressed-{100 * sparsity:g}")
        match = _networks(folder, "plain", first_as_accurate(curve, float(suppressed.accuracy.mean())))
        lines.append(_line(f"suppression, {percent}", suppressed, match))
        stopped.append(_line(f"early stopping, as accurate as {percent}", match))
    lines += stopped
    lines += [_line(f"weight decay {decay:g}", _networks(folder, f"decay-{decay:g}")) for decay in DECAYS]
    return lines + [
        _line(f"DP, epsilon {epsilon:g}", _networks(folder, f"epsilon-{epsilon:g}")) for epsilon in EPSILONS
    ]


def first_as_accurate(curve: Floats, accuracy: float) -> int:
    """The first look at which the rising curve that fits ``curve`` best (least squares) reaches ``accuracy``.

    Where it never does, the first at its highest.
    """
    rising: Floats = IsotonicRegression().fit_transform(np.arange(len(curve)), curve)
    return int(np.argmax(rising >= min(accuracy, float(rising[-1]))))


def _parts(folder: Path, row: str) -> list[Any]:
    return [np.load(folder / row / f"{number}.npz", allow_pickle=False) for number in range(2 * BLOCKS)]


def _networks(folder: Path, row: str, look: int = 0) -> _Networks:
    parts = _parts(folder, row)
    signals = np.stack([part["signals"][look] for part in parts])
    blocks = np.repeat(np.arange(BLOCKS), 2)
    accuracy, found, distance = (np.array([part[name][look] for part in parts]) for name in _OF_A_NETWORK)
    return _Networks(
        epochs=int(parts[0]["epochs"][look]),
        accuracy=accuracy,
        signals=signals,
        lira=lira_rotated(signals[:, :, None], membership(), blocks),
        sparsity=float(np.mean([part["zeros"][look] for part in parts])),
        found=found,
        distance=distance,
    )


def _line(name: str, networks: _Networks, beside: _Networks | None = None) -> Line:
    member = membership()
    scores = {"loss threshold": networks.signals, "LiRA": networks.lira}
    return Line(
        name,
        networks.epochs,
        _mean(networks.accuracy),
        {name: _ends(pooled_auc(score, member, seed=SEED)) for name, score in scores.items()},
        {
            name: {f"{rate:g}": _ends(pooled_tpr_at_fpr(score, member, rate, seed=SEED).tpr) for rate in RATES}
            for name, score in scores.items()
        },
        networks.sparsity,
        _mean(networks.found),
        _mean(networks.distance),
        {} if beside is None else _differences(networks, beside),
    )


def _differences(networks: _Networks, beside: _Networks) -> dict[str, list[float]]:
    """By blocks; a network and the one beside it began with the same weights, on the same images."""
    pairs = {
        "accuracy": networks.accuracy - beside.accuracy,
        "LiRA": _areas(networks.lira) - _areas(beside.lira),
        "loss threshold": _areas(networks.signals) - _areas(beside.signals),
        "found": networks.found - beside.found,
    }
    return {name: _mean(pair.reshape(BLOCKS, 2).mean(1)) for name, pair in pairs.items()}


def _areas(scores: Floats) -> Floats:
    return np.array([roc_auc_score(*pair) for pair in zip(membership(), scores, strict=True)])


def _ends(estimate: Estimate) -> list[float]:
    return [round(float(value), 5) for value in (estimate.value, estimate.low, estimate.high)]


def _mean(values: Floats) -> list[float]:
    """Student's t at 95%."""
    mean, error = values.mean(), values.std(ddof=1) / math.sqrt(len(values))
    reach = float(student.ppf(0.975, len(values) - 1)) * error
    return [round(float(value), 5) for value in (mean, mean - reach, mean + reach)]


def tables(lines: list[Line]) -> str:
    """The lines in Markdown: membership, the differences to early stopping, inversion."""
    member = ["training | epochs | accuracy | LiRA: ROC area | at 0.1% | at 1% | threshold: ROC area | at 0.1% | at 1%"]
    inverted = ["training | found, in percent | relative L2"]
    pairs = ["suppression less early stopping | accuracy | LiRA: ROC area | threshold: ROC area | found, in percent"]
    for line in lines:
        cells = [line.training, str(line.epochs), _shown(line.accuracy, 100)]
        for name in ("LiRA", "loss threshold"):
            rates = [_shown(line.tpr[name][f"{rate:g}"], 100) for rate in RATES]
            cells += [_shown(line.auc[name], 1), *rates]
        member.append(" | ".join(cells))
        inverted.append(" | ".join([line.training, _shown(line.found, 100), _shown(line.distance, 1)]))
        if line.beside:
            scales = {"accuracy": 100, "LiRA": 1, "loss threshold": 1, "found": 100}
            shown = [_shown(line.beside[name], scale) for name, scale in scales.items()]
            pairs.append(" | ".join([line.training.removeprefix("suppression, "), *shown]))
    return "\n\n".join(_markdown(rows) for rows in (member, pairs, inverted))


def _markdown(rows: list[str]) -> str:
    head, *rest = (f"| {row} |" for row in rows)
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *rest])


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
    print(tables(lines))
    if given.json is not None:
        given.json.write_text(
            json.dumps({"settings": settings(), "lines": [asdict(line) for line in lines]}, indent=1) + "\n"
        )
    if given.docs is not None:
        before, _, rest = given.docs.read_text().partition(START)
        _, _, after = rest.partition(END)
        given.docs.write_text(f"{before}{START}\n{tables(lines)}\n{END}{after}")


if __name__ == "__main__":
    main()
