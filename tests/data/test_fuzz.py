"""Whatever the bytes of a file are: valid Examples, or one error of privet's that names the file."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privet.data import Examples, cifar10, cifar100, image_folder, mnist, npz
from privet.errors import PrivetError

# name -> (files, reader, file to damage, whether check sums guard its pixels)
CASES: dict[str, tuple[str, Callable[[Path], Examples], str, bool]] = {
    "idx images": ("mnist", mnist, "train-images-idx3-ubyte", False),
    "idx labels": ("mnist", mnist, "train-labels-idx1-ubyte", False),
    "gzip images": ("packed", mnist, "train-images-idx3-ubyte.gz", True),
    "gzip labels": ("packed", mnist, "train-labels-idx1-ubyte.gz", True),
    "cifar10 first": ("cifar10", cifar10, "data_batch_1.bin", False),
    "cifar10 last": ("cifar10", cifar10, "data_batch_5.bin", False),
    "cifar10 names": ("cifar10", cifar10, "batches.meta.txt", True),
    "cifar100": ("cifar100", cifar100, "train.bin", False),
    "cifar100 names": ("cifar100", cifar100, "fine_label_names.txt", True),
    "png first": ("folder", image_folder, "ant/1.png", True),
    "png last": ("folder", image_folder, "bee/2.png", True),
    "npz": ("archive", lambda folder: npz(folder / "some.npz"), "some.npz", True),
}


def files_of(tiny, kind: str) -> dict[str, bytes]:
    return tiny.mnist(packed=True) if kind == "packed" else getattr(tiny, kind)()


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes with some flipped (often near an end), cut, moved, repeated, added or all replaced."""
    place = st.one_of(
        st.integers(0, len(whole) - 1),
        st.integers(0, min(64, len(whole) - 1)),
        st.integers(max(0, len(whole) - 256), len(whole) - 1),
    )
    kind = draw(st.sampled_from(["flip", "flip", "cut", "append", "drop", "repeat", "replace", "nothing"]))
    if kind == "flip":
        content = bytearray(whole)
        for where, value in draw(st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=4)):
            content[where] = value
        return bytes(content)
    start, end = sorted((draw(place), draw(place)))
    return {
        "cut": whole[:start],
        "append": whole + draw(st.binary(min_size=1, max_size=40)),
        "drop": whole[:start] + whole[end:],
        "repeat": whole[:end] + whole[start:],
        "replace": draw(st.binary(max_size=200)),
        "nothing": whole,
    }[kind]


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=150)
@given(data=st.data())
@pytest.mark.filterwarnings("error")
def test_examples_or_one_error_that_names_the_file(tiny, case: str, data: st.DataObject) -> None:
    kind, read, name, guarded = CASES[case]
    files = files_of(tiny, kind)
    content = data.draw(damaged(files[name]))
    with tempfile.TemporaryDirectory() as folder:
        tiny.write(Path(folder), files)
        whole = read(Path(folder))
        (Path(folder) / name).write_bytes(content)
        try:
            examples = read(Path(folder))
        except PrivetError as error:
            assert name in str(error)  # noqa: PT017 - an answer is right, too
            assert content != files[name]
            return
    assert isinstance(examples, Examples)
    if guarded or content == files[name]:
        assert torch.equal(examples.inputs, whole.inputs)
        assert torch.equal(examples.labels, whole.labels)


@pytest.mark.parametrize("case", CASES)
def test_every_cut_of_a_file_is_found(tiny, case: str) -> None:
    kind, read, name, _ = CASES[case]
    files = files_of(tiny, kind)
    whole = files[name]
    lost = 14 if name.endswith(".txt") else 0  # names of classes may lose their last line breaks, or letters
    lost = 12 if name.endswith(".png") else lost  # the end mark of a PNG holds nothing
    ends = [*range(min(100, len(whole) - lost)), *range(100, len(whole) - lost, 97), len(whole) - lost - 1]
    with tempfile.TemporaryDirectory() as folder:
        tiny.write(Path(folder), files)
        for end in ends:
            (Path(folder) / name).write_bytes(whole[:end])
            with pytest.raises(PrivetError) as caught:
                read(Path(folder))
            assert name in str(caught.value)
