"""What is refused before training: every case by name, with the reason and an edit that mends it."""

import pytest
import torch
import torch.nn.utils.prune
from tests.dp.per_example.laws import law_agrees, problem
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from privet.dp.per_example import rules
from privet.dp.per_example.engine import Engine
from privet.dp.per_example.refusals import Refusal, refusals
from privet.errors import UnsupportedLayerError


def behind(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), layer)


def frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


def hooked(register: str) -> nn.Module:
    layer = nn.Linear(4, 4)
    getattr(layer, register)(lambda *_: None)
    return layer


def hooked_parameter(register: str) -> nn.Module:
    layer = nn.Linear(4, 4)
    getattr(layer.weight, register)(lambda *_: None)
    return layer


def compiled_in_place() -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.compile()
    return layer


def with_own_forward() -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.forward = lambda input: input
    return layer


def with_a_plain_weight() -> nn.Module:
    layer = nn.Linear(4, 4)
    del layer.weight
    layer.weight = torch.ones(4, 4, requires_grad=True) * 2
    return layer


class Unit(nn.Module):
    def __init__(self, child: nn.Module) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))
        self.child = child

    def forward(self, input):
        return self.child(input) * self.gain


class OwnLSTM(nn.LSTM):
    pass


def pruned() -> nn.Module:
    layer = nn.Linear(4, 4)
    torch.nn.utils.prune.random_unstructured(layer, "weight", amount=1)
    return layer


# what makes the layer, its name in the model behind a linear one, and what the reason and the edit have to say
REFUSED = {
    "batch norm 1d": (lambda: nn.BatchNorm1d(4), "1", r"whole batch.*GroupNorm\(1, 4\).*model\[1\]\.eval\(\)"),
    "batch norm 2d": (lambda: nn.BatchNorm2d(48), "1", r"GroupNorm\(16, 48\)"),
    "batch norm 3d": (lambda: nn.BatchNorm3d(7), "1", r"GroupNorm\(1, 7\)"),
    "sync batch norm": (lambda: nn.SyncBatchNorm(4), "1", r"GroupNorm\(2, 4\)"),
    "batch norm without parameters": (lambda: nn.BatchNorm1d(4, affine=False), "1", r"GroupNorm"),
    "batch norm, frozen": (lambda: frozen(nn.BatchNorm1d(4)), "1", r"GroupNorm"),
    "batch norm without statistics": (
        lambda: nn.BatchNorm1d(4, track_running_stats=False).eval(),
        "1",
        r"in eval mode too.*eval mode does not help",
    ),
    "batch norm in a unit": (lambda: Unit(nn.BatchNorm1d(4)), "1.child", r"GroupNorm.*model\[1\]\.child\.eval\(\)"),
    "instance norm with statistics": (
        lambda: nn.InstanceNorm1d(4, track_running_stats=True),
        "1",
        r"running averages.*track_running_stats=False",
    ),
    "lazy": (lambda: nn.LazyLinear(4), "1", "shapes are not known"),
    "lstm of another type": (lambda: OwnLSTM(4, 3), "1", "another type.*freeze"),
    "lstm with weight norm": (
        lambda: parametrizations.weight_norm(nn.LSTM(4, 3), "weight_hh_l0"),
        "1",
        "another type.*without weight norm",
    ),
    "lstm in a unit": (lambda: Unit(nn.LSTM(4, 3)), "1.child", "cannot run recurrent layers.*outside of it"),
    "old weight norm": (lambda: weight_norm(nn.Linear(4, 4)), "1", "hook.*parametrizations.weight_norm"),
    "old spectral norm": (lambda: spectral_norm(nn.Linear(4, 4)), "1", "hook.*parametrizations.weight_norm"),
    "pruned": (pruned, "1", "pruning.*prune.remove"),
    "forward hook": (lambda: hooked("register_forward_hook"), "1", "hook.*Remove"),
    "forward pre-hook": (lambda: hooked("register_forward_pre_hook"), "1", "hook.*Remove"),
    "backward hook": (lambda: hooked("register_full_backward_hook"), "1", "hook.*Remove"),
    "backward pre-hook": (lambda: hooked("register_full_backward_pre_hook"), "1", "hook.*Remove"),
    "hook in a unit": (lambda: Unit(hooked("register_forward_hook")), "1.child", "hook.*Remove"),
    "parameter hook": (lambda: hooked_parameter("register_hook"), "1.weight", "hook on its gradient.*change .grad"),
    "parameter hook after": (
        lambda: hooked_parameter("register_post_accumulate_grad_hook"),
        "1.weight",
        "hook on its gradient",
    ),
    "compiled": (lambda: torch.compile(nn.Linear(4, 4), backend="eager"), "1", "compiled.*before torch.compile"),
    "compiled in place": (compiled_in_place, "1", "compiled.*before torch.compile"),
    "data parallel": (lambda: nn.DataParallel(nn.Linear(4, 4)), "1", "over devices.*inside"),
    "quantized": (lambda: torch.ao.nn.quantized.Linear(4, 4), "1", "quantized.*float32"),
    "quantization-aware": (
        lambda: torch.ao.nn.qat.Linear(4, 4, qconfig=torch.ao.quantization.get_default_qat_qconfig()),
        "1",
        "quantized.*float32",
    ),
    "scripted": (lambda: torch.jit.script(nn.Linear(4, 4)), "1", "TorchScript.*Python module"),
    "traced": (lambda: torch.jit.trace(nn.Linear(4, 4), torch.ones(1, 4)), "1", "TorchScript"),
    "own forward": (with_own_forward, "1", "set on the instance.*class"),
    "plain weight": (with_a_plain_weight, "1", "plain tensor"),
    "dropout in a unit": (lambda: Unit(nn.Dropout(0.5)), "1.child", r"random.*'1' \(Unit\).*outside"),
    "rrelu in a unit": (lambda: Unit(nn.RReLU()), "1.child", "random"),
    "fractional pooling in a unit": (lambda: Unit(nn.FractionalMaxPool2d(2, 1)).eval(), "1.child", "random"),
    "attention's dropout in a unit": (lambda: Unit(nn.MultiheadAttention(4, 2, 0.1)), "1.child", "random"),
    "sequence-first encoder": (lambda: nn.TransformerEncoderLayer(4, 2, 4), "1", "batch_first=True"),
    "sequence-first decoder": (lambda: nn.TransformerDecoderLayer(4, 2, 4), "1", "batch_first=True"),
}


