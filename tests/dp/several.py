"""Two processes that train one model together; each scenario says what it saw, a dictionary a rank."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn, optim

from privet import dp
from privet.accounting import Ledger
from privet.errors import PrivateTrainingError

RECORDS = 40


def records() -> tuple[Tensor, Tensor]:
    inputs = torch.randn(RECORDS, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return inputs, (inputs.sum(1) > 0).long()


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def plan(**changed: Any) -> dp.Plan:
    settings: dict[str, Any] = {
        "dataset_size": RECORDS,
        "expected_batch_size": 2,
        "steps": 12,
        "delta": 1e-3,
        "noise": 1.0,
        "clipping": dp.FixedNorm(0.5),
    }
    return dp.Plan(**settings | changed)


def loss_of(model: nn.Module) -> Callable[[Any], Tensor]:
    return lambda data: F.cross_entropy(model(data[0]), data[1], reduction="none")


def trained(folder: Path, chosen: dp.Plan, test_run: dp.TestRun | None, seed: int = 0) -> dict[str, Any]:
    """Weights, clip norms, and how many batches were empty here."""
    model = network(seed)
    empty, norms = 0, []
    with dp.make_private(model, chosen, ledger=folder / "run.ledger", test_run=test_run) as private:
        optimizer = optim.SGD(model.parameters(), lr=0.5)
        for batch in private.batches(records()):
            empty += batch.empty
            norms += private.backward(loss_of(model), batch).clipping.max_grad_norms
            optimizer.step()
    return {"weights": [value.tolist() for value in model.parameters()], "norms": norms, "empty": empty}


def without_noise(folder: Path) -> dict[str, Any]:
    """Each rank begins with weights of its own; those of rank 0 count."""
    seed = dist.get_rank() if dist.is_initialized() else 0
    return trained(folder, plan(), dp.TestRun(seed=3, noise=False), seed)


def adaptive(folder: Path) -> dict[str, Any]:
    chosen = plan(clipping=dp.AdaptiveQuantile(0.5), expected_batch_size=20)
    return trained(folder, chosen, dp.TestRun(seed=3, noise=False))


def adaptive_with_noise(folder: Path) -> dict[str, Any]:
    return trained(folder, plan(clipping=dp.AdaptiveQuantile(0.5), expected_batch_size=20), None)


def noise_alone(folder: Path) -> dict[str, Any]:
    """Gradients of a loss that depends on nothing: 3 steps of 30,000 numbers, of which the standard deviation."""
    model = nn.Linear(300, 100, bias=False)
    data = torch.ones(RECORDS, 300)
    chosen = plan(steps=3, noise=2.0, expected_batch_size=4)
    stds = []
    with dp.make_private(model, chosen, ledger=folder / "run.ledger", test_run=dp.TestRun(seed=5)) as private:
        for batch in private.batches(data):
            private.backward(lambda part: 0.0 * model(part).sum(dim=1), batch)
            assert model.weight.grad is not None
            stds.append(float(model.weight.grad.double().std()))
            model.weight.detach().add_(1.0)
    return {"stds": stds}


def noise_on_every_rank(folder: Path) -> dict[str, Any]:
    begin = dp.Private._begin

    def noisy(self: dp.Private) -> Any:
        step = begin(self)
        if self._noise is None:
            from privet.dp.keystream import KeyStream
            from privet.dp.noise import Noise

            std = step._sigma.gradient_stds[0] / self.plan.expected_batch_size
            Noise(KeyStream.seeded(9, "noise")).normal_(self._flat, std)
        return step

    dp.Private._begin = noisy  # type: ignore[method-assign]
    return noise_alone(folder)


def own_sample(folder: Path) -> dict[str, Any]:
    """Planted: each rank draws with a key of its own."""
    dp.Private._shared_stream = lambda self: __import__(  # type: ignore[method-assign]
        "privet.dp.keystream", fromlist=["KeyStream"]
    ).KeyStream.secret()
    return refused(lambda: trained(folder, plan(), None))


def seeded_in_one(folder: Path) -> dict[str, Any]:
    return refused(lambda: trained(folder, plan(), dp.TestRun(seed=0) if dist.get_rank() else None))


def other_seeds(folder: Path) -> dict[str, Any]:
    return refused(lambda: trained(folder, plan(), dp.TestRun(seed=dist.get_rank())))


def other_plans(folder: Path) -> dict[str, Any]:
    return refused(lambda: trained(folder, plan(noise=1.0 + dist.get_rank()), None))


def other_models(folder: Path) -> dict[str, Any]:
    model = nn.Linear(6, 2 + dist.get_rank())
    return refused(lambda: dp.make_private(model, plan(), ledger=folder / "run.ledger"))


def other_data(folder: Path) -> dict[str, Any]:
    """Shuffled in one rank: a number is another record there, and a record could be in two shares."""
    model = network()
    inputs, labels = records()
    order = torch.arange(RECORDS).roll(dist.get_rank())

    def begin() -> None:
        with dp.make_private(model, plan(), ledger=folder / "run.ledger") as private:
            next(private.batches((inputs[order], labels[order])))

    return refused(begin)


def a_step_that_fails(folder: Path) -> dict[str, Any]:
    """The loss fails in rank 1 at step 3; both go on with the same records afterwards."""
    model = network()
    said: list[str] = []
    with dp.make_private(model, plan(expected_batch_size=20), ledger=folder / "run.ledger") as private:
        optimizer = optim.SGD(model.parameters(), lr=0.5)
        while private.step < private.plan.total_steps:
            try:
                for batch in private.batches(records()):
                    fails = dist.get_rank() == 1 and private.step == 3 and not said

                    def loss(data: Any, fails: bool = fails) -> Tensor:
                        if fails:
                            raise ValueError("planted")
                        return loss_of(model)(data)

                    private.backward(loss, batch)
                    optimizer.step()
            except (ValueError, PrivateTrainingError) as error:
                said.append(f"{type(error).__name__}: {error}")
    events = 0
    if dist.get_rank() == 0:
        with Ledger.open(folder / "run.ledger") as ledger:
            events = sum(event.count for event in ledger.events())
    return {"said": said, "weights": [value.tolist() for value in model.parameters()], "events": events}


def killed(folder: Path) -> dict[str, Any]:
    """Rank 1 dies in the fourth step, after it was reserved."""
    model = network()
    said = ""
    private = dp.make_private(model, plan(), ledger=folder / "run.ledger", reserve_ahead=1)
    try:
        for batch in private.batches(records()):
            if private.step == 3 and dist.get_rank() == 1:
                os.kill(os.getpid(), 9)
            private.backward(loss_of(model), batch)
            model[0].weight.detach().add_(0.0)
    except PrivateTrainingError as error:
        said = str(error)
    return {"said": said, "steps": private.step}


def skipped_when_empty(folder: Path) -> dict[str, Any]:
    """Planted: rank 1 does not step where it has no record."""
    model = network()

    def begin() -> None:
        with dp.make_private(model, plan(), ledger=folder / "run.ledger") as private:
            for batch in private.batches(records()):
                if dist.get_rank() == 1 and batch.empty:
                    continue
                private.backward(loss_of(model), batch)
                model[0].weight.detach().add_(0.0)

    return refused(begin)


def who_has_the_ledger(folder: Path) -> dict[str, Any]:
    model = network()
    with dp.make_private(model, plan(), ledger=folder / "run.ledger") as private:
        asked = [
            lambda: private.spent(),
            lambda: private.statement(),
            lambda: private.state_dict(),
            lambda: private.ledger,
        ]
        return {"said": [refused(ask).get("said", "") for ask in asked]}


def fit(folder: Path) -> dict[str, Any]:
    return refused(lambda: dp.fit(network(), records(), plan(), ledger=folder / "run.ledger", progress=False))


def refused(run: Callable[[], Any]) -> dict[str, Any]:
    try:
        run()
    except PrivateTrainingError as error:
        return {"said": str(error)}
    return {}


def together(names: list[str], folder: Path) -> None:
    """One rank's main."""
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    for name in names:
        here = folder / name
        here.mkdir(exist_ok=True)
        found = globals()[name](here)
        (here / f"{rank}.json").write_text(json.dumps(found))
    os._exit(0)  # a group with a rank that died does not end by itself


if __name__ == "__main__":
    together(sys.argv[2:], Path(sys.argv[1]))
