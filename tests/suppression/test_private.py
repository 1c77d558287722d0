"""After private training masks are post-processing; elsewhere the claim is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.suppression.training import batches, network, one_step, suppression_of, zeros
from torch import Tensor, nn, optim

from privet import dp, outputs
from privet.accounting import Ledger
from privet.errors import ArgumentError, CheckpointError, LedgerMismatchError, PrivateTrainingError
from privet.suppression import Layer, Suppression

RECORDS, STEPS = 120, 12
PLAN = dp.Plan(dataset_size=RECORDS, expected_batch_size=30, steps=STEPS, delta=1e-3, noise=1.0)


def records() -> tuple[Tensor, Tensor]:
    inputs = torch.randn(RECORDS, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return inputs, inputs.flatten(1).sum(1).sign().long() + 1


def private_run(model: nn.Module, **more: Any) -> dp.Private:
    return dp.make_private(model, PLAN, ledger=Ledger.in_memory(PLAN.relation, PLAN.unit), **more)


def settings(**changed: Any) -> dict[str, Any]:
    return {"start_epoch": 1, "end_epoch": 2, "steps_per_epoch": 4, "sparsity_end": 0.9} | changed


def loss_of(model: nn.Module) -> Any:
    return lambda batch: F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def loop(model: nn.Module, private: dp.Private, suppression: Suppression | None, optimizer: optim.Optimizer) -> None:
    for batch in private.batches(records()):
        private.backward(loss_of(model), batch)
        optimizer.step()
        if suppression is not None:
            suppression.step()


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.Adagrad])
def test_masks_hold_epsilon_is_the_same_and_the_claim_is_made(make: Any) -> None:
    model, plain = network(), network()
    with private_run(plain) as without:
        loop(plain, without, None, make(plain.parameters(), lr=0.05))
    with private_run(model) as private:
        optimizer = make(model.parameters(), lr=0.05)
        layers = [Layer("0", lower_clip=0.01, noise_std=0.01), nn.Linear]
        generator = torch.Generator().manual_seed(0)
        suppression = Suppression(model, optimizer, layers=layers, generator=generator, private=private, **settings())
        loop(model, private, suppression, optimizer)
        assert private.spent().epsilon == without.spent().epsilon
        assert private.statement().epsilon == without.statement().epsilon
        assert "post-processing, at no further epsilon" in suppression.claim()
        assert "NOT PRIVATE" not in suppression.claim()
    suppression.finalize()
    assert sum(int(zero.sum()) for zero in zeros(model).values()) == suppression.report().masked == 635


def test_a_seeded_run_is_stamped() -> None:
    model = network()
    with private_run(model, test_run=dp.TestRun(seed=0)) as private:
        optimizer = optim.SGD(model.parameters(), lr=0.05)
        suppression = Suppression(model, optimizer, private=private, **settings())
        loop(model, private, suppression, optimizer)
        assert suppression.claim().startswith("NOT PRIVATE: test run")


def test_without_private_training_there_is_no_claim() -> None:
    model = network()
    suppression = suppression_of(model, optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(PrivateTrainingError, match="no formal guarantee"):
        suppression.claim()


def test_steps_that_are_not_private_are_refused() -> None:
    model = network()
    with private_run(model) as private:
        optimizer = optim.SGD(model.parameters(), lr=0.05)
        suppression = Suppression(model, optimizer, private=private, **settings())
        with pytest.raises(PrivateTrainingError, match="after 0 private steps"):
            suppression.step()
        loop_batches = private.batches(records())
        for _ in range(2):
            private.backward(loss_of(model), next(loop_batches))
            optimizer.step()
        with pytest.raises(PrivateTrainingError, match="after 2 private steps"):
            suppression.step()
        assert suppression.report().step == 0


def test_masks_of_earlier_training_without_noise_make_no_claim() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    first = Suppression(model, optimizer, **settings())
    source = batches()
    for _ in range(4):
        one_step(model, optimizer, next(source))
        first.step()
    state = first.state_dict()
    first.finalize()
    optimizer.zero_grad()
    with private_run(model) as private:
        second = Suppression(model, optimizer, private=private, **settings())
        second.load_state_dict(state)
        with pytest.raises(PrivateTrainingError, match="no differential-privacy claim"):
            second.claim()
        loop(model, private, second, optimizer)
        with pytest.raises(PrivateTrainingError, match="no differential-privacy claim"):
            second.claim()


def test_the_private_training_of_another_model_makes_no_claim() -> None:
    model, other = network(), network()
    with private_run(other) as private, pytest.raises(ArgumentError, match=r"the one that trains '0\.weight'"):
        Suppression(model, optim.SGD(model.parameters(), lr=0.05), private=private, **settings())


def one_private_step(model: nn.Module, private: dp.Private, optimizer: optim.Optimizer) -> None:
    for batch in private.batches(records()):
        private.backward(loss_of(model), batch)
        optimizer.step()
        break


def refused(suppression: Suppression) -> bool:
    try:
        suppression.claim()
    except PrivateTrainingError:
        return True
    return False


def test_what_goes_on_after_private_training_was_closed_is_refused() -> None:
    model = network()
    private = private_run(model)
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    suppression = Suppression(model, optimizer, private=private, **settings())
    one_private_step(model, private, optimizer)
    private.close()
    source = batches()
    optimizer.zero_grad()
    one_step(model, optimizer, next(source))
    with pytest.raises(PrivateTrainingError, match="closed"):
        suppression.step()
    with pytest.raises(ArgumentError, match="closed"):
        Suppression(network(), private=private, **settings())


@pytest.mark.parametrize("how", ["another step", "another optimizer", "by hand", "a bias", "after the step"])
def test_what_changes_weights_between_private_steps_ends_the_claim(how: str) -> None:
    model = network()
    with private_run(model) as private:
        optimizer = optim.SGD(model.parameters(), lr=0.05)
        other = optim.SGD(model.parameters(), lr=0.05)
        suppression = Suppression(model, optimizer, private=private, **settings())
        for batch in private.batches(records()):
            private.backward(loss_of(model), batch)
            optimizer.step()
            if private.step == 3:
                if how == "another step":
                    optimizer.step()
                elif how == "another optimizer":
                    other.step()
                elif how == "by hand":
                    model[3].weight.detach().add_(0.1)
                elif how == "a bias":
                    model[3].bias.detach().add_(0.1)
            suppression.step()
            if private.step == 3 and how == "after the step":
                model.load_state_dict(network(1).state_dict())
            assert refused(suppression) == (private.step > 3 or (private.step == 3 and how != "after the step"))


@pytest.mark.parametrize("trained_between", [False, True])
def test_a_resume_keeps_the_claim_only_for_the_weights_that_were_kept(trained_between: bool) -> None:
    model = network()
    ledger = Ledger.in_memory(PLAN.relation, PLAN.unit)
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    with dp.make_private(model, PLAN, ledger=ledger) as private:
        suppression = Suppression(model, optimizer, private=private, **settings())
        for batch in private.batches(records()):
            private.backward(loss_of(model), batch)
            optimizer.step()
            suppression.step()
            if private.step == 5:
                break
        states = private.state_dict(), suppression.state_dict()
    suppression.finalize()
    optimizer.zero_grad()
    if trained_between:
        model[0].bias.detach().add_(1e-3)
    with dp.make_private(model, PLAN, ledger=ledger, resume=states[0]) as private:
        suppression = Suppression(model, optimizer, private=private, **settings())
        suppression.load_state_dict(states[1])
        loop(model, private, suppression, optimizer)
        assert refused(suppression) == trained_between


def test_a_state_from_before_does_not_bring_the_claim_back() -> None:
    model = network()
    with private_run(model) as private:
        optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        suppression = Suppression(model, optimizer, private=private, **settings())
        one_private_step(model, private, optimizer)
        optimizer.step()  # and its memory holds on to it
        suppression.step()
        suppression.load_state_dict(suppression.state_dict() | {"released": True})
        assert refused(suppression)


def made(model: nn.Module, optimizer: optim.Optimizer, private: dp.Private) -> Suppression:
    return Suppression(model, optimizer, private=private, **settings())


def test_one_that_begins_in_the_middle_knows_nothing_of_what_was_before() -> None:
    """Nor does one that follows another, whose claim had ended."""
    model = network()
    with private_run(model) as private:
        optimizer = optim.SGD(model.parameters(), lr=0.05)
        first = made(model, optimizer, private)
        one_private_step(model, private, optimizer)
        optimizer.step()
        first.step()
        assert refused(first)
        first.finalize()
        second = made(model, optimizer, private)
        assert refused(second)
        loop(model, private, second, optimizer)
        assert second.report().masked
        assert refused(second)


def test_a_resume_without_the_state_makes_no_claim() -> None:
    model = network()
    ledger = Ledger.in_memory(PLAN.relation, PLAN.unit)
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    with dp.make_private(model, PLAN, ledger=ledger) as private:
        one_private_step(model, private, optimizer)
        state = private.state_dict()
    optimizer.zero_grad()
    one_step(model, optimizer, next(batches()))
    optimizer.zero_grad()
    with dp.make_private(model, PLAN, ledger=ledger, resume=state) as private:
        assert refused(made(model, optimizer, private))


def test_weights_put_in_before_the_first_step_end_the_claim() -> None:
    model = network()
    with private_run(model) as private:
        optimizer = optim.SGD(model.parameters(), lr=0.05)
        suppression = made(model, optimizer, private)
        model.load_state_dict(network(1).state_dict())
        loop(model, private, suppression, optimizer)
        assert refused(suppression)


@pytest.mark.parametrize("how", ["a step more", "another optimizer", "by hand"])
@pytest.mark.parametrize("finalized", [False, True])
def test_a_state_does_not_wash_away_what_was_seen(how: str, finalized: bool) -> None:
    model = network()
    with private_run(model) as private:
        optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        suppression = made(model, optimizer, private)
        one_private_step(model, private, optimizer)
        suppression.step()
        assert suppression.state_dict()["released"]
        if how == "a step more":
            optimizer.step()
        elif how == "another optimizer":
            optim.SGD(model.parameters(), lr=0.05).step()
        else:
            model[0].bias.detach().add_(0.1)
        if finalized:
            suppression.finalize()
        assert not suppression.state_dict()["released"]


def test_a_state_after_the_end_keeps_the_claim() -> None:
    model = network()
    with private_run(model) as private:
        optimizer = optim.SGD(model.parameters(), lr=0.05)
        suppression = made(model, optimizer, private)
        loop(model, private, suppression, optimizer)
        suppression.finalize()
        assert suppression.claim()
        assert suppression.state_dict()["released"]


class Meddler:
    """Replaces a weight at step 3, after the suppression heard of it; the checkpoint is written then."""

    def on_step(self, step: int, model: nn.Module, release: dp.Release) -> None:
        if step == 3:
            model[3].bias.detach().add_(0.1)
        if step == 5:
            raise Stop


def test_a_checkpoint_of_fit_remembers_what_another_callback_did(tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "ledger": tmp_path / "run.ledger",
        "checkpoint": tmp_path / "run.safetensors",
        "checkpoint_every": 3,
        "learning_rate": 0.05,
        "progress": False,
    }
    model = network()
    with pytest.raises(Stop):
        dp.fit(model, records(), PLAN, callbacks=[Suppression(model, **settings()), Meddler()], **more)
    model = network()
    suppression = Suppression(model, **settings())
    dp.fit(model, records(), PLAN, callbacks=[suppression], resume=True, **more)
    assert refused(suppression)


def test_fit_lets_go_and_may_be_called_again(tmp_path: Path) -> None:
    """With fewer records than the plan says; then stopped; then gone on with, all with the same objects."""
    model = network()
    suppression = Suppression(model, **settings())
    more: dict[str, Any] = {
        "checkpoint": tmp_path / "run.safetensors",
        "checkpoint_every": 3,
        "learning_rate": 0.05,
        "progress": False,
        "ledger": tmp_path / "run.ledger",
    }
    few = tuple(part[:100] for part in records())
    with pytest.raises(ArgumentError, match="dataset"):
        dp.fit(
            model,
            few,
            PLAN,
            callbacks=[suppression],
            **(more | {"ledger": tmp_path / "other.ledger", "checkpoint": None, "checkpoint_every": None}),
        )
    with pytest.raises(Stop):
        dp.fit(model, records(), PLAN, callbacks=[suppression, StopAt()], **more)
    assert suppression.claim()
    dp.fit(model, records(), PLAN, callbacks=[suppression], resume=True, **more)
    assert suppression.claim()
    assert suppression.report().step == STEPS
    assert not any(value._post_accumulate_grad_hooks for value in model.parameters())
    with pytest.raises(ArgumentError, match="12 steps of an earlier fit"):
        dp.fit(
            model,
            records(),
            PLAN,
            callbacks=[suppression],
            **(more | {"ledger": tmp_path / "third.ledger", "checkpoint": None, "checkpoint_every": None}),
        )


def test_a_ramp_beyond_the_plan_is_refused_before_anything_is_spent() -> None:
    model = network()
    ledger = Ledger.in_memory(PLAN.relation, PLAN.unit)
    suppression = Suppression(model, **settings(end_epoch=4))
    with pytest.raises(ArgumentError, match=r"end_epoch = '4' .* among the 12 of this training\. It is 16"):
        dp.fit(model, records(), PLAN, ledger=ledger, callbacks=[suppression], progress=False)
    assert not ledger.events()


def test_bounds_hold_the_average_that_fit_leaves() -> None:
    model = network()
    suppression = Suppression(model, layers=[Layer(nn.Conv2d, upper_bound=0.05)], **settings())
    ledger = Ledger.in_memory(PLAN.relation, PLAN.unit)
    dp.fit(model, records(), PLAN, ledger=ledger, callbacks=[suppression], progress=False, average=0.9)
    suppression.finalize()
    assert float(model[0].weight.abs().max()) == pytest.approx(0.05)


def test_a_copy_makes_no_claim() -> None:
    model = network()
    with private_run(model) as private:
        optimizer = optim.SGD(model.parameters(), lr=0.05)
        suppression = Suppression(model, optimizer, private=private, **settings())
        one_private_step(model, private, optimizer)
        suppression.step()
        assert not refused(suppression)
        assert refused(copy.deepcopy(suppression))


def test_masks_of_another_ledger_and_of_a_test_run_are_told_apart() -> None:
    model = network()
    with private_run(model, test_run=dp.TestRun(seed=0)) as private:
        optimizer = optim.SGD(model.parameters(), lr=0.05)
        suppression = Suppression(model, optimizer, private=private, **settings())
        loop(model, private, suppression, optimizer)
        state = suppression.state_dict()
    other = network()
    with private_run(other) as private:
        optimizer = optim.SGD(other.parameters(), lr=0.05)
        loop(other, private, None, optimizer)
        suppression = Suppression(other, optimizer, private=private, **settings())
        with pytest.raises(LedgerMismatchError):
            suppression.load_state_dict(state)
        suppression.load_state_dict(state | {"ledger_head": private.ledger.head})
        assert suppression.claim().startswith("NOT PRIVATE: test run")


def test_frozen_weights_and_an_optimizer_with_a_past_are_no_evidence() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    with private_run(model) as private:
        model[0].weight.requires_grad_(True)
        optimizer = optim.SGD(model.parameters(), lr=0.05)
        with pytest.raises(ArgumentError, match=r"the one that trains '0\.weight'"):
            Suppression(model, optimizer, private=private, **settings())
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    one_step(model, optimizer, next(batches()))
    optimizer.zero_grad()
    with private_run(model) as private, pytest.raises(ArgumentError, match="taken no step yet"):
        Suppression(model, optimizer, private=private, **settings())
    with pytest.raises(ArgumentError, match=r"what dp.make_private gave"):
        Suppression(model, optimizer, private=True, **settings())  # type: ignore[arg-type]


def test_a_callback_that_ends_a_fit_before_this_one_heard_of_the_step_does_not_spoil_the_checkpoint(
    tmp_path: Path,
) -> None:
    more: dict[str, Any] = {
        "ledger": tmp_path / "run.ledger",
        "checkpoint": tmp_path / "run.safetensors",
        "checkpoint_every": 5,
        "learning_rate": 0.05,
        "progress": False,
    }
    model = network()
    with pytest.raises(Stop):
        dp.fit(model, records(), PLAN, callbacks=[StopAt(), Suppression(model, **settings())], **more)
    model = network()
    suppression = Suppression(model, **settings())
    dp.fit(model, records(), PLAN, callbacks=[suppression], resume=True, **more)
    assert suppression.report().step == STEPS
    assert suppression.claim()


def test_private_training_comes_first() -> None:
    model = network()
    suppression_of(model, optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(PrivateTrainingError, match=r"hook.*finalize\(\)"):
        private_run(model)


def test_a_state_of_another_private_step_is_refused() -> None:
    model = network()
    with private_run(model) as private:
        optimizer = optim.SGD(model.parameters(), lr=0.05)
        suppression = Suppression(model, optimizer, private=private, **settings())
        state = suppression.state_dict()
        loop(model, private, suppression, optimizer)
        with pytest.raises(CheckpointError, match="private step 0, and the private training is at 12"):
            suppression.load_state_dict(state)


class Stop(Exception):
    pass


class StopAt:
    def on_step(self, step: int, model: nn.Module, release: dp.Release) -> None:
        if step == 7:
            raise Stop


def test_fit_takes_it_as_a_callback_and_goes_on(tmp_path: Path) -> None:
    model = network()
    more: dict[str, Any] = {
        "ledger": tmp_path / "run.ledger",
        "checkpoint": tmp_path / "run.safetensors",
        "checkpoint_every": 5,
        "learning_rate": 0.05,
        "progress": False,
    }
    stopped = Suppression(model, **settings())
    with pytest.raises(Stop):
        dp.fit(model, records(), PLAN, callbacks=[stopped, StopAt()], **more)
    assert stopped.claim()
    model = network()
    suppression = Suppression(model, **settings())
    with pytest.raises(PrivateTrainingError):
        suppression.claim()
    result = dp.fit(model, records(), PLAN, callbacks=[suppression], resume=True, **more)
    assert result.complete
    assert suppression.report().step == STEPS
    assert suppression.report().masked == sum(int(zero.sum()) for zero in zeros(model).values()) == 635
    assert "post-processing" in suppression.claim()


def test_fit_refuses_masks_of_another_private_training(tmp_path: Path) -> None:
    model = network()
    suppression = Suppression(model, **settings())
    dp.fit(model, records(), PLAN, callbacks=[suppression], progress=False, ledger=tmp_path / "first.ledger")
    fresh = Suppression(model, **settings())
    suppression.finalize()
    fresh.load_state_dict(suppression.state_dict())
    ledger = Ledger.in_memory(PLAN.relation, PLAN.unit)
    with pytest.raises(CheckpointError, match="private step 12, and the private training is at 0"):
        dp.fit(model, records(), PLAN, callbacks=[fresh], progress=False, ledger=ledger)
    assert not ledger.events()


def test_fit_refuses_another_model_before_anything_is_spent(tmp_path: Path) -> None:
    suppression = Suppression(network(), **settings())
    ledger = Ledger.in_memory(PLAN.relation, PLAN.unit)
    with pytest.raises(ArgumentError, match="the model that Suppression was made with"):
        dp.fit(network(), records(), PLAN, ledger=ledger, callbacks=[suppression], progress=False)
    assert not ledger.events()


def test_a_defense_goes_around_a_suppressed_network() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    suppression = suppression_of(model, optimizer)
    served = outputs.TopK(outputs.Rounding(model, decimals=2), k=2)
    source = batches()
    for _ in range(24):
        one_step(served.origin_network().train(), optimizer, next(source))
        suppression.step()
    suppression.finalize().eval()
    assert served.origin_network() is model
    assert served(next(source)[0]).values.shape == (8, 2)
    assert suppression.report().masked == sum(int(zero.sum()) for zero in zeros(model).values())
