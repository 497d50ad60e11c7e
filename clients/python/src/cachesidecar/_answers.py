"""Answers as what a caller is given. An answer that cannot be read ends its connection."""

from __future__ import annotations

from typing import Any, List, Optional, Protocol, Set

from . import _calls, _wire
from ._hello import Welcome
from ._item import Item
from .errors import Malformed


class Greeted(Protocol):
    """A connection of either client, as far as an answer concerns it."""

    welcome: Welcome
    tokens: Set[bytes]

    def end(self, error: Exception) -> None: ...

    def post(self, end: _wire.Tail) -> None: ...

    def settled(self, token: bytes) -> None: ...


def decode(message: bytes, conn: Greeted) -> List[Any]:
    try:
        return _wire.decode(message[4:])
    except Malformed as e:
        conn.end(e)
        raise


def item(key: bytes, answer: List[Any], conn: Greeted) -> Optional[Item]:
    try:
        return _calls.item(key, answer)
    except Malformed as e:
        conn.end(e)
        raise


def touched_item(key: bytes, answer: List[Any], conn: Greeted) -> Optional[Item]:
    try:
        return _calls.touched_item(key, answer)
    except Malformed as e:
        conn.end(e)
        raise


def items(answer: List[Any], n: int, conn: Greeted) -> List[List[Any]]:
    """Return the items of an answer to MGET, one for each key."""
    found = _calls.items(answer)
    if len(found) != n:
        error = Malformed(f"the sidecar's answer to MGET has {len(found)} items for {n} keys")
        conn.end(error)
        raise error
    return found


def value(key: bytes, message: bytes, conn: Greeted, default: Any) -> Any:
    """Return the value of an answer to GET, or default."""
    if len(message) > 13 and message[10] == 0 and message[11] == 0xC4 and message[5] == 0xCE:
        # OK, and a value of less than 256 bytes; any other answer is for the decoder
        end = 13 + message[12]
        flags = message[end] if end < len(message) else -1
        if flags == 16:
            try:
                return message[13:end].decode()
            except UnicodeDecodeError:
                pass
        elif flags == 0:
            return message[13:end]
    found = item(key, decode(message, conn), conn)
    return default if found is None else found.value
