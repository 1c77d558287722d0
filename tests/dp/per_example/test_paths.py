"""What is refused while the loss runs: a gradient that goes past the engine, or examples that cannot be told apart."""

import re

import pytest
import torch
import torch.nn.functional as F
from tests.dp.per_example.laws import law_agrees, problem, random_
from torch import nn
from torch.utils.checkpoint import checkpoint

from privet.dp.per_example.engine import Engine
from privet.errors import PrivateTrainingError, UnsupportedLayerError

B, T, D = 6, 4, 5


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


class Words(nn.Module):
    """A small language model whose parts a loss may use as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(9, D), nn.Embedding(T, D)
        self.body, self.head = nn.Sequential(nn.Linear(D, D), nn.Tanh()), nn.Linear(D, 9)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embedding(words)))


def per_word(output: torch.Tensor) -> torch.Tensor:
    return output.square().flatten(1).sum(dim=1)


def words_and_model() -> tuple[torch.Tensor, Words]:
    words = torch.randint(0, 9, (B, T), generator=torch.Generator().manual_seed(1))
    model = random_(Words())
    model.head.bias.grad = torch.ones(9)
    return words, model


def mean_loss(model, words):
    return per_word(model(words)).mean()


def sum_loss(model, words):
    return per_word(model(words)).sum()


def loss_of_positions(model, words):
    return model(words).square().sum(dim=2)


def one_loss_too_few(model, words):
    return per_word(model(words))[:-1]


def column(model, words):
    return per_word(model(words)).unsqueeze(1)


def a_pair(model, words):
    return per_word(model(words)), model(words)


def integers(model, words):
    return model(words).sum(dim=(1, 2)).long()


def without_gradient(model, words):
    with torch.no_grad():
        return per_word(model(words))


def detached(model, words):
    return per_word(model(words).detach())


def another_model(model, words):
    return per_word(Words()(words))


def of_the_data_alone(model, words):
    return words.float().sum(dim=1)


def tied_by_function(model, words):
    hidden = model.body(model.embedding(words))
    return per_word(F.linear(hidden, model.embedding.weight))


def penalty(model, words):
    return per_word(model(words)) + 0.1 * sum(p.square().sum() for p in model.parameters())


def penalty_on_one(model, words):
    return per_word(model(words)) + model.head.bias.norm()


def learnable_outside(model, words):
    scale = torch.ones(9, requires_grad=True)
    return per_word(model(words) * scale)


def learnable_module_outside(model, words):
    return per_word(nn.Linear(9, 2)(model(words)))


def inputs_that_learn(model, words):
    return per_word(model.body(numbers(B, T, D).requires_grad_()))


def flattened(model, words):
    return per_word(model.head(model.embedding(words).reshape(B * T, D)).reshape(B, T, 9))


def positions_without_batch(model, words):
    return per_word(model.head(model.embedding(words) + model.position(torch.arange(T))))


def sequence_first(model, words):
    return per_word(model(words.t()).transpose(0, 1))


def one_number_for_all(model, words):
    return per_word(model(words) * model.body(torch.ones(1, D)).sum())


def half_the_batch(model, words):
    return per_word(model(words)) + per_word(model(words[: B // 2])).repeat(2)


def gradient_penalty(model, words):
    hidden = model.embedding(words)
    output = model.head(model.body(hidden))
    (by_hidden,) = torch.autograd.grad(output.sum(), hidden, create_graph=True)
    return per_word(output) + per_word(by_hidden)


def backward_inside(model, words):
    losses = per_word(model(words))
    losses.sum().backward(retain_graph=True)
    return losses


def other_weights(model, words):
    return per_word(torch.func.functional_call(model, {"head.weight": torch.ones(9, D)}, (words,)))


def assigned_anew(model, words):
    before, model.head.weight = model.head.weight, nn.Parameter(torch.ones(9, D))
    try:
        return per_word(model(words))
    finally:
        model.head.weight = before


def checkpointed(model, words):
    return per_word(model.head(checkpoint(model.body, model.embedding(words), use_reentrant=False)))


def checkpointed_whole(model, words):
    return per_word(checkpoint(model, words, use_reentrant=False))


def checkpointed_reentrant(model, words):
    return per_word(model.head(checkpoint(model.body, model.embedding(words), use_reentrant=True)))


REFUSED = [
    (mean_loss, r"shape \(\) for 6 examples.*mean or a sum.*reduction='none'"),
    (sum_loss, r"shape \(\) for 6 examples.*mean or a sum.*reduction='none'"),
    (loss_of_positions, r"shape \(6, 4\) for 6 examples; .*shape \(6,\)"),
    (one_loss_too_few, r"shape \(5,\) for 6 examples"),
    (column, r"shape \(6, 1\) for 6 examples"),
    (a_pair, "returned tuple, not a tensor"),
    (integers, "torch.int64; they need a floating-point dtype"),
    (without_gradient, "do not depend on any trainable parameter"),
    (detached, "do not depend on any trainable parameter"),
    (of_the_data_alone, "do not depend on any trainable parameter|floating-point"),
    (another_model, "no parameter of the model requires gradients"),
    (tied_by_function, r"parameter 'embedding.weight' is used outside .*F.linear"),
    (penalty, "is used outside the forward pass of the layer that owns it.*weight decay to the optimizer"),
    (penalty_on_one, "parameter 'head.bias' is used outside"),
    (learnable_outside, r"a tensor of shape \(9,\) that is no parameter of the model requires gradients"),
    (learnable_module_outside, "that is no parameter of the model requires gradients"),
    (inputs_that_learn, r"a tensor of shape \(6, 4, 5\) that is no parameter of the model"),
    (flattened, r"layer 'head' got an input of shape \(24, 5\) in a batch of 6.*do not flatten"),
    (positions_without_batch, r"layer 'position' got an input of shape \(4,\).*positions.expand"),
    (sequence_first, r"layer 'embedding' got an input of shape \(4, 6\) in a batch of 6"),
    (one_number_for_all, r"layer 'body.0' got an input of shape \(1, 5\) in a batch of 6"),
    (half_the_batch, r"layer 'embedding' got an input of shape \(3, 4\) in a batch of 6"),
    (gradient_penalty, r"torch.autograd.grad \(a gradient penalty"),
    (backward_inside, r"the loss called .backward\(\)"),
    (other_weights, "a parameter 'weight' is another one than before.*functional_call"),
    (assigned_anew, "a parameter 'weight' is another one than before"),
    (checkpointed, "called again during the backward pass.*checkpoint"),
    (checkpointed_whole, "called again during the backward pass.*checkpoint"),
    (checkpointed_reentrant, "checkpoint"),
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of a scalar conversion in the loss that is refused anyway
@pytest.mark.parametrize(("loss", "message"), REFUSED, ids=[loss.__name__ for loss, _ in REFUSED])
def test_is_refused_and_leaves_the_model_as_it_was(loss, message):
    words, model = words_and_model()
    engine = Engine(model)
    before = fingerprint(model)
    with pytest.raises(PrivateTrainingError) as caught:
        engine.take(lambda data: loss(model, data), words, B)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert fingerprint(model) == before
    found = engine.take(lambda data: per_word(model(data)), words, B)  # and goes on as if nothing had been
    again = Engine(model).take(lambda data: per_word(model(data)), words, B)
    assert torch.equal(found.squared_norms, again.squared_norms)


def test_what_is_right_beside_it_is_not_refused():
    """Positions with a batch axis, a frozen weight used by hand, a constant, a loss under no parameter's name."""
    words, model = words_and_model()
    model.position.requires_grad_(False)

    def loss(data):
        size = len(data)
        by_hand = model.position.weight.expand(size, T, D)
        hidden = model.embedding(data) + by_hand + model.position(torch.arange(T).expand(size, -1))
        return per_word(model.head(model.body(hidden)) * torch.ones(9)) / 2

    assert Engine(model).take(loss, words, B).squared_norms.isfinite().all()


