"""What would go past the private step is refused, and leaves no gradient."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.dp.training import data, loss_of, mlp, plan, private_of, train
from torch import nn

from privet.dp.guard import Guard
from privet.errors import PrivateTrainingError


def test_an_ordinary_backward_pass_raises_and_leaves_no_gradient() -> None:
    model = mlp()
    private = private_of(model, plan())
    train(private, model, steps=1)
    with pytest.raises(PrivateTrainingError, match="ordinary backward"):
        loss_of(model)(data()).mean().backward()
    for parameter in model[2].parameters():  # where it came first
        assert parameter.grad is None or not bool(parameter.grad.isnan().any())
    reached = [name for name, p in model.named_parameters() if p.grad is None]
    assert reached


def test_the_gradient_by_inputs_is_free() -> None:
    model = mlp()
    private = private_of(model, plan())
    inputs = data()[0].requires_grad_()
    [found] = torch.autograd.grad(model(inputs).sum(), inputs)
    assert found.shape == inputs.shape
    private.close()


def test_after_close_the_model_is_free() -> None:
    model = mlp()
    private = private_of(model, plan())
    private.close()
    loss_of(model)(data()).mean().backward()
    assert model[0].weight.grad is not None
    with pytest.raises(PrivateTrainingError, match="closed"):
        private.batches(data())


def test_a_model_whose_training_is_forgotten_is_free() -> None:
    model = mlp()
    private_of(model, plan())
    loss_of(model)(data()).mean().backward()
    private_of(model, plan())


def test_one_model_is_in_one_private_training() -> None:
    model = mlp()
    private = private_of(model, plan())
    with pytest.raises(PrivateTrainingError, match="already"):
        private_of(model, plan())
    private.close()
    private_of(model, plan())


def freeze(model: nn.Sequential) -> None:
    model[0].weight.requires_grad_(False)


def replace(model: nn.Sequential) -> None:
    model[0].weight = nn.Parameter(torch.zeros(5, 6))


def add_parameter(model: nn.Sequential) -> None:
    model.register_parameter("extra", nn.Parameter(torch.zeros(1)))


def add_module(model: nn.Sequential) -> None:
    model.append(nn.ReLU())


def other_module(model: nn.Sequential) -> None:
    model[1] = nn.BatchNorm1d(5, affine=False)


@pytest.mark.parametrize("change", [freeze, replace, add_parameter, add_module, other_module])
def test_a_model_that_was_changed_is_refused(change: Any) -> None:
    model = mlp()
    private = private_of(model, plan())
    batches = private.batches(data())
    private.backward(loss_of(model), next(batches))
    batch = next(batches)
    change(model)
    with pytest.raises(PrivateTrainingError, match="changed after make_private"):
        private.backward(loss_of(model), batch)


def test_unfreezing_is_refused_and_can_be_undone() -> None:
    model = mlp()
    model[0].requires_grad_(False)
    private = private_of(model, plan())
    batches = private.batches(data())
    private.backward(loss_of(model), next(batches))
    assert model[0].weight.grad is None
    batch = next(batches)
    model[0].requires_grad_(True)
    with pytest.raises(PrivateTrainingError, match=r"'0\.bias', '0\.weight'"):
        private.backward(loss_of(model), batch)
    model[0].requires_grad_(False)
    private.backward(loss_of(model), batch)  # the batch was not used up


def test_a_module_in_the_place_of_a_forgotten_one_is_not_taken_for_it() -> None:
    """An id comes up again once its owner is gone; the guard keeps the owners."""
    model = mlp()
    guard = Guard(model)
    before = id(model[1])
    model[1] = nn.Identity()
    others = [nn.ReLU() for _ in range(200)]
    assert before not in {id(other) for other in others}
    with pytest.raises(PrivateTrainingError):
        guard.check_model()


def test_a_scaler_is_refused() -> None:
    model = mlp()
    private = private_of(model, plan())
    scaler = torch.amp.GradScaler("cpu")
    original = torch.amp.GradScaler.scale
    batches = private.batches(data())
    with pytest.raises(PrivateTrainingError, match="GradScaler"):
        private.backward(lambda d: scaler.scale(loss_of(model)(d)), next(batches))
    assert torch.amp.GradScaler.scale is original
    assert not private.ledger.events()
    assert float(scaler.scale(torch.ones(()))) > 1.0  # elsewhere it goes on working


def test_float16_autocast_is_refused_and_bfloat16_is_not() -> None:
    model = mlp()
    private = private_of(model, plan())
    batches = private.batches(data())
    with torch.autocast("cpu", dtype=torch.float16), pytest.raises(PrivateTrainingError, match="float16"):
        private.backward(loss_of(model), next(batches))
    assert not private.ledger.events()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        private.backward(loss_of(model), next(batches))
    assert model[0].weight.grad is not None
    assert model[0].weight.grad.dtype == torch.float32


def test_a_penalty_in_the_loss_is_refused() -> None:
    model = mlp()
    private = private_of(model, plan())
    batches = private.batches(data())
    with pytest.raises(PrivateTrainingError, match="outside the forward pass"):
        private.backward(
            lambda d: F.cross_entropy(model(d[0]), d[1], reduction="none") + model[0].weight.square().sum(),
            next(batches),
        )
    assert not private.ledger.events()
    assert all(p.grad is None for p in model.parameters())
