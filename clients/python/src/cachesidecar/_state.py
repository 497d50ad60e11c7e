"""The state that the views of one sync client share: what is open, its end, and a fork."""

from __future__ import annotations

import threading
from sys import is_finalizing
from typing import Optional

from . import _greenlets
from ._clock import monotonic
from ._core import Core
from ._follow import NearFeed
from ._hits import AFTER
from ._link import Greeted, Link
from ._loads import Flight, Loads
from ._settings import Settings
from .metrics import OnCall


_START_AGAIN = 1.0  # seconds between two attempts to start a thread
_JOIN = 1.0  # seconds for which the end of the thread that reports is waited for


class ThreadFlight(Flight):
    """A flight that the thread of its first caller carries out."""

    def __init__(self, alone: bool) -> None:
        super().__init__(alone)
        self.begins = threading.Event()
        self.ended = threading.Event()


class Reporter:
    """The thread that reports hits. It ends when there are none any more."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._end = threading.Lock()  # no Event: a destructor may close the client within one
        self._end.acquire()
        self._thread = threading.Thread(target=self._run, name="cachesidecar-hits", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        state = self._state
        while not self._end.acquire(True, AFTER):
            if not state.hits.pending:
                state.reporter = None
                if not state.hits.pending or state.reporter is not None:
                    return
                state.reporter = self  # a read came that has found this thread at work
            state.report()

    def end(self, wait: bool) -> None:
        """End the thread. Within other work of the client it is not waited for: it may need what that work has."""
        try:
            self._end.release()
        except RuntimeError:  # it was told before
            pass
        if wait and self._thread is not threading.current_thread():
            self._thread.join(_JOIN)


class State(Core):
    """What the views of one client share."""

    def __init__(self, settings: Settings, on_call: Optional[OnCall]) -> None:
        super().__init__(settings, on_call)
        self.link = Link(settings, self.memory.welcomed)
        self.loads: Loads[ThreadFlight] = Loads(settings.max_loads)
        self.near_feed: Optional[NearFeed] = None
        self._starting = threading.Lock()
        self._start_at = 0.0  # a thread could not be started: when to try again
        self.reporter: Optional[Reporter] = None

    def follow(self) -> None:
        """Start to follow the sidecar for the near cache, unless that is done, or under way."""
        if self.near is None or monotonic() < self._start_at or not self._starting.acquire(False):
            return
        try:
            if self.near_feed is None and not self.link.closed:
                self.near_feed = NearFeed(self.settings, self.near, self.memory.welcomed)
        except RuntimeError:  # no thread can be started: nothing is kept
            self._start_at = monotonic() + _START_AGAIN
        finally:
            self._starting.release()
        if self.link.closed:  # meanwhile
            self._end_near_feed()

    def _end_near_feed(self) -> None:
        near_feed, self.near_feed = self.near_feed, None
        if near_feed is not None:
            near_feed.close()

    def later(self) -> bool:
        if self.reporter is not None:
            return True
        if is_finalizing() or _greenlets.present() or monotonic() < self._start_at or not self._starting.acquire(False):
            return False
        try:
            if self.reporter is None and not self.link.closed:
                self.reporter = Reporter(self)
        except RuntimeError:  # no thread can be started
            self._start_at = monotonic() + _START_AGAIN
        finally:
            self._starting.release()
        return self.reporter is not None

    def report(self) -> None:
        conn = self.link.present()
        nesting = self.link.nesting
        if conn is None or not conn.alive or conn.asked or not nesting.may_wait():
            self.hits.rest()
            return
        nesting.run(self._report, conn)

    def _report(self, conn: Greeted) -> None:
        for call in self.hits.take():
            conn.report(call.tail(int(self.settings.timeout * 1000), 0))

    def _end_reporter(self) -> None:
        reporter, self.reporter = self.reporter, None
        if reporter is not None:
            reporter.end(self.link.nesting.may_wait())

    def forks(self) -> None:
        """End the thread that reports: a process that forks should have one only."""
        if self.reporter is not None:
            self._end_reporter()
            self.report()

    def exits(self) -> None:
        """Report what is left when the interpreter ends."""
        self.report()

    def close(self) -> None:
        self.report()
        self._end_reporter()
        self.link.close()
        self._end_near_feed()
        self.memory.close()

    def forked(self) -> None:
        """Begin anew in a forked child: threads, locks and connections are the parent's."""
        self._starting = threading.Lock()
        self.reporter = None
        self.nesting.forked()
        self.hits.forked()
        if self.near_feed is not None:
            self.near_feed.link.forked()
            self.near_feed = None
        if self.near is not None:
            self.near.forked()
        self.link.forked()
        self.memory.forked()
        self.loads = Loads(self.settings.max_loads)