@pytest.mark.parametrize("where", ["penalty", "function"])
def test_inside_the_model_as_well(where):
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(D, D)

        def forward(self, inputs):
            if where == "function":
                return F.linear(self.layer(inputs), self.layer.weight)
            return self.layer(inputs) + self.layer.weight.abs().mean()

    model = Inside()
    with pytest.raises(PrivateTrainingError, match=r"'layer.weight' is used outside"):
        Engine(model).take(lambda data: per_word(model(data)), numbers(B, D), B)


def test_a_forward_of_its_own_is_refused_where_it_came_after_the_engine():
    model = nn.Sequential(nn.Linear(D, D), nn.Linear(D, 2))
    engine = Engine(model)
    model[1].forward = own = lambda inputs: inputs
    with pytest.raises(UnsupportedLayerError, match="forward of its own"):
        engine.take(lambda data: per_word(model(data)), numbers(B, D), B)
    assert model[1].__dict__["forward"] is own
    assert "forward" not in model[0].__dict__


def test_losses_that_were_kept_cannot_be_used_again():
    model, kept = nn.Linear(D, 2), []

    def loss(data):
        kept.append(per_word(model(data)))
        return kept[0]

    gradients = Engine(model).take(lambda data: loss(data) * 1.0, numbers(B, D), B)
    before = gradients.squared_norms.clone()
    with pytest.raises((PrivateTrainingError, RuntimeError)):
        kept[0].sum().backward()
    assert torch.equal(gradients.squared_norms, before)
    assert model.weight.grad is None


