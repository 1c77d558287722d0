"""An archive is read without pickle and without trusting what its headers claim."""

import io
import os
import stat
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privet.data import Examples, npz, save_npz
from privet.errors import ArgumentError, DataError, FileFormatError, FileWriteError, LabelError

X, Y = np.array([[0.5, 1.0], [2.0, -3.0], [0.0, 7.0]], dtype=np.float32), np.array([0, 2, 1])


def write(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "some.npz", **arrays)
    return folder / "some.npz"


def member(header: dict[str, object], body: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    content = bytearray(file.getvalue())
    content[6:8] = bytes(version)
    return bytes(content) + body


def zipped(folder: Path, x: bytes, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    y = io.BytesIO()
    np.save(y, Y)
    with zipfile.ZipFile(folder / "some.npz", "w", compression) as archive:
        archive.writestr("x.npy", x)
        archive.writestr("y.npy", y.getvalue())
    return folder / "some.npz"


@pytest.mark.parametrize("names", [("x", "y"), ("inputs", "labels"), ("x", "labels")])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_table_is_read_under_either_name(tmp_path: Path, names: tuple[str, str], compressed: bool) -> None:
    (np.savez_compressed if compressed else np.savez)(tmp_path / "some.npz", **{names[0]: X, names[1]: Y})
    examples = npz(tmp_path / "some.npz")
    assert np.array_equal(examples.inputs.numpy(), X)
    assert examples.labels.tolist() == Y.tolist()
    assert examples.class_names == ("0", "1", "2")


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 2, 4, 5)])
def test_images_of_bytes_are_scaled(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    examples = npz(write(tmp_path, x=pixels, y=Y))
    expected = (pixels if pixels.ndim == 4 else pixels[:, None]).astype(np.float32) / 255
    assert np.array_equal(examples.inputs.numpy(), expected)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i8", "f2", "f4", "f8", ">f4", ">i4"])
def test_tables_of_numbers_keep_their_values(tmp_path: Path, dtype: str) -> None:
    table = np.array([[0, 1], [2, 200], [100, 7]]).astype(dtype)
    examples = npz(write(tmp_path, x=np.asfortranarray(table), y=Y.astype(">i2")))
    assert examples.inputs.dtype == torch.float32
    assert examples.inputs.tolist() == [[0, 1], [2, 200], [100, 7]]
    assert examples.labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    "x",
    [
        X[0],
        X[:, :, None, None, None],
        X.astype(complex),
        X.astype(str),
        X > 0,
        np.array([[2**24 + 1, 0]] * 3),
        np.zeros((3, 4, 4), dtype=np.int64),
        np.array([[1e39, 0.0]] * 3),
        np.array([[np.nan, 0.0]] * 3),
        np.zeros((3, 0)),
        np.zeros((0, 3)),
        np.array(1.0),
        np.zeros((3,), dtype=[("a", "f4"), ("b", "f4")]),
        X[:2],
        np.array([[{}, {}]] * 3),
    ],
)
def test_inputs_of_another_kind_are_refused_by_name(tmp_path: Path, x: np.ndarray) -> None:
    with pytest.raises(FileFormatError, match=r"some.npz: found"):
        npz(write(tmp_path, x=x, y=Y))


@pytest.mark.parametrize(
    "y", [[0, -1, 1], [0, -100, 1], [0.0, 1.0, 2.0], [True, False, True], [[0, 1, 2]], [0, 1, 2**40], [2**64 - 1, 0, 0]]
)
def test_labels_of_another_kind_are_refused_by_name(tmp_path: Path, y: list[float]) -> None:
    with pytest.raises(LabelError, match=r"some.npz: labels"):
        npz(write(tmp_path, x=X, y=np.array(y)))


