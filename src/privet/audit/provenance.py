"""What an audit was made from, so that it can be made again, and the records as pictures where they are some."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from privet.audit.subject import Subject
from privet.audit.terms import Terms

__all__ = ["images_of", "provenance_of", "weights_digest"]

_LARGEST_SIDE = 256


def images_of(inputs: Tensor) -> NDArray[np.float32] | None:
    """Inputs (P, C, H, W) of one or three channels with values in [0, 1], as an array; None for all others."""
    if inputs.ndim != 4 or inputs.shape[1] not in (1, 3) or max(inputs.shape[2:]) > _LARGEST_SIDE:
        return None
    if not inputs.is_floating_point() or float(inputs.min()) < 0.0 or float(inputs.max()) > 1.0:
        return None
    pictures: NDArray[np.float32] = inputs.detach().cpu().float().numpy()
    return pictures


def provenance_of(
    model: Any, subject: Subject, terms: Terms, *, shadows: int, how: str, seconds: float
) -> tuple[tuple[str, str], ...]:
    """Name and value of what made this audit, in reading order."""
    from privet import __version__

    pool = subject.pool
    told = [
        ("model", type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", "a function")),
        ("records", f"{pool.members:,} members, {pool.size - pool.members:,} non-members, {pool.classes} classes"),
        ("defense", subject.defense or "none"),
        ("let out", str(subject.form)),
        ("shadow models", f"{shadows} ({how})" if shadows and how else str(shadows)),
        ("confidence", f"{terms.confidence:g}, over all intervals together"),
        ("planted share", f"{terms.planted_share:g}"),
        ("seed", str(terms.seed)),
        ("took", f"{seconds:.0f} s"),
        ("made with", f"privet {__version__}, PyTorch {torch.__version__}, NumPy {np.__version__}"),
    ]
    if isinstance(model, nn.Module):
        told.insert(1, ("weights, sha256", weights_digest(model)))
    return tuple(told)


def weights_digest(model: nn.Module) -> str:
    """The sha256 of all parameters and buffers, by name, type, shape and bytes."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
