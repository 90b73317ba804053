"""Room and turns that readers and joiners share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from forcelift.jobs.shares import Room, Shares


@contextmanager
def asking(room: Room, wanted: int) -> Iterator[threading.Event]:
    """Another thread that asks for room; the event tells that it got it. It leaves when the block ends."""
    got, leave = threading.Event(), threading.Event()

    def ask() -> None:
        with room.of(wanted):
            got.set()
            leave.wait(60)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield got
    finally:
        leave.set()
        thread.join(60)
        assert not thread.is_alive()


def test_who_does_not_fit_waits_until_there_is_room() -> None:
    room = Room(100)
    with room.of(60):
        with asking(room, 40) as fits:
            assert fits.wait(60)
        other = asking(room, 41)
        got = other.__enter__()
        assert not got.is_set()
    assert got.wait(60)
    other.__exit__(None, None, None)


def test_who_needs_more_than_there_is_has_it_alone() -> None:
    room = Room(100)
    with room.of(1_000):
        other = asking(room, 1)
        got = other.__enter__()
        assert not got.is_set()
    assert got.wait(60)
    other.__exit__(None, None, None)


def test_room_comes_back_after_an_error() -> None:
    room = Room(10)
    with pytest.raises(ValueError, match="inside"), room.of(10):
        raise ValueError("inside")
    with room.of(10), asking(Room(), 1 << 60) as unlimited:
        assert unlimited.wait(60)


def test_there_are_as_many_turns_as_were_given() -> None:
    turn = Shares.of(turns=2, room_bytes=1).turn
    assert isinstance(turn, threading.BoundedSemaphore)
    with turn, turn:
        assert not turn.acquire(blocking=False)
    assert turn.acquire(blocking=False)
