"""A defense is the network with another forward: same names, same parameters, never trained."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from privet import outputs
from privet.errors import ArgumentError, DefenseError, TrainingRefusedError
from privet.output_form import OutputForm


class Network(nn.Module):
    """Parameters, buffers that are saved and not, a batch norm, a child with the name of an argument."""

    def __init__(self):
        super().__init__()
        self.k = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.register_buffer("scale", torch.full((), 2.0))
        self.register_buffer("scratch", torch.zeros(()), persistent=False)
        self.bias = nn.Parameter(torch.zeros(6))

    def forward(self, x):
        return self.norm(self.k(x)) * self.scale + self.bias + self.scratch


DEFENSES = {
    "rounding": lambda network: outputs.Rounding(network, 2),
    "labeling": outputs.Labeling,
    "top-k": lambda network: outputs.TopK(network, 3),
    "nested": lambda network: outputs.TopK(outputs.Rounding(network, 2), 3),
}
every = pytest.mark.parametrize("make", DEFENSES.values(), ids=DEFENSES)


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network().eval()


X = torch.linspace(-2, 2, 20).reshape(5, 4)


def answers(defended, x=X):
    answer = defended(x)
    return list(answer) if isinstance(answer, tuple) else [answer]


def same(ones, others):
    assert len(ones) == len(others)
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


@every
def test_the_network_comes_back_untouched(make, network):
    before = copy.deepcopy(network.state_dict())
    defended = make(network)
    defended(X)
    assert defended.origin_network() is network
    assert same(list(network.state_dict().values()), list(before.values()))
    assert type(network) is Network
    assert not network._forward_hooks
    network.train()  # the network, unlike the defense, can be trained
    network(X).sum().backward()
    assert network.bias.grad is not None


@every
def test_it_refuses_to_be_trained(make, network):
    defended = make(network)
    for attempt in (
        defended.train,
        lambda: defended.train(True),
        lambda: torch.optim.SGD(defended.parameters(), lr=0.1),
        lambda: list(defended.parameters()),
        lambda: defended.requires_grad_(),
    ):
        with pytest.raises(TrainingRefusedError, match=r"origin_network\(\)"):
            attempt()
    assert not any(module.training for module in network.modules())
    assert defended.eval() is defended
    assert defended.train(False) is defended


@every
@pytest.mark.parametrize("which", ["", "norm"])
def test_it_refuses_a_network_in_training_mode(make, network, which):
    defended = make(network)
    network.get_submodule(which).training = True
    with pytest.raises(TrainingRefusedError, match=which or "the network"):
        defended(X)
    defended.eval()
    defended(X)


@every
def test_names_are_those_of_the_network(make, network):
    defended = make(network)
    for kind in ("state_dict", "named_parameters", "named_buffers", "named_children"):
        own, through = dict(getattr(network, kind)()), dict(getattr(defended, kind)())
        assert list(own) == list(through)
    assert all(
        one is other
        for (_, one), (_, other) in zip(network.named_parameters(), defended.named_parameters(), strict=True)
    )


@every
def test_state_dict_round_trips_between_network_and_defense(make, network, tmp_path):
    file = tmp_path / "weights.pt"
    torch.save(make(network).state_dict(), file)
    fresh = Network().eval()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    other = make(Network().eval())
    other.load_state_dict(torch.load(file, weights_only=True))
    assert same(answers(make(fresh)), answers(make(network)))
    assert same(answers(other), answers(make(network)))
    assert torch.equal(other.origin_network().bias, network.bias)
    inside = nn.Sequential(make(network))
    assert list(inside.state_dict()) == [f"0.{name}" for name in network.state_dict()]
    holder = nn.Sequential(make(Network().eval()))
    holder.load_state_dict(inside.state_dict())
    assert same(answers(holder), answers(inside))


@every
def test_a_deep_copy_shares_nothing(make, network):
    defended = make(network)
    twin = copy.deepcopy(defended)
    assert same(answers(twin), answers(defended))
    assert twin.origin_network() is not network
    with torch.no_grad():
        twin.origin_network().k.weight.zero_()
        twin.origin_network().bias.copy_(torch.arange(6.0))
    assert answers(twin)[-1].flatten().tolist() != answers(defended)[-1].flatten().tolist()
    assert all(parameter is twin.origin_network().get_parameter(name) for name, parameter in twin.named_parameters())


@every
def test_moving_and_casting_moves_the_network(make, network):
    defended = make(network)
    assert defended.to(torch.float64) is defended
    assert network.bias.dtype == torch.float64
    assert network.scratch.dtype == torch.float64
    assert answers(defended, X.double())[0].dtype in (torch.float64, torch.int64)
    assert make(network.half()).to("meta").origin_network().bias.is_meta


@every
def test_functional_calls_reach_the_network(make, network):
    defended = make(network)
    changed = {name: torch.zeros_like(one) for name, one in defended.named_parameters()}
    changed["bias"] = torch.tensor([0.0, 0.0, 9.0, 0.0, 5.0, 0.0])
    answer = torch.func.functional_call(defended, changed, (X,))
    plain = torch.func.functional_call(network, changed, (X,))
    assert same(answers(lambda _: answer), answers(make(nn.Identity().eval()), plain))


def test_further_arguments_reach_the_network():
    class Sum(nn.Module):
        def forward(self, x, y, *, z):
            return x + y + z

    one = torch.tensor([[1.0, 2.0]])
    defended = outputs.Rounding(Sum().eval(), 2, softmax=False)
    assert defended(one, one, z=one).tolist() == [[3.0, 6.0]]
    assert defended(x=one, y=one, z=one).tolist() == [[3.0, 6.0]]


def test_none_reaches_the_network():
    class Optional(nn.Module):
        def forward(self, x=0, y=0):
            return torch.tensor([[x is None, y is None]]).float()

    defended = outputs.Rounding(Optional().eval(), 2, softmax=False)
    assert defended(None).tolist() == [[1.0, 0.0]]
    assert defended(None, None).tolist() == [[1.0, 1.0]]
    assert defended(y=None).tolist() == [[0.0, 1.0]]
    assert defended().tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("wrap", [lambda module: module, nn.Sequential], ids=["itself", "within another"])
def test_the_module_of_an_exported_program_is_refused_in_one_clear_error(network, wrap):
    module = torch.export.export(network, (X,)).module()
    with pytest.raises(ArgumentError, match="defend the network, then export"):
        outputs.Labeling(wrap(module))
    traced = torch.fx.symbolic_trace(network).eval()
    assert same(answers(outputs.Labeling(traced)), answers(outputs.Labeling(network)))


def test_nested_forms(network):
    nested = outputs.TopK(outputs.Rounding(outputs.TopK(network, 4), 3), 2)
    assert nested.output_form == OutputForm(decimals=3, k=2, probabilities=True)
    assert nested.origin_network() is network
    assert outputs.Labeling(nested).output_form == OutputForm(labels_only=True)


def test_the_form_says_whether_scores_are_probabilities(network):
    for make in (lambda n, **kw: outputs.Rounding(n, 2, **kw), lambda n, **kw: outputs.TopK(n, 2, **kw)):
        assert make(network).output_form.probabilities
        assert not make(network, softmax=False).output_form.probabilities
        assert make(make(network), softmax=False).output_form.probabilities
        assert not make(make(network, softmax=False), softmax=True).output_form.probabilities
        assert not outputs.Labeling(make(network)).output_form.probabilities
    assert not outputs.Labeling(network).output_form.probabilities


def test_numpy_integers(network):
    defended = outputs.TopK(outputs.Rounding(network, np.int64(2)), np.int32(3))
    assert repr(defended.output_form) == repr(OutputForm(decimals=2, k=3, probabilities=True))
    assert same(answers(defended), answers(outputs.TopK(outputs.Rounding(network, 2), 3)))


@pytest.mark.parametrize("decimals", [-1, 16, True, np.True_, 2.0, "2", None])
def test_decimals_out_of_range(network, decimals):
    with pytest.raises(ArgumentError, match="decimals"):
        outputs.Rounding(network, decimals)


@pytest.mark.parametrize("k", [0, -3, True, np.True_, 2.0, None])
def test_k_out_of_range(network, k):
    with pytest.raises(ArgumentError, match="k"):
        outputs.TopK(network, k)


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        (lambda n: outputs.Labeling(lambda x: x), "network"),
        (lambda n: outputs.Rounding(n, 2, softmax=1), "softmax"),
        (lambda n: outputs.TopK(outputs.TopK(n, 2), 3), "from 1 to 2"),
        (lambda n: outputs.TopK(outputs.Labeling(n), 1), "label alone"),
        (lambda n: outputs.Labeling(outputs.Labeling(n)), "label alone"),
        (lambda n: outputs.Labeling(outputs.Rounding(n, 2), part="logits"), "innermost"),
        (lambda n: outputs.Labeling(nn.Sequential(outputs.Rounding(n, 2))), "contains no defense"),
        (lambda n: outputs.Labeling(n, keep="hidden"), "keep"),
        (lambda n: outputs.Labeling(n, part=1.5), "part"),
    ],
)
def test_arguments_are_refused_before_any_call(network, attempt, says):
    with pytest.raises(ArgumentError, match=says):
        attempt(network)


def test_k_above_the_classes_is_found_at_the_first_call(network):
    with pytest.raises(ArgumentError, match="from 1 to 6"):
        outputs.TopK(network, 7)(X)


@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float16, 3), (torch.bfloat16, 2), (torch.float32, 6), (torch.float64, 15)]
)
def test_decimals_beyond_the_type_are_refused(dtype, most):
    x = torch.zeros(1, 2, dtype=dtype)
    outputs.Rounding(nn.Identity().eval(), most)(x)
    if most < 15:
        with pytest.raises(ArgumentError, match=f"at most {most}"):
            outputs.Rounding(nn.Identity().eval(), most + 1)(x)


@pytest.mark.parametrize("x", [torch.zeros(2, 3, dtype=torch.int64), torch.tensor(1.0), torch.zeros(2, 0)])
def test_what_holds_no_scores_is_refused(x):
    with pytest.raises(DefenseError, match="scores are"):
        outputs.Labeling(nn.Identity().eval())(x)


@every
def test_the_same_defense_around_another_network_is_the_one_built_around_it(make, network):
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.bias.copy_(torch.linspace(-3, 3, 6))
    defense = make(network)
    moved = defense.around(other)
    assert type(moved) is type(defense)
    assert moved.origin_network() is other
    assert moved.output_form == defense.output_form
    assert same(answers(moved), answers(make(other)))
    assert not same(answers(moved), answers(defense))
    assert defense.origin_network() is network


def test_around_keeps_softmax_part_and_kept_parts(network):
    class Two(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return {"scores": torch.softmax(self.inner(x), -1), "boxes": x * 2}

    def make(inner):
        return outputs.Rounding(inner, 1, softmax=False, part="scores", keep=("boxes",))

    one, other = Two(network).eval(), Two(nn.Linear(4, 6)).eval()
    assert same(answers(make(one).around(other)), answers(make(other)))


@every
def test_around_refuses_what_is_no_network_or_defended(make, network):
    for wrong in (make(network), lambda x: x, None):
        with pytest.raises(ArgumentError, match="network"):
            make(network).around(wrong)
