"""Laws of the networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from privet.errors import ArgumentError
from privet.models import MLP, VGG16, LeNet5, LinearNet, ResNetGN

NETS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...], int]] = {
    "lenet5-28": (lambda **k: LeNet5(**k), (1, 28, 28), 10),
    "lenet5-32": (lambda **k: LeNet5(7, 3, 32, activation=nn.Tanh, pool=nn.AvgPool2d, **k), (3, 32, 32), 7),
    "vgg16": (lambda **k: VGG16(**k), (3, 32, 32), 100),
    "mlp": (lambda **k: MLP((784, 32, 16, 10), **k), (1, 28, 28), 10),
    "mlp-of-two": (lambda **k: MLP((6, 3), **k), (6,), 3),
    "linear": (lambda **k: LinearNet(64, 5, **k), (8, 8), 5),
    "resnet": (lambda **k: ResNetGN(**k), (3, 32, 32), 10),
}
every_net = pytest.mark.parametrize("name", NETS)


def batch(shape: tuple[int, ...], n: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


@every_net
def test_classifier_of_flattened_features_is_the_net(name: str) -> None:
    make, shape, classes = NETS[name]
    net, inputs = make(seed=1), batch(shape)
    outputs = net(inputs)
    assert outputs.shape == (3, classes)
    assert torch.equal(outputs, net.classifier(net.features(inputs).flatten(1)))


@every_net
def test_same_seed_same_bits_other_seed_other_bits_and_the_global_state_untouched(name: str) -> None:
    make, _, _ = NETS[name]
    before = torch.get_rng_state()
    first, second, other = (make(seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_without_a_seed_the_global_state_draws() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = LeNet5().state_dict()
        assert not torch.equal(first["features.conv1.weight"], LeNet5().state_dict()["features.conv1.weight"])
        torch.manual_seed(5)
        assert torch.equal(first["features.conv1.weight"], LeNet5().state_dict()["features.conv1.weight"])


@every_net
def test_an_example_is_answered_alike_alone_and_in_company(name: str) -> None:
    make, shape, _ = NETS[name]
    net, inputs = make(seed=1).double(), batch(shape).double()
    alone = torch.cat([net(one[None]) for one in inputs])
    torch.testing.assert_close(net(inputs), alone, rtol=1e-9, atol=1e-9)


@every_net
def test_wrong_batches_meet_one_clear_error(name: str) -> None:
    make, shape, _ = NETS[name]
    net = make(seed=1)
    wrong = [torch.zeros(2, shape[0] + 1, *shape[1:]), torch.zeros(shape[-1])]
    if name not in ("mlp", "linear"):  # these two take any shape that flattens to the right size
        wrong.append(torch.zeros(shape))
    for inputs in wrong:
        with pytest.raises(ArgumentError, match=r"inputs.shape = .*give \(N, .* for "):
            net(inputs)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LeNet5(0),
        lambda: LeNet5(True),
        lambda: LeNet5(image_size=30),
        lambda: LeNet5(in_channels=-1),
        lambda: LeNet5(activation=nn.ReLU()),  # type: ignore[arg-type]
        lambda: LeNet5(seed=-1),
        lambda: VGG16(dropout=1.0),
        lambda: VGG16(2.5),  # type: ignore[arg-type]
        lambda: MLP((3,)),
        lambda: MLP((3, 0, 2)),
        lambda: MLP("12"),  # type: ignore[arg-type]
        lambda: LinearNet(0, 2),
        lambda: ResNetGN(widths=(12,)),
        lambda: ResNetGN(widths=()),
        lambda: ResNetGN(groups=0),
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(ArgumentError):
        make()


def test_layer_names_and_sizes_of_lenet5_stay() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in LeNet5().state_dict().items() if name.endswith("weight")}
    assert shapes == {
        "features.conv1.weight": (6, 1, 5, 5),
        "features.conv2.weight": (16, 6, 5, 5),
        "classifier.fc1.weight": (120, 400),
        "classifier.fc2.weight": (84, 120),
        "classifier.fc3.weight": (10, 84),
    }
    assert sum(p.numel() for p in LeNet5().parameters()) == 61_706


def test_vgg16_has_thirteen_convolutions_three_linear_layers_and_no_batch_norm() -> None:
    kinds = [type(module) for module in VGG16(dropout=0.5).modules()]
    counts = [kinds.count(kind) for kind in (nn.Conv2d, nn.Linear, nn.Dropout, nn.BatchNorm2d)]
    assert counts == [13, 3, 2, 0]


def test_the_signal_survives_vgg16_at_the_start() -> None:
    spread = VGG16(10, seed=3)(torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))).std(0).mean()
    assert 0.1 < spread < 10


@every_net
def test_exports_with_a_free_batch_size(name: str) -> None:
    make, shape, _ = NETS[name]
    if name == "vgg16":
        pytest.skip("the same code as lenet5, and slow to trace")
    net = make(seed=1).eval()
    program = torch.export.export(net, (batch(shape),), dynamic_shapes=({0: torch.export.Dim("n", min=2)},))
    inputs = batch(shape, n=5, seed=2)
    torch.testing.assert_close(program.module()(inputs), net(inputs))


def test_compiles_without_a_graph_break() -> None:
    net = LeNet5(seed=1).eval()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    inputs = batch((1, 28, 28))
    torch.testing.assert_close(compiled(inputs), net(inputs))
