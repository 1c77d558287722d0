"""What is refused before anything runs: parameters that cannot be trained together, groups that are no partition."""

import pytest
import torch
from torch import nn

from privet.dp.per_example.engine import Engine
from privet.errors import PrivateTrainingError


def test_a_model_without_anything_to_train_is_refused():
    with pytest.raises(PrivateTrainingError, match="nothing to train"):
        Engine(nn.Linear(2, 2).requires_grad_(False))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_parameters_are_refused(dtype):
    with pytest.raises(PrivateTrainingError, match=r"parameter '0.weight' is .*autocast"):
        Engine(nn.Sequential(nn.Linear(2, 2)).to(dtype))


def test_mixed_parameters_are_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    with pytest.raises(PrivateTrainingError, match="one dtype and one device"):
        Engine(model)


@pytest.mark.parametrize(
    "groups",
    [[["weight"]], [["weight", "bias", "other"]], [["weight", "bias"], ["bias"]], [["weight", "bias"], []], []],
    ids=["one missing", "one too many", "one twice", "an empty one", "none"],
)
def test_groups_that_are_no_partition_are_refused(groups):
    with pytest.raises(ValueError, match="each trainable parameter in exactly one group"):
        Engine(nn.Linear(2, 2), groups)
