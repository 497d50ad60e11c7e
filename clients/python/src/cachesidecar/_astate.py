"""The state that the views of one asyncio client share: what is open, its end, its event loop, and a fork."""

from __future__ import annotations

import asyncio
from typing import Callable, List, Optional

from . import _timers
from ._afollow import NearFeed
from ._alink import Link
from ._core import Core
from ._hits import AFTER
from ._loads import Flight, Loads
from ._settings import Settings
from .metrics import OnCall


class TaskFlight(Flight):
    """A flight that a task of its own carries out. It ends with the last of its callers at the latest."""

    def __init__(self, alone: bool, begin: Callable[[TaskFlight], None]) -> None:
        super().__init__(alone)
        self.begin = begin  # of the first caller's Load
        self.task: Optional["asyncio.Task[None]"] = None
        self.waiters: List["asyncio.Future[None]"] = []
        self.left = False  # by its last caller


class State(Core):
    """What the views of one client share."""

    def __init__(self, settings: Settings, on_call: Optional[OnCall]) -> None:
        super().__init__(settings, on_call)
        self.link = Link(settings, self.memory.welcomed)
        self.loads: Loads[TaskFlight] = Loads(settings.max_loads)
        self.tasks: "set[asyncio.Task[None]]" = set()
        self.near_feed: Optional[NearFeed] = None
        self.loop: Optional[asyncio.AbstractEventLoop] = None
        self._timer: Optional[_timers.Timer] = None  # of the next report

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to a loop. If the loop before it was closed, begin anew."""
        if self.loop is not None and not self.loop.is_closed():
            raise RuntimeError("this AsyncClient belongs to another event loop: make one client for each loop")
        if self.loop is not None:
            self.drop()
        self.loop = loop

    def drop(self) -> None:
        """Begin anew: connections and tasks belonged to a loop that was closed, or to a parent process."""
        if self.near_feed is not None:
            self.near_feed.link.drop()
            self.near_feed = None
        if self.near is not None:
            self.near.forked()
        self.link.drop()
        self._timer = None
        self.loads = Loads(self.settings.max_loads)
        self.tasks = set()

    def follow(self) -> None:
        """Start to follow the sidecar for the near cache."""
        if self.near is not None and not self.link.closed:
            self.near_feed = NearFeed(self.settings, self.near, self.memory.welcomed)

    def later(self) -> bool:
        loop = self.loop
        if loop is None or loop.is_closed() or self.link.closed or self._elsewhere():
            return False
        if self._timer is None:
            self._timer = _timers.call_later(loop, AFTER, self._reports)
        return True

    def _elsewhere(self) -> bool:
        """Report whether the event loop runs, and this is none of its tasks."""
        try:
            mine: Optional[asyncio.AbstractEventLoop] = asyncio.get_running_loop()
        except RuntimeError:
            mine = None
        return self.loop is not None and self.loop is not mine and self.loop.is_running()

    def _reports(self) -> None:
        self._timer = None
        self.report()

    def report(self) -> None:
        conn = self.link.live
        if conn is None or not conn.alive or conn.asked is not None or self._elsewhere():
            self.hits.rest()
            return
        for call in self.hits.take():
            conn.report(call.tail(int(self.settings.timeout * 1000), 0))

    def forks(self) -> None:
        """There is no thread to end."""

    def exits(self) -> None:
        """Report what is left when the interpreter ends. No event loop runs any more."""
        self.report()

    async def close(self) -> None:
        self.report()
        if self._timer is not None:
            self._timer.cancel()
        if self.loop is not None and self.loop.is_closed():
            self.drop()  # what belonged to it has ended with it
        self.link.close()
        near_feed, self.near_feed = self.near_feed, None
        if near_feed is not None:
            await near_feed.close()
        for task in list(self.tasks):
            task.cancel()
        if self.tasks:
            await asyncio.wait(list(self.tasks))
        self.memory.close()

    def forked(self) -> None:
        """Begin anew in a forked child."""
        self.drop()
        self.memory.forked()
        self.hits.forked()
        self.loop = None

    def abandon(self) -> None:
        """Close what a client that was dropped, not closed, has open."""
        self.report()
        if self.loop is None or self.loop.is_closed():
            self.drop()
        self.memory.close()
