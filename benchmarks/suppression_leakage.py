"""What suppression buys: accuracy and membership leakage of LeNet-5 beside other ways to train it, on Fashion-MNIST.

``./run python -m benchmarks.suppression_leakage`` trains 16 networks a row, each on 5,000 of 10,000 images, attacks
each with the other 14 outside its block as shadows, and prints the tables of docs/suppression.md. Finished networks are
kept in a folder, so that a run that was stopped goes on. About 50 minutes on two cores.
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

from benchmarks.pages import put
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
RATES, DRAWS = (0.001, 0.01), 1_000
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
    """Train what is not in the folder yet, a network on each core at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "settings.json"
    before = json.loads(kept.read_text()) if kept.exists() else None
    if before != settings() and (before is not None or any(folder.iterdir())):
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
    looks = [_networks(folder, "plain", look) for look in range(len(LOOKS))]
    lines, stopped = [_line("none", looks[-1])], []
    for sparsity in SPARSITIES:
        percent = f"{100 * sparsity:g}%"
        suppressed = _networks(folder, f"suppressed-{100 * sparsity:g}")
        match = nearest_look(_curve(looks), float(suppressed.accuracy.mean()))
        lines.append(_line(f"suppression, {percent}", suppressed, _beside(suppressed, looks)))
        stopped.append(_line(f"early stopping, as accurate as {percent}", looks[match]))
    lines += stopped
    lines += [_line(f"weight decay {decay:g}", _networks(folder, f"decay-{decay:g}")) for decay in DECAYS]
    return lines + [
        _line(f"DP, epsilon {epsilon:g}", _networks(folder, f"epsilon-{epsilon:g}")) for epsilon in EPSILONS
    ]


def nearest_look(curve: Floats, accuracy: float) -> int:
    """The look whose accuracy is nearest, on the rising curve that fits ``curve`` best (least squares).

    Of looks of one fitted accuracy, the one whose own is nearest.
    """
    rising: Floats = IsotonicRegression().fit_transform(np.arange(len(curve)), curve)
    apart = np.abs(rising - accuracy)
    alike = np.flatnonzero(apart == apart.min())
    return int(alike[np.argmin(np.abs(curve[alike] - accuracy))])


def _curve(looks: list[_Networks]) -> Floats:
    return np.array([one.accuracy.mean() for one in looks])


def _parts(folder: Path, row: str) -> list[Any]:
    return [np.load(folder / row / f"{number}.npz", allow_pickle=False) for number in range(2 * BLOCKS)]


def _networks(folder: Path, row: str, look: int = 0) -> _Networks:
    parts = _parts(folder, row)
    signals = np.stack([part["signals"][look] for part in parts])
    accuracy, found, distance = (np.array([part[name][look] for part in parts]) for name in _OF_A_NETWORK)
    return _Networks(
        epochs=int(parts[0]["epochs"][look]),
        accuracy=accuracy,
        signals=signals,
        lira=lira_rotated(signals[:, :, None], membership(), np.repeat(np.arange(BLOCKS), 2)),
        sparsity=float(np.mean([part["zeros"][look] for part in parts])),
        found=found,
        distance=distance,
    )


def _line(name: str, networks: _Networks, beside: dict[str, list[float]] | None = None) -> Line:
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
        beside or {},
    )


def _beside(networks: _Networks, looks: list[_Networks]) -> dict[str, list[float]]:
    """Less early stopping at the same accuracy, given these images: by blocks drawn anew, each time matched anew.

    The bootstrap's deviation with Student's t of as many blocks as there are. A network and those beside it began
    with the same weights, on the same images.
    """
    ours, theirs = _by_block(networks), [_by_block(one) for one in looks]

    def difference(blocks: NDArray[np.int64]) -> dict[str, float]:
        curve = np.array([one["accuracy"][blocks].mean() for one in theirs])
        match = theirs[nearest_look(curve, float(ours["accuracy"][blocks].mean()))]
        return {name: float((values[blocks] - match[name][blocks]).mean()) for name, values in ours.items()}

    generator = np.random.default_rng(SEED)
    drawn = [difference(generator.integers(0, BLOCKS, BLOCKS)) for _ in range(DRAWS)]
    found = {}
    for name, value in difference(np.arange(BLOCKS)).items():
        error = float(np.std([one[name] for one in drawn])) * math.sqrt(BLOCKS / (BLOCKS - 1))
        reach = float(student.ppf(0.975, BLOCKS - 1)) * error
        found[name] = [round(end, 5) for end in (value, value - reach, value + reach)]
    return found


def _by_block(networks: _Networks) -> dict[str, Floats]:
    values = {
        "accuracy": networks.accuracy,
        "LiRA": _areas(networks.lira),
        "loss threshold": _areas(networks.signals),
        "found": networks.found,
    }
    return {name: value.reshape(BLOCKS, 2).mean(1) for name, value in values.items()}


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
        given.docs.write_text(put(given.docs.read_text(), {(START, END): tables(lines)}))


if __name__ == "__main__":
    main()
