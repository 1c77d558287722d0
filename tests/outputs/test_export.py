"""A defended network that left Python answers the same, and nothing besides."""

import copy
import importlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.outputs import laws
from tests.outputs.laws import Expected
from torch import nn

from privet import outputs
from privet.errors import ArgumentError, DefenseError, FileWriteError, MissingExtraError, TrainingRefusedError
from privet.outputs import export

CLASSES = 50
DEFENSES = {
    "rounding": (lambda n: outputs.Rounding(n, 3), Expected(decimals=3), ["scores"]),
    "labeling": (outputs.Labeling, Expected(labels=True, softmax=False), ["labels"]),
    "top-k": (lambda n: outputs.TopK(n, 7), Expected(k=7), ["values", "indices"]),
    "nested": (
        lambda n: outputs.TopK(outputs.Rounding(n, 2), 7),
        Expected(decimals=2, k=7),
        ["values", "indices"],
    ),
}
every = pytest.mark.parametrize("name", DEFENSES)


def batches():
    """Spread, tied, nearly tied (one place apart) and saturated rows: (400, 50)."""
    generator = torch.Generator().manual_seed(5)
    spread = torch.randn(200, CLASSES, generator=generator) * 4
    tied = laws.tied(6, (100, CLASSES))
    near = torch.where(laws.tied(7, (50, CLASSES)) > 0, 1.0, 1.0 + torch.finfo(torch.float32).eps)
    return torch.cat([spread, tied, near, spread[:50] * 100])


def with_bad_rows(x):
    x = x.clone()
    x[1, 3], x[2, 0], x[4, -1] = float("nan"), float("inf"), float("-inf")
    return x


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="module")
def sessions(folder):
    """One export of each defense around an identity, opened on first use."""
    runtime = pytest.importorskip("onnxruntime")
    opened = {}

    def session(name):
        if name not in opened:
            make, _, _ = DEFENSES[name]
            path = outputs.export_onnx(make(laws.identity()), torch.zeros(1, CLASSES), folder / f"{name}.onnx")
            opened[name] = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return opened[name]

    return session


def check_against_eager(call, make, exact_values):
    x = batches()
    eager = laws.parts(make(laws.identity())(x))
    got = laws.parts(call(x))
    assert len(got) == len(eager)
    for one, other in zip(got, eager, strict=True):
        assert one.dtype == other.dtype
        if one.is_floating_point() and not exact_values:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
        else:
            assert torch.equal(one, other)


def check_bad_rows(call):
    x = batches()[:6]
    good, bad = laws.parts(call(x)), laws.parts(call(with_bad_rows(x)))
    for clean, one in zip(good, bad, strict=True):
        for row in range(6):
            if row not in (1, 2, 4):
                assert torch.equal(one[row], clean[row])
            elif one.is_floating_point():
                assert one[row].isnan().all()
            else:
                assert (one[row] == -1).all()


@every
def test_onnx_agrees_with_eager_mode(name, sessions):
    make, expected, _ = DEFENSES[name]

    def call(x):
        found = sessions(name).run(None, {"x": x.numpy()})
        return tuple(torch.from_numpy(np.asarray(one)) for one in found)

    check_against_eager(call, make, exact_values=False)
    check_bad_rows(call)
    laws.law_exact(call, batches(), expected)
    laws.law_row_by_row(call, batches()[::40])


@every
def test_the_file_answers_nothing_else(name, sessions):
    session = sessions(name)
    assert [one.name for one in session.get_outputs()] == DEFENSES[name][2]
    assert [one.name for one in session.get_inputs()] == ["x"]
    assert isinstance(session.get_inputs()[0].shape[0], str)


