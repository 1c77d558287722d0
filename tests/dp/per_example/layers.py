"""The table of layers: each alone, as the first of its model, and behind another that needs its gradient."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tests.dp.per_example.laws import Problem, problem
from torch import nn

from privet.dp import Expand


@dataclass(frozen=True)
class Layer:
    """A layer and the shape of one example; words below ``words`` instead of numbers if that is given."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    words: int = 0
    size: int = 5
    channels_last: bool = False

    def alone(self, dtype: torch.dtype = torch.float64, size: int | None = None) -> Problem:
        return self._problem(self.make(), dtype, size)

    def behind(self, dtype: torch.dtype = torch.float64, size: int | None = None) -> Problem:
        """A layer of its own kind of input before it, one of its output after it."""
        layer = self.make()
        with torch.no_grad():
            inputs = torch.zeros(1, *self.shape, dtype=torch.int64 if self.words else torch.float32)
            last = layer(inputs).shape[-1]
        if self.words:
            before = []
        elif self.channels_last:  # of these, a convolution gives the same format on
            before = [nn.Conv2d(self.shape[0], self.shape[0], 1), nn.Tanh()]
        else:
            before = [nn.Linear(self.shape[-1], self.shape[-1]), nn.Tanh()]
        return self._problem(nn.Sequential(*before, layer, nn.Tanh(), nn.Linear(last, 3)), dtype, size)

    def _problem(self, model: nn.Module, dtype: torch.dtype, size: int | None) -> Problem:
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        return problem(model, self.shape, self.size if size is None else size, self.words, dtype, memory_format)


def frozen(module: nn.Module, *names: str) -> nn.Module:
    for name in names:
        getattr(module, name).requires_grad_(False)
    return module


def layer(name: str, make: Callable[[], nn.Module], *shape: int, **more: int) -> Layer:
    return Layer(name, make, shape, **more)


LINEAR = [
    layer("linear", lambda: nn.Linear(6, 4), 6),
    layer("linear 3-D, ghost", lambda: nn.Linear(40, 30), 3, 40),
    layer("linear 3-D, kept", lambda: nn.Linear(5, 4), 7, 5),
    layer("linear 3-D, one position", lambda: nn.Linear(5, 4), 1, 5),
    layer("linear 4-D", lambda: nn.Linear(5, 4), 3, 2, 5),
    layer("linear 4-D, ghost", lambda: nn.Linear(50, 40), 2, 2, 50),
    layer("linear without bias", lambda: nn.Linear(6, 4, bias=False), 3, 6),
    layer("linear with frozen bias", lambda: frozen(nn.Linear(6, 4), "bias"), 3, 6),
    layer("linear with frozen weight", lambda: frozen(nn.Linear(6, 4), "weight"), 3, 6),
    layer("linear to one", lambda: nn.Linear(6, 1), 6),
    layer("linear from one", lambda: nn.Linear(1, 4), 3, 1),
]

