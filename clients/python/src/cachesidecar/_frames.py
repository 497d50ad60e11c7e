"""The stream of a connection as messages. It is pure."""

from __future__ import annotations

from typing import List, Tuple

from . import _wire

_READ, _READ_LONG = 16 << 10, 1 << 20  # bytes


class Frames:
    """Takes what is read, in pieces, and returns whole answers."""

    __slots__ = ("max_answer", "_parts", "_have", "_need")

    def __init__(self) -> None:
        self.max_answer = _wire.MAX_ANSWER
        self._parts: List[bytes] = []  # of an answer that is not whole
        self._have = 0  # bytes in them
        self._need = 0  # bytes at which to look again

    @property
    def empty(self) -> bool:
        return not self._parts

    def room(self) -> int:
        """Return how many bytes to read next."""
        return _READ if not self._parts else max(_READ, min(self._need - self._have, _READ_LONG))

    def feed(self, data: bytes) -> List[Tuple[int, bytes]]:
        """Return the answers that are whole now: their ids, and their messages with the length before them."""
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._parts)
            self._parts = []
        answers = []
        at, end, need = 0, len(data), 4
        while end - at >= 4:
            need = 4 + _wire.length(data, at, self.max_answer)
            if end - at < need:
                break
            answers.append((_wire.answer_id(data, at + 4, at + need), data[at : at + need]))
            at += need
            need = 4
        if at < end:
            self._parts, self._have, self._need = [data[at:]], end - at, need
        return answers
