"""Norms and sums in full float32, whatever the model is run in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["full_precision"]


@contextmanager
def full_precision(device: str) -> Iterator[None]:
    """No autocast, and no products of float32 in TF32 or bfloat16: what bounds a norm's error counts on float32.

    A forward or backward pass may be rounded as it likes, since what comes of it depends on each example alone; but the
    gradient that is measured and the one that is added must be the same.
    """
    backends: Any = torch.backends
    owners = (backends.mkldnn.matmul, backends.mkldnn.conv)
    if device == "cuda":
        owners = (backends.cuda.matmul, backends.cudnn.conv)
    before = [owner.fp32_precision for owner in owners]
    with torch.autocast(device, enabled=False):
        try:
            for owner in owners:
                owner.fp32_precision = "ieee"
            yield
        finally:
            for owner, precision in zip(owners, before, strict=True):
                owner.fp32_precision = precision