CONVOLUTION = [
    layer("conv2d", lambda: nn.Conv2d(3, 4, 3), 3, 7, 6),
    layer("conv2d without bias", lambda: nn.Conv2d(3, 4, 3, bias=False), 3, 7, 6),
    layer("conv2d with frozen bias", lambda: frozen(nn.Conv2d(3, 4, 3), "bias"), 3, 7, 6),
    layer("conv2d with frozen weight", lambda: frozen(nn.Conv2d(3, 4, 3), "weight"), 3, 7, 6),
    layer("conv2d 1x1", lambda: nn.Conv2d(3, 4, 1), 3, 5, 4),
    layer("conv2d even kernel", lambda: nn.Conv2d(3, 4, (2, 4)), 3, 6, 7),
    layer("conv2d same, even kernel", lambda: nn.Conv2d(3, 4, (2, 4), padding="same"), 3, 6, 7),
    layer("conv2d same, dilated", lambda: nn.Conv2d(3, 4, 3, padding="same", dilation=2), 3, 6, 7),
    layer("conv2d valid", lambda: nn.Conv2d(3, 4, 3, padding="valid"), 3, 6, 7),
    layer("conv2d padding", lambda: nn.Conv2d(3, 4, 3, padding=(2, 1)), 3, 6, 5),
    layer("conv2d stride", lambda: nn.Conv2d(3, 4, 3, stride=(2, 3), padding=1), 3, 8, 9),
    layer("conv2d stride that leaves a rest", lambda: nn.Conv2d(3, 4, 2, stride=3), 3, 7, 9),
    layer("conv2d dilation", lambda: nn.Conv2d(3, 4, (3, 2), dilation=(2, 3)), 3, 8, 7),
    layer("conv2d groups", lambda: nn.Conv2d(6, 4, 3, groups=2, padding=1), 6, 5, 6),
    layer("conv2d depthwise", lambda: nn.Conv2d(4, 4, 3, groups=4, stride=2, padding=1), 4, 7, 6),
    layer("conv2d depthwise, two each", lambda: nn.Conv2d(3, 6, 3, groups=3), 3, 5, 6),
    layer("conv2d whole image", lambda: nn.Conv2d(20, 24, (4, 3)), 20, 4, 3),
    layer("conv2d ghost, even padding", lambda: nn.Conv2d(20, 24, 3, padding=1, stride=2), 20, 4, 3),
    layer("conv2d wide", lambda: nn.Conv2d(16, 17, 3, padding=1), 16, 6, 6, size=9),
    layer("conv2d wide, stride", lambda: nn.Conv2d(16, 17, 3, padding=1, stride=2, dilation=2), 16, 12, 11, size=9),
    layer("conv2d channels last", lambda: nn.Conv2d(3, 4, 3, padding=1), 3, 7, 6, channels_last=True),
    layer("conv2d wide, channels last", lambda: nn.Conv2d(16, 17, 3), 16, 6, 6, channels_last=True),
    layer("conv2d ghost, channels last", lambda: nn.Conv2d(20, 24, 3), 20, 4, 4, channels_last=True),
    layer("conv1d", lambda: nn.Conv1d(3, 4, 3), 3, 8),
    layer("conv1d without bias", lambda: nn.Conv1d(3, 4, 3, bias=False), 3, 8),
    layer("conv1d same, even kernel", lambda: nn.Conv1d(3, 4, 4, padding="same"), 3, 8),
    layer("conv1d stride, dilation, padding", lambda: nn.Conv1d(3, 4, 3, 2, 3, 2), 3, 9),
    layer("conv1d depthwise", lambda: nn.Conv1d(4, 8, 3, groups=4, padding=1), 4, 6),
    layer("conv1d 1x1", lambda: nn.Conv1d(3, 4, 1), 3, 6),
    layer("conv1d ghost", lambda: nn.Conv1d(24, 20, 3, padding=1), 24, 4),
    layer("conv1d wide", lambda: nn.Conv1d(16, 16, 3, padding=1), 16, 30, size=9),
    *(
        layer(f"conv2d {mode}", lambda mode=mode: nn.Conv2d(3, 4, 3, padding=(1, 2), padding_mode=mode), 3, 5, 6)
        for mode in ("reflect", "replicate", "circular")
    ),
    *(
        layer(f"conv2d same, {mode}", lambda mode=mode: nn.Conv2d(3, 4, 4, padding="same", padding_mode=mode), 3, 5, 6)
        for mode in ("reflect", "replicate", "circular")
    ),
    *(
        layer(f"conv1d {mode}", lambda mode=mode: nn.Conv1d(3, 4, 3, padding=2, padding_mode=mode), 3, 6)
        for mode in ("reflect", "replicate", "circular")
    ),
]

CONVOLUTION_3D = [
    layer("conv3d", lambda: nn.Conv3d(2, 3, (2, 3, 2)), 2, 4, 5, 4),
    layer("conv3d stride, dilation, padding", lambda: nn.Conv3d(2, 3, 2, (1, 2, 3), (0, 1, 2), (2, 1, 3)), 2, 4, 5, 6),
    layer("conv3d groups", lambda: nn.Conv3d(4, 2, 2, groups=2, bias=False), 4, 3, 4, 3),
    layer(
        "conv3d same, circular", lambda: nn.Conv3d(2, 2, (2, 3, 4), padding="same", padding_mode="circular"), 2, 4, 4, 5
    ),
    layer("conv3d wide", lambda: nn.Conv3d(16, 16, 2), 16, 3, 3, 3, size=9),
    layer("conv3d ghost", lambda: nn.Conv3d(20, 24, 3, padding=1, stride=2), 20, 2, 2, 3),
]

