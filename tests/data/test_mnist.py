"""IDX files are read to the byte, or refused by name."""

import gzip
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from privet.data import fashion_mnist, mnist
from privet.data.mnist import _DEBIAN_FASHION_MNIST
from privet.errors import ArgumentError, FileFormatError, LabelError

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize("packed", [False, True])
def test_what_was_written_is_read(tmp_path: Path, tiny, packed: bool) -> None:
    tiny.write(tmp_path, tiny.mnist(packed))
    examples = mnist(tmp_path)
    assert examples.inputs.shape == (5, 1, 28, 28)
    assert examples.inputs.dtype == torch.float32
    assert np.array_equal(examples.inputs[:, 0].numpy(), tiny.images.astype(np.float32) / 255)
    assert examples.labels.tolist() == tiny.labels.tolist()
    assert examples.class_names == tuple("0123456789")


def test_the_test_part_is_another_pair_of_files(tmp_path: Path, tiny) -> None:
    tiny.write(tmp_path, tiny.mnist())
    with pytest.raises(FileFormatError, match="t10k-"):
        mnist(tmp_path, train=False)
    (tmp_path / IMAGES).rename(tmp_path / "t10k-images-idx3-ubyte")
    (tmp_path / LABELS).rename(tmp_path / "t10k-labels-idx1-ubyte")
    assert len(mnist(tmp_path, train=False)) == 5
    with pytest.raises(FileFormatError, match="train-"):
        mnist(tmp_path)


def test_a_gzip_file_of_two_members_is_one_file(tmp_path: Path, tiny) -> None:
    files = tiny.mnist()
    whole = files[LABELS]
    files[LABELS + ".gz"] = gzip.compress(whole[:7]) + gzip.compress(b"") + gzip.compress(whole[7:])
    del files[LABELS]
    assert mnist(tiny.write(tmp_path, files)).labels.tolist() == tiny.labels.tolist()


PLAIN_DAMAGE = (
    "empty",
    "short header",
    "labels for images",
    "images for labels",
    "floats",
    "little-endian",
    "other sides",
    "no images",
    "four thousand million",
    "cut by one",
    "one too many",
    "fewer images",
    "fewer labels",
    "gzip unnamed",
)


def damaged_plain(tiny) -> dict[str, tuple[str, bytes, str]]:
    images, labels = tiny.idx(tiny.images), tiny.idx(tiny.labels)
    header = bytes((0, 0, 8, 3))
    return {
        "empty": (IMAGES, b"", "0 bytes"),
        "short header": (IMAGES, images[:10], "10 bytes"),
        "labels for images": (IMAGES, labels + images, "00 00 08 03"),
        "images for labels": (LABELS, images, "00 00 08 01"),
        "floats": (IMAGES, b"\0\0\x0d\x03" + images[4:], "00 00 0d 03"),
        "little-endian": (IMAGES, header + struct.pack("<3I", 5, 28, 28) + images[16:], "expected"),
        "other sides": (IMAGES, tiny.idx(tiny.images[:, :14]), "14 x 28"),
        "no images": (IMAGES, header + struct.pack(">3I", 0, 28, 28), "0 images"),
        "four thousand million": (IMAGES, header + struct.pack(">3I", 2**32 - 1, 28, 28), "4,294,967,295 images"),
        "cut by one": (IMAGES, images[:-1], "3,919 bytes"),
        "one too many": (IMAGES, images + b"\0", "more bytes"),
        "fewer images": (IMAGES, tiny.idx(tiny.images[:4]), "5 labels"),
        "fewer labels": (LABELS, tiny.idx(tiny.labels[:4]), "4 labels"),
        "gzip unnamed": (LABELS, gzip.compress(labels), "1f 8b"),
    }


@pytest.mark.parametrize("what", PLAIN_DAMAGE)
def test_a_damaged_plain_file_is_named(tmp_path: Path, tiny, what: str) -> None:
    name, content, said = damaged_plain(tiny)[what]
    tiny.write(tmp_path, tiny.mnist() | {name: content})
    with pytest.raises(FileFormatError) as caught:
        mnist(tmp_path)
    assert name in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[:-8],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:5],
        lambda whole: b"",
        lambda whole: whole[:-8] + bytes(4) + whole[-4:],  # another check sum
        lambda whole: whole[:-1] + b"\1",  # another length
        lambda whole: whole + b"no gzip",
        lambda whole: whole + gzip.compress(b"\0"),
        lambda whole: gzip.decompress(whole),
    ],
)
@pytest.mark.parametrize("name", [IMAGES + ".gz", LABELS + ".gz"])
def test_a_damaged_gzip_file_is_named(tmp_path: Path, tiny, name: str, damage) -> None:
    files = tiny.mnist(packed=True)
    tiny.write(tmp_path, files | {name: damage(files[name])})
    with pytest.raises(FileFormatError) as caught:
        mnist(tmp_path)
    assert name in str(caught.value)


