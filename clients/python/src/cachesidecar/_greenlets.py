"""Greenlets: gevent and eventlet replace sockets, locks and threads of the standard library by their own.

The client has sockets of `_socket`, which are never replaced. It reads and writes these without waiting, as it does
for threads. It waits by what may have been replaced, and looks that up for each wait. So it does not matter whether
the package was imported before or after.
"""

from __future__ import annotations

import functools
import select
import threading
import types
from typing import Any, Dict

import _socket

MOST_THREADS = 64  # with greenlets, of which a client has a connection each


def present() -> bool:
    """Report whether a wait lets other greenlets run."""
    return not isinstance(getattr(select, "poll", None), types.BuiltinFunctionType)


def thread_id() -> int:
    """Return the number of this thread if it has greenlets: they wait for none of another thread. Else return 0."""
    return threading.get_native_id() if present() else 0


def wait(sock: _socket.socket, reads: bool, writes: bool, seconds: float) -> bool:
    """Wait until a socket can be read or written. Return whether it can be read, or has ended."""
    if not hasattr(select, "poll"):  # eventlet takes it away
        return bool(select.select([sock] if reads else [], [sock] if writes else [], [], seconds)[0])
    poll = select.poll()
    poll.register(sock, (select.POLLIN if reads else 0) | (select.POLLOUT if writes else 0))
    return any(event & ~select.POLLOUT for _, event in poll.poll(seconds * 1000 + 1))


def mutex() -> Any:
    """Return a lock of threads, for a section in which nothing waits.

    That of gevent is slow between threads of its pool.
    """
    return getattr(functools, "RLock", threading.RLock)()  # functools has taken it before anything was replaced


class Locks:
    """A lock for what waits while it has the lock. A greenlet that waited for a lock of threads would stop all others.

    So the lock is of the kind that threading gives now, and each thread with greenlets has one of its own.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: Dict[int, Any] = {}

    def own(self) -> Any:
        """Return this thread's lock."""
        if len(self._locks) > MOST_THREADS:  # mostly of threads that have ended
            self._locks = {}
        at = thread_id()
        lock = self._locks.get(at)
        return lock if lock is not None else self._locks.setdefault(at, threading.Lock())