TRANSPOSED = [
    layer("transposed conv1d", lambda: nn.ConvTranspose1d(3, 4, 3), 3, 6),
    layer("transposed conv1d, rest", lambda: nn.ConvTranspose1d(3, 4, 3, 2, 1, 1), 3, 6),
    layer("transposed conv1d, a large rest", lambda: nn.ConvTranspose1d(3, 4, 2, 1, 1, 2, dilation=3), 3, 6),
    layer("transposed conv2d", lambda: nn.ConvTranspose2d(3, 4, 3), 3, 5, 4),
    layer("transposed conv2d without bias", lambda: nn.ConvTranspose2d(3, 4, 3, bias=False), 3, 5, 4),
    layer("transposed conv2d with frozen weight", lambda: frozen(nn.ConvTranspose2d(3, 4, 3), "weight"), 3, 5, 4),
    layer("transposed conv2d with frozen bias", lambda: frozen(nn.ConvTranspose2d(3, 4, 3), "bias"), 3, 5, 4),
    layer("transposed conv2d, stride", lambda: nn.ConvTranspose2d(3, 4, (2, 3), (2, 3), (1, 0)), 3, 4, 3),
    layer("transposed conv2d, rest", lambda: nn.ConvTranspose2d(3, 4, 3, (2, 3), (1, 2), (1, 2)), 3, 4, 3),
    layer("transposed conv2d, groups", lambda: nn.ConvTranspose2d(4, 6, 3, 2, groups=2, dilation=2), 4, 4, 3),
    layer("transposed conv2d, wide", lambda: nn.ConvTranspose2d(16, 17, 3, 2), 16, 4, 5, size=9),
    layer("transposed conv2d, ghost", lambda: nn.ConvTranspose2d(20, 24, 4), 20, 2, 2),
    layer("transposed conv3d", lambda: nn.ConvTranspose3d(2, 3, 2, (1, 2, 1), output_padding=(0, 1, 0)), 2, 3, 2, 3),
]

EMBEDDING = [
    layer("embedding 1-D", lambda: nn.Embedding(5, 3), words=5),
    layer("embedding", lambda: nn.Embedding(20, 3), 4, words=20),
    layer("embedding, repeats", lambda: nn.Embedding(3, 4), 9, words=3),
    layer("embedding 2-D indices", lambda: nn.Embedding(4, 3), 3, 2, words=4),
    layer("embedding with padding", lambda: nn.Embedding(4, 3, padding_idx=1), 8, words=4),
    layer("embedding with padding from the end", lambda: nn.Embedding(4, 3, padding_idx=-1), 8, words=4),
]

NORMALIZATION = [
    layer("layer norm", lambda: nn.LayerNorm(6), 6),
    layer("layer norm, positions", lambda: nn.LayerNorm(6), 4, 6),
    layer("layer norm, two dims", lambda: nn.LayerNorm((3, 6)), 4, 3, 6),
    layer("layer norm, all dims", lambda: nn.LayerNorm((4, 6)), 4, 6),
    layer("layer norm without bias", lambda: nn.LayerNorm(6, bias=False), 4, 6),
    layer("layer norm with frozen weight", lambda: frozen(nn.LayerNorm(6), "weight"), 4, 6),
    layer("layer norm with frozen bias", lambda: frozen(nn.LayerNorm(6), "bias"), 4, 6),
    layer("group norm", lambda: nn.GroupNorm(2, 4), 4, 3, 5),
    layer("group norm of vectors", lambda: nn.GroupNorm(2, 6), 6),
    layer("group norm of sequences", lambda: nn.GroupNorm(1, 4), 4, 6),
    layer("group norm, each channel", lambda: nn.GroupNorm(4, 4), 4, 3, 5),
    layer("group norm with frozen weight", lambda: frozen(nn.GroupNorm(2, 4), "weight"), 4, 3, 5),
    layer("group norm with frozen bias", lambda: frozen(nn.GroupNorm(2, 4), "bias"), 4, 3, 5),
    layer("rms norm", lambda: nn.RMSNorm(6), 6),
    layer("rms norm, two dims", lambda: nn.RMSNorm((3, 6), eps=1e-3), 4, 3, 6),
    layer("rms norm, positions", lambda: nn.RMSNorm(6, eps=1e-2), 4, 6),
]

INSTANCE_NORM = [
    layer("instance norm 1-D", lambda: nn.InstanceNorm1d(4, affine=True), 4, 6),
    layer("instance norm", lambda: nn.InstanceNorm2d(4, affine=True, eps=1e-3), 4, 3, 5),
    layer("instance norm 3-D", lambda: nn.InstanceNorm3d(2, affine=True), 2, 2, 3, 4),
    layer("instance norm with frozen bias", lambda: frozen(nn.InstanceNorm2d(4, affine=True), "bias"), 4, 3, 5),
]

PRELU = [
    layer("prelu", nn.PReLU, 4, 6),
    layer("prelu of vectors", lambda: nn.PReLU(6), 6),
    layer("prelu of channels", lambda: nn.PReLU(4), 4, 3, 5),
]