def test_pickled_objects_are_refused_unopened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    trap = np.empty(3, dtype=object)
    trap[:] = [Trap()] * 3
    for key in ("x", "y", "class_names"):
        with pytest.raises(FileFormatError, match=r"pickled objects") as caught:
            npz(write(tmp_path, **{"x": X, "y": Y, key: trap}))
        assert "arrays: x, y" in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "arrays",
    [
        {"x_train": X, "y_train": Y},
        {"x": X},
        {"y": Y},
        {"x": X, "inputs": X, "y": Y},
        {},
        {"x": X, "y": Y, "labels": Y},
    ],
)
def test_a_wrong_key_shows_the_keys_there_are(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(FileFormatError) as caught:
        npz(write(tmp_path, **arrays))
    assert f"found the arrays {', '.join(arrays) or 'none'}; expected exactly one of" in str(caught.value)


@pytest.mark.parametrize("names", [np.array([1, 2, 3]), np.array([b"a", b"b", b"c"]), np.array([["a", "b", "c"]])])
def test_names_of_another_kind_are_refused(tmp_path: Path, names: np.ndarray) -> None:
    with pytest.raises(FileFormatError, match=r"some.npz.*class_names"):
        npz(write(tmp_path, x=X, y=Y, class_names=names))


def test_names_fit_the_labels(tmp_path: Path) -> None:
    assert npz(write(tmp_path, x=X, y=Y, class_names=np.array(["a", "b", "ç"]))).class_names == ("a", "b", "ç")
    with pytest.raises(LabelError, match=r"labels\[1\] = 2"):
        npz(write(tmp_path, x=X, y=Y, class_names=np.array(["a", "b"])))
    with pytest.raises(DataError, match=r"some.npz: class_names\[2\]"):
        npz(write(tmp_path, x=X, y=Y, class_names=np.array(["a", "b", "a"])))


def test_classes_may_be_said(tmp_path: Path) -> None:
    assert npz(write(tmp_path, x=X, y=Y), classes=5).classes == 5
    with pytest.raises(LabelError, match=r"labels\[1\] = 2"):
        npz(tmp_path / "some.npz", classes=2)
    for wrong in (0, True, 2**16 + 1, "3"):
        with pytest.raises(ArgumentError, match="classes"):
            npz(tmp_path / "some.npz", classes=wrong)
    with pytest.raises(ArgumentError, match="classes = 4"):
        npz(write(tmp_path, x=X, y=Y, class_names=np.array(["a", "b", "c"])), classes=4)


FLOATS = {"descr": "<f4", "fortran_order": False}


@pytest.mark.parametrize(
    "x",
    [
        b"",
        b"\x93NUMPY",
        member(FLOATS | {"shape": (3, 2)}, X.tobytes()[:-1]),
        member(FLOATS | {"shape": (3, 2)}, X.tobytes() + b"\0"),
        member(FLOATS | {"shape": (3, 10**7)}, X.tobytes()),
        member(FLOATS | {"shape": (10**18, 10**18)}, X.tobytes()),
        member(FLOATS | {"shape": (-3, -2)}, X.tobytes()),
        member(FLOATS | {"shape": (3, 2)}, X.tobytes(), version=(3, 0)),
        member(FLOATS | {"shape": (3, 2)}, X.tobytes(), version=(9, 9)),
        member(FLOATS | {"shape": (1,) * 70}, X.tobytes()[:4]),
        member({"descr": "<U1000000000", "fortran_order": False, "shape": (3, 2)}, X.tobytes()),
        member({"descr": "|O", "fortran_order": False, "shape": (3, 2)}, X.tobytes()),
        b"\x93NUMPY\x01\x00\x00\x20" + b"(" * 8192,
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 100,
    ],
)
def test_a_header_that_lies_is_refused_before_memory_is_taken(tmp_path: Path, x: bytes) -> None:
    path = zipped(tmp_path, x)
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match=r"some.npz: found"):
            npz(path)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_an_array_larger_than_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.modules["privet.data.npz"], "LARGEST", X.size)
    assert len(npz(write(tmp_path, x=X, y=Y))) == 3
    monkeypatch.setattr(sys.modules["privet.data.npz"], "LARGEST", X.size - 1)
    with pytest.raises(FileFormatError, match=r"some.npz: found 6 values; expected at most 5"):
        npz(tmp_path / "some.npz")


