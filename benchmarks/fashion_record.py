"""What private training reaches on Fashion-MNIST at epsilon 2.7, and whether decay and adaptive clipping help.

``./run python -m benchmarks.fashion_record --json FILE`` trains two networks by each recipe: first at several learning
rates, each judged on images that were not trained on, then at the best of them with five seeds, judged on the test
images. It prints the tables of docs/does_it_learn.md. What is in the file already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from benchmarks.pages import put
from benchmarks.scattering import Scattering
from privet import data, dp, schedules
from privet.accounting import Ledger
from privet.atomic_file import replacing
from privet.statistics import mean_interval

EPSILON, DELTA = 2.7, 1e-5
COMMAND = "./run python -m benchmarks.fashion_record"
MOMENTUM, AVERAGE = 0.9, 0.95  # of the weights, a step
SEEDS = 5
_JUDGES = 10_000  # of the training images, the last: a learning rate is chosen on them
_AT_ONCE = 500

Images = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Recipe:
    """What is done to a gradient.

    Attributes:
        name: as it is reported.
        clip: the clip norm, or where an adaptive one begins; it goes to the median norm.
        decay: the last noise over the first.
        adaptive: whether it moves.
    """

    name: str
    clip: float
    decay: float = 1.0
    adaptive: bool = False


@dataclass(frozen=True)
class Work:
    """A network and how it is trained.

    Attributes:
        name: as it is reported.
        network: makes it.
        features: of images, before training.
        images: of the training images, the first.
        batch: in expectation.
        epochs: passes.
        rates: learning rates, times the clip norm: the longest step that one image could make in a batch of one.
        rate_seeds: runs at each of them.
        recipes: to compare; those of constant noise and clip norm are what the others are measured against.
    """

    name: str
    network: Callable[[], nn.Module]
    features: Callable[[Tensor], Tensor]
    images: int
    batch: int
    epochs: int
    rates: tuple[float, ...]
    rate_seeds: int
    recipes: tuple[Recipe, ...]

    @property
    def marks(self) -> tuple[str, str]:
        """Between which its table stands in the page."""
        return f"<!-- {self.name}: {COMMAND} -->", f"<!-- end of {self.name} -->"

    def plan(self, recipe: Recipe, records: int) -> dp.Plan:
        """With the noise that spends epsilon."""
        steps = schedules.steps_for(self.epochs, records, self.batch)
        noise: float | schedules.ExponentialDecay = 1.0
        if recipe.decay != 1.0:
            noise = schedules.ExponentialDecay.reaching(1.0, recipe.decay, steps)
        return dp.Plan(
            dataset_size=records,
            expected_batch_size=self.batch,
            steps=steps,
            delta=DELTA,
            noise=noise,
            target_epsilon=EPSILON,
            clipping=dp.AdaptiveQuantile(recipe.clip) if recipe.adaptive else dp.FixedNorm(recipe.clip),
        )


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        work: its name.
        recipe: its name.
        rate: of learning, times the clip norm.
        seed: of the first weights; noise and samples are secret.
        judged_on: ``"held out"`` or ``"test"`` images.
        accuracy: on them.
        epsilon: spent, by the ledger.
        noise_multiplier: of the first step.
        steps: of the plan.
        seconds: of the training.
        commit: of the code.
    """

    work: str
    recipe: str
    rate: float
    seed: int
    judged_on: str
    accuracy: float
    epsilon: float
    noise_multiplier: float
    steps: int
    seconds: float
    commit: str


def scattered(images: Tensor) -> Tensor:
    """Of images (N, 1, 28, 28), each group of three channels normalised within its image (N, 3969)."""
    transform = Scattering()
    with torch.no_grad():
        parts = [F.group_norm(transform(part), 27).flatten(1) for part in torch.split(images, _AT_ONCE)]
    return torch.cat(parts)


