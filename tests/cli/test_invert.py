"""``privet invert``, as a user runs it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import nn

import privet.cli
from privet import data, training
from privet.attacks.inversion import AdamDescent, Normalisation, Representation
from privet.cli.invert import parts, work
from privet.models import MLP

CONFIG = """
[network]
builder = "mlp"
arguments = { hidden = [96] }
weights = "w.safetensors"
layer = "features"

[judge]
builder = "mlp"
arguments = { hidden = [16] }
weights = "j.safetensors"

[data]
source = "digits"
images = 20
candidates = 100

[inversion]
iterations = 60
tv_weight = 0.01
norm_weight = 0.0

[output]
picture = "inversion.png"
numbers = "inversion.json"
"""

FAST = CONFIG.replace("iterations = 60", "iterations = 3").replace('picture = "inversion.png"', "")

MINE = """
import sys

import torch
from torch import nn
from privet import models, outputs

class Batches(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Dropout(0.5))
        self.head = nn.Linear(72, 10)
    def forward(self, images):
        return self.head(self.features(images).flatten(1))

def build():
    print("a word of the builder")
    return Batches()

def defended():
    return outputs.Rounding(models.MLP((64, 96, 10), seed=1).eval(), 2)

def few():
    return models.MLP((64, 3), seed=3)

def wide():
    return nn.Conv2d(3, 2, 3)

def pair():
    return nn.LSTM(8, 10)

def leaves():
    sys.exit(0)

def nothing():
    return None
"""


@dataclass(frozen=True)
class Said:
    code: object
    out: str
    err: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks of other seeds, and a file of builders."""
    folder = tmp_path_factory.mktemp("inverted")
    examples = data.digits().take(range(600))
    for name, width, seed in (("w", 96, 1), ("j", 16, 2)):
        network = MLP((64, width, 10), seed=seed)
        training.fit(network, examples, epochs=10, batch_size=32, seed=seed, learning_rate=0.01, progress=False)
        training.save_weights(folder / f"{name}.safetensors", network)
    (folder / "mine.py").write_text(MINE)
    np.savez(folder / "table.npz", x=np.random.default_rng(0).random((200, 4)), y=np.arange(200) % 2)
    two = np.random.default_rng(0).random((200, 2, 8, 8), dtype=np.float32)
    np.savez(folder / "two.npz", x=two, y=np.arange(200) % 2)
    one = two[:, :1].copy()
    one[100:] = one[:100]
    np.savez(folder / "twice.npz", x=one, y=np.arange(200) % 10)
    return folder


@pytest.fixture
def run(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Said]:
    folder = tmp_path / "there"
    shutil.copytree(made, folder)
    monkeypatch.chdir(tmp_path)  # paths are seen from the file's folder, not from here

    def run(text: str, *arguments: str) -> Said:
        (folder / "run.toml").write_text(text)
        monkeypatch.setattr(sys, "argv", ["privet", "invert", "there/run.toml", *arguments])
        with pytest.raises(SystemExit) as end:
            privet.cli.main()
        printed = capsys.readouterr()
        return Said(end.value.code or 0, printed.out, printed.err)

    return run


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "there" / "inversion.json").read_text())
    return found


def test_a_wide_layer_gives_the_originals_away(run: Callable[..., Said], tmp_path: Path) -> None:
    said = run(CONFIG)
    assert said.code == 0, said.err
    assert "MLP: from the answers of layer features about 20 images, of the digits of scikit-learn" in said.err
    words = " ".join(said.out.split())
    assert "Finds originals: " in words
    assert "No verdict rests on SSIM alone" in words
    assert "white box" in words
    assert all(name in said.out for name in ("reconstruction", "class mean", "nearest other", "found of 101"))
    assert matplotlib.image.imread(tmp_path / "there" / "inversion.png").ndim == 3

    found = read(tmp_path)
    assert found["reidentifies"] is True
    assert set(found["quality"]) == {"reconstruction", "class_mean", "nearest_other"}
    for one in found["quality"].values():
        assert set(one) == {"relative_l2", "psnr", "ssim", "confidence", "reidentified"}
        for estimate in one.values():
            assert set(estimate) == {"value", "low", "high", "n", "confidence"}
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
            assert (estimate["n"], estimate["confidence"]) == (20, 0.95)
    ours, by_class = (found["quality"][name] for name in ("reconstruction", "class_mean"))
    assert ours["reidentified"]["low"] > by_class["reidentified"]["high"]
    assert np.mean(found["images"]["relative_l2"]) == pytest.approx(ours["relative_l2"]["value"])
    assert found["data"]["training"] == 1797 - 20 - 100
    assert found["settings"]["inversion"] == {
        "iterations": 60,
        "restarts": 1,
        "seed": 0,
        "bounds": [0.0, 1.0],
        "tv_weight": 0.01,
        "norm_weight": 0.0,
        "start": 0.0,
        "descent": "adam",
        "step": 0.1,
        "device": None,
    }
    assert set(found["versions"]) == {"privet", "torch", "python"}
    assert len(set(found["weights_sha256"].values())) == 2


