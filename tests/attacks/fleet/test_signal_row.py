"""One code asks every model, in evaluation mode, and what cannot be a signal is refused."""

import pytest
import torch
from torch import Tensor, nn

from privet import outputs
from privet.attacks.membership import Pool
from privet.attacks.membership.fleet import noisy, signal_row
from privet.errors import ArgumentError, DataError
from privet.output_form import OutputForm

INPUTS = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(60) % 3
POOL = Pool.of((INPUTS[:30], LABELS[:30]), (INPUTS[30:], LABELS[30:]), 3)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))


def test_signals_are_the_log_odds_of_the_own_label() -> None:
    model = network().eval()
    shares = torch.softmax(model(INPUTS).double(), -1).gather(1, LABELS[:, None])[:, 0]
    expected = torch.log(shares) - torch.log1p(-shares)
    assert torch.allclose(torch.from_numpy(signal_row(model, POOL))[:, 0].double(), expected, atol=1e-5)


def test_a_model_is_asked_in_evaluation_mode_and_every_mode_is_put_back() -> None:
    model = network()
    model[2].eval()
    before = [module.training for module in model.modules()]
    asked = signal_row(model, POOL)
    assert [module.training for module in model.modules()] == before
    assert (asked == signal_row(model.eval(), POOL)).all()


def test_many_records_are_asked_in_parts_with_the_same_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    from privet.attacks.membership.fleet import signal_row as module

    queries = noisy(0.1, 2, seed=0)
    model = network().double().eval()
    pool = Pool.of((INPUTS[:30].double(), LABELS[:30]), (INPUTS[30:].double(), LABELS[30:]), 3)
    whole = signal_row(model, pool, queries=queries)
    monkeypatch.setattr(__import__("sys").modules[module.__module__], "_RECORDS_AT_ONCE", 7)
    assert whole.shape == (60, 3)
    assert abs(signal_row(model, pool, queries=queries) - whole).max() < 1e-5


def test_behind_labels_alone_a_signal_says_whether_the_label_is_right() -> None:
    model = network().eval()
    served = outputs.Labeling(model)
    row = signal_row(served, POOL, served.output_form)[:, 0]
    assert row.tolist() == (model(INPUTS).argmax(1) == LABELS).float().tolist()
    assert 0.0 < row.mean() < 1.0


def test_answers_that_are_no_signals_are_refused() -> None:
    def broken(inputs: Tensor) -> Tensor:
        return torch.full((len(inputs), 3), float("nan"))

    with pytest.raises(DataError, match="NaN"):
        signal_row(broken, POOL)
    with pytest.raises(DataError, match="record 0"):
        signal_row(lambda inputs: torch.tensor([3e38, -3e38, -3e38]).repeat(len(inputs), 1), POOL)
    with pytest.raises(ArgumentError, match="form"):
        signal_row(broken, POOL, OutputForm(k=4))
