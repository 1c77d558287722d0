"""An ordinary loop made private: the model and the optimizer stay the user's, and only drawn batches get in."""

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.dp.training import SIZE, Data, data, gradient, loss_of, memory, mlp, plan, private_of, spent, train
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from privet.accounting import Ledger, read_ledger
from privet.dp import AdaptiveQuantile, Plan, Private, TestRun, make_private
from privet.dp.clipping_groups import PerLayer
from privet.errors import ArgumentError, CheckpointError, PrivateTrainingError, UnsupportedLayerError

OPTIMIZERS: list[Callable[..., torch.optim.Optimizer]] = [
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.Adamax,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.ASGD,
    torch.optim.RMSprop,
    torch.optim.Rprop,
]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_any_optimizer_scheduler_and_average_goes_on_working(make: Callable[..., torch.optim.Optimizer]) -> None:
    """Given the private gradients by hand, the same optimizer takes a copy of the model the same way."""
    model, by_hand = mlp(), mlp()
    before = {name: type(module) for name, module in model.named_modules()}
    keys = list(model.state_dict())
    optimizers = [make(one.parameters(), lr=0.05) for one in (model, by_hand)]
    rates = [torch.optim.lr_scheduler.CosineAnnealingLR(one, 12) for one in optimizers]
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    private = private_of(model, plan())
    for batch in private.batches(data()):
        private.backward(loss_of(model), batch)
        for mine, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
            assert mine.grad is not None
            theirs.grad = mine.grad.clone()
        for one, rate in zip(optimizers, rates, strict=True):
            one.step()
            rate.step()
            one.zero_grad(set_to_none=private.step % 2 == 0)
        average.update_parameters(model)
    assert list(model.state_dict()) == keys
    assert {name: type(module) for name, module in model.named_modules()} == before
    for name, value in model.state_dict().items():
        assert torch.equal(value, by_hand.state_dict()[name])
        assert not torch.equal(value, mlp().state_dict()[name])
    assert not torch.equal(average.module[0].weight, model[0].weight)


def test_saved_and_reloaded_the_logits_are_equal(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    private = private_of(model, plan())
    for batch in private.batches(data()):
        private.backward(loss_of(model), batch)
        optimizer.step()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    reloaded = mlp()
    assert not torch.equal(reloaded(data()[0]), model(data()[0]))
    reloaded.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(reloaded(data()[0]), model(data()[0]))
    assert torch.equal(copy.deepcopy(model)(data()[0]), model(data()[0]))


def test_a_private_model_learns() -> None:
    records = data(600)
    labels = records[0][:, :3].argmax(dim=1)
    case, model = plan(dataset_size=600, expected_batch_size=100, steps=60, delta=1e-4), mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    private = private_of(model, case)
    for batch in private.batches((records[0], labels)):
        private.backward(loss_of(model), batch)
        optimizer.step()
    assert float((model(records[0]).argmax(dim=1) == labels).float().mean()) > 0.7


def test_truncated_batches_are_never_larger() -> None:
    case, model, sizes = plan(max_batch_size=9, steps=40), mlp(), []
    private = private_of(model, case)
    for batch in private.batches(data()):
        sizes.append(batch.size)
        private.backward(loss_of(model), batch)
    assert max(sizes) == 9
    assert sizes.count(9) > 5
    assert private.ledger.events()[0].sampling == case.sampling
    assert private.spent().epsilon.upper > 0


def test_leaving_the_loop_and_going_on() -> None:
    model, case = mlp(), plan(steps=7)
    private = private_of(model, case)
    for steps in (3, 1):
        train(private, model, steps=steps)
        assert len(spent(private.ledger)) == private.step
    assert private.step == 4
    train(private, model)
    assert (private.step, len(spent(private.ledger))) == (7, 7)
    with pytest.raises(PrivateTrainingError, match=r"all 7 steps of the plan are done: one loop .* not an epoch"):
        private.batches(data())
    assert private.spent().epsilon == case.epsilon()


def test_a_batch_that_was_left_unused_comes_again() -> None:
    """Else one could look at it, leave, and draw another."""
    model = mlp()
    private = private_of(model, plan())
    seen = []
    for _ in range(3):
        for batch in private.batches(data()):
            seen.append(batch._indices.tolist())
            break
    assert seen[0] == seen[1] == seen[2]
    train(private, model, steps=2)
    assert private.step == 2


def test_two_loops_do_not_let_one_choose() -> None:
    model = mlp()
    private = private_of(model, plan())
    first, second = private.batches(data()), private.batches(data())
    next(first)
    with pytest.raises(PrivateTrainingError, match="Choosing"):
        next(second)


def test_all_batches_at_once_are_refused() -> None:
    private = private_of(mlp(), plan())
    with pytest.raises(PrivateTrainingError, match="not given to"):
        list(private.batches(data()))
    assert not private.ledger.events()


def test_only_the_batch_given_last_is_taken_and_once() -> None:
    model, other = mlp(), mlp()
    private, foreign = private_of(model, plan()), private_of(other, plan())
    batches = private.batches(data())
    batch = next(batches)
    private.backward(loss_of(model), batch)
    stored = batch
    for wrong in (stored, next(foreign.batches(data())), data(), None):
        with pytest.raises(PrivateTrainingError, match="once"):
            private.backward(loss_of(model), wrong)  # type: ignore[arg-type]
    following = next(batches)
    with pytest.raises(PrivateTrainingError, match="once"):
        private.backward(loss_of(model), stored)
    private.backward(loss_of(model), following)
    with pytest.raises(PrivateTrainingError, match="already used"):
        following.parts()


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_a_data_set_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ArgumentError, match="dataset_size"):
        private_of(mlp(), plan()).batches(data(size))


