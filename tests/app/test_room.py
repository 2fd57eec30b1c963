"""Bytes in flight, of all requests together."""

from __future__ import annotations

import pytest

from app.context import Deadline, RequestContext
from app.errors import Overloaded
from app.room import Room


def test_what_is_taken_is_given_back_at_once() -> None:
    room, one, other = Room(100, lambda: 7), *(RequestContext(name, Deadline(0, 1)) for name in "ab")
    room.take(one, 30)
    room.take(one, 30)
    room.take(other, 40)
    assert (room.used, one.held, room.refusal(0)) == (100, 60, None)
    with pytest.raises(Overloaded) as full:
        room.take(other, 1)
    assert (full.value.limit, full.value.retry_after, str(room.refusal(1))) == (100, 7, str(full.value))
    room.give_back(one)
    room.give_back(one)
    assert (room.used, one.held, other.held) == (40, 0, 40)
