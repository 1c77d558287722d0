"""A folder of images: a sub-folder for each class."""

from __future__ import annotations

import io
import math
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from privet.data.arguments import AnyPath, as_path, check_flag, is_whole
from privet.data.examples import Examples
from privet.data.labels import check_class_names
from privet.data.reading import LARGEST, one_error, open_regular, read_up_to, require_folder, unit_floats
from privet.errors import ArgumentError, DataError, FileFormatError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["image_folder"]

_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "GIF", "WEBP")  # no format that runs another program or reads other files
_AN_IMAGE = f"an image ({', '.join(_FORMATS)})"
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # eight bits a channel at most
_MOST_PIXELS = 2**26  # of one image, before resizing
_MOST_BYTES = 2**28  # of one file
_LONGEST_SIDE = 2**13
_LONGEST_HEADER = 2**12  # of a PPM file, comments included

_LAYOUT = "a folder with a sub-folder of images for each class"


def image_folder(folder: AnyPath, size: int | tuple[int, int] | None = None, grayscale: bool = False) -> Examples:
    """Images in sub-folders, one sub-folder for each class.

    Classes are the sub-folders sorted by name, images the files sorted by name within each. Hidden files and folders
    (a leading dot) are ignored; anything else that is out of place is refused. Pixels are taken as stored:
    transparency is dropped and a camera's note on rotation is not followed.

    Args:
        folder: holds one sub-folder for each class, and nothing else.
        size: side in pixels, or (height, width), to which each image is resized (bilinear; proportions are not kept).
            None where all images have one size.
        grayscale: one channel instead of three.

    Returns:
        Images (N, C, H, W) in [0, 1], C = 3 or, in grayscale, 1.

    Raises:
        ArgumentError: ``size`` is not a number of pixels from 1 to 8,192.
        FileFormatError: a file is no image, cut off, corrupt, too large or of another size than the first.
        DataError: all images together are too many to hold in memory.

    Example:
        >>> image_folder("no/such/folder")
        Traceback (most recent call last):
        privet.errors.FileFormatError: no/such/folder: found nothing there; expected a folder with a sub-folder \
of images for each class.
    """
    check_flag("grayscale", grayscale)
    sides = _sides(size)
    path = as_path("folder", folder)
    require_folder(path, _LAYOUT)
    classes = _class_folders(path)
    class_names = tuple(entry.name for entry in classes)
    check_class_names(class_names, str(path))
    files = [(file, label) for label, entry in enumerate(classes) for file in _image_files(entry)]
    pixels = _read_all([file for file, _ in files], sides, grayscale)
    with one_error(path, "images that fit into memory"):
        inputs = unit_floats(pixels).permute(0, 3, 1, 2).contiguous()  # (N, C, H, W)
    return Examples(inputs, torch.tensor([label for _, label in files]), class_names, f"the images in {path}")


def _sides(size: object) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = size if isinstance(size, tuple) else (size, size)
    if len(sides) != 2 or not all(is_whole(side, 1, _LONGEST_SIDE) for side in sides):
        raise ArgumentError("size", size, f"a side from 1 to {_LONGEST_SIDE:,} pixels, a pair (height, width), or None")
    return int(sides[0]), int(sides[1])


def _visible(folder: Path) -> list[Path]:
    with one_error(folder, _LAYOUT):
        return sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=lambda e: e.name)


def _class_folders(folder: Path) -> list[Path]:
    entries = _visible(folder)
    for entry in entries:
        require_folder(entry, f"only sub-folders in {folder}, one for each class", "Move the file elsewhere.")
    if not entries:
        raise FileFormatError(folder, "an empty folder", _LAYOUT)
    return entries


def _image_files(folder: Path) -> list[Path]:
    files = _visible(folder)
    if not files:
        raise FileFormatError(folder, "a class without images", "at least one image", "Remove the folder.")
    return files


def _read_all(files: list[Path], sides: tuple[int, int] | None, grayscale: bool) -> NDArray[np.uint8]:
    first = _read(files[0], sides, grayscale)  # (H, W, C)
    values = len(files) * math.prod(first.shape)
    if values > LARGEST:
        raise DataError(
            f"{files[0].parent.parent}: {len(files):,} images of shape {first.shape} are {values:,} values; "
            f"give at most {LARGEST:,}: pass a smaller size=, or fewer images."
        )
    pixels = np.empty((len(files), *first.shape), dtype=np.uint8)  # (N, H, W, C)
    pixels[0] = first
    for index, file in enumerate(files[1:], start=1):
        image = _read(file, sides, grayscale)
        if image.shape != first.shape:
            raise FileFormatError(
                file,
                f"an image of {image.shape[1]} x {image.shape[0]} pixels",
                f"{first.shape[1]} x {first.shape[0]}, as {files[0]}",
                "Pass size= to resize all images to one size.",
            )
        pixels[index] = image
    return pixels


def _read(path: Path, sides: tuple[int, int] | None, grayscale: bool) -> NDArray[np.uint8]:
    from PIL import Image  # here, because most who import this room read no images

    with open_regular(path, _AN_IMAGE) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow warns of is either refused below or of no matter to the pixels
        content = bytes(read_up_to(file, _MOST_BYTES + 1))
        if len(content) > _MOST_BYTES:
            raise FileFormatError(path, f"more than {_MOST_BYTES:,} bytes", _AN_IMAGE)
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _check(path, image)
            _check_depth(path, image.format, content)
            image.verify()  # the check sums of PNG, which decoding skips
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            image.load()
            return _pixels(image, sides, grayscale)


def _check(path: Path, image: Image.Image) -> None:
    width, height = image.size
    if width * height > _MOST_PIXELS:
        raise FileFormatError(path, f"an image of {width:,} x {height:,} pixels", f"at most {_MOST_PIXELS:,} pixels")
    if image.mode not in _MODES:
        raise FileFormatError(path, f"pixels of mode {image.mode}", "eight bits for each channel (as RGB or L)")
    # A camera's JPEG may carry a second picture (MPO), as a preview; the first is the photograph.
    if image.format != "MPO" and getattr(image, "n_frames", 1) != 1:
        raise FileFormatError(path, "several images in one file", "one image in each file")


def _check_depth(path: Path, form: str | None, content: bytes) -> None:
    """What Pillow would scale down to eight bits without a word, told from the bytes themselves."""
    if form == "PNG":
        bits = content[24]  # after the signature, length and name of the first chunk, width and height
        if bits > 8:
            raise FileFormatError(path, f"{bits} bits for each channel", "at most eight bits")
    if form == "PPM" and content[:2] not in (b"P1", b"P4"):  # these are black and white, and say no more
        words = re.sub(rb"#[^\r\n]*", b"", content[2:_LONGEST_HEADER]).split(maxsplit=3)
        largest = words[2] if len(words) > 3 else b"none"
        if not largest.isdigit() or int(largest) > 255:
            found = f"a largest value of {largest.decode('ascii', 'replace')[:20]}"
            raise FileFormatError(path, found, "at most 255, which is eight bits for each channel")


def _pixels(image: Image.Image, sides: tuple[int, int] | None, grayscale: bool) -> NDArray[np.uint8]:
    from PIL import Image

    mode = "L" if grayscale else "RGB"
    if image.mode == "P":
        image = image.convert("RGBA")  # a palette may hold transparent colours, which only this keeps apart
    converted = image.convert(mode)
    if sides is not None:
        converted = converted.resize((sides[1], sides[0]), Image.Resampling.BILINEAR)
    pixels = np.array(converted, dtype=np.uint8)
    return pixels[:, :, None] if grayscale else pixels  # (H, W, C)
