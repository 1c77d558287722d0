"""Laws of writing a file: the old one or the new one, whole, with the rights it should have."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from privet.atomic_file import check_destination, remove_leftovers, replacing
from privet.errors import ArgumentError, FileWriteError


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def fail(path: Path, error: BaseException) -> None:
    with replacing(path) as file:
        file.write(b"half")
        raise error


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nothing_is_seen_before_the_end_and_everything_after(tmp_path: Path) -> None:
    write(tmp_path / "a", b"old")
    with replacing(tmp_path / "a") as file:
        file.write(b"new")
        file.flush()
        assert (tmp_path / "a").read_bytes() == b"old"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [OSError("full"), ValueError("wrong"), KeyboardInterrupt()])
def test_an_error_inside_leaves_the_old_file_and_no_other(tmp_path: Path, error: BaseException) -> None:
    write(tmp_path / "a", b"old")
    expected = FileWriteError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as caught:
        fail(tmp_path / "a", error)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]
    if expected is FileWriteError:
        assert f"{tmp_path}/a cannot be written: full; what was there before is untouched" in str(caught.value)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("before", "after"), [(None, 0o640), (0o600, 0o600), (0o666, 0o640), (0o755, 0o640)])
def test_rights_are_those_of_the_umask_and_never_more_than_before(
    tmp_path: Path, before: int | None, after: int
) -> None:
    if before is not None:
        (tmp_path / "a").touch()
        (tmp_path / "a").chmod(before)
    write(tmp_path / "a", b"new")
    assert rights(tmp_path / "a") == after


def test_the_umask_of_the_process_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment it would hold for every other thread too."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("umask was set"))
    write(tmp_path / "a", b"new")


def test_the_content_and_its_name_are_forced_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bytes | None]] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        real(handle)
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        seen.append((folder, (tmp_path / "a").read_bytes() if (tmp_path / "a").exists() else None))

    monkeypatch.setattr(os, "fsync", fsync)
    write(tmp_path / "a", b"new")
    assert seen == [(False, None), (True, b"new")]


def test_a_folder_that_is_not_confirmed_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(5, "Input/output error")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(FileWriteError, match="the new content is there"):
        write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["none/a", "file/a", "folder", "x" * 300, "null\0byte", "pipe"])
def test_what_cannot_be_written_is_one_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = names(tmp_path)
    with pytest.raises(FileWriteError) as caught:
        write(tmp_path / name, b"new")
    assert str(tmp_path / name) in str(caught.value)
    assert names(tmp_path) == before
    if len(name) < 300:
        with pytest.raises(ArgumentError, match=r"target = .* a file in a folder that exists"):
            check_destination("target", tmp_path / name)


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").read_bytes() == b"new"
    assert check_destination("path", tmp_path / "link") == tmp_path / "real" / "a"


def test_a_folder_is_made_when_asked_for(tmp_path: Path) -> None:
    with replacing(tmp_path / "one" / "two" / "a", make_folder=True) as file:
        file.write(b"new")
    assert (tmp_path / "one" / "two" / "a").read_bytes() == b"new"
    with pytest.raises(FileWriteError), replacing(tmp_path / "one" / "two" / "a" / "b", make_folder=True):
        pass


def test_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    contents = [bytes([number]) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=write, args=(tmp_path / "a", content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_bytes() in contents
    assert names(tmp_path) == ["a"]


def test_leftovers_of_this_file_are_removed_and_nothing_else(tmp_path: Path) -> None:
    others = (".b.0123456789abcdef.tmp", ".a.mine.tmp", "a")
    for name in (".a.0123456789abcdef.tmp", *others):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "a")
    assert names(tmp_path) == sorted(others)
    with pytest.raises(FileWriteError):
        remove_leftovers(tmp_path / "none" / "a")
