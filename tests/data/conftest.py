"""Tiny files in each public format, written from first principles."""

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def npz_bytes(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


class Tiny:
    """Valid files of five or so images, the pixels and labels in them, and how they are written."""

    def __init__(self) -> None:
        draw = np.random.default_rng(7)
        self.images = draw.integers(0, 256, (5, 28, 28), dtype=np.uint8)
        self.labels = np.array([3, 0, 9, 1, 1], dtype=np.uint8)
        self.colours = draw.integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)  # two a batch
        self.ten = np.array([3, 0, 9, 1, 1, 2, 8, 7, 6, 5], dtype=np.uint8)
        self.idx, self.png, self.npz = idx, png, npz_bytes

    def mnist(self, packed: bool = False) -> dict[str, bytes]:
        files = {"train-images-idx3-ubyte": idx(self.images), "train-labels-idx1-ubyte": idx(self.labels)}
        if packed:
            return {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in files.items()}
        return files

    def cifar10(self) -> dict[str, bytes]:
        records = [bytes([label]) + image.tobytes() for label, image in zip(self.ten, self.colours, strict=True)]
        files = {f"data_batch_{i + 1}.bin": records[2 * i] + records[2 * i + 1] for i in range(5)}
        files["batches.meta.txt"] = "".join(f"kind {i}\n" for i in range(10)).encode() + b"\n"
        return files

    def cifar100(self) -> dict[str, bytes]:
        records = [
            bytes([label, 99 - label]) + image.tobytes() for label, image in zip(self.ten, self.colours, strict=True)
        ]
        return {
            "train.bin": b"".join(records),
            "fine_label_names.txt": "".join(f"fine {i}\n" for i in range(100)).encode(),
            "coarse_label_names.txt": "".join(f"coarse {i}\n" for i in range(20)).encode(),
        }

    def folder(self) -> dict[str, bytes]:
        return {f"{name}/{i}.png": png(self.images[i]) for i, name in enumerate(["bee", "ant", "bee"])}

    def archive(self) -> dict[str, bytes]:
        names = np.array([f"kind {i}" for i in range(10)])
        return {"some.npz": npz_bytes(x=self.images, y=self.labels.astype(np.int64), class_names=names)}

    @staticmethod
    def write(folder: Path, files: dict[str, bytes]) -> Path:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    return Tiny()