def named(name):
    make, where, told = REFUSED[name]
    return behind(make()), where, told


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_each_is_refused_once_by_name_with_reason_and_edit(name):
    model, where, told = named(name)
    found = refusals(model)
    assert [refusal.name for refusal in found] == [where]
    assert found[0].reason
    assert found[0].edit.endswith(".")
    with pytest.raises(UnsupportedLayerError, match=rf"(?s)'{where}' \(\w+\) is refused: .*{told}"):
        rules.handlers(model, [])


FINE = {
    "batch norm in eval mode": lambda: nn.BatchNorm1d(4).eval(),
    "instance norm in eval mode": lambda: nn.InstanceNorm1d(4, track_running_stats=True).eval(),
    "instance norm": lambda: nn.InstanceNorm1d(4, affine=True),
    "local response norm": lambda: nn.LocalResponseNorm(2),
    "frozen lstm": lambda: frozen(nn.LSTM(4, 3)),
    "frozen compiled": lambda: torch.compile(frozen(nn.Linear(4, 4)), backend="eager"),
    "frozen scripted": lambda: torch.jit.script(frozen(nn.Linear(4, 4))),
    "hook where no parameter is": lambda: nn.ReLU().register_forward_hook(lambda *_: None) and nn.ReLU(),
    "frozen with hook": lambda: frozen(hooked("register_forward_hook")),
    "dropout": lambda: nn.Dropout(0.5),
    "dropout in a unit, eval mode": lambda: Unit(nn.Dropout(0.5)).eval(),
    "dropout of 0 in a unit": lambda: Unit(nn.Dropout(0.0)),
    "attention": lambda: nn.MultiheadAttention(4, 2, 0.1),
    "sequence-first attention": lambda: nn.MultiheadAttention(4, 2, batch_first=False),
    "encoder layer": lambda: nn.TransformerEncoderLayer(4, 2, 4, batch_first=True),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
    "unit": lambda: Unit(nn.Linear(4, 4)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FINE)
def test_what_is_fine_is_not_refused(name):
    assert refusals(behind(FINE[name]())) == []


def test_the_edit_mends_it():
    """As the text says: the model with GroupNorm trains, and so does the one in eval mode."""
    shape = (4, 3)
    law_agrees(problem(nn.Sequential(nn.Conv1d(4, 4, 1), nn.GroupNorm(1, 4)), shape))
    law_agrees(problem(nn.Sequential(nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4).eval()), shape))
    law_agrees(problem(nn.Sequential(nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4, affine=False).eval()), shape))


