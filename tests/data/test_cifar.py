"""The binary files of CIFAR are read to the byte; the pickles are never opened."""

from pathlib import Path

import numpy as np
import pytest

from privet.data import cifar10, cifar100
from privet.errors import ArgumentError, DataError, FileFormatError, LabelError


def test_cifar10_is_read_in_the_order_of_its_batches(tmp_path: Path, tiny) -> None:
    examples = cifar10(tiny.write(tmp_path, tiny.cifar10()))
    assert np.array_equal(examples.inputs.numpy(), tiny.colours.astype(np.float32) / 255)
    assert examples.inputs.is_contiguous()
    assert examples.labels.tolist() == tiny.ten.tolist()
    assert examples.class_names == tuple(f"kind {i}" for i in range(10))


def test_the_test_batch_is_read_alone(tmp_path: Path, tiny) -> None:
    tiny.write(tmp_path, {"test_batch.bin": tiny.cifar10()["data_batch_2.bin"]})
    examples = cifar10(tmp_path, train=False)
    assert examples.labels.tolist() == tiny.ten[2:4].tolist()
    assert examples.class_names == tuple("0123456789")  # no file names them


@pytest.mark.parametrize("coarse", [False, True])
def test_cifar100_has_two_labels(tmp_path: Path, tiny, coarse: bool) -> None:
    examples = cifar100(tiny.write(tmp_path, tiny.cifar100()), coarse=coarse)
    assert np.array_equal(examples.inputs.numpy(), tiny.colours.astype(np.float32) / 255)
    assert examples.labels.tolist() == (tiny.ten if coarse else 99 - tiny.ten).tolist()
    assert examples.classes == (20 if coarse else 100)
    assert examples.class_names[7] == ("coarse 7" if coarse else "fine 7")


def test_names_of_classes_may_be_missing(tmp_path: Path, tiny) -> None:
    tiny.write(tmp_path, {"test.bin": tiny.cifar100()["train.bin"]})
    assert cifar100(tmp_path, train=False).class_names == tuple(str(i) for i in range(100))


@pytest.mark.parametrize(
    ("reader", "pickled"), [(cifar10, "data_batch_1"), (cifar10, "data_batch_5"), (cifar100, "train")]
)
def test_pickles_are_refused_unopened(tmp_path: Path, tiny, reader, pickled: str) -> None:
    files = tiny.cifar10() if reader is cifar10 else tiny.cifar100()
    files.pop(f"{pickled}.bin")
    tiny.write(tmp_path, files | {pickled: b"\x80\x02}q\x01."})
    (tmp_path / pickled).chmod(0)
    with pytest.raises(FileFormatError, match=r"which is pickled .* binary version") as caught:
        reader(tmp_path)
    assert pickled in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("data_batch_3.bin", b"", "0 bytes"),
        ("data_batch_3.bin", bytes(2 * 3073 - 1), "6,145 bytes"),
        ("data_batch_3.bin", bytes(2 * 3073 + 1), "6,147 bytes"),
        ("data_batch_3.bin", bytes(3073), "1 images"),
        ("batches.meta.txt", b"one\ntwo\n", "2 lines"),
        ("batches.meta.txt", b"x\n" * 40_000, "65,537 bytes"),
        ("batches.meta.txt", b"\xff\xfe" * 10, "UnicodeDecodeError"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, tiny, name: str, content: bytes, said: str) -> None:
    tiny.write(tmp_path, tiny.cifar10() | {name: content})
    with pytest.raises(FileFormatError) as caught:
        cifar10(tmp_path)
    assert name in str(caught.value)
    assert said in str(caught.value)


def test_all_batches_together_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny) -> None:
    monkeypatch.setattr("privet.data.cifar.LARGEST", 10 * 3073)
    assert len(cifar10(tiny.write(tmp_path, tiny.cifar10()))) == 10
    monkeypatch.setattr("privet.data.cifar.LARGEST", 10 * 3073 - 1)
    with pytest.raises(
        FileFormatError, match=r"data_batch_1.bin: found more than 3,073 bytes; expected 1 to 1 records"
    ):
        cifar10(tmp_path)


def test_names_of_classes_are_distinct(tmp_path: Path, tiny) -> None:
    tiny.write(tmp_path, tiny.cifar10() | {"batches.meta.txt": b"cat\n" * 10})
    with pytest.raises(DataError, match=r"batches.meta.txt: class_names\[1\]"):
        cifar10(tmp_path)


def test_a_label_above_nine_is_named_with_its_file(tmp_path: Path, tiny) -> None:
    tiny.write(tmp_path, tiny.cifar10() | {"data_batch_4.bin": bytes(3073) + b"\x0a" + bytes(3072)})
    with pytest.raises(LabelError, match=r"data_batch_4.bin: labels\[1\] = 10"):
        cifar10(tmp_path)


@pytest.mark.parametrize(
    ("labels", "said"), [(b"\x14\x00", "coarse: labels[0] = 20"), (b"\x00\x64", "fine: labels[0] = 100")]
)
@pytest.mark.parametrize("coarse", [False, True])
def test_both_labels_of_cifar100_are_checked(tmp_path: Path, tiny, labels: bytes, said: str, coarse: bool) -> None:
    tiny.write(tmp_path, {"train.bin": labels + bytes(3072)})
    with pytest.raises(LabelError) as caught:
        cifar100(tmp_path, coarse=coarse)
    assert f"train.bin, {said}" in str(caught.value)


def test_a_missing_batch_is_named(tmp_path: Path, tiny) -> None:
    tiny.write(tmp_path, tiny.cifar10())
    (tmp_path / "data_batch_5.bin").unlink()
    with pytest.raises(FileFormatError, match=r"data_batch_5.bin: found nothing there"):
        cifar10(tmp_path)


@pytest.mark.parametrize("wrong", [{"train": 1}, {"coarse": "yes"}])
def test_switches_are_true_or_false(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        cifar100(tmp_path, **wrong)