@every
@pytest.mark.parametrize("strict", [False, True])
def test_torch_export_agrees_with_eager_mode(name, strict, tmp_path):
    make, expected, _ = DEFENSES[name]
    free = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(make(laws.identity()), (batches()[:4],), dynamic_shapes=free, strict=strict)
    if not strict:
        torch.export.save(program, tmp_path / "program.pt2")
        program = torch.export.load(tmp_path / "program.pt2")
    call = program.module()
    check_against_eager(call, make, exact_values=True)
    check_bad_rows(call)
    laws.law_owns_its_storage(call, batches())
    laws.law_exact(call, batches(), expected)


@every
def test_compiled_agrees_with_eager_mode(name):
    make, expected, _ = DEFENSES[name]
    torch.compiler.reset()
    call = torch.compile(make(laws.identity()), backend="aot_eager", fullgraph=True)
    check_against_eager(call, make, exact_values=True)
    check_bad_rows(call)
    laws.law_owns_its_storage(call, batches())
    laws.law_exact(call, batches(), expected)


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 5)).eval()


def test_the_exporter_is_given_the_parameters(network):
    for strict in (False, True):
        try:
            torch.export.export(outputs.TopK(network, 2), (torch.ones(2, 4),), strict=strict)
        except TrainingRefusedError as refused:
            where = refused.__traceback__
            while where.tb_next.tb_next is not None:
                where = where.tb_next
            caller = where.tb_frame.f_globals["__name__"]
            pytest.fail(f"torch.export asks for parameters() in {caller}; name it in _EXPORTER of outputs/defense.py")


def test_no_other_caller_is_given_them(network):
    asks = {"__name__": "torch._dynamo.eval_frame"}
    exec("def ask(network): return list(network.parameters())", asks)
    with pytest.raises(TrainingRefusedError):
        asks["ask"](outputs.TopK(network, 2))


def test_a_program_of_named_inputs(network):
    defended = outputs.Rounding(network, 2)
    x = torch.ones(2, 4)
    program = torch.export.export(defended, (), {"input": x})
    assert torch.equal(program.module()(input=x), defended(x))


def test_a_program_has_the_names_of_the_network(network):
    defended = outputs.Rounding(network, 2)
    program = torch.export.export(defended, (torch.ones(2, 4),))
    assert set(program.state_dict) == set(network.state_dict())
    assert torch.equal(program.module()(torch.ones(2, 4)), defended(torch.ones(2, 4)))


def test_pytorchs_own_onnx_exporter(network, tmp_path):
    onnx = pytest.importorskip("onnx")
    before = copy.deepcopy(network.state_dict())
    torch.onnx.export(outputs.TopK(network, 2), (torch.ones(2, 4),), tmp_path / "n.onnx", dynamo=True, verbose=False)
    assert len(onnx.load(tmp_path / "n.onnx").graph.output) == 2
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())


class TwoInputs(nn.Module):
    def forward(self, a, b):
        return {"logits": a + b, "hidden": a * 3, "boxes": b}


def test_several_inputs_and_kept_parts(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    defended = outputs.Rounding(TwoInputs().eval(), 2, part="logits", keep=("boxes",))
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    session = runtime.InferenceSession(outputs.export_onnx(defended, (a, b), tmp_path / "two.onnx"))
    assert [one.name for one in session.get_outputs()] == ["scores", "kept_0"]
    scores, boxes = session.run(None, {"x_0": a.repeat(3, 1).numpy(), "x_1": b.repeat(3, 1).numpy()})
    assert scores.shape == (6, 3)
    np.testing.assert_array_equal(boxes[:2], b.numpy())


def messages(message):
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in [value] if hasattr(value, "ListFields") else value:
                yield from messages(one)


def test_the_file_tells_nothing_of_the_source(network, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(outputs.export_onnx(outputs.TopK(network, 2), torch.ones(2, 4), tmp_path / "n.onnx"))
    for message in messages(model):
        assert not getattr(message, "metadata_props", ())
        assert not getattr(message, "doc_string", "")
    content = (tmp_path / "n.onnx").read_bytes()
    for word in (b"stack_trace", b"class_hierarchy", b"Dropout", b".py", str(Path.cwd()).encode()):
        assert word not in content


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640)])
def test_the_file_is_as_readable_as_the_umask_says(tmp_path, mask, mode):
    pytest.importorskip("onnx")
    old = os.umask(mask)
    try:
        outputs.export_onnx(outputs.Labeling(laws.identity()), torch.zeros(2, 3), tmp_path / "n.onnx")
    finally:
        os.umask(old)
    assert (tmp_path / "n.onnx").stat().st_mode & 0o777 == mode


