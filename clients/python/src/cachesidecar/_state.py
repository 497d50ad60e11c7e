"""The state that the views of one sync client share: what is open, its end, and a fork."""

from __future__ import annotations

from typing import Optional

from . import _green
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
        self.starting = _green.Lock()

    def follow(self) -> None:
        """Start to follow the sidecar for the near cache, if that is not done yet."""
        with self.starting:
            if self.near is not None and self.follower is None and not self.link.closed:
                self.follower = Follower(self.settings, self.near, self.memory.welcomed)

    def close(self) -> None:
        self.link.close()
        with self.starting:
            follower, self.follower = self.follower, None
        if follower is not None:
            follower.close()
        self.memory.close()

    def forked(self) -> None:
        """Begin anew in a forked child: threads, locks and connections are the parent's."""
        self.starting = _green.Lock()
        if self.follower is not None:
            self.follower.link.forked()
            self.follower = None
        if self.near is not None:
            self.near.forked()
        self.link.forked()
        self.memory.forked()
        self.loads = Loads(self.settings.max_loads)