def test_the_same_file_gives_the_same_numbers_and_json_is_all_of_the_output(
    run: Callable[..., Said], tmp_path: Path
) -> None:
    state = torch.get_rng_state()
    first, second = run(FAST, "--json"), run(FAST, "--json")
    assert first == second
    assert first.err == ""
    assert json.loads(first.out) == read(tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    assert not (tmp_path / "there" / "inversion.png").exists()


def test_every_key_reaches_what_it_is_for(run: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file with no key at its default."""
    made: list[dict[str, Any]] = []
    ran: list[dict[str, Any]] = []
    judged: list[dict[str, Any]] = []
    drawn: list[dict[str, Any]] = []
    begin, reconstruct = Representation.__init__, Representation.reconstruct
    evaluate, save_grid, split = parts.evaluate, work.save_grid, data.Examples.split
    seeds: list[Any] = []

    def heard(self: Representation, *given: Any, **named: Any) -> None:
        made.append(named)
        begin(self, *given, **named)

    def heard_run(self: Representation, *given: Any, **named: Any) -> Any:
        ran.append(named)
        return reconstruct(self, *given, **named)

    def heard_split(self: data.Examples, *sizes: int, seed: int) -> Any:
        seeds.append((sizes, seed))
        return split(self, *sizes, seed=seed)

    monkeypatch.setattr(Representation, "__init__", heard)
    monkeypatch.setattr(Representation, "reconstruct", heard_run)
    monkeypatch.setattr(data.Examples, "split", heard_split)
    monkeypatch.setattr(parts, "evaluate", lambda *given, **named: (judged.append(named), evaluate(*given, **named))[1])
    monkeypatch.setattr(work, "save_grid", lambda *given, **named: (drawn.append(named), save_grid(*given, **named))[1])
    text = CONFIG.replace("candidates = 100", "candidates = 90\ntraining = 300\nseed = 4").replace(
        'layer = "features"', 'layer = "features"\nmean = [0.1]\nspread = [0.9]'
    )
    text = text.replace(
        "iterations = 60\ntv_weight = 0.01\nnorm_weight = 0.0",
        "iterations = 7\nrestarts = 2\nseed = 5\nbounds = [-0.5, 1.5]\ntv_weight = 0.02\nnorm_weight = 0.03\n"
        "start = 0.4\nstep = 0.05",
    )
    assert run(text).code == 0
    assert seeds[-1] == ((20, 90, 300), 4)
    (settings,) = made
    assert settings["layer"] == "features"
    assert (settings["tv_weight"], settings["norm_weight"], settings["start"]) == (0.02, 0.03, 0.4)
    assert settings["bounds"] == (-0.5, 1.5)
    assert settings["descent"] == AdamDescent(0.05)
    assert settings["normalisation"] == Normalisation((0.1,), (0.9,))
    assert [(one["iterations"], one.get("restarts", 1), one["seed"]) for one in ran] == [(1, 1, 5), (7, 2, 5)]
    assert [one["bounds"] for one in judged] == [(-0.5, 1.5)] * 2
    assert [one["bounds"] for one in drawn] == [(-0.5, 1.5)]


def test_by_the_sign_of_the_gradient_and_on_a_device(run: Callable[..., Said]) -> None:
    said = run(CONFIG.replace("iterations = 60", 'iterations = 60\ndescent = "sign"\ndevice = "cpu"'), "--json")
    found = json.loads(said.out)
    assert found["settings"]["inversion"]["step"] == 0.03
    assert found["reidentifies"] is True


@pytest.mark.parametrize(
    ("defense", "words"),
    [
        ("decimals = 2", "the probabilities at 2 decimals"),
        ("k = 3", "the 3 highest of the probabilities"),
        ("k = 3\ndecimals = 1", "the 3 highest of the probabilities at 1 decimal"),
        ("label_only = true", "the labels"),
    ],
)
def test_behind_a_defense_only_what_is_let_out_is_used(run: Callable[..., Said], defense: str, words: str) -> None:
    text = FAST.replace('layer = "features"', "")
    found = json.loads(run(text + f"\n[defense]\n{defense}\n", "--json").out)
    assert words in found["access"]
    assert found["reidentifies"] is False
    assert found["finding"].startswith("Does not find more originals than the class mean does: ")


def test_a_network_of_ones_own_is_put_in_evaluation_mode(run: Callable[..., Said]) -> None:
    own = '[network]\nbuilder = "mine.py:build"\nmean = [0.5]\nspread = [0.25]\nlayer = "features"\n\n[judge]'
    said = run(own + FAST.partition("[judge]")[2], "--json")
    assert json.loads(said.out)["settings"]["network"]["mean"] == [0.5]  # and the builder's word is elsewhere
    assert said.err == "a word of the builder\n"


def test_normalisation_is_done_for_the_attacked_network_and_for_the_judge(run: Callable[..., Said]) -> None:
    """Spread 1 and mean 0 change nothing; with others, the judge no longer knows the originals."""
    normal = 'weights = "j.safetensors"\nmean = [{}]\nspread = [1]'
    plain, same, other = (
        json.loads(run(FAST.replace('weights = "j.safetensors"', with_), "--json").out)["judge_on_originals"]["value"]
        for with_ in ('weights = "j.safetensors"', normal.format(0), normal.format(3))
    )
    assert plain == pytest.approx(same)
    assert other < plain - 0.3


def test_a_network_that_is_defended_already(run: Callable[..., Said]) -> None:
    text = FAST.partition("[judge]")[2]
    own = '[network]\nbuilder = "mine.py:defended"\n'
    assert "at 2 decimals" in json.loads(run(f"{own}[judge]{text}", "--json").out)["access"]
    refused = run(f'{own}layer = "features"\n[judge]{text}')
    assert "network.layer; expected none: mine.py:defended gives" in refused.err


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("[inversion]", "[inversion]\nsteps = 3", "an unknown key inversion.steps; expected only iterations,"),
        ("iterations = 60", "iterations = 0", "inversion.iterations = 0"),
        ("iterations = 60", 'iterations = "60"', "inversion.iterations = '60'"),
        ("iterations = 60", "bounds = [1, 0]", "bounds of two numbers, the lower first"),
        ("iterations = 60", "bounds = [0, 0.5]", "expected bounds that hold the pixels, 0 to 1"),
        ("iterations = 60", "step = 2.0", "inversion.step = 2.0"),
        ("iterations = 60", 'descent = "lbfgs"', "inversion.descent = 'lbfgs'"),
        ("iterations = 60", 'device = "no"', "inversion.device = 'no' (Expected one of"),
        ("iterations = 60", 'device = "meta"', "a device that PyTorch has here"),
        ("tv_weight = 0.01", "tv_weight = -1.0", "inversion.tv_weight = -1.0"),
        ("images = 20", "images = 4", "data.images = 4"),
        ("images = 20", "training = 1700", "data.images, candidates and training of 1,830 together; expected at most"),
        ("images = 20", "images = 1797", "together; expected at most the 1,797 of digits"),
        ('source = "digits"', 'source = "digit"', "data.source = "),
        ('source = "digits"', 'source = "digits"\nfolder = "x"', "data.folder = 'x'; expected none: digits"),
        ("iterations = 60", "bounds = [0, 255]", "inversion.bounds = (0.0, 255.0)"),
        ('source = "digits"', 'source = "nowhere.npz"', "nowhere.npz"),
        ('source = "digits"', 'source = "table.npz"', "inputs of shape (4,); expected images (C, H, W)"),
        ('source = "digits"', 'source = "two.npz"', "expected 1 or 3 channels for a picture"),
        ('layer = "features"', 'layer = "feature"', "network.layer = 'feature'; expected the name of a module within"),
        ('layer = "features"', "mean = [0.5]", "both mean and spread"),
        ('layer = "features"', "mean = [0.5]\nspread = [0.0]", "network.spread.0 = 0.0; expected greater than 0"),
        ('layer = "features"', "mean = [0, 0]\nspread = [1]", "as many numbers in mean as in spread"),
        ('layer = "features"', "mean = [0, 0]\nspread = [1, 1]", "network.mean of 2 numbers; expected 1 or 1"),
        ("[output]", "[defense]\ndecimals = 2\n[output]", "either network.layer or a defense"),
        ("[output]", "[defense]\n[output]", "either decimals, k or both, or label_only"),
        ("[output]", "[defense]\nk = 3\nlabel_only = true\n[output]", "either decimals, k or both, or label_only"),
        ("[output]", "[defense]\ndecimals = 16\n[output]", "defense.decimals = 16"),
        ('picture = "inversion.png"', 'picture = "a.jpg"', "a file whose name ends in .png or .svg or .pdf"),
        ('picture = "inversion.png"', 'picture = "no/a.png"', "output.picture = 'there/no/a.png'"),
        ('numbers = "inversion.json"', 'numbers = "no/a.json"', "output.numbers = 'there/no/a.json'"),
        ('numbers = "inversion.json"', 'json = "a.json"', "an unknown key output.json; expected only picture, numbers"),
        ('weights = "w.safetensors"', 'weights = "v.safetensors"', "there/v.safetensors: found no such file"),
        ('weights = "w.safetensors"', 'weights = "j.safetensors"', "there/j.safetensors: found"),
        ('weights = "w.safetensors"', "", "weights, since an untrained network says nothing"),
        (
            'builder = "mlp"\narguments = { hidden = [96] }',
            'builder = "mpl"',
            "network.builder = 'mpl'; expected lenet5",
        ),
        ("hidden = [96]", "wide = [96]", "network.builder = 'mlp' with {'wide': [96]}, which ended in: "),
        ("[output]", "[output", "expected TOML"),
    ],
)
def test_what_does_not_fit_is_one_line_with_its_key_before_any_work(
    run: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, words: str
) -> None:
    assert before in CONFIG
    monkeypatch.setattr(Representation, "reconstruct", lambda *_, **__: pytest.fail("it began"))
    said = run(CONFIG.replace(before, after, 1))
    assert (said.code, said.out) == (2, "")
    assert len(said.err.strip().splitlines()) == 1, said.err
    assert said.err.startswith("privet: ")
    assert words in said.err
    assert not list((tmp_path / "there").glob("inversion.*"))


JUDGE = CONFIG[CONFIG.index("[judge]") : CONFIG.index("[data]")]


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        ('builder = "mlp"\narguments = { hidden = [96] }\nweights = "w.safetensors"', "trained independently"),
        ('builder = "mine.py:few"', "a judge that answers (20, 3); expected logits (20, 10)"),
        ('builder = "mine.py:wide"', "judge.builder = 'mine.py:wide', which ended in RuntimeError"),
        ('builder = "mine.py:nothing"', "judge.builder that gives a NoneType"),
        ('builder = "mine.py:absent"', "judge.builder = 'there/mine.py:absent'"),
        ('builder = "mine.py:leaves"', "judge.builder = 'mine.py:leaves'"),
        ('builder = "absent.py:build"', "There is no there/absent.py"),
    ],
)
def test_a_judge_that_cannot_judge_is_refused(run: Callable[..., Said], judge: str, words: str) -> None:
    said = run(CONFIG.replace(JUDGE, f"[judge]\n{judge}\n"))
    assert (said.code, said.out) == (2, "")
    assert len(said.err.strip().splitlines()) == 1, said.err
    assert words in said.err
    no_judge = run(CONFIG.replace(JUDGE, ""))
    assert (no_judge.code, "no judge; expected it to be given" in no_judge.err) == (2, True)


@pytest.mark.parametrize(
    ("network", "more", "words"),
    [
        ('builder = "mine.py:wide"', "", "network.builder = 'mine.py:wide', which ended in RuntimeError"),
        ('builder = "mine.py:pair"', "", "network"),
        ('builder = "mine.py:defended"', "[defense]\nk = 3", "a defense; expected none: mine.py:defended gives"),
        (
            'builder = "mlp"\narguments = { hidden = [96] }\nweights = "w.safetensors"',
            "[defense]\nk = 11",
            "defense.k = 11; expected",
        ),
    ],
)
def test_a_network_that_cannot_be_inverted_is_refused(
    run: Callable[..., Said], network: str, more: str, words: str
) -> None:
    said = run(f"[network]\n{network}\n{JUDGE}{CONFIG.partition(JUDGE)[2]}\n{more}\n")
    assert (said.code, said.out) == (2, "")
    assert len(said.err.strip().splitlines()) == 1, said.err
    assert words in said.err


def test_originals_that_are_among_the_others_are_refused(run: Callable[..., Said]) -> None:
    said = run(CONFIG.replace('source = "digits"', 'source = "twice.npz"').replace("= 100", "= 90"))
    assert (said.code, said.out) == (2, "")
    assert "there/run.toml: original " in said.err
    assert "leave the originals out" in said.err


def test_ctrl_c_ends_in_one_line(run: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Representation.reconstruct

    def stopped(self: Representation, targets: Any, **settings: Any) -> Any:
        if settings["iterations"] > 1:
            raise KeyboardInterrupt
        return inner(self, targets, **settings)

    monkeypatch.setattr(Representation, "reconstruct", stopped)
    said = run(CONFIG)
    assert (said.code, said.out) == (130, "")
    assert said.err.strip().splitlines()[-1] == "privet: stopped before there was anything to say."
    assert not list((tmp_path / "there").glob("*inversion.*"))


def test_a_network_is_a_module_that_its_weights_were_trained_for(made: Path) -> None:
    """The fixture's own networks know digits; otherwise the tests above would show nothing."""
    images = data.digits().take(range(600))
    network: nn.Module = MLP((64, 96, 10), seed=0)
    training.load_weights(made / "w.safetensors", network)
    assert training.evaluate(network.eval(), images).accuracy > 0.95