def test_other_samplers_are_refused() -> None:
    private = private_of(mlp(), plan())
    records = torch.utils.data.TensorDataset(*data())
    with pytest.raises(ArgumentError, match="dataset"):
        private.batches(torch.utils.data.DataLoader(records, batch_size=8, shuffle=True))


def test_the_step_cannot_be_set() -> None:
    private = private_of(mlp(), plan())
    with pytest.raises(AttributeError):
        private.step = 3  # type: ignore[misc]


def test_after_an_error_there_is_no_gradient() -> None:
    model = mlp()
    private = private_of(model, plan())
    batches = private.batches(data())
    private.backward(loss_of(model), next(batches))
    assert len(gradient(model)) == 53
    with pytest.raises(PrivateTrainingError, match="depend"):
        private.backward(lambda d: torch.zeros(len(d[0])), next(batches))
    assert all(p.grad is None for p in model.parameters())
    assert private.step == 1
    private.backward(loss_of(model), next(batches))
    assert private.step == 2


def resumed(private: Private, model: nn.Module, **changed: Any) -> Private:
    state = json.loads(json.dumps(private.state_dict()))  # plain data
    private.close()
    return private_of(model, private.plan, ledger=private.ledger, resume={**state, **changed})


def test_a_resumed_run_goes_on_where_it_ended() -> None:
    case = plan(clipping=PerLayer(AdaptiveQuantile(0.3, count_noise_std=5.0)), noise=lambda step: 1.0 + 0.1 * step)
    model = mlp()
    private = private_of(model, case)
    train(private, model, steps=5)
    again = resumed(private, model)
    assert (again.step, again.max_grad_norms) == (5, private.max_grad_norms)
    train(again, model)
    assert spent(again.ledger) == sorted(case.noise_multipliers)
    assert len(again.ledger.contents().runs) == 1


@pytest.mark.parametrize(
    "changed",
    [{"plan": "0" * 64}, {"step": -1}, {"step": 13}, {"step": True}, {"version": 2}, {"more": 1}, {"test_run": True}],
)
def test_a_state_of_something_else_is_refused(changed: dict[str, Any]) -> None:
    model = mlp()
    with pytest.raises(CheckpointError):
        resumed(private_of(model, plan()), model, **changed)


def test_a_state_of_another_model_is_refused() -> None:
    case = plan(clipping=PerLayer(AdaptiveQuantile(0.3, count_noise_std=5.0)))
    private = private_of(mlp(), case)
    with pytest.raises(CheckpointError, match="another model"):
        resumed(private, nn.Linear(6, 3))


