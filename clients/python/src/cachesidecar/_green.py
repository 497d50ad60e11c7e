"""Greenlets: gevent and eventlet replace sockets, locks and threads of the standard library by theirs, which take turns.

The client has sockets of `_socket`, which are never replaced, so it reads and writes without waiting as it does for
threads. It waits by what may have been replaced, which is looked up for each wait: so it does not matter whether the
package was imported before or after.
"""

from __future__ import annotations

import functools
import select
import threading
import types
from typing import Any, Dict

import _socket


def greenlets() -> bool:
    """Report whether who waits lets other greenlets run."""
    return not isinstance(getattr(select, "poll", None), types.BuiltinFunctionType)


def thread() -> int:
    """Return the number of this thread if it has greenlets, which wait for none of another thread; else 0."""
    return threading.get_native_id() if greenlets() else 0


def wait(sock: _socket.socket, reads: bool, writes: bool, seconds: float) -> bool:
    """Wait until a socket can be read or written. Return whether it can be read, or has ended."""
    if not hasattr(select, "poll"):  # eventlet takes it away
        return bool(select.select([sock] if reads else [], [sock] if writes else [], [], seconds)[0])
    poll = select.poll()
    poll.register(sock, (select.POLLIN if reads else 0) | (select.POLLOUT if writes else 0))
    return any(event & ~select.POLLOUT for _, event in poll.poll(seconds * 1000 + 1))


def mutex() -> Any:
    """Return a lock of threads, for a section in which nothing waits. That of gevent is slow between its threads."""
    return getattr(functools, "RLock", threading.RLock)()  # functools has taken it before anything was replaced


class Lock:
    """A lock of the kind that threading gives now. A client may be made before that changes.

    Each thread with greenlets has a lock of its own. Only what waits while it holds a lock needs it: a greenlet that waited for a lock of threads would stop them all.
    """

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: Dict[int, Any] = {}

    def _now(self) -> Any:
        at = thread()
        lock = self._kinds.get(at)
        return lock if lock is not None else self._kinds.setdefault(at, threading.Lock())

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return bool(self._now().acquire(blocking, timeout))

    def release(self) -> None:
        self._now().release()

    def __enter__(self) -> None:
        self._now().acquire()

    def __exit__(self, *_: object) -> None:
        self._now().release()