def linear() -> nn.Module:
    """From scattering features to ten classes; its weights begin at zero."""
    model = nn.Linear(3_969, 10)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def convolutional() -> nn.Module:
    """Two convolutions and two linear layers with tanh between them, as in Papernot et al. 2021."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 8, stride=2, padding=3),
        nn.Tanh(),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, stride=2),
        nn.Tanh(),
        nn.MaxPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(512, 32),
        nn.Tanh(),
        nn.Linear(32, 10),
    )


def recipes(least: float, begin: float, most: float) -> tuple[Recipe, ...]:
    """Three constant clip norms; noise that falls, at the least of them; and a norm that moves on from ``begin``."""
    return (
        *(Recipe(f"constant noise, clip norm {clip:g}", clip) for clip in (least, begin, most)),
        Recipe(f"noise that falls to a half, {least:g}", least, decay=0.5),
        Recipe(f"noise that falls to a quarter, {least:g}", least, decay=0.25),
        Recipe(f"constant noise, adaptive from {begin:g}", begin, adaptive=True),
    )


WORKS = (
    Work(
        name="linear on scattering features",
        network=linear,
        features=scattered,
        images=60_000,
        batch=8_192,
        epochs=40,
        rates=(0.8, 1.6, 3.2, 6.4),
        rate_seeds=1,
        recipes=recipes(0.1, 3.0, 30.0),
    ),
    Work(
        name="convolutional",
        network=convolutional,
        features=lambda images: images,
        images=5_000,
        batch=500,
        epochs=20,
        rates=(0.1, 0.2, 0.4, 0.8),
        rate_seeds=2,
        recipes=recipes(0.1, 1.0, 5.0),
    ),
)


def train(work: Work, recipe: Recipe, rate: float, seed: int, given: Images, judges: Images, judged_on: str) -> Run:
    """Train with secret noise, and judge an average over the steps in place of the last weights."""
    begun = time.perf_counter()
    torch.manual_seed(seed)
    model = work.network()
    plan = work.plan(recipe, len(given[1]))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate / recipe.clip, momentum=MOMENTUM)
    averaged = [parameter.detach().clone() for parameter in model.parameters()]
    with dp.make_private(model, plan, ledger=Ledger.in_memory(plan.relation, plan.unit)) as private:
        for batch in private.batches(given):
            optimizer.param_groups[0]["lr"] = rate / private.max_grad_norms[0]  # released, where it moves
            private.backward(lambda part: F.cross_entropy(model(part[0]), part[1], reduction="none"), batch)
            optimizer.step()
            share = min(AVERAGE, private.step / (private.step + 10.0))
            for kept, value in zip(averaged, model.parameters(), strict=True):
                kept.lerp_(value.detach(), 1.0 - share)
        spent = private.spent().epsilon.upper
    with torch.no_grad():
        for kept, value in zip(averaged, model.parameters(), strict=True):
            value.copy_(kept)
        answers = torch.cat([model(part).argmax(1) for part in torch.split(judges[0], _AT_ONCE)])
    accuracy = float((answers == judges[1]).double().mean())
    seconds = round(time.perf_counter() - begun, 1)
    first = plan.noise_multipliers[0]
    return Run(
        work.name, recipe.name, rate, seed, judged_on, accuracy, spent, first, plan.total_steps, seconds, _commit()
    )


def _commit() -> str:
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()


def best_rate(work: Work, recipe: Recipe, runs: Iterable[Run]) -> float:
    """The learning rate with the best mean accuracy on images held out."""
    means = {rate: _held_out(work, recipe, rate, runs) for rate in work.rates}
    return max(means, key=means.__getitem__)


def constants(work: Work) -> list[Recipe]:
    """The recipes of constant noise and clip norm."""
    return [one for one in work.recipes if one.decay == 1.0 and not one.adaptive]


def best_constant(work: Work, runs: Sequence[Run]) -> Recipe:
    """The one of them with the best mean accuracy on images held out, at its best rate."""
    return max(constants(work), key=lambda one: _held_out(work, one, best_rate(work, one, runs), runs))


def _held_out(work: Work, recipe: Recipe, rate: float, runs: Iterable[Run]) -> float:
    wanted = (work.name, recipe.name, rate, "held out")
    return float(np.mean([one.accuracy for one in runs if (one.work, one.recipe, one.rate, one.judged_on) == wanted]))


def table(work: Work, runs: Sequence[Run]) -> str:
    """In Markdown: each recipe's accuracy with Student's interval over its runs, and beside a constant one.

    Noise that falls is measured against constant noise of the same clip norm; an adaptive clip norm against the best
    constant one, and against the one that is best on the test images, too, which nobody could have chosen.
    """
    lines = [
        "| recipe | rate | accuracy, % | less the constant | less the best on the test images | seconds a run |",
        "|---|---|---|---|---|---|",
    ]
    best = best_constant(work, runs)
    top = max(constants(work), key=lambda one: _accuracies(work, one, runs).mean())
    for recipe in work.recipes:
        here, apart = _accuracies(work, recipe, runs), ["", ""]
        if recipe.adaptive:
            apart = [_interval(here - _accuracies(work, one, runs)) for one in (best, top)]
        elif recipe.decay != 1.0:
            same = next(one for one in constants(work) if one.clip == recipe.clip)
            apart[0] = _interval(here - _accuracies(work, same, runs))
        name = f"{recipe.name} (chosen)" if recipe is best else recipe.name
        seconds = np.median([one.seconds for one in _tests(work, recipe, runs)])
        cells = (name, f"{best_rate(work, recipe, runs):g}", _interval(here), *apart, f"{seconds:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _tests(work: Work, recipe: Recipe, runs: Sequence[Run]) -> list[Run]:
    wanted = (work.name, recipe.name, best_rate(work, recipe, runs), "test")
    found = [one for one in runs if (one.work, one.recipe, one.rate, one.judged_on) == wanted]
    return sorted(found, key=lambda one: one.seed)


def _accuracies(work: Work, recipe: Recipe, runs: Sequence[Run]) -> NDArray[np.float64]:
    return np.array([100.0 * one.accuracy for one in _tests(work, recipe, runs)])


def _interval(values: NDArray[np.float64]) -> str:
    found = mean_interval(values)
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def run(work: Work, runs: list[Run], did: Callable[[], None], console: Console) -> None:
    """All trainings of a work that are not in ``runs`` yet, which they are added to one by one."""
    begun = time.perf_counter()
    images, tests = data.fashion_mnist(), data.fashion_mnist(train=False)
    inputs = work.features(images.inputs)
    test = (work.features(tests.inputs), tests.labels)
    console.print(f"{work.name}: features, {time.perf_counter() - begun:.0f} s", highlight=False)
    kept = min(work.images, len(inputs) - _JUDGES)
    held_out = (inputs[-_JUDGES:], images.labels[-_JUDGES:])
    known = {(one.recipe, one.rate, one.seed, one.judged_on) for one in runs if one.work == work.name}

    def go(recipe: Recipe, rate: float, seed: int, size: int, judges: Images, judged_on: str) -> None:
        if (recipe.name, rate, seed, judged_on) in known:
            return
        made = train(work, recipe, rate, seed, (inputs[:size], images.labels[:size]), judges, judged_on)
        runs.append(made)
        did()
        console.print(
            f"{recipe.name}, rate {rate:g}, {judged_on}: {made.accuracy:.2%}, {made.seconds} s", highlight=False
        )

    with Progress(console=console, transient=True) as progress:
        for seed in progress.track(range(work.rate_seeds), description="rates"):
            for recipe in work.recipes:
                for rate in work.rates:
                    go(recipe, rate, seed, kept, held_out, "held out")
        for seed in progress.track(range(SEEDS), description="runs"):  # by turns: a slow hour meets all alike
            for recipe in work.recipes:
                go(recipe, best_rate(work, recipe, runs), seed, work.images, test, "test")


def main() -> None:
    """Train what is not in the file, and print; with ``--docs`` write the tables down, too."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", required=True, help="where all runs are, and go")
    parser.add_argument("--only", help="works whose name has this in it")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="put the tables between their marks in this page")
    given = parser.parse_args()
    runs = read(given.json) if given.json.exists() else []
    works = [one for one in WORKS if given.only is None or given.only in one.name]
    for work in works:
        run(work, runs, lambda: _write(given.json, runs), Console(stderr=True))
        print(f"{work.name}\n{table(work, runs)}")
    if given.docs is not None:
        given.docs.write_text(put(given.docs.read_text(), {one.marks: table(one, runs) for one in works}))


def read(path: Path) -> list[Run]:
    """All runs of a record."""
    found: list[dict[str, Any]] = json.loads(path.read_text())["runs"]
    return [Run(**one) for one in found]


def _write(path: Path, runs: Sequence[Run]) -> None:
    works = {
        one.name: {
            **{key: getattr(one, key) for key in ("images", "batch", "epochs", "rates", "rate_seeds")},
            "recipes": [asdict(recipe) for recipe in one.recipes],
        }
        for one in WORKS
    }
    config = {"epsilon": EPSILON, "delta": DELTA, "momentum": MOMENTUM, "average": AVERAGE, "works": works}
    made = json.dumps({"config": config, "runs": [asdict(one) for one in runs]}, indent=1) + "\n"
    with replacing(path) as file:
        file.write(made.encode())


if __name__ == "__main__":
    main()