def test_what_cannot_be_trained_leaves_no_run_on_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    narrow = plan(clipping=PerLayer(AdaptiveQuantile(0.3, count_noise_std=0.55)))  # enough for one layer alone
    frozen = mlp().requires_grad_(False)
    batch_norm = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))
    cases: list[tuple[nn.Module, Plan]] = [(mlp(), narrow), (frozen, plan()), (batch_norm, plan())]
    for model, case in cases:
        with pytest.raises((ArgumentError, PrivateTrainingError)):
            make_private(model, case, ledger=path)
    assert not path.exists()


def test_a_test_run_is_stamped_everywhere_and_repeats(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        model = mlp()
        with make_private(model, plan(), ledger=tmp_path / name, test_run=TestRun(4)) as private:
            found.append(torch.stack(train(private, model)))
        assert str(private.spent()).startswith("NOT PRIVATE: test run")
        assert str(private.statement()).startswith("NOT PRIVATE: test run")
        assert private.statement().to_json()["private"] is False
        assert private.state_dict()["test_run"] is True
        [run] = read_ledger(tmp_path / name).runs
        assert run.description == "NOT PRIVATE: test run"
    assert torch.equal(found[0], found[1])


def test_a_private_run_repeats_nothing() -> None:
    found = []
    for _ in range(2):
        model = mlp()
        private = private_of(model, plan())
        found.append(torch.stack(train(private, model)))
        assert "NOT PRIVATE" not in f"{private.spent()}{private.statement()}"
        assert private.statement().to_json()["private"] is True
    assert not bool((found[0] == found[1]).any())


def test_stopped_early_the_statement_claims_the_whole_plan(tmp_path: Path) -> None:
    model, case = mlp(), plan()
    private = private_of(model, case)
    train(private, model, steps=5)
    early = private.statement()
    assert (early.steps, early.whole_plan) == (5, True)
    assert early.epsilon == case.epsilon()
    assert "stopped early" in str(early)
    by_the_clock = private.statement(stopped_without_data=True)
    assert not by_the_clock.whole_plan
    assert by_the_clock.epsilon == private.spent().epsilon
    assert by_the_clock.epsilon.upper < early.epsilon.upper
    train(private, model)
    whole = private.statement()
    assert (whole.steps, whole.whole_plan, whole.epsilon) == (12, False, case.epsilon())
    whole.save(tmp_path / "statement.json")
    kept = json.loads((tmp_path / "statement.json").read_text())
    assert kept == json.loads(json.dumps(whole.to_json()))
    assert kept["epsilon"]["upper"] == case.epsilon().upper
    assert kept["ledger_head"] == private.ledger.head
    assert (kept["unit"], kept["relation"], kept["runs"]) == ("example", "add-or-remove-one", 1)
    assert kept["plan"]["digest"] == case.digest


def test_diagnostics_are_off_and_labelled() -> None:
    model = mlp()
    private = private_of(model, plan())
    with pytest.raises(PrivateTrainingError, match="not covered by epsilon"):
        _ = private.diagnostics
    private.close()
    private = private_of(model, plan(), diagnostics=True)
    inputs, labels = data()
    inputs[:20] = torch.nan
    for batch in private.batches((inputs, labels)):
        size, spoiled = batch.size, int((batch._indices < 20).sum())
        private.backward(loss_of(model), batch)
        assert (private.diagnostics.examples, private.diagnostics.taken_out) == (size, spoiled)
        assert bool(gradient(model).isfinite().all())
    assert str(private.diagnostics).startswith("NOT COVERED BY EPSILON")


def test_closing_is_idempotent_and_lets_go_of_the_ledger(tmp_path: Path) -> None:
    path, model = tmp_path / "ledger", mlp()
    private = make_private(model, plan(), ledger=path)
    batches = private.batches(data())
    private.backward(loss_of(model), next(batches))
    private.close()
    private.close()
    del batches
    assert read_ledger(path).reserved == 1
    make_private(model, plan(), ledger=path).close()
    assert private.spent().steps == 1  # what was spent can still be read
    assert memory(plan()).events() == ()


def test_after_a_failure_the_same_records_come_again() -> None:
    """Whether a loss fails may depend on who was drawn; a fresh sample would let it choose."""
    model = mlp()
    private = private_of(model, plan(expected_batch_size=20))
    private._check = lambda *_: None
    seen: list[Tensor] = []

    def failing(part: Data) -> Tensor:
        seen.append(part[0])
        raise MemoryError

    for _ in range(3):
        batches = private.batches(data())
        batch = next(batches)
        with pytest.raises(MemoryError):
            private.backward(failing, batch)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], seen[2])
    assert spent(private.ledger) == []