def text(shape: tuple[int, ...], width: int) -> bytes:
    return member({"descr": f"<U{width}", "fortran_order": False, "shape": shape}, bytes(4 * width * shape[0]))


def integers(count: int) -> bytes:
    return member({"descr": "<i8", "fortran_order": False, "shape": (count,)}, bytes(8 * count))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": member({"descr": "|u1", "fortran_order": False, "shape": (1, 805306368)}, bytes(2**25))}, "536,870,912"),
        ({"y": integers(2**22)}, "3 inputs and 4,194,304 labels"),
        ({"x": member(FLOATS | {"shape": (2**22, 2)}, bytes(2**25))}, "4,194,304 inputs and 3 labels"),
        ({"class_names": text((3,), 2**22)}, "class_names of 50,331,648 bytes"),
        ({"class_names": text((3, 2**22), 1)}, "a row of it"),
        ({"class_names": text((2**22,), 1)}, "class_names of 16,777,216 bytes"),
        ({"class_names": member(FLOATS | {"shape": (2**23,)}, bytes(2**25))}, "class_names of float32"),
        ({"x": text((2**22, 2), 1)}, "4,194,304 inputs|inputs of <U1"),
    ],
)
def test_what_a_header_asks_for_is_refused_before_it_is_unpacked(
    tmp_path: Path, arrays: dict[str, bytes], said: str
) -> None:
    parts = {"x": member(FLOATS | {"shape": (3, 2)}, X.tobytes()), "y": integers(3)} | arrays
    with zipfile.ZipFile(tmp_path / "some.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for key, content in parts.items():
            archive.writestr(f"{key}.npy", content)
    del arrays, parts
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match=said):
            npz(tmp_path / "some.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(3, 8, 8, 3), (3, 8, 8, 1), (3, 8, 1, 1)])
def test_images_with_their_channels_last_are_refused_both_ways(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(FileFormatError, match=r"\(N, C, H, W\): transpose .*x.transpose\(0, 3, 1, 2\)"):
        npz(write(tmp_path, x=np.zeros(shape, dtype=np.uint8), y=Y))
    with pytest.raises(ArgumentError, match="transpose"):
        save_npz(tmp_path / "b.npz", Examples(torch.zeros(shape), torch.tensor([0, 1, 0]), ("a", "b"), "here"))
    assert npz(write(tmp_path, x=np.zeros(shape, dtype=np.uint8).transpose(0, 3, 1, 2), y=Y)).inputs.shape[1] < 4


@pytest.mark.parametrize("shape", [(3, 3, 8, 3), (3, 1, 8, 1), (3, 3, 1, 1), (3, 8, 3), (3, 5, 8, 4)])
def test_images_with_their_channels_first_are_not_taken_for_others(tmp_path: Path, shape: tuple[int, ...]) -> None:
    assert len(npz(write(tmp_path, x=np.zeros(shape, dtype=np.uint8), y=Y))) == 3


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.array([0, -100, 1]), r"labels\[1\] = -100 is not allowed; give integers from 0, at most 65,535\. PyTorch"),
        (np.array([0, 65_536, 1]), r"labels\[1\] = 65536 is not allowed; give integers from 0, at most 65,535\."),
        (np.array([0, 2**63, 1], dtype=np.uint64), r"labels\[1\] = 9223372036854775808 is not allowed"),
        (np.array([0, 2**64 - 1, 1], dtype=">u8"), r"labels\[1\] = 18446744073709551615 is not allowed"),
    ],
)
def test_what_is_said_of_a_label_is_true(tmp_path: Path, y: np.ndarray, said: str) -> None:
    with pytest.raises(LabelError, match=said) as caught:
        npz(write(tmp_path, x=X, y=y))
    assert "classes)" not in str(caught.value)


def test_unsigned_labels_are_labels(tmp_path: Path) -> None:
    assert npz(write(tmp_path, x=X, y=Y.astype(np.uint64))).labels.tolist() == Y.tolist()


