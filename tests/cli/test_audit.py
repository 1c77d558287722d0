"""``privet audit``: what is printed, the exit codes, and one line for what is wrong with the input."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import privet.cli
from privet import data, models, outputs, training
from privet.attacks.membership.fleet.digest import digest
from privet.cli import app
from privet.cli.audit import parts
from privet.cli.audit.request import Request, requested
from privet.errors import FileWriteError

MEMBERS, OTHERS = 150, 300

MODEL = """
import torch
from torch import nn
from privet import models, training

def build():
    print("a word of the builder")
    return models.MLP((64, 64, 10), seed=0)

def train(inputs, labels, seed):
    network = models.MLP((64, 64, 10), seed=seed)
    training.fit(network, (inputs, labels), epochs=25, batch_size=32, seed=seed, learning_rate=0.01, progress=False)
    return network

def hopeless(inputs, labels, seed):
    raise RuntimeError("no luck")

def wrong(inputs, labels, seed):
    return None
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that over-fits some digits, its weights, its members and others."""
    folder = tmp_path_factory.mktemp("audited")
    members, others = data.digits().split(MEMBERS, OTHERS, seed=0)
    network = models.MLP((64, 64, 10), seed=0)
    training.fit(network, members, epochs=60, batch_size=32, seed=0, learning_rate=0.01, progress=False)
    training.save_weights(folder / "w.safetensors", network)
    for name, examples in (("m", members), ("n", others)):
        np.savez(
            folder / f"{name}.npz",
            x=examples.inputs.numpy(),
            y=examples.labels.numpy(),
            parity=examples.labels.numpy() % 2,
            short=np.zeros(3),
        )
    (folder / "a_target.py").write_text(MODEL)
    for name, model in (("quick", "a_target.py:build"), ("rounded", "rounded.onnx")):  # no attackers that learn
        (folder / f"{name}.toml").write_text(f'model = "{model}"\nlearned = []\n')
    outputs.export_onnx(outputs.Rounding(network.eval(), 1), members.inputs[:2], folder / "rounded.onnx")
    generator = np.random.default_rng(0)
    np.save(folder / "high.npy", generator.normal(1.0, 1.0, 2_000))
    np.save(folder / "low.npy", generator.normal(0.0, 1.0, 2_000))
    np.save(folder / "also_low.npy", generator.normal(0.0, 1.0, 2_000).astype(np.float32))
    np.save(folder / "nan.npy", np.array([0.1, np.nan] * 50))
    np.save(folder / "text.npy", np.array(["a"] * 50))
    np.save(folder / "few.npy", np.zeros(5))
    np.save(folder / "square.npy", np.zeros((50, 2)))
    (folder / "pickled.npy").write_bytes(b"\x93NUMPY\x01\x00")
    return folder


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["audit", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", ["privet", "audit", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        privet.cli.main()
    out, err = capsys.readouterr()
    assert (exit.value.code, out) == (2, "")
    said = [line for line in err.splitlines() if line != "a word of the builder"]
    assert len(said) == 1, err
    return said[0]


TARGET = ("a_target.py:build", "--weights", "w.safetensors", "--members", "m.npz", "--non-members", "n.npz")
QUICK = ("quick.toml", *TARGET[1:])
SCORES = ("--member-scores", "high.npy", "--non-member-scores", "low.npy")
NULL = ("--member-scores", "also_low.npy", "--non-member-scores", "low.npy")


def test_scores_alone_as_json():
    code, out = call(*SCORES, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["verdict"] == "LEAK"
    assert found["n"] == {"members": 2_000, "non_members": 2_000}
    assert found["auc"].keys() >= {"value", "low", "high"}
    assert found["auc"]["low"] < 0.7602 < found["auc"]["high"]  # Phi(1 / sqrt 2)
    for rate in ("0.001", "0.01"):
        assert found["tpr"][rate].keys() >= {"value", "low", "high", "realised_fpr"}


def test_scores_without_a_leak():
    code, out = call(*NULL, "--json")
    assert (code, json.loads(out)["verdict"]) == (0, "NO LEAK FOUND")


@pytest.mark.parametrize(
    ("scores", "bound", "code", "word"),
    [
        (SCORES, "auc>0.6", 1, "failed"),
        (SCORES, "auc>0.9", 0, "passed"),
        (SCORES, "auc>0.76", 3, "inconclusive"),
        (NULL, "tpr@1%>0.05", 0, "passed"),
        (NULL, "tpr@1%>0.011", 3, "inconclusive"),
    ],
)
def test_a_bound_decides_the_exit_code(scores, bound, code, word):
    got, out = call(*scores, "--fail-if", bound)
    assert got == code
    assert f"{bound}: {word}" in out
    assert json.loads(call(*scores, "--fail-if", bound, "--json")[1])["bounds"] == [{"bound": bound, "outcome": word}]


def test_the_worst_bound_counts():
    assert call(*SCORES, "--fail-if", "auc>0.9", "--fail-if", "auc>0.6", "--fail-if", "auc>0.76")[0] == 1


def test_too_few_records_for_a_rate_are_told_in_json(folder):
    np.save(folder / "some.npy", np.arange(100.0))
    found = json.loads(call("--member-scores", "some.npy", "--non-member-scores", "some.npy", "--json")[1])
    assert found["tpr"]["0.001"] is None


def test_a_network_and_its_page(folder):
    code, out = call(*QUICK, "--html", folder / "page.html", "--slice", "class", "--slice", "parity")
    assert code == 0
    assert "a word of the builder" not in out
    assert max(map(len, out.splitlines())) <= 80
    page = (folder / "page.html").read_text()
    assert "parity" in page


def test_shadow_models_from_a_configuration_are_trained_once(folder):
    (folder / "audit.toml").write_text(
        'model = "a_target.py:build"\nweights = "w.safetensors"\nmembers = "m.npz"\nnon_members = "n.npz"\n'
        'train = "a_target.py:train"\nshadows = 6\nstore = "kept"\nseed = 3\n'
        '[[learned]]\nmethod = "knn"\nparameters = {n_neighbors = [3, 5]}\n'
    )
    code, out = call("audit.toml", "--json")
    found = json.loads(out)
    names = {one["name"].lower() for one in found["attacks"]}
    assert code == 0
    assert {"lira", "rmia", "knn"} <= names
    assert "random forest" not in names
    assert (folder / "kept").is_dir()
    before = sorted((path, path.stat().st_mtime_ns) for path in (folder / "kept").rglob("*.f32"))
    again = json.loads(call("audit.toml", "--json")[1])
    assert sorted((path, path.stat().st_mtime_ns) for path in (folder / "kept").rglob("*.f32")) == before
    assert again["auc"] == found["auc"]


@pytest.mark.slow
def test_an_option_goes_before_the_configuration_and_shadow_models_pass_through_the_defense(folder):
    (folder / "labels.toml").write_text(
        'model = "a_target.py:build"\nweights = "w.safetensors"\nmembers = "m.npz"\nnon_members = "n.npz"\n'
        'train = "a_target.py:train"\nshadows = 6\ndefense = "rounding=1"\nlearned = []\n'
    )
    defended = json.loads(call("labels.toml", "--json", "--defense", "labels", "--augment", "shifts")[1])
    assert any("label" in one["name"] for one in defended["attacks"])
    assert "LiRA" not in {one["name"] for one in defended["attacks"]}


def test_a_change_in_a_file_that_the_training_imports_is_another_training(folder):
    """Else the answers kept of other networks would be taken for theirs."""
    request = Request(model="a_target.py:build", members="m.npz", non_members="n.npz", train="uses.py:fit", store="s")
    (folder / "uses.py").write_text("from shape import build\n\ndef fit(inputs, labels, seed):\n    return build()\n")
    codes = set()
    for width in (8, 16, 16):
        (folder / "shape.py").write_text(f"from torch import nn\n\ndef build():\n    return nn.Linear(64, {width})\n")
        for module in ("shape", "uses"):  # as in a new process
            sys.modules.pop(module, None)
        importlib.invalidate_caches()
        parts._function.cache_clear()
        training = parts.assemble(request).train
        assert training is not None
        codes.add(digest(training))
    assert len(codes) == 2


def test_an_onnx_file_is_a_target():
    pytest.importorskip("onnxruntime")
    found = json.loads(
        call("rounded.toml", "--members", "m.npz", "--non-members", "n.npz", "--defense", "rounding=1", "--json")[1]
    )
    same = json.loads(call(*QUICK, "--defense", "rounding=1", "--json")[1])
    assert found["auc"]["value"] == pytest.approx(same["auc"]["value"], abs=0.02)


def test_a_defense_is_put_around_an_onnx_file_that_answers_logits(folder):
    pytest.importorskip("onnxruntime")
    network = models.MLP((64, 64, 10), seed=0)
    training.load_weights(folder / "w.safetensors", network)
    program = torch.onnx.export(
        network.eval(),
        (torch.zeros(2, 1, 8, 8),),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
    )
    assert program is not None
    program.save(str(folder / "plain.onnx"))
    (folder / "plain.toml").write_text('model = "plain.onnx"\nlearned = []\n')
    records = ("--members", "m.npz", "--non-members", "n.npz", "--json")
    for more in ((), ("--defense", "rounding=1"), ("--defense", "top-k=3"), ("--defense", "labels")):
        found = json.loads(call("plain.toml", *records, *more)[1])
        same = json.loads(call(*QUICK, *more, "--json")[1])
        assert found["auc"]["value"] == pytest.approx(same["auc"]["value"], abs=1e-3)


def test_what_fails_in_privet_itself_has_an_exit_code_of_its_own(monkeypatch, capsys):
    work = importlib.import_module("privet.cli.audit.work")
    monkeypatch.setattr(work, "_audited", lambda request: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["privet", "audit", *SCORES])
    with pytest.raises(SystemExit) as exit:
        privet.cli.main()
    assert exit.value.code == 70
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_page_may_be_asked_for_in_the_configuration(folder):
    (folder / "paged.toml").write_text(
        'member_scores = "high.npy"\nnon_member_scores = "low.npy"\nhtml = "asked.html"\nfail_if = ["auc>0.9"]\n'
    )
    code, out = call("paged.toml")
    assert (code, (folder / "asked.html").is_file()) == (0, True)
    assert "asked.html" in out


REFUSED = {
    "nothing": ((), "member_scores"),
    "one set of scores": (("--member-scores", "high.npy"), "non_member_scores"),
    "scores and records": ((*SCORES, "--members", "m.npz"), "members"),
    "no members": (("a_target.py:build", "--non-members", "n.npz"), "members and non_members"),
    "no such scores": (("--member-scores", "gone.npy", "--non-member-scores", "low.npy"), "gone.npy"),
    "NaN scores": (("--member-scores", "nan.npy", "--non-member-scores", "low.npy"), "NaN"),
    "text scores": (("--member-scores", "text.npy", "--non-member-scores", "low.npy"), "text.npy"),
    "few scores": (("--member-scores", "few.npy", "--non-member-scores", "low.npy"), "few"),
    "a matrix of scores": (("--member-scores", "square.npy", "--non-member-scores", "low.npy"), "(50, 2)"),
    "no array": (("--member-scores", "pickled.npy", "--non-member-scores", "low.npy"), "pickled.npy"),
    "no such network": (("gone.py:build", *TARGET[1:]), "gone.py"),
    "no such function": (("a_target.py:gone", *TARGET[1:]), "gone"),
    "no such weights": ((TARGET[0], "--weights", "gone.safetensors", *TARGET[3:]), "gone.safetensors"),
    "the same records": ((*TARGET[:4], "m.npz", "--non-members", "m.npz"), "members"),
    "no such records": ((*TARGET[:4], "gone.npz", *TARGET[5:]), "gone.npz"),
    "another defense": ((*TARGET, "--defense", "noise"), "rounding=DECIMALS"),
    "a defense without its number": ((*TARGET, "--defense", "rounding"), "rounding=DECIMALS"),
    "shadows without training": ((*TARGET, "--shadows", "8"), "train"),
    "too few shadows": ((*TARGET, "--train", "a_target.py:train", "--shadows", "1"), "shadows"),
    "another width": ((*TARGET, "--train", "a_target.py:train", "--until", "0.01"), "ci=WIDTH"),
    "another time": ((*TARGET, "--time-limit", "soon"), "time_limit"),
    "another claim": ((*TARGET, "--claim", "3"), "epsilon,delta"),
    "a claim of everything": ((*QUICK, "--claim", "inf,1e-5"), "finite"),
    "a claim below nothing": ((*TARGET, "--claim", "-1,1e-5"), "claim"),
    "another bound": ((*SCORES, "--fail-if", "accuracy>0.9"), "accuracy"),
    "a column that is not there": ((*TARGET, "--slice", "age"), "age"),
    "a column of another length": ((*TARGET, "--slice", "short"), "short"),
    "a training that fails": ((*QUICK, "--train", "a_target.py:hopeless"), "no luck"),
    "a training of nothing": ((*QUICK, "--train", "a_target.py:wrong"), "NoneType"),
    "another augmentation": ((*TARGET, "--train", "a_target.py:train", "--augment", "noise"), "shifts"),
    "no such folder for the page": ((*SCORES, "--html", "gone/page.html"), "gone"),
}


@pytest.mark.parametrize(("arguments", "word"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_with_the_input_is_one_line(monkeypatch, capsys, arguments, word):
    assert word in refused(monkeypatch, capsys, *arguments)


def test_what_a_configuration_names_lies_beside_it(folder):
    """A folder of images, too; only data sets that are known by their name lie nowhere."""
    (folder / "beside").mkdir(exist_ok=True)
    (folder / "beside" / "c.toml").write_text(
        'model = "m.py:build"\nmembers = "photos"\nnon_members = "mnist:test"\nfolder = "raw"\n'
    )
    read = requested("beside/c.toml", {})
    assert (read.members, read.folder) == ("beside/photos", "beside/raw")
    assert read.non_members == "mnist:test"
    (folder / "beside" / "d.toml").write_text('model = "m.py:build"\nmembers = "a.npz:train"\nnon_members = "digits"\n')
    read = requested("beside/d.toml", {"folder": "elsewhere"})
    assert (read.members, read.non_members, read.folder) == ("beside/a.npz:train", "digits", "elsewhere")


def test_a_page_that_cannot_be_written_takes_nothing_with_it(monkeypatch, capsys):
    def full(*args):
        raise FileWriteError("page.html", "no space left")

    monkeypatch.setattr("privet.audit.AuditResult.report", full)
    monkeypatch.setattr(sys, "argv", ["privet", "audit", *NULL, "--html", "page.html", "--json"])
    with pytest.raises(SystemExit) as exit:
        privet.cli.main()
    assert exit.value.code != 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "NO LEAK FOUND"


def test_an_unknown_key_of_the_configuration_is_named(folder, monkeypatch, capsys):
    (folder / "other.toml").write_text('model = "a_target.py:build"\nmembres = "m.npz"\n')
    assert "membres" in refused(monkeypatch, capsys, "other.toml")


def test_a_configuration_may_be_completed_by_options(folder):
    (folder / "half.toml").write_text('model = "a_target.py:build"\nweights = "w.safetensors"\nlearned = []\n')
    assert call("half.toml", "--members", "m.npz", "--non-members", "n.npz", "--json")[0] == 0


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_computed_and_the_same_command_goes_on(folder):
    begins = "    network = models.MLP((64, 64, 10), seed=seed)"
    (folder / "slow_training.py").write_text(MODEL.replace(begins, f"    import time\n    time.sleep(1)\n{begins}", 1))
    command = [sys.executable, "-m", "privet", "audit", *QUICK, "--train", "slow_training.py:train"]
    command += ["--shadows", "24", "--store", "interrupted", "--json"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        journals = list((folder / "interrupted").rglob("journal.jsonl"))
        if journals and journals[0].read_text().count("\n") >= 12:
            break
        time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 130
    found = json.loads(out)
    assert 6 <= found["shadows"] < 24
    again = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, timeout=300)
    assert again.returncode == 0
    assert json.loads(again.stdout)["shadows"] == 24


def test_the_pool_of_the_configuration_is_read_once(folder):
    """The training sees members first: its indices are into both files, one after the other."""
    from privet.cli.audit.parts import Training

    inputs, labels = torch.arange(6.0)[:, None], torch.arange(6)
    (folder / "watching.py").write_text(
        "import torch\nseen = []\ndef train(inputs, labels, seed):\n"
        "    seen.append((inputs.tolist(), labels.tolist(), seed))\n    return torch.nn.Linear(1, 6)\n"
    )
    trained = Training("watching.py:train", inputs, labels)(np.array([4, 1]), 7)
    assert isinstance(trained, torch.nn.Linear)
    assert sys.modules["watching"].seen == [([[4.0], [1.0]], [4, 1], 7)]
