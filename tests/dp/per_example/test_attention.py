"""nn.MultiheadAttention: its own values, and the gradients of the loop over single examples."""

from copy import deepcopy

import pytest
import torch
from tests.dp.per_example.laws import Problem, law_agrees, law_norms_bound_the_sum, law_takes_out, problem, random_
from torch import Tensor, nn

from privet.dp.per_example.engine import Engine, no_fast_path
from privet.dp.per_example.tape import Tape
from privet.errors import ArgumentError, UnsupportedLayerError

B, T, S, E, HEADS = 3, 4, 5, 6, 2


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Attending(nn.Module):
    """Inputs (B, T + S, E) cut into query, keys and values as ``sharing`` says, the examples first or second."""

    def __init__(self, sharing: str = "all", call: dict | None = None, weights_too: bool = False, **options) -> None:
        super().__init__()
        options = {"batch_first": True, **options}
        self.attention = nn.MultiheadAttention(E, HEADS, **options)
        self.sharing, self.call, self.weights_too = sharing, call or {}, weights_too

    def three(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.attention.batch_first:
            inputs = inputs.transpose(0, 1)
            query, key = inputs[:T], inputs[T:]
        else:
            query, key = inputs[:, :T], inputs[:, T:]
        kdim, vdim = self.attention.kdim, self.attention.vdim
        chosen = {
            "all": lambda: (key, key, key),
            "keys and values": lambda: (query, key, key),
            "query and keys": lambda: (key, key, key.sin()),
            "query and values": lambda: (key, key.sin(), key),
            "none": lambda: (query, key[..., :kdim], key[..., :vdim].sin()),
        }
        return chosen[self.sharing]()

    def forward(self, inputs: Tensor) -> Tensor:
        call = dict(self.call)
        if "key_padding_mask" in call and isinstance(call["key_padding_mask"], str):
            call["key_padding_mask"] = padding(inputs)
        if isinstance(call.get("attn_mask"), str):
            call["attn_mask"] = each_mask(inputs, call["attn_mask"])
        elif "attn_mask" in call and call["attn_mask"].is_floating_point():
            call["attn_mask"] = call["attn_mask"].to(inputs.dtype)
        output, weights = self.attention(*self.three(inputs), **call)
        if not self.attention.batch_first:
            output = output.transpose(0, 1)
        output = output.flatten(1)
        return torch.cat([output, weights.flatten(1).cos()], dim=1) if self.weights_too else output


def padding(inputs: Tensor) -> Tensor:
    """Each example's own, by what is in it; the first position is always seen."""
    masked = inputs[:, T:, 0] > 0.3
    masked[:, 0] = False
    return masked


def each_mask(inputs: Tensor, kind: str) -> Tensor:
    """(B * heads, S, S): each example's own."""
    scores = inputs[:, T:, :HEADS].transpose(1, 2)  # (B, heads, S)
    mask = (scores.unsqueeze(2) - scores.unsqueeze(3)).flatten(0, 1)
    if kind == "float":
        return mask.detach()
    return mask > 0.2  # never itself


SQUARE = torch.triu(torch.ones(S, S, dtype=torch.bool), diagonal=1)
CASES = {
    "one tensor": {},
    "keys and values one tensor": {"sharing": "keys and values"},
    "query and keys one tensor": {"sharing": "query and keys"},
    "query and values one tensor": {"sharing": "query and values"},
    "three tensors": {"sharing": "none"},
    "no bias": {"bias": False},
    "no bias, three tensors": {"bias": False, "sharing": "none"},
    "kdim": {"sharing": "none", "kdim": 3},
    "vdim": {"sharing": "none", "vdim": 4},
    "kdim and vdim without bias": {"sharing": "none", "kdim": 3, "vdim": 4, "bias": False},
    "bias_k and bias_v": {"add_bias_kv": True},
    "bias_k and bias_v, kdim": {"add_bias_kv": True, "sharing": "none", "kdim": 3},
    "zero attention": {"add_zero_attn": True},
    "bias_k, zero attention, masks": {
        "add_bias_kv": True,
        "add_zero_attn": True,
        "call": {"attn_mask": SQUARE, "key_padding_mask": "from the inputs"},
    },
    "sequence first": {"batch_first": False},
    "sequence first, keys and values": {"batch_first": False, "sharing": "keys and values"},
    "sequence first, three tensors": {"batch_first": False, "sharing": "none", "vdim": 4},
    "boolean mask": {"call": {"attn_mask": SQUARE}},
    "float mask": {"call": {"attn_mask": normal(S, S)}},
    "boolean mask of each example": {"call": {"attn_mask": "bool"}},
    "float mask of each example": {"call": {"attn_mask": "float"}},
    "padding": {"call": {"key_padding_mask": "from the inputs"}},
    "padding and mask": {"call": {"key_padding_mask": "from the inputs", "attn_mask": SQUARE}},
    "padding and mask of each example": {"call": {"key_padding_mask": "from the inputs", "attn_mask": "bool"}},
    "causal": {"call": {"attn_mask": SQUARE, "is_causal": True}},
    "causal and padding": {
        "call": {"attn_mask": SQUARE, "is_causal": True, "key_padding_mask": "from the inputs"},
    },
    "causal, bias_k": {"add_bias_kv": True, "call": {"attn_mask": SQUARE, "is_causal": True}},
}


def cases(function):
    return pytest.mark.parametrize("name", CASES)(function)


def attending(name: str, way: str) -> Attending:
    """``way``: without weights, with their mean over the heads, or with each head's."""
    options = dict(CASES[name])
    call = {**options.pop("call", {}), "need_weights": way != "none", "average_attn_weights": way == "mean"}
    return Attending(call=call, weights_too=way != "none", **options)


def solved(model: nn.Module, dtype=torch.float64) -> Problem:
    return problem(model, (T + S, E), B, dtype=dtype)


@pytest.mark.parametrize("way", ["none", "mean", "each"])
@cases
def test_gradients_are_those_of_single_examples(name, way):
    law_agrees(solved(attending(name, way)), groups=3)


@cases
def test_with_inputs_that_need_gradients(name):
    law_agrees(solved(nn.Sequential(nn.Linear(E, E), nn.Tanh(), attending(name, "mean"))))


@cases
def test_in_float32(name):
    law_agrees(solved(attending(name, "none"), torch.float32))


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("way", ["none", "mean", "each"])
@cases
def test_values_are_its_own(name, way, mode):
    case = solved(attending(name, way).train(mode))
    inputs, _ = case.data
    wanted = case.model(inputs).detach()
    with torch.no_grad():
        fast = case.model(inputs)
    found = through_the_engine(case)
    assert (found - wanted).abs().max() <= 1e-12
    assert (found - fast).abs().max() <= 1e-12


def through_the_engine(case: Problem) -> Tensor:
    kept = []

    def loss(data):
        output = case.model(data[0])
        kept.append(output.detach())
        return output.flatten(1).sum(dim=1)

    Engine(case.model).take(loss, case.data, case.size)
    return kept[0]


@pytest.mark.parametrize("way", ["none", "mean"])
def test_dropout_draws_as_its_own_forward(way):
    options = {"dropout": 0.4}
    case = solved(Attending(call={"need_weights": way != "none"}, weights_too=way != "none", **options))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        wanted = case.model(case.data[0]).detach()
        torch.manual_seed(3)
        found = through_the_engine(case)
        torch.manual_seed(4)
        other = through_the_engine(case)
    assert (found - wanted).abs().max() <= 1e-12
    assert (found - other).abs().max() > 1e-3
    law_agrees(solved(case.model.eval()))


def counted_calls(model: nn.Module, monkeypatch) -> list[str]:
    names: list[str] = []
    original = Tape.call

    def call(self, rule, inputs):
        names.append(rule.name)
        return original(self, rule, inputs)

    monkeypatch.setattr(Tape, "call", call)
    case = solved(model)
    Engine(model).take(case.loss, case.data, case.size)
    return names


@pytest.mark.parametrize(("sharing", "count"), [("all", 1), ("keys and values", 2), ("query and keys", 3), ("none", 3)])
def test_as_many_products_as_there_are_tensors(sharing, count, monkeypatch):
    names = counted_calls(Attending(sharing), monkeypatch)
    assert names == ["attention.in_proj_weight"] * count + ["attention.out_proj.weight"]


@pytest.mark.parametrize(
    "names",
    [
        ["in_proj_weight"],
        ["in_proj_bias"],
        ["in_proj_weight", "in_proj_bias"],
        ["out_proj.weight"],
        ["out_proj.weight", "out_proj.bias"],
        ["bias_k"],
        ["bias_v", "in_proj_weight", "in_proj_bias"],
        ["bias_k", "bias_v", "in_proj_weight", "in_proj_bias"],  # its child alone is trained
    ],
    ids=str,
)
def test_frozen_parts(names, monkeypatch):
    model = Attending(add_bias_kv=True, sharing="keys and values")
    for name in names:
        model.attention.get_parameter(name).requires_grad_(False)
    law_agrees(solved(nn.Sequential(nn.Linear(E, E), model)))
    if "in_proj_bias" in names and "in_proj_weight" in names:
        assert not [name for name in counted_calls(model, monkeypatch) if "in_proj" in name]


def test_called_twice_its_parts_are_added_before_the_norm():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(E, HEADS, batch_first=True, add_bias_kv=True)

        def forward(self, inputs):
            first, _ = self.attention(inputs, inputs, inputs)
            second, _ = self.attention(first, inputs, inputs, need_weights=False)
            return second + first

    law_agrees(problem(Twice(), (T, E), B), groups=2)


def test_parameters_whose_data_is_exchanged_are_followed():
    case = solved(Attending("keys and values"))
    engine = Engine(case.model)
    for parameter in case.model.parameters():
        parameter.data = parameter.data + 0.5
    found = engine.take(case.loss, case.data, case.size).per_example()
    for name, wanted in case.truth().items():
        assert torch.allclose(found[name], wanted, rtol=1e-9, atol=1e-9), name


def test_an_example_that_is_not_finite_is_taken_out():
    case = solved(Attending("keys and values", add_bias_kv=True))
    inputs, targets = case.data
    strange = inputs.clone()
    strange[1] = torch.nan
    law_takes_out(case, Problem(case.model, (strange, targets)), 1)


def test_the_sum_has_the_norms_that_were_told():
    law_norms_bound_the_sum(solved(attending("bias_k, zero attention, masks", "none"), torch.float32))


def test_under_autocast_norms_stay_in_float32():
    case = solved(Attending("keys and values", add_bias_kv=True), torch.float32)
    wanted = case.truth()

    def loss(data):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return case.loss(data).float()

    found = Engine(case.model).take(loss, case.data, case.size).per_example()
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        assert (gradient.double() - wanted[name]).norm() <= 0.1 * wanted[name].norm() + 1e-3, name


class Words(nn.Module):
    """The inputs through a layer of nn.Transformer."""

    def __init__(self, layer: nn.Module, memory: bool = False, padded: bool = False) -> None:
        super().__init__()
        self.layer, self.memory, self.padded = layer, memory, padded

    def forward(self, inputs):
        if self.memory:
            return self.layer(inputs[:, :T], inputs[:, T:], tgt_mask=SQUARE[:T, :T], tgt_is_causal=True)
        if not self.padded:
            return self.layer(inputs)
        masked = torch.arange(T + S).expand(len(inputs), -1) >= 5 + (inputs[:, :1, 0] > 0)
        return self.layer(inputs, src_key_padding_mask=masked)[:, :4]


def encoder_layer(**options) -> nn.Module:
    return nn.TransformerEncoderLayer(E, HEADS, 7, dropout=0.0, batch_first=True, **options)


TRANSFORMERS = {
    "encoder layer": lambda: Words(encoder_layer()),
    "encoder layer, norm first": lambda: Words(encoder_layer(norm_first=True)),
    "encoder layer, padded": lambda: Words(encoder_layer(activation="gelu"), padded=True),
    "encoder": lambda: Words(nn.TransformerEncoder(encoder_layer(), 2), padded=True),
    "encoder, norm first": lambda: Words(
        nn.TransformerEncoder(encoder_layer(norm_first=True), 2, nn.LayerNorm(E), enable_nested_tensor=False)
    ),
    "decoder layer": lambda: Words(nn.TransformerDecoderLayer(E, HEADS, 7, dropout=0.0, batch_first=True), memory=True),
    "decoder layer, norm first": lambda: Words(
        nn.TransformerDecoderLayer(E, HEADS, 7, dropout=0.0, batch_first=True, norm_first=True), memory=True
    ),
}


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_inside_a_transformer(name, mode):
    case = solved(TRANSFORMERS[name]().train(mode))
    law_agrees(case, groups=2)
    wanted = case.model(case.data[0]).detach()
    assert (through_the_engine(case) - wanted).abs().max() <= 1e-12


def test_a_frozen_first_layer_in_eval_mode_takes_no_fast_path():
    """PyTorch's would hand on nested tensors, which have no place for examples."""
    model = Words(nn.TransformerEncoder(encoder_layer(), 2), padded=True).eval()
    for parameter in model.layer.layers[0].parameters():
        parameter.requires_grad_(False)
    case = problem(random_(model.double()), (T + S, E), B)
    with no_fast_path():
        law_agrees(case)
    assert bool(Engine(case.model).take(case.loss, case.data, case.size).squared_norms.isfinite().all())
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("shape", "first"),
    [((T, E), True), ((B + 1, T, E), True), ((B, T, E), False)],
    ids=["unbatched", "other", "turned"],
)
def test_inputs_without_the_axis_of_examples_are_refused(shape, first):
    class Given(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(E, HEADS, batch_first=first)

        def forward(self, inputs):
            given = normal(*shape).float()
            return self.attention(given, given, given)[0].sum() + inputs.sum(dim=1)

    with pytest.raises(UnsupportedLayerError, match=r"'attention'.*batch of 3.*batch_first=True"):
        Engine(model := Given()).take(lambda data: model(data), torch.ones(B, 2), B)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ({"is_causal": True}, "is_causal"),
        ({"attn_mask": torch.zeros(S, S, dtype=torch.int64)}, "mask.dtype"),
        ({"attn_mask": torch.zeros(S, S + 1)}, "attn_mask.shape"),
        ({"key_padding_mask": torch.zeros(B, S + 1, dtype=torch.bool)}, "key_padding_mask.shape"),
    ],
)
def test_masks_that_do_not_fit_are_refused(call, told):
    model = Attending(call=call).double()
    with pytest.raises(ArgumentError, match=told):
        Engine(model).take(lambda data: model(data).sum(dim=1), normal(B, T + S, E), B)


def test_the_model_stays_as_it_is():
    case = solved(Attending())
    before = deepcopy(case.model.state_dict())
    law_agrees(case)
    assert list(case.model.state_dict()) == list(before)
    assert "forward" not in vars(case.model.attention)
    assert type(case.model.attention) is nn.MultiheadAttention