def test_as_many_numbered_names_as_there_may_be_are_saved_and_read(tmp_path: Path) -> None:
    names = tuple(str(number) for number in range(2**16))
    save_npz(tmp_path / "a.npz", Examples(torch.zeros(1, 1), torch.tensor([7]), names, "here"))
    assert npz(tmp_path / "a.npz").class_names == names
    wide = ("x" * 1000, *names[1:2000])
    with pytest.raises(ArgumentError, match=r"examples.class_names = '2,000 names'"):
        save_npz(tmp_path / "b.npz", Examples(torch.zeros(1, 1), torch.tensor([7]), wide, "here"))


def test_a_zip_bomb_takes_no_memory(tmp_path: Path) -> None:
    path = zipped(tmp_path, member(FLOATS | {"shape": (3, 2)}, bytes(2**27)))
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match="more bytes"):
            npz(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_other_archives_are_refused(tmp_path: Path) -> None:
    whole = member(FLOATS | {"shape": (3, 2)}, X.tobytes())
    assert len(npz(zipped(tmp_path, whole))) == 3
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(FileFormatError, match="another method"):
            npz(zipped(tmp_path, whole, compression))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(zipped(tmp_path, whole), "a") as archive:
        archive.writestr("x.npy", whole)
    with pytest.raises(FileFormatError, match="3 entries, 2 of them distinct"):
        npz(tmp_path / "some.npz")
    np.save(tmp_path / "single.npy", X)
    with pytest.raises(FileFormatError, match=r"single.npy: found"):
        npz(tmp_path / "single.npy")
    with pytest.raises(FileFormatError, match="found a folder"):
        npz(tmp_path)


FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
NAMES = st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp")), min_size=1, max_size=9).filter(
    str.strip
)


@given(st.data(), st.lists(NAMES, min_size=1, max_size=5, unique=True))
def test_what_is_saved_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, names: list[str]
) -> None:
    shape = data.draw(st.sampled_from([(3, 4), (3, 2, 4, 5)]))
    inputs = data.draw(hnp.arrays(np.float32, shape, elements=FLOAT32))
    labels = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=3, max_size=3))
    examples = Examples(torch.tensor(inputs), torch.tensor(labels), tuple(names), "here")
    path = tmp_path_factory.getbasetemp() / "again.npz"
    save_npz(path, examples)
    again = npz(path)
    assert torch.equal(again.inputs, examples.inputs)
    assert torch.equal(again.labels, examples.labels)
    assert again.class_names == examples.class_names


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_saved_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    examples = Examples(torch.rand(3, 4).to(dtype), torch.tensor([0, 1, 0]), ("a", "b"), "here")
    save_npz(tmp_path / "a.npz", examples)
    assert torch.equal(npz(tmp_path / "a.npz").inputs, examples.inputs.float())


def test_a_failed_save_leaves_the_old_file_and_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = Examples(torch.zeros(2, 3), torch.tensor([0, 1]), ("a", "b"), "old")
    save_npz(tmp_path / "a.npz", old)

    def half(file: io.BufferedWriter, **_: object) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(FileWriteError, match=r"a.npz cannot be written: disk full"):
        save_npz(tmp_path / "a.npz", Examples(torch.ones(2, 3), torch.tensor([0, 1]), ("a", "b"), "new"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]
    assert torch.equal(npz(tmp_path / "a.npz").inputs, old.inputs)


def test_a_saved_file_has_the_rights_of_any_other(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save_npz(tmp_path / "a.npz", Examples(torch.zeros(2, 3), torch.tensor([0, 1]), ("a", "b"), "here"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.npz").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("path", "inputs", "said"),
    [
        ("a.csv", torch.zeros(2, 3), "path"),
        ("no/such/a.npz", torch.zeros(2, 3), "path"),
        ("a.npz", torch.zeros(2, 3, dtype=torch.float64), "dtype"),
        ("a.npz", torch.zeros(2, 3, 4), "shape"),
    ],
)
def test_what_could_not_be_read_again_is_not_saved(tmp_path: Path, path: str, inputs: torch.Tensor, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        save_npz(tmp_path / path, Examples(inputs, torch.tensor([0, 1]), ("a", "b"), "here"))
    assert not list(tmp_path.iterdir())
