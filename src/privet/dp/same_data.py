"""Whether a number stands for the same record in all ranks."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch

from privet.dp.batches import DataSource, digests_of
from privet.dp.collating import untouched_generators
from privet.dp.ranks import Ranks
from privet.errors import PrivateTrainingError

__all__ = ["refuse_other_data"]

_LOOKED_AT = 1_024  # records, at random
_PIECE = 32  # of them at a time
_TOLD_APART = 0.9  # of them by what is the same each time


def refuse_other_data(ranks: Ranks, make: Callable[[], DataSource], device: torch.device) -> None:
    """Refuse data that are others, or in another order, in some rank: a record could be in two shares at once.

    Args:
        ranks: of which each calls this.
        make: a source that reads in this process, whose generators are set alike in all ranks.
        device: whose generator is left as it is, too.

    Raises:
        PrivateTrainingError: they differ among the records looked at, or cannot be compared.
    """
    if ranks.size == 1:
        return
    source = ranks.each("the reading of the data", make)
    positions = ranks.of_first(
        "the records to look at",
        lambda: sorted(random.SystemRandom().sample(range(source.size), min(source.size, _LOOKED_AT))),
    )
    ranks.same(
        "the data set",
        ranks.each("the comparison of the data", lambda: _stable(source, positions, device)),
        "records in the same order, and all of them: each rank takes its share of a sample by itself",
    )


def _stable(source: DataSource, positions: list[int], device: torch.device) -> bytes:
    """What of the records is the same each time they are read: augmentation may have a generator of its own."""
    with untouched_generators(device):
        first, again = (_read(source, positions) for _ in range(2))
        if first == again:
            return b"".join(first)
        one_by_one = [_read(source, positions, piece=1) for _ in range(2)]
    leaves = len(one_by_one[0]) // len(positions)
    stable = [one if one == other else b"" for one, other in zip(*one_by_one, strict=True)]
    records = {b"".join(stable[start : start + leaves]) for start in range(0, len(stable), leaves)}
    if len(records) < _TOLD_APART * len(positions):
        raise PrivateTrainingError(
            "parts of a record are others each time it is read (drawn by a generator of the data set's own?), and what "
            "stays the same tells few records apart, so that ranks cannot see whether a number stands for one record "
            "in all of them. Draw from torch's global generator, or let a part be the record's own number."
        )
    return b"".join(stable)


def _read(source: DataSource, positions: list[int], piece: int = _PIECE) -> list[bytes]:
    """Digests of some records, with the global generators as they are in every rank: augmentation draws alike."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # a data set may draw from it
    batch = source.batch(torch.tensor(positions, dtype=torch.int64))
    return [digest for data, _ in batch.parts(piece) for digest in digests_of(data)]
