"""The processes that train one model together: what all of them know, and what the first alone does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from privet.errors import BudgetExceededError, LedgerError, PrivateTrainingError

__all__ = ["Alone", "Ranks", "Together", "ranks_here"]


class Ranks(Protocol):
    """Processes that take the same steps; each calls the same methods in the same order."""

    @property
    def rank(self) -> int:
        """Which of them this is, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    def of_first(self, compute: Callable[[], Any]) -> Any:
        """What ``compute`` gives in rank 0 (plain JSON data), in all of them; its error, too."""

    def all_well(self, error: BaseException | None) -> None:
        """Return where no rank has an error; the one that has raises it, the others say so."""

    def sum_(self, values: Tensor) -> None:
        """Replace ``values`` by the sum over the ranks, the same bits in each."""

    def same(self, what: str, value: str | bytes) -> None:
        """Refuse where the ranks do not have the same text or bytes."""

    def take_over(self, values: Tensor) -> None:
        """Replace ``values`` by those of rank 0."""


class Alone:
    """One process."""

    rank, size = 0, 1

    def of_first(self, compute: Callable[[], Any]) -> Any:  # noqa: D102
        return compute()

    def all_well(self, error: BaseException | None) -> None:  # noqa: D102
        if error is not None:
            raise error

    def sum_(self, values: Tensor) -> None:  # noqa: D102
        return

    def same(self, what: str, value: str | bytes) -> None:  # noqa: D102
        return

    def take_over(self, values: Tensor) -> None:  # noqa: D102
        return


_KNOWN = {kind.__name__: kind for kind in (BudgetExceededError, LedgerError, PrivateTrainingError)}


class Together:
    """The ranks of a process group of ``torch.distributed``, by gloo or nccl.

    Args:
        device: of the tensors that the backend moves.
        group: None for the group of all.
    """

    def __init__(self, device: torch.device, group: dist.ProcessGroup | None = None) -> None:
        """Begin; every rank does."""
        self._group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._first = dist.get_global_rank(group, 0) if group is not None else 0
        self._device = device if dist.get_backend(group) == "nccl" else torch.device("cpu")

    def of_first(self, compute: Callable[[], Any]) -> Any:  # noqa: D102
        error: Exception | None = None
        text = ""
        if self.rank == 0:
            try:
                text = json.dumps({"value": compute()})
            except Exception as found:
                error = found
                text = json.dumps({"error": [type(found).__name__, str(found)]})
        told = json.loads(self._broadcast(text))
        if error is not None:
            raise error
        if "error" in told:
            kind, message = told["error"]
            raise _KNOWN.get(kind, PrivateTrainingError)(f"rank 0: {message}")
        return told["value"]

    def all_well(self, error: BaseException | None) -> None:  # noqa: D102
        failed = torch.zeros(self.size, dtype=torch.int64, device=self._device)
        if error is not None:
            failed[self.rank] = 1
        try:
            self._run(lambda: dist.all_reduce(failed, group=self._group))
        except PrivateTrainingError as lost:
            raise error or lost from None
        if error is not None:
            raise error
        if bool(failed.any()):
            others = ", ".join(map(str, failed.nonzero().flatten().tolist()))
            raise PrivateTrainingError(
                f"rank {others} could not take this step, so none did; its own error says why. What was reserved for "
                "it stays on the ledger."
            )

    def sum_(self, values: Tensor) -> None:  # noqa: D102
        moved = values if self._device.type == "cpu" and values.device.type == "cpu" else values.to(self._device)
        self._run(lambda: dist.all_reduce(moved, group=self._group))
        if moved is not values:
            values.copy_(moved)

    def same(self, what: str, value: str | bytes) -> None:  # noqa: D102
        digest = hashlib.sha256(value.encode() if isinstance(value, str) else value).digest()
        mine = torch.frombuffer(bytearray(digest), dtype=torch.uint8).to(self._device)
        all_of_them = [torch.empty_like(mine) for _ in range(self.size)]
        self._run(lambda: dist.all_gather(all_of_them, mine, group=self._group))
        others = [rank for rank, one in enumerate(all_of_them) if not torch.equal(one, all_of_them[0])]
        if others:
            raise PrivateTrainingError(
                f"{what} of rank {', '.join(map(str, others))} is another than that of rank 0; all ranks have to be "
                "given the same."
            )

    def take_over(self, values: Tensor) -> None:  # noqa: D102
        moved = values.detach().to(self._device).contiguous()
        self._run(lambda: dist.broadcast(moved, self._first, group=self._group))
        with torch.no_grad():
            values.copy_(moved)

    def _broadcast(self, text: str) -> str:
        data = text.encode()
        length = torch.tensor([len(data)], dtype=torch.int64, device=self._device)
        self._run(lambda: dist.broadcast(length, self._first, group=self._group))
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == 0 and data:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        content = content.to(self._device)
        self._run(lambda: dist.broadcast(content, self._first, group=self._group))
        return bytes(content.cpu().numpy()).decode()

    def _run(self, talk: Callable[[], Any]) -> None:
        try:
            talk()
        except (RuntimeError, ValueError) as error:
            raise PrivateTrainingError(
                f"the other ranks cannot be reached: {str(error).partition(chr(10))[0]} One of them may have ended. "
                "What was reserved stays on the ledger; begin all of them anew from the last checkpoint."
            ) from error


def ranks_here(device: torch.device, group: dist.ProcessGroup | None = None) -> Ranks:
    """All ranks of the process group, where there is one of more than one rank; else this process alone."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size(group) == 1:
        return Alone()
    return Together(device, group)
