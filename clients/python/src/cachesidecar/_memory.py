"""The memory that the sidecar shares with the processes of its host, as a client uses it.

_region reads it. This module knows when it may be read: not for a key that this client is writing, so that a client
sees its own writes.

A destructor or a signal handler may call the client at any point (_nested). So the marks of writes need no lock, and
the thread that has the lock may take it again.
"""

from __future__ import annotations

import sys
import threading
from heapq import heappushpop
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from . import _clock, _greenlets
from ._clock import monotonic
from ._hello import Welcome

_MARKS = 256

#: Attach is _attach.attach: a socket's path, HELLO's map, and a time limit in seconds.
Attach = Callable[[str, Dict[str, Any], float], Any]


class Memory:
    """The region, and what keeps a client from reading it."""

    def __init__(self, attach: Optional[Attach], hello: Dict[str, Any], timeout: float) -> None:
        self._attach, self._hello, self._timeout = attach, hello, timeout
        self._forget()

    def _forget(self) -> None:
        self.region: Any = None
        self._lock = _greenlets.mutex()
        self._attaching: Optional[threading.Thread] = None
        self._asking: Optional[Tuple[str, str]] = None  # path and token of the latest HELLO; None: nothing is offered
        self._epoch = 0  # of the process that the latest HELLO has named; the region is its
        self._turns = 0  # how often a HELLO has named another process than the one before
        # By hash of a key: an element for each write under way, and the moment of the boot clock until which one that
        # was given up may still be executed. It is also the one element of a heap, which changes in one step.
        self._writes: List[List[None]] = [[] for _ in range(_MARKS)]
        self._until = [0] * _MARKS
        self._latest = [[0] for _ in range(_MARKS)]

    # -- attaching

    def welcomed(self, path: str, token: str, welcome: Welcome) -> None:
        """Drop the region of another process, and ask for that of this one, after a HELLO.

        It is called before any answer of that connection is delivered. The process before has ended, and may have
        been killed: what is in its region can be outdated, though the region is not closed. The thread that asks ends
        within the time to connect.
        """
        if sys.is_finalizing():
            self.region = None  # a thread that has the lock may have been stopped for ever
            return
        with self._lock:
            self._hear(welcome.epoch)
            self._asking = (path, token) if "shared" in welcome.features else None
        self._ask()

    def _ask(self) -> None:
        """Ask for the region as the latest HELLO says, unless there is one."""
        if sys.is_finalizing():
            return
        with self._lock:
            attach = self._attach  # None: there is no shared memory, or it was closed
            if attach is None or self._asking is None or self.region is not None:
                return
            path, token = self._asking
            if self._attaching is not None and self._attaching.is_alive():
                return
            thread = self._attaching = threading.Thread(
                target=self._run, args=(attach, path, token), name="cachesidecar-attach", daemon=True
            )
        try:
            thread.start()  # without the lock: to start a greenlet lets others run
        except RuntimeError:  # no thread can be started: all reads go over the socket
            pass

    def _hear(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._epoch = epoch
            self._turns += 1
            self.region = None

    def _run(self, attach: Attach, path: str, token: str) -> None:
        hello = {**self._hello, "token": token} if token else self._hello
        end = monotonic() + self._timeout
        while True:
            turn = self._turns
            region = attach(path, hello, end - monotonic())
            with self._lock:
                if region is None or self._attach is None:
                    return
                if turn == self._turns:  # else it may be the region of the process before
                    self._hear(region.epoch)  # it may be the first HELLO of a process
                    self.region = region
                    return

    def close(self) -> None:
        if sys.is_finalizing():
            self.region = None
            return
        with self._lock:
            thread, self._attach = self._attaching, None
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(2 * self._timeout)
        self.region = None

    def forked(self) -> None:
        """Begin anew in a forked child, whose threads and locks are the parent's."""
        self._forget()

    # -- reading

    def get(self, namespace: bytes, key: bytes) -> Any:
        """Return what Region.get returns; None: ask the sidecar."""
        region = self.region
        if region is None:
            return None
        now = _clock.boot_ns()  # before anything else
        mark = hash(key) % _MARKS
        if self._writes[mark] or now < self._until[mark]:
            return None
        found = region.get(namespace, key, now)
        if found is None:
            if region.closed and self._lock.acquire(False):
                ended = self.region is region
                if ended:
                    self.region = None
                self._lock.release()
                if ended:
                    self._ask()
            return None
        return found

    # -- writes

    def begin(self, keys: Sequence[bytes]) -> None:
        """Mark the keys of a write, until end is called."""
        for key in keys:
            self._writes[hash(key) % _MARKS].append(None)

    def end(self, keys: Sequence[bytes], unknown_for: float) -> None:
        """Remove the marks. A write of unknown outcome may be executed for some more seconds."""
        until = _clock.boot_ns() + int(unknown_for * 1e9) + _clock.CLOCK_ERROR_NS if unknown_for else 0
        for key in keys:
            mark = hash(key) % _MARKS
            if until and sys.is_finalizing():
                self.region = None  # a thread that has the lock may have been stopped for ever
            elif until:
                latest = self._latest[mark]
                with self._lock:
                    heappushpop(latest, until)  # the later one stays
                    while self._until[mark] != latest[0]:  # a call of a destructor may come between any two steps
                        self._until[mark] = latest[0]
            try:
                self._writes[mark].pop()
            except IndexError:  # the process has forked meanwhile
                pass
