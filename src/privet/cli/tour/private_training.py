"""A stop: the same network trained with differential privacy, and attacked in the same way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privet import dp, models, schedules
from privet.accounting import Ledger
from privet.attacks import Target
from privet.cli.tour.scene import SIZES, Row, Scene, measure
from privet.cli.tour.stop import StopResult
from privet.report import Note, Section, Table, Text

__all__ = ["private_training"]

_TARGET, _DELTA, _STEPS, _BATCH = 3.0, 1e-4, 75, 100


@dataclass(frozen=True)
class _Run:
    """A private training of the network under study."""

    name: str
    clipping: dp.ClippingStrategy
    learning_rate: float


_RUNS = (
    _Run("DP, decay", dp.FixedNorm(1.0), 0.05),
    _Run("DP, quantile", dp.AdaptiveQuantile(5.0, count_noise_std=12.5), 0.005),
)


@dataclass(frozen=True)
class _Trained:
    row: Row
    statement: dp.Statement
    last_norm: float


def private_training(scene: Scene) -> StopResult:
    """Train twice within one budget, attack both; what they let out is everything, as of the first network."""
    trained = [_train(scene, run) for run in _RUNS]
    return StopResult(tuple(one.row for one in trained), (_section(scene, trained),))


def _train(scene: Scene, run: _Run) -> _Trained:
    network = models.MLP(SIZES, seed=scene.seed)
    optimizer = torch.optim.SGD(network.parameters(), lr=run.learning_rate, momentum=0.9)
    plan = dp.Plan(
        dataset_size=len(scene.members),
        expected_batch_size=_BATCH,
        steps=_STEPS,
        delta=_DELTA,
        target_epsilon=_TARGET,
        noise=schedules.ExponentialDecay.reaching(2.0, 1.0, _STEPS),
        clipping=run.clipping,
    )

    def per_example_loss(batch: Any) -> Tensor:
        return F.cross_entropy(network(batch[0]), batch[1], reduction="none")

    with dp.make_private(network, plan, ledger=Ledger.in_memory(plan.relation, plan.unit)) as private:
        for batch in private.batches((scene.members.inputs, scene.members.labels)):
            private.backward(per_example_loss, batch)
            optimizer.step()
        statement = private.statement()
        last_norm = private.max_grad_norms[0]
    return _Trained(Row(run.name, "everything", _attacked(network, scene)), statement, last_norm)


def _attacked(network: nn.Module, scene: Scene) -> Any:
    return measure(Target(network.eval(), scene.members.classes), scene)


def _section(scene: Scene, trained: list[_Trained]) -> Section:
    rows = tuple(
        (
            one.row.protection,
            f"{100 * one.row.leakage.accuracy.value:.1f}%",
            str(one.row.leakage.auc),
            str(one.statement.epsilon),
            f"{run.clipping.initial(1).max_grad_norms[0]:g} to {one.last_norm:.3g}",
        )
        for run, one in zip(_RUNS, trained, strict=True)
    )
    return Section(
        "The same network, trained not to remember",
        (
            Text(
                (
                    f"The same layers, the same {len(scene.members):,} images, trained anew: every image's gradient "
                    f"was clipped, and noise was added to each of {_STEPS} steps, on random samples of about {_BATCH} "
                    f"images. What was spent was written to a ledger before each draw of noise. {_found(trained)}",
                    "The noise falls by half over the run. In the second run the clip norm follows the median of the "
                    "gradients' norms, learned from noisy counts; they are paid for in the same epsilon.",
                )
            ),
            Table(
                f"Epsilon at delta {_DELTA:g}, for one image added or removed. The attack is the one from above, on "
                "the full answer.",
                ("Training", "Right on unseen images", "ROC area", "Epsilon", "Clip norm"),
                rows,
            ),
            Note(
                "What this costs, and what it means",
                f"With {len(scene.members):,} images the noise costs much accuracy; with more images it costs less. "
                f"Epsilon {_TARGET:g} bounds every attack, also those not tried here; that this attack finds little "
                "would prove nothing. Each row is a training on its own: who publishes both has spent both. The noise "
                "comes from a cryptographic generator without a seed, so these two rows come out a little different "
                "each time.",
            ),
        ),
    )


def _found(trained: list[_Trained]) -> str:
    if any(one.row.leakage.auc.low > 0.5 for one in trained):
        return "The attack still finds a trace, as a bound above 0 allows."
    return "The attack finds nothing that chance does not explain."
