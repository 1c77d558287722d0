"""The processes that train one model together: what all of them know, and what the first alone does."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from privet.errors import (
    ArgumentError,
    BudgetExceededError,
    LedgerBusyError,
    LedgerCorruptError,
    LedgerError,
    LedgerMismatchError,
    PrivateTrainingError,
)

__all__ = ["Alone", "Ranks", "Together", "ranks_here"]

T = TypeVar("T")


class Ranks(Protocol):
    """Processes that take the same steps; each calls the same methods in the same order, with the same ``what``."""

    @property
    def rank(self) -> int:
        """Which of them this is, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    def of_first(self, what: str, compute: Callable[[], Any]) -> Any:
        """What ``compute`` gives in rank 0 (plain JSON data), in all of them; its error, too."""

    def all_well(self, what: str, error: BaseException | None) -> None:
        """Return where no rank has an error; the one that has raises it, the others say so."""

    def each(self, what: str, compute: Callable[[], T]) -> T:
        """What ``compute`` gives in this rank, once it went well in all of them."""

    def sum_(self, values: Tensor) -> None:
        """Replace ``values`` by the sum over the ranks, the same bits in each."""

    def others(self, what: str, value: str | bytes) -> list[int]:
        """The ranks that do not have the same text or bytes as rank 0."""

    def same(self, what: str, value: str | bytes, wanted: str = "") -> None:
        """Refuse where the ranks do not have the same text or bytes; ``wanted`` says what to give."""

    def take_over(self, values: Tensor) -> None:
        """Replace ``values`` by those of rank 0."""

    def close(self) -> None:
        """Let go of the connections; nothing is said after it."""


class Alone:
    """One process."""

    rank, size = 0, 1

    def of_first(self, what: str, compute: Callable[[], Any]) -> Any:  # noqa: D102
        return compute()

    def all_well(self, what: str, error: BaseException | None) -> None:  # noqa: D102
        if error is not None:
            raise error

    def each(self, what: str, compute: Callable[[], T]) -> T:  # noqa: D102
        return compute()

    def sum_(self, values: Tensor) -> None:  # noqa: D102
        return

    def others(self, what: str, value: str | bytes) -> list[int]:  # noqa: D102
        return []

    def same(self, what: str, value: str | bytes, wanted: str = "") -> None:  # noqa: D102
        return

    def take_over(self, values: Tensor) -> None:  # noqa: D102
        return

    def close(self) -> None:  # noqa: D102
        return


_KNOWN: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        BudgetExceededError,
        LedgerBusyError,
        LedgerCorruptError,
        LedgerError,
        LedgerMismatchError,
        PrivateTrainingError,
    )
}
_DIGEST = hashlib.sha256().digest_size


