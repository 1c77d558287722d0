"""The processes that train one model together: what all of them know, and what the first alone does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar, Protocol, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor

from privet.errors import (
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

    def same(self, what: str, value: str | bytes) -> None:
        """Refuse where the ranks do not have the same text or bytes."""

    def take_over(self, values: Tensor) -> None:
        """Replace ``values`` by those of rank 0."""


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

    def same(self, what: str, value: str | bytes) -> None:  # noqa: D102
        return

    def take_over(self, values: Tensor) -> None:  # noqa: D102
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

    They talk in a group of their own, so that nothing the user sends can be taken for a word of theirs; and before each
    word they tell each other what it is about, so that ranks at different places of a training are refused.

    Args:
        device: of the tensors that the backend moves.
        group: None for the group of all.

    Raises:
        PrivateTrainingError: this process is not in the group.
    """

    def __init__(self, device: torch.device, group: dist.ProcessGroup | None = None) -> None:
        """Begin; every rank does."""
        if dist.get_rank(group) < 0:
            raise PrivateTrainingError("this process is not in process_group; only its ranks train together.")
        self._device = device if dist.get_backend(group) == "nccl" else torch.device("cpu")
        self._talk = _Talk.of(self._device, dist.group.WORLD if group is None else group)
        self._talk.trainings += 1
        self._training = self._talk.trainings  # the same in all ranks, as each begins the same trainings
        self.rank, self.size = dist.get_rank(group), len(self._talk.members)
        self._first = self._talk.members[0]

    def of_first(self, what: str, compute: Callable[[], Any]) -> Any:  # noqa: D102
        error: BaseException | None = None
        text = ""
        if self.rank == 0:
            try:
                text = json.dumps(compute())
            except BaseException as found:
                error = found
                text = json.dumps([type(found).__name__, str(found)])
        failed = any(self._meet(what, error is not None)[0])
        told = json.loads(self._broadcast(text))
        if error is not None:
            raise error
        if failed:
            kind, message = told
            raise _KNOWN.get(kind, PrivateTrainingError)(f"rank 0: {message or kind}")
        return told

    def all_well(self, what: str, error: BaseException | None) -> None:  # noqa: D102
        try:
            failed, _ = self._meet(what, error is not None)
        except PrivateTrainingError as lost:
            raise error or lost from None
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
        self._run(lambda: dist.all_reduce(moved, group=self._talk.group))
        if moved is not values:
            values.copy_(moved)

    def same(self, what: str, value: str | bytes) -> None:  # noqa: D102
        _, digests = self._meet(what, False, value.encode() if isinstance(value, str) else value)
        others = [str(rank) for rank, one in enumerate(digests) if one != digests[0]]
        if others:
            raise PrivateTrainingError(
                f"{what} of rank {', '.join(others)} is another than that of rank 0; all ranks have to be given the "
                "same."
            )

    def take_over(self, values: Tensor) -> None:  # noqa: D102
        raw = values.detach().contiguous().reshape(-1).view(torch.uint8)  # whatever the type, as bytes
        moved = raw.to(self._device)
        self._run(lambda: dist.broadcast(moved, self._first, group=self._talk.group))
        with torch.no_grad():
            values.copy_(moved.to(raw.device).view(values.dtype).view(values.shape))

    def _meet(self, what: str, failed: bool, value: bytes = b"") -> tuple[list[bool], list[bytes]]:
        """Tell all ranks what this one is about to do; who failed, and the digests of what each has.

        Raises:
            PrivateTrainingError: another rank is about to do something else.
        """
        place = hashlib.sha256(f"{self._training} {what}".encode()).digest()
        word = bytes([failed]) + place + hashlib.sha256(value).digest()
        mine = torch.frombuffer(bytearray(word), dtype=torch.uint8).to(self._device)
        gathered = [torch.empty_like(mine) for _ in range(self.size)]
        self._run(lambda: dist.all_gather(gathered, mine, group=self._talk.group))
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
        self._run(lambda: dist.broadcast(length, self._first, group=self._talk.group))
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == 0 and data:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        content = content.to(self._device)
        self._run(lambda: dist.broadcast(content, self._first, group=self._talk.group))
        return bytes(content.cpu().numpy()).decode()

    def _run(self, talk: Callable[[], Any]) -> None:
        try:
            talk()
        except (RuntimeError, ValueError) as error:  # the latter of a group that was taken down
            self._talk.forget()
            raise PrivateTrainingError(
                f"the other ranks cannot be reached: {str(error).partition(chr(10))[0]} One of them may have ended. "
                "What was reserved stays on the ledger; begin all of them anew from the last checkpoint."
            ) from error


class _Talk:
    """The group that the trainings of a group of the user's talk in, one after another.

    It is never taken down, since PyTorch would give its name to the next one, and refuse that; and it holds sockets, so
    that there is but one.

    Attributes:
        members: their ranks among all processes.
        group: they talk in.
        trainings: how many were begun.
    """

    _known: ClassVar[WeakKeyDictionary[Any, _Talk]] = WeakKeyDictionary()

    def __init__(self, device: torch.device, group: Any) -> None:
        self.members = dist.get_process_group_ranks(group)
        self.group: Any = dist.new_group(
            self.members,
            timeout=_timeout(device, group),
            backend=dist.get_backend(group),
            use_local_synchronization=True,
        )
        self.trainings = 0

    @classmethod
    def of(cls, device: torch.device, group: Any) -> _Talk:
        if group not in cls._known:
            cls._known[group] = cls(device, group)
        return cls._known[group]

    def forget(self) -> None:
        """What comes next is said in a new group: a word may still be under way in this one."""
        for group in [group for group, talk in self._known.items() if talk is self]:
            del self._known[group]


def _timeout(device: torch.device, group: Any) -> timedelta | None:
    """How long ranks of the user's group wait for each other; None for the backend's default."""
    try:
        found: timedelta = group._get_backend(device).options._timeout
    except (AttributeError, RuntimeError):  # there is no public way to ask
        return None
    return found


def ranks_here(device: torch.device, group: dist.ProcessGroup | None = None) -> Ranks:
    """All ranks of the process group, where there is one of more than one rank; else this process alone."""
    if not dist.is_available() or not dist.is_initialized():
        return Alone()
    if group is None and dist.get_world_size() == 1:
        return Alone()
    return Alone() if dist.get_rank(group) == 0 and dist.get_world_size(group) == 1 else Together(device, group)
