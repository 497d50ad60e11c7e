"""Flights: this process asks for a key, or loads it, only once at a time. It is pure but for its lock.

A caller may share only a question that was not sent yet when the caller came: an answer under way may be older than
a write that the caller knows of, also a write by another process. So each key has one flight under way, and callers
that come meanwhile gather for the next one. A flight that gets a token no longer counts as under way: the sidecar
lets later callers wait for the fill or, if the key changes, begin a new load.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import Dict, Generic, Hashable, Iterator, Optional, Tuple, TypeVar

from . import _greenlets
from .errors import BadRequestError, BusyError

F = TypeVar("F", bound="Flight")


class _Loading:
    """A loader that runs. What it leaves running is no part of it."""

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.over = False


#: This thread or task is in these loaders, or was begun by them.
_loading: ContextVar[Tuple[_Loading, ...]] = ContextVar("cachesidecar_loading", default=())


def not_loading(key: Hashable, name: bytes) -> None:
    """Refuse a loader that asks for its own key: it would wait for itself."""
    if any(one.key == key and not one.over for one in _loading.get()):
        raise BadRequestError(
            f"the loader of {name!r} asks for the same key, and would wait for itself: make it load the value"
        )


@contextlib.contextmanager
def loading(key: Hashable) -> Iterator[None]:
    """Say that the loader of a key runs."""
    one = _Loading(key)
    token = _loading.set((*_loading.get(), one))
    try:
        yield
    finally:
        one.over = True
        _loading.reset(token)


class Flight:
    """One question to the sidecar, followed by a load if one is needed, for all callers that came before it began."""

    def __init__(self, alone: bool) -> None:
        self.alone = alone  # do not ask the sidecar
        self.callers = 1
        self.found: Optional[Tuple[bytes, int]] = None  # the value's bytes and flags; None: there is none
        self.error: Optional[BaseException] = None
        self.again = False  # it was interrupted: its other callers begin anew


class _Queue(Generic[F]):
    """The state of a key that has a flight under way."""

    __slots__ = ("next",)

    def __init__(self) -> None:
        self.next: Optional[F] = None  # gathers callers; None until the first one comes


class Loads(Generic[F]):
    """The flights of a client."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = _greenlets.mutex()
        self._queues: Dict[Hashable, _Queue[F]] = {}
        self._n = 0  # flights, including those that gather callers

    def __len__(self) -> int:
        return self._n

    def join(self, key: Hashable, new: F) -> Tuple[F, bool, bool]:
        """Add a caller. Return its flight, whether the caller is the first, and whether the flight begins at once."""
        with self._lock:
            queue = self._queues.get(key)
            if queue is not None and queue.next is not None:
                flight = queue.next
                flight.callers += 1
                flight.alone = flight.alone and new.alone
                return flight, False, False
            if self._n >= self._most:
                raise BusyError(f"{self._n} keys are being loaded: try again, or raise max_loads")
            self._n += 1
            if queue is not None:
                queue.next = new
                return new, True, False
            self._queues[key] = _Queue()
            return new, True, True

    def passes(self, key: Hashable) -> Optional[F]:
        """Let the key's next flight begin, and return it."""
        with self._lock:
            queue = self._queues[key]
            flight, queue.next = queue.next, None
            if flight is None:
                del self._queues[key]
            return flight

    def withdraw(self, key: Hashable, flight: F) -> bool:
        """Take a flight back that has not begun. Return False if it has begun just now."""
        with self._lock:
            queue = self._queues.get(key)
            if queue is None or queue.next is not flight:
                return False
            queue.next = None
            return True

    def leave(self, flight: F) -> bool:
        """A caller no longer waits. Return whether it was the last one."""
        with self._lock:
            flight.callers -= 1
            return flight.callers == 0

    def over(self) -> None:
        with self._lock:
            self._n -= 1