def test_all_of_them_are_listed_in_the_models_order():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Sequential(OwnLSTM(4, 4), Unit(nn.Dropout(0.2))), nn.LazyLinear(3))
    found = refusals(model)
    assert [(refusal.name, refusal.kind) for refusal in found] == [
        ("0", "BatchNorm1d"),
        ("1.0", "OwnLSTM"),
        ("1.1.child", "Dropout"),
        ("2", "LazyLinear"),
    ]
    with pytest.raises(UnsupportedLayerError, match=r"^layer '0'.*Refused as well: '1\.0', '1\.1\.child', '2'\.$"):
        rules.refuse(model)


def test_the_model_itself():
    assert str(refusals(OwnLSTM(4, 3))[0]).startswith("the model itself (OwnLSTM) is refused: ")


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("place", ["alone", "in a unit"])
def test_put_back_into_train_mode_it_is_noticed(affine, place):
    norm = nn.BatchNorm1d(4, affine=affine)
    model = behind(norm if place == "alone" else Unit(norm)).eval()
    engine = Engine(model)
    data = torch.arange(12.0).view(3, 4)

    def loss(data):
        return model(data).sum(dim=1)

    engine.take(loss, data, 3)
    model.train()
    before = norm.running_mean.clone()
    with pytest.raises(UnsupportedLayerError, match=r"was put into train mode.*whole batch.*GroupNorm\(1, 4\)"):
        engine.take(loss, data, 3)
    assert torch.equal(norm.running_mean, before)
    assert "forward" not in vars(norm)


def test_a_layer_inside_a_unit_and_outside_of_it_is_refused():
    shared = nn.Linear(4, 4)
    for model, where in [(nn.Sequential(shared, Unit(shared)), "0"), (nn.Sequential(Unit(shared), shared), "1")]:
        assert [refusal.name for refusal in refusals(model)] == [where]
        with pytest.raises(UnsupportedLayerError, match=r"also inside '\d' \(Unit\).*two modules that share"):
            rules.handlers(model, [])


def test_the_same_unit_twice_is_one():
    unit = Unit(nn.Linear(4, 4))
    model = nn.Sequential(unit, nn.Tanh(), unit)
    assert refusals(model) == []
    law_agrees(problem(model, (4,)))


def test_two_modules_that_share_a_parameter_with_a_unit_are_right():
    shared = nn.Linear(4, 4)
    other = nn.Linear(4, 4)
    other.weight, other.bias = shared.weight, shared.bias
    model = nn.Sequential(shared, nn.Tanh(), Unit(other))
    assert refusals(model) == []
    law_agrees(problem(model, (4,)))


@pytest.mark.filterwarnings("ignore")
def test_planted_a_hook_that_is_not_seen_loses_a_gradient(monkeypatch):
    """An old-style weight norm is an nn.Linear by its exact type: without the refusal it would go through wrongly."""
    model = behind(weight_norm(nn.Linear(4, 4)))
    monkeypatch.setattr(rules, "refusals", lambda model: [])
    data = torch.eye(4)
    wanted = torch.autograd.grad(model(data).square().sum(), model[1].weight_g)[0]
    found = Engine(model).take(lambda data: model(data).square().sum(dim=1), data, 4).per_example()["1.weight_g"]
    assert wanted.abs().max() > 0.01
    assert not found.any()


@pytest.fixture
def process_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
def test_distributed_wrappers(process_group):
    wrapped = nn.parallel.DistributedDataParallel(nn.Linear(4, 4))
    assert [(one.name, one.kind) for one in refusals(wrapped)] == [("", "DistributedDataParallel")]
    from torch.distributed.fsdp import fully_shard

    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    sharded = behind(fully_shard(nn.Linear(4, 4), mesh=mesh))
    assert [one.name for one in refusals(sharded)] == ["1"]
    assert "over devices" in str(refusals(sharded)[0])


def test_a_refusal_reads_as_one_sentence_and_its_edit():
    refusal = Refusal("a.b", "Kind", "it is so", "Do this.")
    assert str(refusal) == "layer 'a.b' (Kind) is refused: it is so. Do this."
