"""What private training reaches on Fashion-MNIST at epsilon 2.7, and whether decay and adaptive clipping help.

``./run python -m benchmarks.fashion_record`` trains each recipe with five seeds and prints the table of
docs/does_it_learn.md. The features are those of a fixed scattering transform; a linear layer is trained on them.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress
from scipy.stats import t as student
from torch import Tensor, nn

from benchmarks.pages import put
from benchmarks.scattering import Scattering
from privet import data, dp, schedules
from privet.accounting import Ledger

EPSILON, DELTA = 2.7, 1e-5
MARKS = ("<!-- records: ./run python -m benchmarks.fashion_record -->", "<!-- end of records -->")
_AT_ONCE = 500


@dataclass(frozen=True)
class Recipe:
    """How a linear layer is trained on the features."""

    name: str
    batch: int = 8_192
    epochs: int = 40
    rate: float = 1.6  # times the clip norm: of the longest step that one image could make in a batch of one
    clip: float = 0.1  # the norms are up to 60
    momentum: float = 0.9
    average: float = 0.95  # of the weights, a step; 0 for the last ones
    decay: float = 1.0  # the last noise over the first
    adaptive: bool = False  # from ``clip`` on, to the median norm

    def plan(self, records: int) -> dp.Plan:
        """With the noise that spends epsilon."""
        steps = schedules.steps_for(self.epochs, records, self.batch)
        noise: float | schedules.ExponentialDecay = 1.0
        if self.decay != 1.0:
            noise = schedules.ExponentialDecay.reaching(1.0, self.decay, steps)
        return dp.Plan(
            dataset_size=records,
            expected_batch_size=self.batch,
            steps=steps,
            delta=DELTA,
            noise=noise,
            target_epsilon=EPSILON,
            clipping=dp.AdaptiveQuantile(self.clip) if self.adaptive else dp.FixedNorm(self.clip),
        )


BASE = Recipe("constant noise, clip norm 0.1")
RECIPES = (
    BASE,
    replace(BASE, name="noise that falls to a half, 0.1", decay=0.5),
    replace(BASE, name="constant noise, 3", clip=3.0),
    replace(BASE, name="constant noise, 30", clip=30.0),
    replace(BASE, name="constant noise, adaptive from 3", clip=3.0, adaptive=True),
)


@dataclass(frozen=True)
class Run:
    """One training."""

    recipe: Recipe
    seed: int
    accuracy: float
    epsilon: float
    noise_multiplier: float
    steps: int
    seconds: float


def features(images: Tensor) -> Tensor:
    """Of images (N, 1, 28, 28), each group of three channels normalised within its image (N, 3969)."""
    transform = Scattering()
    with torch.no_grad():
        parts = [F.group_norm(transform(part), 27).flatten(1) for part in torch.split(images, _AT_ONCE)]
    return torch.cat(parts)


def run(recipe: Recipe, seed: int, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> Run:
    """Train with secret noise; the seed is that of the first weights, which are zeros, and so of the name alone."""
    begun = time.perf_counter()
    torch.manual_seed(seed)
    model = nn.Linear(train[0].shape[1], 10)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    plan = recipe.plan(len(train[1]))
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.rate / recipe.clip, momentum=recipe.momentum)
    averaged = [parameter.detach().clone() for parameter in model.parameters()]
    ledger = Ledger.in_memory(plan.relation, plan.unit)
    with dp.make_private(model, plan, ledger=ledger) as private:
        for batch in private.batches(train):
            optimizer.param_groups[0]["lr"] = recipe.rate / private.max_grad_norms[0]  # released, where it moves
            private.backward(lambda part: F.cross_entropy(model(part[0]), part[1], reduction="none"), batch)
            optimizer.step()
            share = min(recipe.average, private.step / (private.step + 10.0)) if recipe.average else 0.0
            for kept, value in zip(averaged, model.parameters(), strict=True):
                kept.lerp_(value.detach(), 1.0 - share)
        spent = private.spent().epsilon.upper
    accuracy = float((F.linear(test[0], averaged[0], averaged[1]).argmax(1) == test[1]).double().mean())
    seconds = time.perf_counter() - begun
    return Run(recipe, seed, accuracy, spent, plan.noise_multipliers[0], plan.total_steps, round(seconds, 1))


def table(runs: list[Run]) -> str:
    """In Markdown: each recipe's accuracy with Student's interval over its seeds, and beside the first recipe."""
    lines = ["| recipe | accuracy, % | less the first | seconds a run |", "|---|---|---|---|"]
    names = list(dict.fromkeys(one.recipe.name for one in runs))
    first = _accuracies(runs, names[0])
    for name in names:
        here = _accuracies(runs, name)
        apart = "" if name == names[0] else _interval(here - first)
        seconds = float(np.median([one.seconds for one in runs if one.recipe.name == name]))
        lines.append(f"| {name} | {_interval(here)} | {apart} | {seconds:.0f} |")
    return "\n".join(lines)


def _accuracies(runs: list[Run], name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([100.0 * one.accuracy for one in runs if one.recipe.name == name])


def _interval(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    if len(values) < 2:
        return f"{values.mean():.2f}"
    reach = float(student.ppf(0.975, len(values) - 1)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return f"{values.mean():.2f} [{values.mean() - reach:.2f}, {values.mean() + reach:.2f}]"


def main(recipes: tuple[Recipe, ...] = RECIPES) -> None:
    """Train, print; with ``--json`` and ``--docs`` write it down, too."""
    parser = argparse.ArgumentParser(prog="./run python -m benchmarks.fashion_record", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", help="recipes whose name has this in it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all runs there, for a record")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="put the table between the marks in this page")
    given = parser.parse_args()
    console = Console(stderr=True)
    begun = time.perf_counter()
    train, test = (
        (features(images.inputs), images.labels) for images in (data.fashion_mnist(), data.fashion_mnist(train=False))
    )
    console.print(f"features: {time.perf_counter() - begun:.0f} s", highlight=False)
    chosen = [one for one in recipes if given.only is None or given.only in one.name]
    runs: list[Run] = []
    with Progress(console=console) as progress:
        task = progress.add_task("runs", total=len(chosen) * given.seeds)
        for seed in range(given.seeds):  # by turns, so that a slow hour meets all alike
            for recipe in chosen:
                runs.append(run(recipe, seed, train, test))
                progress.advance(task)
                console.print(f"{recipe.name}, {seed}: {runs[-1].accuracy:.2%}, {runs[-1].seconds} s", highlight=False)
                if given.json is not None:
                    _write(given.json, runs)
    print(table(runs))
    if given.docs is not None:
        given.docs.write_text(put(given.docs.read_text(), {MARKS: table(runs)}))


def _write(path: Path, runs: list[Run]) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    path.write_text(json.dumps({"commit": commit, "runs": [asdict(one) for one in runs]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
