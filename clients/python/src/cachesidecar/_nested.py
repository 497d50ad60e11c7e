"""Calls within calls: a destructor, a weakref's callback or a signal handler may run while its thread is in a client.

The outer call goes on only after the inner one, so the inner one must not wait for anything that the outer one has:
a lock, the reading of a connection, a load. So a thread that takes any of these is noted here, and an inner call goes
over a connection of its own (_link), loads for itself (_loading), and leaves the near cache's lock alone (_near).
So do calls while the interpreter ends: threads that have a lock may have been stopped for ever.
"""

from __future__ import annotations

import threading
from sys import is_finalizing
from typing import Any, Callable, Set, TypeVar

from .errors import NotSent

_T = TypeVar("_T")


class Nesting:
    """The threads within a call of a client. Greenlets count as threads, if what patches the process says so."""

    def __init__(self) -> None:
        self._threads: Set[int] = set()

    def may_wait(self) -> bool:
        """Report whether a call of this thread may wait for what others have."""
        return threading.get_ident() not in self._threads and not is_finalizing()

    def run(self, work: Callable[..., _T], *args: Any) -> _T:
        """Do some work with this thread noted."""
        me = threading.get_ident()
        first = me not in self._threads
        try:
            self._threads.add(me)
            return work(*args)
        finally:
            if first:
                self._threads.discard(me)

    def run_first(self, work: Callable[..., _T], *args: Any) -> _T:
        """Do what run does, and raise NotSent if it may not wait: the two in one, for the shortest path."""
        me = threading.get_ident()
        threads = self._threads
        if me in threads or is_finalizing():
            raise NotSent("this thread is in another call")
        try:
            threads.add(me)
            return work(*args)
        finally:
            threads.discard(me)

    def leave(self, work: Callable[[], _T]) -> _T:
        """Within run, do some work of the application, whose calls may wait."""
        me = threading.get_ident()
        try:
            self._threads.discard(me)
            return work()
        finally:
            self._threads.add(me)

    def forked(self) -> None:
        """Begin anew in a forked child, which has the forking thread only."""
        self._threads.clear()