def test_a_frozen_parameter_with_an_old_gradient_is_refused() -> None:
    model = mlp()
    loss_of(model)(data()).mean().backward()
    model[0].requires_grad_(False)
    with pytest.raises(PrivateTrainingError, match=r"frozen parameter '0\.weight' has a gradient"):
        private_of(model, plan())


class Scale(nn.Module):
    """No layer that has a rule: the fallback takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(6))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.factor


def test_a_layer_without_a_rule_trains_by_the_fallback() -> None:
    model = nn.Sequential(Scale(), nn.Linear(6, 3))
    assert len(train(private_of(model, plan()), model, steps=2)) == 2


def test_a_batch_taken_apart_says_where_it_goes() -> None:
    private = private_of(mlp(), plan())
    batch = next(batches := private.batches(data()))
    for take_apart in (lambda: batch[0], lambda: [*batch]):
        with pytest.raises(PrivateTrainingError, match=r"given to private\.backward"):
            take_apart()
    batches.close()


@pytest.mark.parametrize(("plan_given", "resume"), [(object(), None), (plan(), True)])
def test_arguments_of_another_kind_are_refused(plan_given: Any, resume: Any) -> None:
    with pytest.raises(ArgumentError):
        make_private(mlp(), plan_given, ledger=memory(plan()), resume=resume)


def test_weights_that_stand_still_are_told() -> None:
    model = mlp()
    private = private_of(model, plan())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = private.batches(data())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            private.backward(loss_of(model), next(batches))
            optimizer.step()
    private.backward(loss_of(model), next(batches))
    optimizer.zero_grad()
    optimizer.step()
    with pytest.warns(UserWarning, match="no weight changed"):
        private.backward(loss_of(model), next(batches))


class _Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            inputs.unsqueeze(1), torch.ones(len(inputs), dtype=torch.int64), batch_first=True
        )
        return self.head(self.lstm(packed)[1][0][-1])


def test_packed_sequences_are_refused_by_the_layer_s_name() -> None:
    model = _Packed()
    private = private_of(model, plan())
    batches = private.batches(data())
    with pytest.raises(UnsupportedLayerError, match=r"layer 'lstm' \(LSTM\) got a PackedSequence\. Give padded"):
        private.backward(loss_of(model), next(batches))


def test_a_loss_in_place_of_its_function_is_refused() -> None:
    model = mlp()
    private = private_of(model, plan())
    batch = next(private.batches(data()))
    with pytest.raises(ArgumentError, match=r"per_example_loss = 'Tensor'.*a function from the batch's data"):
        private.backward(torch.zeros(8), batch)  # type: ignore[arg-type]


def test_a_ledger_that_leaves_few_steps_says_so_before_the_first() -> None:
    first, second = plan(steps=8, noise=3.0), plan(steps=12, target_epsilon=3.0)
    ledger = Ledger.in_memory(first.relation, first.unit)
    for chosen in (first, second):
        model = mlp()
        with make_private(model, chosen, ledger=ledger) as private, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for batch in private.batches(data()):
                private.backward(loss_of(model), batch)
                model[0].weight.detach().add_(0.0)
        said = [str(one.message) for one in caught if "fit its budget" in str(one.message) and one.filename == __file__]
        assert len(said) == (chosen is second)
    assert said[0].startswith(f"{private.step} of the plan's 12 steps fit its budget")
    assert 0 < private.step < 12
