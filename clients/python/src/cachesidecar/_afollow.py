"""Following the sidecar's stream of events, for asyncio: for the near cache, and for watch. See _follow."""

from __future__ import annotations

import asyncio
from typing import Any, AsyncGenerator, Dict, List, Tuple

from . import _clock, _feed, _timers, _wire
from ._alink import Greeted, Link
from ._feed import Event, Place
from ._link import Welcomed
from ._near import Near
from ._settings import Settings
from .errors import Broken, CacheError, ClosedError, Malformed, NotSent

_boot_ns = _clock.boot_ns


async def ask(link: Link, place: Place, timeout: float) -> Tuple[Dict[str, Any], Greeted]:
    """Ask for the events that follow a place."""
    conn = await link.get(timeout)
    end = place.call(conn).tail(int((place.wait + timeout) * 1000), 0)
    try:
        message = await conn.call(end, place.wait + timeout)
        return place.take(_wire.decode(message[4:])), conn
    except Malformed as e:
        conn.end(e)
        raise


class NearFeed:
    """The task that follows the sidecar for the near cache, over a connection of its own."""

    def __init__(self, settings: Settings, near: Near, welcomed: Welcomed) -> None:
        self.link = Link(settings, welcomed)
        self._settings, self._near = settings, near
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        place = Place(_wire.NIL, _wire.ALL, self._near.bound_ns / 4e9)
        tries = 0
        try:
            while True:
                try:
                    sent = _boot_ns()
                    told, conn = await ask(self.link, place, self._settings.timeout)
                    if not self._near.apply(sent, _boot_ns(), told, conn.welcome):
                        raise CacheError("the sidecar hashes keys in a way that this client does not know")
                    tries = 0
                except Exception:  # whatever it is: nothing is served until the sidecar is followed again
                    self._near.end()
                    place.lost()
                    await _timers.sleep(_feed.pause(tries))
                    tries += 1
        finally:
            self._near.end()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        self.link.close()


async def changes(
    settings: Settings, client: Link, place: Place, namespace: str, keys: List[bytes]
) -> AsyncGenerator[Event, None]:
    """Yield what follows a place, over a connection of its own, until the client's link is closed."""
    link = Link(settings, client.welcomed)
    tries = 0
    try:
        while not client.closed:
            try:
                told, conn = await ask(link, place, settings.timeout)
                tries = 0
            except _feed.FINAL:
                raise
            except (CacheError, NotSent, Broken):
                place.lost()
                await _timers.sleep(_feed.pause(tries))
                tries += 1
                continue
            for event in _feed.public(told, conn.welcome, namespace, keys):
                yield event
        raise ClosedError("the client was closed")
    finally:
        link.close()