class Narrow(nn.Module):
    def forward(self, x):
        return x.to(torch.bfloat16)


@pytest.mark.parametrize(
    ("network", "dtype"),
    [(nn.Linear(3, 4).bfloat16(), torch.bfloat16), (nn.Identity(), torch.bfloat16), (Narrow(), torch.float32)],
    ids=["weights", "inputs", "answers"],
)
@pytest.mark.parametrize("make", [lambda n: outputs.Rounding(n, 2), lambda n: outputs.TopK(n, 2)])
def test_bfloat16_is_refused(make, network, dtype, tmp_path):
    pytest.importorskip("onnx")
    with pytest.raises(DefenseError, match="float32"):
        outputs.export_onnx(make(network.eval()), torch.zeros(2, 3, dtype=dtype), tmp_path / "n.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [lambda n: outputs.Rounding(n, 2), lambda n: outputs.TopK(n, 2), outputs.Labeling])
def test_what_replaces_bfloat16_runs(make, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    defended = copy.deepcopy(make(nn.Linear(3, 4).bfloat16().eval())).to(torch.float32)
    x = torch.ones(2, 3)
    session = runtime.InferenceSession(outputs.export_onnx(defended, x, tmp_path / "n.onnx"))
    for one, other in zip(session.run(None, {"x": x.numpy()}), laws.parts(defended(x)), strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-6)


class Twice(nn.Module):
    def forward(self, x):
        return {"logits": x[..., 1:], "all": x}


def test_a_graph_keeps_nothing_of_what_is_defended(tmp_path):
    pytest.importorskip("onnx")
    defended = outputs.Rounding(Twice().eval(), 2, part="logits", keep=("all",))
    with pytest.raises(DefenseError, match="another name"):
        outputs.export_onnx(defended, torch.zeros(2, 3), tmp_path / "n.onnx")


def test_a_failed_export_leaves_the_old_file(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr(export, "_output_names", _once(["labels"], ["scores"]))
    with pytest.raises(DefenseError, match="alone"):
        outputs.export_onnx(outputs.Labeling(laws.identity()), torch.zeros(2, 3), path, dynamic_batch=False)

    def full(self, *_):
        raise OSError("no space")

    monkeypatch.undo()
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(FileWriteError, match="no space"):
        outputs.export_onnx(outputs.Labeling(laws.identity()), torch.zeros(2, 3), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _once(first, then):
    answers = [first]
    return lambda _: answers.pop() if answers else then


def test_without_the_extra(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"privet\[onnx\]"):
        outputs.export_onnx(outputs.Labeling(laws.identity()), torch.zeros(2, 3), tmp_path / "n.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"defended": nn.Identity()}, "defended"),
        ({"example_inputs": ()}, "example_inputs"),
        ({"example_inputs": (torch.zeros(2, 3), torch.zeros(3, 3))}, "as many in each"),
        ({"example_inputs": torch.zeros(0, 3)}, "at least one row"),
        ({"example_inputs": 3}, "example_inputs"),
        ({"path": "nowhere/at/all.onnx"}, "folder"),
    ],
)
def test_arguments(tmp_path, change, says):
    good = {
        "defended": outputs.Labeling(laws.identity()),
        "example_inputs": torch.zeros(2, 3),
        "path": tmp_path / "n.onnx",
    }
    with pytest.raises(ArgumentError, match=says):
        outputs.export_onnx(**(good | change))
