"""The state that the views of one sync client share: what is open, its end, and a fork."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Optional

from ._core import Core
from ._follow import Follower
from ._link import Link
from ._loading import ThreadFlight
from ._loads import Loads
from ._settings import Settings
from .metrics import OnCall


_START_AGAIN = 1.0  # seconds between two attempts to start a thread


class State(Core):
    """What the views of one client share."""

    def __init__(self, settings: Settings, on_call: Optional[OnCall]) -> None:
        super().__init__(settings, on_call)
        self.link = Link(settings, self.memory.welcomed)
        self.loads: Loads[ThreadFlight] = Loads(settings.max_loads)
        self.follower: Optional[Follower] = None
        self._starting = threading.Lock()
        self._start_at = 0.0  # a thread could not be started: when to try again

    def follow(self) -> None:
        """Start to follow the sidecar for the near cache, unless that is done, or under way."""
        if self.near is None or monotonic() < self._start_at or not self._starting.acquire(False):
            return
        try:
            if self.follower is None and not self.link.closed:
                self.follower = Follower(self.settings, self.near, self.memory.welcomed)
        except RuntimeError:  # no thread can be started: nothing is kept
            self._start_at = monotonic() + _START_AGAIN
        finally:
            self._starting.release()
        if self.link.closed:  # meanwhile
            self._end_follower()

    def _end_follower(self) -> None:
        follower, self.follower = self.follower, None
        if follower is not None:
            follower.close()

    def close(self) -> None:
        self.link.close()
        self._end_follower()
        self.memory.close()

    def forked(self) -> None:
        """Begin anew in a forked child: threads, locks and connections are the parent's."""
        self._starting = threading.Lock()
        self.inside.forked()
        if self.follower is not None:
            self.follower.link.forked()
            self.follower = None
        if self.near is not None:
            self.near.forked()
        self.link.forked()
        self.memory.forked()
        self.loads = Loads(self.settings.max_loads)
