"""The errors privet raises, all in one tree.

::

    PrivetError
    ├── ArgumentError (ValueError)            an argument is outside what is allowed
    ├── DataError (ValueError)                examples cannot be used as they are
    │   ├── FileFormatError                   a file is missing, truncated, corrupt or of another format
    │   └── LabelError                        labels are not integers in 0 ... classes - 1
    ├── FileWriteError                        a file cannot be written
    ├── CheckpointError                       a checkpoint is unreadable or belongs to another run
    ├── DivergedError                         training reached NaN or infinity
    ├── DefenseError                          an output defense cannot do what was asked
    │   ├── TrainingRefusedError              a defended network cannot be trained
    │   └── NonFiniteOutputError              the network answered NaN or infinity
    ├── AccountingError                       no accountant can answer what was asked
    │   └── UnsupportedEventError             an event, or a field of one, of a kind that is not known
    ├── LedgerError                           a ledger cannot be used as it is
    │   ├── LedgerBusyError                   another process holds it
    │   ├── LedgerCorruptError                its records do not fit together
    │   └── LedgerMismatchError               it belongs to another plan, or is older than the checkpoint
    ├── BudgetExceededError                   the next step would overspend
    ├── PrivateTrainingError                  private training cannot go on, or would not be private
    │   └── UnsupportedLayerError             a layer whose per-example gradients are not known
    ├── SampleTooSmallError                   too few records for a statement that holds
    └── MissingExtraError (ImportError)       an optional part of privet is not installed

Every message says what was wrong, the value, what is allowed and what to do.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "AccountingError",
    "ArgumentError",
    "BudgetExceededError",
    "CheckpointError",
    "DataError",
    "DefenseError",
    "DivergedError",
    "FileFormatError",
    "FileWriteError",
    "LabelError",
    "LedgerBusyError",
    "LedgerCorruptError",
    "LedgerError",
    "LedgerMismatchError",
    "MissingExtraError",
    "NonFiniteOutputError",
    "PrivateTrainingError",
    "PrivetError",
    "SampleTooSmallError",
    "TrainingRefusedError",
    "UnsupportedEventError",
    "UnsupportedLayerError",
]


class PrivetError(Exception):
    """The root: ``except PrivetError`` catches whatever privet refuses."""


class ArgumentError(PrivetError, ValueError):
    """An argument is outside what is allowed.

    Args:
        name: the argument, as the caller wrote it.
        value: what was given.
        allowed: what would have been accepted.
        remedy: what to do, where it does not follow from ``allowed``.

    Example:
        >>> raise ArgumentError("decimals", -1, "an integer from 0 to 15")
        Traceback (most recent call last):
        privet.errors.ArgumentError: decimals = -1 is not allowed; give an integer from 0 to 15.
    """

    def __init__(self, name: str, value: object, allowed: str, remedy: str = "") -> None:
        super().__init__(name, value, allowed, remedy)
        self.name, self.value, self.allowed, self.remedy = name, value, allowed, remedy

    def __str__(self) -> str:
        shown = repr(self.value)
        if len(shown) > 200:
            shown = shown[:197] + "..."
        return f"{self.name} = {shown} is not allowed; give {self.allowed}.{_then(self.remedy)}"


class DataError(PrivetError, ValueError):
    """Examples cannot be used as they are."""


class FileFormatError(DataError):
    """A file is missing, truncated, corrupt or of another format.

    Args:
        path: the file.
        found: what is there.
        expected: what should be there.
        remedy: what to do, where it does not follow from ``expected``.

    Example:
        >>> raise FileFormatError("a.gz", "1,000 bytes", "47,040,016 bytes (60,000 images of 28 x 28)")
        Traceback (most recent call last):
        privet.errors.FileFormatError: a.gz: found 1,000 bytes; expected 47,040,016 bytes (60,000 images of 28 x 28).
    """

    def __init__(self, path: str | Path, found: str, expected: str, remedy: str = "") -> None:
        super().__init__(path, found, expected, remedy)
        self.path, self.found, self.expected, self.remedy = path, found, expected, remedy

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}; expected {self.expected}.{_then(self.remedy)}"


class LabelError(DataError):
    """Labels are not integers in 0 ... classes - 1."""


class FileWriteError(PrivetError):
    """A file cannot be written: no such folder, no right to it, no space.

    Args:
        path: the file.
        problem: what the system said.
        remains: what stands at ``path`` now.

    Example:
        >>> raise FileWriteError("a.html", "No space left on device")
        Traceback (most recent call last):
        privet.errors.FileWriteError: a.html cannot be written: No space left on device; what was there before \
is untouched. Give a file that can be written, in a folder with space.
    """

    def __init__(self, path: str | Path, problem: str, remains: str = "what was there before is untouched") -> None:
        super().__init__(path, problem, remains)
        self.path, self.problem, self.remains = path, problem, remains

    def __str__(self) -> str:
        remedy = "Give a file that can be written, in a folder with space."
        return f"{self.path} cannot be written: {self.problem}; {self.remains}. {remedy}"


class CheckpointError(PrivetError):
    """A checkpoint is unreadable or belongs to another run."""


class DivergedError(PrivetError):
    """Training reached NaN or infinity."""


class DefenseError(PrivetError):
    """An output defense cannot do what was asked."""


class TrainingRefusedError(DefenseError):
    """A defended network cannot be trained; its origin network can."""


class NonFiniteOutputError(DefenseError):
    """The network answered NaN or infinity, which no defense may pass on."""


class AccountingError(PrivetError):
    """No accountant can answer what was asked."""


class UnsupportedEventError(AccountingError):
    """An event, or a field of one, of a kind that is not known."""


class LedgerError(PrivetError):
    """A ledger cannot be used as it is; nothing was written and nothing is lost."""


class LedgerBusyError(LedgerError):
    """Another process holds the ledger."""


class LedgerCorruptError(LedgerError):
    """The records of a ledger do not fit together."""


class LedgerMismatchError(LedgerError):
    """A ledger belongs to another plan, or is older than the checkpoint that names it."""


class BudgetExceededError(PrivetError):
    """The next step would spend more than the budget."""


class PrivateTrainingError(PrivetError):
    """Private training cannot go on, or would not be private."""


class UnsupportedLayerError(PrivateTrainingError):
    """A layer, or a way a parameter is used, for which per-example gradients are not known; the model is as it was."""


class SampleTooSmallError(PrivetError):
    """There are too few records for a statement that holds."""


class MissingExtraError(PrivetError, ImportError):
    """An optional part of privet is not installed.

    Args:
        extra: the name of the extra, as in ``pip install 'privet[extra]'``.
        what: what needs it.

    Example:
        >>> raise MissingExtraError("demo", "the data set mnist5k")
        Traceback (most recent call last):
        privet.errors.MissingExtraError: the data set mnist5k needs an optional part: pip install 'privet[demo]'
    """

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(extra, what)
        self.extra, self.what = extra, what

    def __str__(self) -> str:
        return f"{self.what} needs an optional part: pip install 'privet[{self.extra}]'"


def _then(remedy: str) -> str:
    return f" {remedy}" if remedy else ""