class Tokens(nn.Module):
    """A class token, positions and a temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.positions, self.scale = (
            Expand(torch.ones(1, 6)),
            Expand(torch.ones(4, 6)),
            Expand(torch.ones(())),
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.cat([self.token(inputs), inputs], dim=1) + self.positions(inputs)
        return hidden * self.scale(inputs).view(-1, 1, 1)


EXPAND = [layer("bare parameters", Tokens, 3, 6)]


class Positioned(nn.Module):
    """Words and a table of positions, looked up once for all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(7, 3), nn.Embedding(5, 3)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        places = torch.arange(words.shape[1]).unsqueeze(0)  # (1, T)
        return self.words(words) + self.positions(places)


POSITIONS = [layer("positions", Positioned, 4, words=7)]


class Outputs(nn.Module):
    """A recurrent layer's outputs, or its last states, or its outputs from first states that depend on the input."""

    def __init__(self, rnn: nn.RNNBase, what: str = "outputs") -> None:
        super().__init__()
        self.rnn, self.what = rnn, what

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rnn, hx = self.rnn, None
        whole = inputs if rnn.batch_first else inputs.transpose(0, 1)
        if self.what == "begun":
            count = rnn.num_layers * (2 if rnn.bidirectional else 1)
            h, c = (
                inputs.mean(dim=1)[:, :1].sin().expand(-1, size) * torch.arange(1, count + 1).view(-1, 1, 1)
                for size in (rnn.proj_size or rnn.hidden_size, rnn.hidden_size)
            )
            hx = (h, c) if rnn.mode == "LSTM" else h
        outputs, states = rnn(whole, hx)
        if self.what == "states":
            return torch.cat([one.transpose(0, 1) for one in (states if rnn.mode == "LSTM" else (states,))], dim=2)
        return outputs if rnn.batch_first else outputs.transpose(0, 1)


def recurrent(name: str, make: Callable[[], nn.RNNBase], what: str = "outputs") -> Layer:
    return layer(name, lambda: Outputs(make(), what), 4, 5)


RECURRENT = [
    case
    for kind in (nn.RNN, nn.GRU, nn.LSTM)
    for case in (
        recurrent(f"{kind.__name__}", lambda kind=kind: kind(5, 3, batch_first=True)),
        recurrent(f"{kind.__name__} without bias, time first", lambda kind=kind: kind(5, 3, bias=False)),
        recurrent(f"{kind.__name__} states", lambda kind=kind: kind(5, 3, batch_first=True), "states"),
        recurrent(
            f"{kind.__name__} begun, two layers, both ways",
            lambda kind=kind: kind(5, 3, 2, batch_first=True, bidirectional=True),
            "begun",
        ),
        recurrent(
            f"{kind.__name__}, some frozen",
            lambda kind=kind: frozen(kind(5, 3, 2, batch_first=True), "weight_hh_l0", "bias_ih_l0", "weight_ih_l1"),
        ),
        recurrent(
            f"{kind.__name__}, a frozen layer",
            lambda kind=kind: frozen(
                kind(5, 3, 2, batch_first=True), "weight_hh_l0", "weight_ih_l0", "bias_ih_l0", "bias_hh_l0"
            ),
        ),
    )
]
RECURRENT += [
    recurrent("RNN, relu", lambda: nn.RNN(5, 3, nonlinearity="relu", batch_first=True)),
    recurrent("LSTM, projected", lambda: nn.LSTM(5, 4, 2, batch_first=True, proj_size=2, bidirectional=True), "begun"),
    recurrent("LSTM, projected states", lambda: nn.LSTM(5, 4, batch_first=True, proj_size=2), "states"),
    layer("LSTM, wide", lambda: Outputs(nn.LSTM(30, 24, batch_first=True)), 3, 30),
]

WITHOUT_PARAMETERS = [
    layer("layer norm without parameters", lambda: nn.LayerNorm(6, elementwise_affine=False), 4, 6),
    layer("group norm without parameters", lambda: nn.GroupNorm(2, 4, affine=False), 4, 3, 5),
    layer("rms norm without parameters", lambda: nn.RMSNorm(6, elementwise_affine=False), 4, 6),
    layer("linear, all frozen", lambda: frozen(nn.Linear(6, 4), "weight", "bias"), 4, 6),
]

# As the first layer of a model it crashes torch's own backward pass, which the engine is held against.
NEVER_FIRST = [layer("group norm, channels last", lambda: nn.GroupNorm(2, 4), 4, 3, 5, channels_last=True)]

LAYERS = [
    *LINEAR,
    *CONVOLUTION,
    *CONVOLUTION_3D,
    *TRANSPOSED,
    *EMBEDDING,
    *NORMALIZATION,
    *INSTANCE_NORM,
    *PRELU,
    *EXPAND,
    *POSITIONS,
    *RECURRENT,
]
