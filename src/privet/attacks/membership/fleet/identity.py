"""What makes two fleets the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from privet import __version__
from privet.attacks.membership.fleet.digest import digest
from privet.attacks.membership.fleet.shadow import Question, TrainFn
from privet.attacks.membership.fleet.signal_row import signal_row
from privet.attacks.membership.fleet.store import LAYOUT
from privet.errors import ArgumentError

__all__ = ["identity_of"]


def identity_of(train_fn: TrainFn, question: Question, seed: int, version: str) -> dict[str, Any]:
    """All that a row is computed from, as plain values; two fleets that differ in any of them share no row.

    Args:
        train_fn: the training, told by its code and values; where it cannot be, by ``version``.
        question: the pool and what is asked about it.
        seed: of the fleet.
        version: of the training, by the user's word; empty: none.

    Raises:
        ArgumentError: something cannot be told, and there is no version.
    """
    pool = question.pool
    return {
        "layout": LAYOUT,
        "privet": __version__,
        "torch": torch.__version__,
        "asking": digest(signal_row),  # what this library computes may change between two of its versions
        "pool": digest((pool.inputs, pool.labels, pool.members, pool.classes)),
        "train_fn": _digest_or_version("train_fn", train_fn, version),
        "defend": _digest_or_version("defend", question.defend, version),
        "queries": _digest_or_version("queries", question.queries, version),
        "form": dataclasses.asdict(question.form),
        "undefended": None if question.undefended is None else dataclasses.asdict(question.undefended),
        "seed": seed,
        "version": version,
    }


def _digest_or_version(name: str, value: Any, version: str) -> str:
    try:
        return digest(value, name)
    except ArgumentError:
        if version:
            return ""
        raise
