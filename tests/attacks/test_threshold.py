"""The loss-threshold attack: its scores, a planted leak that it finds, a null in which it finds nothing."""

import pytest
import torch
from torch import Tensor

from privet.attacks import Target
from privet.attacks.membership import loss_threshold
from privet.errors import DataError, LabelError
from privet.statistics import auc_interval


def records(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 5, generator=generator), torch.randint(0, 5, (count,), generator=generator)


def identity(inputs: Tensor) -> Tensor:
    return inputs


def test_the_score_is_minus_the_cross_entropy() -> None:
    members, non_members = records(7, 0), records(4, 1)
    scores = loss_threshold(Target(identity, 5), members, non_members)
    for found, (inputs, labels) in ((scores.members, members), (scores.non_members, non_members)):
        expected = -torch.nn.functional.cross_entropy(inputs.double(), labels, reduction="none")
        assert torch.allclose(torch.from_numpy(found), expected)


def test_a_planted_leak_is_found_and_a_null_is_not() -> None:
    members, non_members = records(400, 0), records(400, 1)
    known = members[0] + torch.nn.functional.one_hot(members[1], 5)
    leak = loss_threshold(Target(identity, 5), (known, members[1]), non_members)
    assert auc_interval(leak.members, leak.non_members, seed=0).low > 0.6
    null = loss_threshold(Target(identity, 5), members, non_members)
    interval = auc_interval(null.members, null.non_members, seed=0, confidence=0.999)  # false alarm: 1 in 1,000
    assert interval.low <= 0.5 <= interval.high


@pytest.mark.parametrize(
    ("inputs", "labels", "error"),
    [
        (torch.zeros(2, 5), torch.tensor([0, 5]), LabelError),
        (torch.zeros(2, 5), torch.tensor([-1, 0]), LabelError),
        (torch.zeros(2, 5), torch.tensor([0.0, 1.0]), LabelError),
        (torch.zeros(2, 5), torch.tensor([[0], [1]]), LabelError),
        (torch.zeros(2, 5), torch.tensor([0]), DataError),
        (torch.zeros(0, 5), torch.tensor([], dtype=torch.int64), DataError),
    ],
)
def test_records_that_cannot_be_attacked_are_refused_before_any_query(
    inputs: Tensor, labels: Tensor, error: type[Exception]
) -> None:
    def never(_: Tensor) -> Tensor:
        raise AssertionError("queried")

    with pytest.raises(error, match="non-members"):
        loss_threshold(Target(never, 5), records(3, 0), (inputs, labels))