class Together:
    """The ranks of a process group of ``torch.distributed``, by gloo or nccl.

    They talk by connections of their own, so that nothing the user sends can be taken for a word of theirs; and before
    each word they tell each other what it is about, so that ranks at different places of a training are refused.

    Args:
        device: of the tensors that the backend moves.
        group: of the user's.

    Raises:
        PrivateTrainingError: the others cannot be reached.
    """

    def __init__(self, device: torch.device, group: dist.ProcessGroup) -> None:
        """Begin; every rank does."""
        by_nccl = dist.get_backend(group) == "nccl"
        self._device = device if by_nccl else torch.device("cpu")
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._talk: Any = None
        self._run(lambda: self._connect(group, by_nccl))

    def _connect(self, group: dist.ProcessGroup, by_nccl: bool) -> None:
        """Meet at a name that rank 0 made up.

        ``new_group`` would do, but for the names that PyTorch gives: processes that are in other numbers of groups
        would not meet, and one that was taken down could not be had again.
        """
        name = torch.frombuffer(bytearray(os.urandom(16)), dtype=torch.uint8).to(self._device)
        dist.broadcast(name, dist.get_process_group_ranks(group)[0], group=group)
        store = dist.distributed_c10d.PrefixStore(
            f"privet/{bytes(name.cpu().numpy()).hex()}", dist.distributed_c10d._get_default_store()
        )
        timeout = _timeout(self._device, group)
        if by_nccl:
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = timeout
            self._talk = dist.ProcessGroupNCCL(store, self.rank, self.size, options)
        else:
            self._talk = dist.ProcessGroupGloo(store, self.rank, self.size, timeout=timeout)

    def of_first(self, what: str, compute: Callable[[], Any]) -> Any:  # noqa: D102
        error: BaseException | None = None
        text = ""
        if self.rank == 0:
            try:
                text = json.dumps(compute())
            except BaseException as found:
                error = found
                text = json.dumps([type(found).__name__, str(found)])
        try:
            failed = any(self._met(what, error)[0])
            told = json.loads(self._broadcast(text))
            if error is not None:
                raise error
        finally:
            error = None
        if failed:
            kind, message = told
            raise _KNOWN.get(kind, PrivateTrainingError)(f"rank 0: {message or kind}")
        return told

    def all_well(self, what: str, error: BaseException | None) -> None:  # noqa: D102
        failed, _ = self._met(what, error)
        if error is not None:
            raise error
        if any(failed):
            others = ", ".join(str(rank) for rank, one in enumerate(failed) if one)
            raise PrivateTrainingError(
                f"rank {others} could not take part in {what}, so none did; its own error says why. What was reserved "
                "on the ledger stays there."
            )

    def each(self, what: str, compute: Callable[[], T]) -> T:  # noqa: D102
        error: BaseException | None = None
        try:
            found = compute()
        except BaseException as raised:
            error = raised
        try:
            self.all_well(what, error)
        finally:
            error = None  # it holds this frame, and the frames below it what they had in memory
        return found

    def sum_(self, values: Tensor) -> None:  # noqa: D102
        moved = values.to(self._device)
        self._run(lambda: self._talk.allreduce(moved).wait())
        if moved is not values:
            values.copy_(moved)

    def others(self, what: str, value: str | bytes) -> list[int]:  # noqa: D102
        _, digests = self._meet(what, False, value.encode() if isinstance(value, str) else value)
        return [rank for rank, one in enumerate(digests) if one != digests[0]]

    def same(self, what: str, value: str | bytes, wanted: str = "") -> None:  # noqa: D102
        others = self.others(what, value)
        if others:
            raise PrivateTrainingError(
                f"{what} of rank {', '.join(map(str, others))} is another than that of rank 0; all ranks have to be "
                f"given the same{wanted and ' '}{wanted}."
            )

    def take_over(self, values: Tensor) -> None:  # noqa: D102
        raw = values.detach().contiguous().reshape(-1).view(torch.uint8)  # whatever the type, as bytes
        moved = raw.to(self._device)
        self._run(lambda: self._talk.broadcast(moved, 0).wait())
        with torch.no_grad():
            values.copy_(moved.to(raw.device).view(values.dtype).view(values.shape))

    def close(self) -> None:  # noqa: D102
        self._talk = None  # what is left to the interpreter's end may end badly

    def _met(self, what: str, error: BaseException | None) -> tuple[list[bool], list[bytes]]:
        """:meth:`_meet`, where an error of this rank's own goes before that of a meeting that failed."""
        try:
            return self._meet(what, error is not None)
        except PrivateTrainingError as lost:
            raise error or lost from None

    def _meet(self, what: str, failed: bool, value: bytes = b"") -> tuple[list[bool], list[bytes]]:
        """Tell all ranks what this one is about to do; who failed, and the digests of what each has.

        Raises:
            PrivateTrainingError: another rank is about to do something else; or this one is closed.
        """
        if self._talk is None:
            raise PrivateTrainingError("this training was closed; begin another by make_private.")
        place = hashlib.sha256(what.encode()).digest()
        word = bytes([failed]) + place + hashlib.sha256(value).digest()
        mine = torch.frombuffer(bytearray(word), dtype=torch.uint8).to(self._device)
        gathered = [torch.empty_like(mine) for _ in range(self.size)]
        self._run(lambda: self._talk.allgather(gathered, mine).wait())
        words = [bytes(one.cpu().numpy()) for one in gathered]
        others = [str(rank) for rank, one in enumerate(words) if one[1 : 1 + _DIGEST] != place]
        if others:
            raise PrivateTrainingError(
                f"this rank ({self.rank}) is at {what}, and rank {', '.join(others)} at another place of the training: "
                "each has to make the same calls in the same order, and to leave a loop where the others do."
            )
        return [bool(one[0]) for one in words], [one[1 + _DIGEST :] for one in words]

    def _broadcast(self, text: str) -> str:
        data = text.encode()
        length = torch.tensor([len(data)], dtype=torch.int64, device=self._device)
        self._run(lambda: self._talk.broadcast(length, 0).wait())
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == 0 and data:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        content = content.to(self._device)
        self._run(lambda: self._talk.broadcast(content, 0).wait())
        return bytes(content.cpu().numpy()).decode()

    def _run(self, talk: Callable[[], Any]) -> None:
        try:
            talk()
        except (RuntimeError, ValueError) as error:
            said = str(error).partition("\n")[0].partition(" This is typically")[0].rstrip(". ")
            said = said.rpartition(".cc:")[2].partition("] ")[2] or said  # where in PyTorch's sources helps nobody
            raise PrivateTrainingError(
                "the other ranks cannot be reached. One of them may have ended, or failed, or left the loop earlier, "
                "or never called make_private; or this one waited longer for it than "
                "init_process_group(timeout=...) says. What was reserved stays on the ledger; begin all of them anew "
                f"from the last checkpoint. ({said})"
            ) from error


def _timeout(device: torch.device, group: Any) -> timedelta:
    """How long ranks of the user's group wait for each other."""
    try:
        found: timedelta = group._get_backend(device).options._timeout
    except (AttributeError, RuntimeError):  # there is no public way to ask
        return dist.distributed_c10d.default_pg_timeout
    return found


def ranks_here(device: torch.device, group: object = None) -> Ranks:
    """All ranks of the process group, where there is one of more than one rank; else this process alone.

    Raises:
        ArgumentError: this is no process group.
        PrivateTrainingError: this process is not in the group; or torchrun started several processes, and they have no
            group; or the others cannot be reached.
    """
    if not dist.is_available() or not dist.is_initialized():
        if group is None and os.environ.get("TORCHELASTIC_RUN_ID") and os.environ.get("WORLD_SIZE", "1") != "1":
            raise PrivateTrainingError(
                f"torchrun started {os.environ['WORLD_SIZE']} processes, and each would train a model by itself: call "
                "torch.distributed.init_process_group before make_private. (To have as many models with a ledger "
                "each, give each a process_group of its own rank alone.)"
            )
        return Alone()
    given: Any = dist.group.WORLD if group is None else group
    is_group = isinstance(given, dist.ProcessGroup)
    if given is dist.GroupMember.NON_GROUP_MEMBER or (is_group and dist.get_rank(given) < 0):
        raise PrivateTrainingError("this process is not in process_group; only its ranks train together.")
    if not is_group:
        raise ArgumentError(
            "process_group",
            type(given).__name__,
            "a ProcessGroup of torch.distributed",
            "Of a device mesh give mesh.get_group().",
        )
    return Alone() if dist.get_world_size(given) == 1 else Together(device, given)