@pytest.mark.parametrize("announced", [5, 600_000])
def test_a_gzip_bomb_takes_no_memory(tmp_path: Path, tiny, announced: int) -> None:
    """Neither what the stream would unpack to nor what a header claims is allocated."""
    header = bytes((0, 0, 8, 3)) + struct.pack(">3I", announced, 28, 28)
    length = 2**26 if announced == 5 else 2**10
    bomb = gzip.compress(header + bytes(length))
    tiny.write(tmp_path, tiny.mnist(packed=True) | {IMAGES + ".gz": bomb})
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match="more bytes" if announced == 5 else "cut off"):
            mnist(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_gzip_is_unpacked_no_further_than_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny) -> None:
    unpacked = 0

    class Counting:
        def __init__(self, bits: int) -> None:
            self.inner = real(bits)

        def decompress(self, packed: bytes, most: int) -> bytes:
            nonlocal unpacked
            got = self.inner.decompress(packed, most)
            unpacked += len(got)
            return got

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    real = zlib.decompressobj
    files = tiny.mnist() | {IMAGES + ".gz": gzip.compress(tiny.idx(tiny.images) + bytes(100_000))}
    del files[IMAGES]
    tiny.write(tmp_path, files)
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    with pytest.raises(FileFormatError, match="more bytes"):
        mnist(tmp_path)
    assert unpacked == 16 + tiny.images.size + 1


def test_a_label_above_nine_is_named(tmp_path: Path, tiny) -> None:
    tiny.write(tmp_path, tiny.mnist() | {LABELS: tiny.idx(np.array([0, 1, 10, 3, 4], dtype=np.uint8))})
    with pytest.raises(LabelError, match=rf"{LABELS}: labels\[2\] = 10"):
        mnist(tmp_path)


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path, tiny, name: str) -> None:
    tiny.write(tmp_path, tiny.mnist())
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(FileFormatError, match=rf"{name}: found a folder"):
        mnist(tmp_path)


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "mnist").write_bytes(b"")
    with pytest.raises(FileFormatError, match="found a file; expected a folder"):
        mnist(tmp_path / "mnist")


@pytest.mark.parametrize("folder", [None, 3, "", b"bytes"])
def test_a_folder_is_a_path(folder: str) -> None:
    with pytest.raises(ArgumentError, match="folder"):
        mnist(folder)


def test_a_null_byte_in_a_path_is_one_error() -> None:
    with pytest.raises(FileFormatError):
        mnist("a\0b")


def test_train_is_true_or_false(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="train = 'test'"):
        mnist(tmp_path, train="test")


def test_without_its_files_fashion_mnist_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.modules["privet.data.mnist"], "_DEBIAN_FASHION_MNIST", tmp_path / "nowhere")
    with pytest.raises(FileFormatError, match=r"apt-get install dataset-fashion-mnist .* folder="):
        fashion_mnist()


def test_fashion_mnist_names_clothes(tmp_path: Path, tiny) -> None:
    examples = fashion_mnist(tiny.write(tmp_path, tiny.mnist()))
    assert examples.class_names[0] == "T-shirt/top"
    assert examples.class_names[9] == "Ankle boot"
    assert examples.labels.tolist() == tiny.labels.tolist()


@pytest.mark.skipif(not _DEBIAN_FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_debians_fashion_mnist_is_found_by_itself() -> None:
    examples = fashion_mnist(train=False)
    assert examples.inputs.shape == (10_000, 1, 28, 28)
    assert examples.labels.bincount().tolist() == [1_000] * 10
    assert (float(examples.inputs.min()), float(examples.inputs.max())) == (0.0, 1.0)
    assert examples.labels[:3].tolist() == [9, 2, 1]  # an ankle boot, a pullover, trousers
