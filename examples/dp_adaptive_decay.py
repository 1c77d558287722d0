"""Private training of LeNet-5 with constant and with decaying noise, at the same epsilon; under a minute on two cores.

Trains twice on 4,000 images of mnist5k, with noise solved for epsilon 3, and prints epsilon and accuracy on 1,000
others every fifth epoch. Measured in four runs of each: 83.0, 86.0, 87.0 and 87.7% with constant noise, 83.2, 87.6,
87.8 and 88.0% with noise that halves. That is less than a point between the means and less than from run to run: on
data as small as these, the shape matters little. Where epsilon goes is plain to see: 1.5 by half-way, against 2.1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from privet import accounting, data, dp, schedules
from privet.models import LeNet5
from privet.training import evaluate

EPOCHS, EPSILON, DELTA = 20, 3.0, 1e-5


class Watch:
    """Prints, every fifth epoch, what is spent and the accuracy on held-out images, which are not private here."""

    def __init__(self, held_out: data.Examples) -> None:
        self.held_out = held_out

    def on_epoch(self, epoch: int, model: nn.Module, reached: dp.Reached) -> None:
        if epoch % 5 == 0:
            accuracy = evaluate(model, self.held_out).accuracy
            print(f"  epoch {epoch:2}  epsilon <= {reached.epsilon:.3f}  accuracy {accuracy:.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fashion-mnist", type=Path, metavar="DIR", help="train on the files there (takes longer)")
    folder = parser.parse_args().fashion_mnist
    if folder is None:
        train, held_out = data.mnist5k().split(4_000, 1_000, seed=0)
    else:
        train, held_out = data.fashion_mnist(folder), data.fashion_mnist(folder, train=False)
    batch = len(train) // 20
    steps = schedules.steps_for(EPOCHS, len(train), batch)
    shapes: dict[str, schedules.NoiseSchedule] = {
        "constant": schedules.Constant(1.0),
        "decaying": schedules.ExponentialDecay.reaching(2.0, 1.0, steps),
    }
    for name, shape in shapes.items():
        plan = dp.Plan(
            dataset_size=len(train),
            expected_batch_size=batch,
            steps=steps,
            delta=DELTA,
            noise=shape,
            target_epsilon=EPSILON,  # the shape is scaled to spend this
        )
        first, last = plan.noise_multipliers[0], plan.noise_multipliers[-1]
        print(f"{name} noise, {first:.3f} to {last:.3f}, {plan.total_steps} steps of {batch} expected")
        # A ledger each, to compare. Who publishes both models keeps both on one ledger, and epsilon adds up.
        with accounting.Ledger.in_memory(plan.relation, plan.unit) as ledger:
            result = dp.fit(
                LeNet5(seed=0),
                train,
                plan,
                ledger=ledger,
                optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
                progress=False,
                callbacks=[Watch(held_out)],
            )
        print(f"  {result.spent}")


if __name__ == "__main__":
    main()
