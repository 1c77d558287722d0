"""One model's signals about every record: the same code for the shadows and for the target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from privet.attacks.membership.answers import scaled_confidence
from privet.attacks.membership.fleet.queries import ONE_QUERY, Queries
from privet.attacks.membership.pool import Pool
from privet.attacks.target import Target
from privet.checkpoints import device_of
from privet.errors import DataError
from privet.output_form import OutputForm

__all__ = ["answering", "signal_row"]

_EVERYTHING = OutputForm()
_RECORDS_AT_ONCE = 1_024  # answers (P, C) of many classes are never held together


def signal_row(
    query: Callable[[Tensor], Any], pool: Pool, form: OutputForm = _EVERYTHING, queries: Queries = ONE_QUERY
) -> NDArray[np.float32]:
    """Ask a model about every record of the pool, in each way.

    Args:
        query: maps inputs (N, ...) to an answer for each, as ``form`` says. A module is asked in evaluation mode, which
            is put back, and where its parameters are.
        pool: the P records.
        form: what is let out of the model's answer.
        queries: the Q ways to ask about each record.

    Returns:
        (P, Q): the confidence in the record's own label as log-odds (see
        :func:`~privet.attacks.membership.scaled_confidence`); behind labels alone 1.0 where the label is right, else
        0.0.

    Raises:
        ArgumentError: if the form shows more classes than there are.
        DataError: if an answer is not what the form says, or a signal is no finite number.

    Example:
        >>> import torch
        >>> pool = Pool.of((torch.eye(2), torch.arange(2)), (-torch.eye(2), torch.arange(2)), classes=2)
        >>> signal_row(nn.Identity(), pool)[:, 0]
        array([ 1.,  1., -1., -1.], dtype=float32)
    """
    with answering(query) as ask:
        target = Target(ask, pool.classes, form, _RECORDS_AT_ONCE)
        row = np.empty((pool.size, len(queries)), dtype=np.float32)  # (P, Q)
        labels = pool.labels.numpy()
        for place, one in enumerate(queries):
            inputs = one.of(pool.inputs)
            for start in range(0, pool.size, _RECORDS_AT_ONCE):
                part = slice(start, start + _RECORDS_AT_ONCE)
                log_probabilities = target.ask(inputs[part]).numpy()  # (n, C)
                with np.errstate(over="ignore"):  # refused below
                    row[part, place] = _signals(log_probabilities, labels[part], form)
    wrong = ~np.isfinite(row).all(1)
    if wrong.any():
        raise DataError(
            f"the answer about record {int(wrong.argmax())} gives no finite signal; leave such records out, "
            "or train so that answers stay finite."
        )
    return row


@contextmanager
def answering(query: Callable[[Tensor], Any]) -> Iterator[Callable[[Tensor], Any]]:
    """Hold a module in evaluation mode, and give it its inputs where its parameters are.

    Args:
        query: a module, or anything else that is called, which is left as it is.

    Yields:
        What to call.
    """
    if not isinstance(query, nn.Module):
        yield query
        return
    origin = getattr(query, "origin_network", None)  # a defense holds the network's parts, and is none of them
    modules = {*query.modules(), *(origin().modules() if callable(origin) else ())}
    modes = [(module, module.training) for module in modules]
    device = device_of(query)
    try:
        if any(training for _, training in modes):
            query.eval()
        yield query if device.type == "cpu" else lambda inputs: query(inputs.to(device))
    finally:
        for module, training in modes:
            module.training = training


def _signals(
    log_probabilities: NDArray[np.float64], labels: NDArray[np.int64], form: OutputForm
) -> NDArray[np.float64]:
    if form.labels_only:
        return np.asarray(log_probabilities.argmax(1) == labels, dtype=np.float64)
    signals: NDArray[np.float64] = scaled_confidence(log_probabilities, labels, form)
    return signals