@pytest.mark.parametrize("norm", [1.0, 1e-2, 1e-3, 1e-6])
def test_a_weight_below_the_smallest_normal_number_is_none(norm):
    """Rounding it would be by more than one part in ten million: the sum would be longer than the clip norm."""
    model = nn.Linear(4, 4, bias=False)
    engine = Engine(model)
    inputs = torch.full((1, 4), 0.7e22)
    gradients = engine.take(lambda data: 0.7e20 * model(data).sum(dim=1), inputs, 1)
    told = gradients.squared_norms.sqrt()
    assert told.isfinite().all()
    flat = engine.flat()
    gradients.add_to(flat, norm / told)
    assert flat.double().norm().item() <= norm * (1 + 1e-6)


def test_a_change_in_place_of_what_a_layer_got_is_noticed():
    model = nn.Sequential(nn.Linear(D, D), nn.Linear(D, D))

    def loss(data):
        hidden = model[0](data)
        output = model[1](hidden)
        hidden.add_(1.0)
        return per_word(output)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        Engine(model).take(loss, numbers(B, D), B)


def fingerprint(model: nn.Module) -> object:
    """Everything that a user sees of a model, and every attribute of its modules."""
    state = {name: (value.detach().numpy().tobytes(), id(value)) for name, value in model.named_parameters()}
    modules = [(name, type(module), sorted(module.__dict__)) for name, module in model.named_modules()]
    forwards = [module.forward.__func__ for module in model.modules()]
    hooks = [
        (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks))
        for module in model.modules()
    ]
    grads = [(parameter.requires_grad, id(parameter.grad), str(parameter.grad)) for parameter in model.parameters()]
    return list(model.state_dict()), state, modules, forwards, hooks, grads, type(model), model.training


class Expected(Exception):
    pass


@pytest.mark.parametrize("fails", [False, True], ids=["after a step", "after an exception in the loss"])
def test_the_model_stays_the_users(fails):
    words, model = words_and_model()
    before = fingerprint(model)
    engine = Engine(model)
    assert fingerprint(model) == before

    def loss(data):
        losses = per_word(model(data))
        if fails:
            raise Expected
        return losses

    if fails:
        with pytest.raises(Expected):
            engine.take(loss, words, B)
    else:
        gradients = engine.take(loss, words, B)
        gradients.per_example()
        gradients.add_to(engine.flat(), torch.ones(1, B))
    assert fingerprint(model) == before


def test_frozen_layers_cost_nothing():
    """No use, no other forward, and no backward pass through what lies before the first trainable layer."""
    layers = [nn.Embedding(9, D), nn.Linear(D, D), nn.LayerNorm(D), nn.Conv1d(T, T, 1), nn.Linear(D, 3)]
    model = nn.Sequential(*layers)
    words = torch.randint(0, 9, (B, T), generator=torch.Generator().manual_seed(1))
    for frozen in layers[:3]:
        frozen.requires_grad_(False)
    engine = Engine(model)
    patched, needed = [], []

    def loss(data):
        patched.extend(module for module in model.modules() if "forward" in module.__dict__)
        hidden = model[2](model[1](model[0](data)))
        needed.append(hidden.requires_grad)
        return per_word(model[4](model[3](hidden)))

    gradients = engine.take(loss, words, B)
    assert patched == layers[3:]
    assert needed == [False]
    assert len(gradients._uses) == 2
    assert set(engine.views(engine.flat())) == {"3.weight", "3.bias", "4.weight", "4.bias"}
    law_agrees(problem(model, (T,), words=9), groups=2)


def test_an_adapter_beside_a_frozen_layer():
    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Linear(D, D).requires_grad_(False)
            self.down, self.up = nn.Linear(D, 2, bias=False), nn.Linear(2, D, bias=False)

        def forward(self, inputs):
            return self.base(inputs) + self.up(self.down(inputs))

    model = nn.Sequential(Adapted(), nn.Tanh(), Adapted(), nn.Linear(D, 3).requires_grad_(False))
    case = problem(model, (T, D))
    law_agrees(case, groups=4)
    assert len(Engine(model).take(case.loss, case.data, case.size)._uses) == 4


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_channels_are_not_taken_for_examples(kind):
    """An image without the axis of examples that has as many channels as there are examples."""
    model = kind(B, 4, 3)

    def loss(data):
        return model(data).flatten(1).sum(1)

    with pytest.raises(PrivateTrainingError, match=r"got an input of shape \(6, 5, 5\); it has to have 4 dimensions"):
        Engine(model).take(loss, numbers(B, 5, 5), B)
    with torch.no_grad():
        assert model(numbers(B, 5, 5)).dim() == 3
