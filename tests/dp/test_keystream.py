"""The stream is AES-256 over counters that never come twice, and its key never leaves the process that made it."""

import copy
import io
import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from tests.dp.forked import forked

from privet.dp import keystream
from privet.dp.keystream import KeyStream, Span
from privet.errors import ArgumentError, PrivateTrainingError

KEY = bytes(range(32))
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def known() -> KeyStream:
    """A stream whose key the test knows."""
    return KeyStream(KEY, is_secret=False)


def counters(blocks: bytes) -> list[int]:
    """The counter values that these blocks were made of: AES is undone, without counter mode."""
    undo = Cipher(algorithms.AES(KEY), modes.ECB()).decryptor()
    plain = undo.update(blocks)
    return [int.from_bytes(plain[start : start + 16], "big") for start in range(0, len(plain), 16)]


def some(stream: KeyStream | Span, size: int = 32) -> bytes:
    buffer = np.zeros(size, np.uint8)
    stream.fill(buffer)
    return buffer.tobytes()


def test_aes_is_the_published_one() -> None:
    """NIST SP 800-38A, appendix F.1.5: the first block of ECB-AES256."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    plain, cipher = "6bc1bee22e409f96e93d7e117393172a", "f3eed1bdb5d2a03c064b5a7e3db181f8"
    made = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(bytes.fromhex(plain))
    assert made.hex() == cipher


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6))
def test_each_stretch_counts_on_from_its_own_number(sizes: list[int]) -> None:
    stream = known()
    for number, size in enumerate(sizes):
        assert counters(some(stream, 16 * size)) == [(number << 64) + block for block in range(size)]


@given(st.integers(0, 70), st.integers(0, 70))
def test_a_span_reads_on_where_it_stopped(first: int, second: int) -> None:
    [span], [whole] = known().spans(1), known().spans(1)
    assert some(span, first) + some(span, second) == some(whole, first + second)


def test_a_stretch_longer_than_the_block_of_zeros_is_one_stretch() -> None:
    size = (1 << 21) + 48
    assert counters(some(known(), size)) == list(range(size // 16))


def test_old_content_does_not_matter() -> None:
    full = np.full(64, 255, np.uint8)
    known().fill(full)
    assert full.tobytes() == some(known(), 64)


class Slow(int):
    """A number whose sums take a while: threads that do not wait for each other get the same."""

    def __add__(self, other: int) -> "Slow":
        time.sleep(0)
        return Slow(int(self) + other)


def test_no_counter_comes_twice_when_threads_share_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = known()
    monkeypatch.setattr(stream._keyed, "_next", Slow(0))  # a number that gives way to other threads while it is read
    start = threading.Barrier(4)

    def read(worker: int) -> bytes:
        start.wait()
        parts = [some(stream, 16 * (1 + (worker + turn) % 3)) for turn in range(200)]
        return b"".join(parts) + b"".join(some(span, 32) for _ in range(50) for span in stream.spans(3))

    with ThreadPoolExecutor(4) as pool:
        seen = [value for blocks in pool.map(read, range(4)) for value in counters(blocks)]
    assert len(seen) == len(set(seen)) > 4 * 500


def test_spans_hold_the_same_whatever_the_order_they_are_read_in() -> None:
    forwards, backwards = known().spans(5), known().spans(5)
    assert [some(span) for span in forwards] == [some(span) for span in reversed(backwards)][::-1]


def test_a_seeded_stream_is_set_by_all_three_of_its_arguments() -> None:
    arguments = [
        (1, "noise", 0),
        (2, "noise", 0),
        (1, "sample", 0),
        (1, "noise", 1),
        (1, 'noise", 1', 0),
        (12, "", 3),
        (1, "2", 3),
    ]
    assert len({some(KeyStream.seeded(*given)) for given in arguments}) == len(arguments)
    for given_ in arguments:
        assert some(KeyStream.seeded(*given_)) == some(KeyStream.seeded(*given_))
    assert some(KeyStream.seeded(1, "noise")) == some(KeyStream.seeded(1, "noise", 0))


def test_secret_streams_differ_and_say_that_they_are_secret() -> None:
    streams = [KeyStream.secret() for _ in range(3)]
    assert len({some(stream) for stream in streams}) == 3
    assert all(stream.secret is True for stream in streams)
    assert KeyStream.seeded(1, "noise").secret is False


def test_whether_a_stream_is_secret_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="cannot be changed"):
        KeyStream.seeded(1, "noise").secret = True  # type: ignore[assignment]


@pytest.mark.parametrize("stream", [KeyStream.secret(), KeyStream.seeded(1, "noise")], ids=["secret", "seeded"])
def test_a_stream_is_neither_saved_nor_copied(stream: KeyStream) -> None:
    with pytest.raises(PrivateTrainingError, match="neither saved nor copied"):
        copy.copy(stream)
    for save in (copy.deepcopy, ForkingPickler.dumps, lambda value: torch.save(value, io.BytesIO())):
        with pytest.raises(PrivateTrainingError, match="neither saved nor copied"):
            save({"inside": [stream]})


def test_nothing_that_is_shown_holds_the_key() -> None:
    stream = known()
    shown = f"{stream!r} {stream!s} {stream._keyed!r} {stream.spans(1)!r}"
    for part in (KEY.hex(), repr(KEY), "01020304", "x01"):
        assert part not in shown
    assert "NOT PRIVATE" in repr(stream)
    assert repr(KeyStream.secret()) == "KeyStream(secret)"


@needs_fork
def test_a_secret_stream_of_a_child_has_a_key_of_its_own() -> None:
    stream = KeyStream.secret()
    some(stream)

    def twice() -> bytes:
        return some(stream) + some(stream)

    children = [forked(twice) for _ in range(2)]
    parts = [said[start : start + 32] for said in (*children, twice()) for start in (0, 32)]
    assert len(set(parts)) == 6
    assert all(len(part) == 32 for part in parts)


@needs_fork
def test_a_child_of_a_child_with_the_old_process_number_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystream.os, "getpid", lambda: 7)
    stream = KeyStream.secret()
    assert forked(lambda: some(stream)) != some(stream)


def test_another_process_number_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, seeded = KeyStream.secret(), known()
    keyed = stream._keyed
    monkeypatch.setattr(keystream.os, "getpid", lambda: 7)
    some(stream)
    assert stream._keyed is not keyed
    with pytest.raises(PrivateTrainingError, match="forked"):
        some(seeded)


@needs_fork
def test_a_seeded_stream_and_a_span_refuse_to_go_on_in_a_child() -> None:
    stream = KeyStream.seeded(1, "noise")
    [span] = KeyStream.secret().spans(1)
    assert forked(lambda: some(stream)).startswith(b"PrivateTrainingError: A seeded key stream")
    assert forked(lambda: some(span)).startswith(b"PrivateTrainingError: A span")


@needs_fork
def test_a_fork_while_another_thread_holds_the_lock_does_not_hang() -> None:
    stream = KeyStream.secret()
    with stream._keyed._lock:
        assert len(forked(lambda: some(stream))) == 32


def _send(stream: KeyStream, pipe: Connection) -> None:
    pipe.send_bytes(some(stream))


@needs_fork
def test_forked_workers_of_multiprocessing_draw_bytes_of_their_own() -> None:
    stream = KeyStream.secret()
    context = multiprocessing.get_context("fork")
    said = [some(stream)]
    for _ in range(3):
        ours, theirs = context.Pipe()
        worker = context.Process(target=_send, args=(stream, theirs))
        worker.start()
        said.append(ours.recv_bytes())
        worker.join()
    assert len(set(said)) == 4


def test_arguments_of_another_kind_are_refused() -> None:
    for arguments in ((-1, "a"), (1.0, "a"), (True, "a"), (1, b"a"), (1, "a", -1), (1, "a", None)):
        with pytest.raises(ArgumentError):
            KeyStream.seeded(*arguments)  # type: ignore[arg-type]
    fixed = np.zeros(4, np.uint8)
    fixed.flags.writeable = False
    for buffer in (np.zeros((4, 4), np.uint8)[:, :2], np.zeros(8, np.uint8)[::2], fixed):
        with pytest.raises(ArgumentError, match="contiguous"):
            known().fill(buffer)


def test_buffers_of_any_shape_and_type_are_filled() -> None:
    for buffer in (np.zeros((3, 4), np.uint64), np.zeros((), np.float64), np.zeros(0, np.uint8)):
        known().fill(buffer)
        assert buffer.tobytes() == some(known(), buffer.nbytes)
