"""The state that the views of one sync client share: what is open, its end, and a fork."""

from __future__ import annotations

import threading
from typing import Optional

from ._core import Core
from ._follow import Follower
from ._link import Link
from ._loading import ThreadFlight
from ._loads import Loads
from ._settings import Settings
from .metrics import OnCall


class State(Core):
    """What the views of one client share."""

    def __init__(self, settings: Settings, on_call: Optional[OnCall]) -> None:
        super().__init__(settings, on_call)
        self.link = Link(settings, self.memory.welcomed)
        self.loads: Loads[ThreadFlight] = Loads(settings.max_loads)
        self.follower: Optional[Follower] = None
        self.starting = threading.Lock()

    def follow(self) -> None:
        """Start to follow the sidecar for the near cache, unless that is done, or under way."""
        if not self.starting.acquire(False):
            return
        try:
            if self.near is not None and self.follower is None and not self.link.closed:
                self.follower = Follower(self.settings, self.near, self.memory.welcomed)
        finally:
            self.starting.release()
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
        self.starting = threading.Lock()
        if self.follower is not None:
            self.follower.link.forked()
            self.follower = None
        if self.near is not None:
            self.near.forked()
        self.link.forked()
        self.memory.forked()
        self.loads = Loads(self.settings.max_loads)
