"""A folder of images is read in a fixed order, or the file that is out of place is named."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privet.data import image_folder
from privet.errors import ArgumentError, DataError, FileFormatError


def encoded(form: str, mode: str = "RGB", size: tuple[int, int] = (28, 28), **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 0 if mode in ("L", "P", "1", "I;16", "F") else None).save(file, form, **options)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG header that claims this size, over almost no data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def test_classes_and_files_are_sorted_by_name(tmp_path: Path, tiny) -> None:
    examples = image_folder(tiny.write(tmp_path, tiny.folder()), grayscale=True)
    assert examples.class_names == ("ant", "bee")
    assert examples.labels.tolist() == [0, 1, 1]
    assert np.array_equal(examples.inputs[:, 0].numpy(), tiny.images[[1, 0, 2]].astype(np.float32) / 255)


def test_grey_is_three_equal_channels_unless_grayscale(tmp_path: Path, tiny) -> None:
    examples = image_folder(tiny.write(tmp_path, tiny.folder()))
    assert examples.inputs.shape == (3, 3, 28, 28)
    assert examples.inputs.is_contiguous()
    assert (examples.inputs[:, :1] == examples.inputs).all()


def test_colour_channels_keep_their_order(tmp_path: Path, tiny) -> None:
    colour = tiny.png(np.full((4, 6, 3), (255, 0, 51), dtype=np.uint8))
    examples = image_folder(tiny.write(tmp_path, {"red/1.png": colour}))
    assert examples.inputs.shape == (1, 3, 4, 6)
    assert examples.inputs[0, :, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.2])


def test_hidden_files_are_ignored(tmp_path: Path, tiny) -> None:
    hidden = {".DS_Store": b"x", "ant/.thumb": b"x", ".git/config": b"x"}
    assert len(image_folder(tiny.write(tmp_path, tiny.folder() | hidden))) == 3


@pytest.mark.parametrize("form", ["JPEG", "BMP", "PPM", "GIF", "WEBP"])
def test_other_formats_are_read(tmp_path: Path, tiny, form: str) -> None:
    assert image_folder(tiny.write(tmp_path, {"one/a": encoded(form)})).inputs.shape == (1, 3, 28, 28)


@pytest.mark.parametrize(("size", "shape"), [(8, (8, 8)), ((6, 10), (6, 10))])
def test_size_makes_all_images_one_size(tmp_path: Path, tiny, size: int, shape: tuple[int, int]) -> None:
    files = tiny.folder() | {"ant/wide.png": encoded("PNG", size=(40, 20))}
    assert image_folder(tiny.write(tmp_path, files), size=size).inputs.shape == (4, 3, *shape)


def test_without_size_the_image_of_another_size_is_named(tmp_path: Path, tiny) -> None:
    files = tiny.folder() | {"bee/wide.png": encoded("PNG", size=(40, 20))}
    with pytest.raises(FileFormatError, match=r"wide.png: found an image of 40 x 20 pixels; expected 28 x 28.*size="):
        image_folder(tiny.write(tmp_path, files))


@pytest.mark.parametrize("size", [0, -1, 8193, 2.0, True, "8", (8,), (8, 8, 8), (8, 0), [8, 8]])
def test_impossible_sizes_are_refused(tmp_path: Path, tiny, size: int) -> None:
    with pytest.raises(ArgumentError, match="size"):
        image_folder(tiny.write(tmp_path, tiny.folder()), size=size)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image at all",
        encoded("PNG")[:-20],
        encoded("PNG")[:40],
        encoded("JPEG", size=(64, 64))[:-60],
        encoded("BMP")[:-1],
        encoded("PPM")[:-1],
        encoded("TIFF"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n",
        encoded("PNG", "I;16"),
        encoded("GIF", "RGB", save_all=True, append_images=[Image.new("RGB", (28, 28), "red")]),
        bomb(60_000, 60_000),
        bomb(9_000, 9_000),
        bomb(28, 28),
        bomb(0, 28),
    ],
    ids=range(15),
)
@pytest.mark.filterwarnings("error")
def test_a_file_that_is_no_whole_image_is_named(tmp_path: Path, tiny, content: bytes) -> None:
    tiny.write(tmp_path, tiny.folder() | {"bee/odd.png": content})
    with pytest.raises(FileFormatError, match=r"odd.png: found"):
        image_folder(tmp_path)


def deep_png(bits: int, colour: int, channels: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = (b"\0" + bytes(channels * bits // 8 * 28)) * 28
    header = struct.pack(">IIBBBBB", 28, 28, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_of_a_png_are_refused_and_eight_are_not(tmp_path: Path, tiny, colour: int, channels: int) -> None:
    assert len(image_folder(tiny.write(tmp_path, {"a/1.png": deep_png(8, colour, channels)}))) == 1
    tiny.write(tmp_path, {"a/2.png": deep_png(16, colour, channels)})
    with pytest.raises(FileFormatError, match=r"2.png: found (16 bits|pixels of mode I)"):
        image_folder(tmp_path)


@pytest.mark.parametrize(
    ("header", "size"), [(b"P6 28 28 %d\n", 3), (b"P6\n# 8 bits\n28\n28 # 255\n%d\n", 3), (b"P3 28 28 %d\n", 0)]
)
@pytest.mark.parametrize("largest", [256, 1023, 65535])
def test_more_than_eight_bits_of_a_ppm_are_refused_and_eight_are_not(
    tmp_path: Path, tiny, header: bytes, size: int, largest: int
) -> None:
    body = bytes(28 * 28 * size) or b"0 " * (28 * 28 * 3)
    assert len(image_folder(tiny.write(tmp_path, {"a/1.ppm": header % 255 + body, "a/2.ppm": header % 1 + body}))) == 2
    tiny.write(tmp_path, {"a/3.ppm": header % largest + (body * 2 if size else body)})
    with pytest.raises(FileFormatError, match=f"3.ppm: found a largest value of {largest}; expected at most 255"):
        image_folder(tmp_path)


def test_black_and_white_says_no_largest_value(tmp_path: Path, tiny) -> None:
    assert len(image_folder(tiny.write(tmp_path, {"a/1.pbm": b"P4 28 28\n" + bytes(4 * 28)}))) == 1


def test_an_image_too_large_is_refused_by_what_it_claims(tmp_path: Path, tiny) -> None:
    tiny.write(tmp_path, {"bee/odd.png": bomb(9_000, 9_000)})
    with pytest.raises(FileFormatError, match=r"odd.png: found an image of 9,000 x 9,000 pixels; expected at most"):
        image_folder(tmp_path)


def test_a_changed_pixel_of_a_png_is_found_by_its_check_sum(tmp_path: Path, tiny) -> None:
    whole = bytearray(tiny.png(tiny.images[0]))
    whole[whole.index(b"IDAT") + 30] ^= 1
    tiny.write(tmp_path, {"bee/odd.png": bytes(whole)})
    with pytest.raises(FileFormatError, match=r"odd.png: found"):
        image_folder(tmp_path)


@pytest.mark.parametrize("name", ["readme.txt", "ant/deeper/1.png"])
def test_what_is_out_of_place_is_named(tmp_path: Path, tiny, name: str) -> None:
    tiny.write(tmp_path, tiny.folder() | {name: encoded("PNG")})
    with pytest.raises(FileFormatError, match=name.split("/1")[0]):
        image_folder(tmp_path)


def test_empty_folders_are_refused(tmp_path: Path, tiny) -> None:
    with pytest.raises(FileFormatError, match="an empty folder"):
        image_folder(tmp_path)
    tiny.write(tmp_path, tiny.folder())
    (tmp_path / "cow").mkdir()
    with pytest.raises(FileFormatError, match="cow: found a class without images"):
        image_folder(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path, tiny) -> None:
    tiny.write(tmp_path, tiny.folder())
    os.mkfifo(tmp_path / "bee" / "pipe.png")
    with pytest.raises(FileFormatError, match=r"pipe.png: found no regular file"):
        image_folder(tmp_path)


def test_more_images_than_memory_holds_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny) -> None:
    monkeypatch.setattr("privet.data.folder.LARGEST", 3 * 28 * 28 - 1)
    tiny.write(tmp_path, tiny.folder())
    with pytest.raises(DataError, match="size="):
        image_folder(tmp_path, grayscale=True)
    assert len(image_folder(tmp_path, size=14, grayscale=True)) == 3


def test_transparency_is_dropped_without_a_warning(tmp_path: Path, tiny) -> None:
    palette = Image.new("P", (28, 28), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    file = io.BytesIO()
    palette.save(file, "PNG", transparency=bytes([255, 0]))
    examples = image_folder(tiny.write(tmp_path, {"red/1.png": file.getvalue()}))
    assert examples.inputs[0, :, 3, 3].tolist() == [1.0, 0.0, 0.0]
