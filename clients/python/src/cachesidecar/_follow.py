"""Following the sidecar's stream of events, for threads: for the near cache, and for watch."""

from __future__ import annotations

import threading
import time
from typing import Any, Dict, Iterator, List, Tuple

from . import _clock, _feed, _fork, _wire
from ._clock import monotonic
from ._feed import Event, Place
from ._link import Greeted, Link, Welcomed
from ._near import Near
from ._settings import Settings
from .errors import Broken, CacheError, ClosedError, Malformed, NotSent

_boot_ns = _clock.boot_ns
_END = 5.0  # seconds for which close waits for the thread; a greenlet of a pool's thread that rests does not end
_LOOK = 0.02  # seconds between two looks whether a NearFeed was closed while it waits to try again


def ask(link: Link, place: Place, timeout: float) -> Tuple[Dict[str, Any], Greeted]:
    """Ask for the events that follow a place."""
    conn = link.get(timeout)
    end = place.call(conn).tail(int((place.wait + timeout) * 1000), 0)
    try:
        message = conn.call(end, place.wait + timeout)
        return place.take(_wire.decode(message[4:])), conn
    except Malformed as e:
        conn.end(e)
        raise


class NearFeed:
    """The thread that follows the sidecar for the near cache, over a connection of its own."""

    def __init__(self, settings: Settings, near: Near, welcomed: Welcomed) -> None:
        self.link = Link(settings, welcomed)
        self._settings, self._near = settings, near
        self._closed = False  # no Event: a destructor may close this within one
        self._thread = threading.Thread(target=self._run, name="cachesidecar-near", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        place = Place(_wire.NIL, _wire.ALL, self._near.bound_ns / 4e9)
        tries = 0
        while not self._closed:
            try:
                sent = _boot_ns()
                told, conn = ask(self.link, place, self._settings.timeout)
                if not self._near.apply(sent, _boot_ns(), told, conn.welcome):
                    raise CacheError("the sidecar hashes keys in a way that this client does not know")
                tries = 0
            except Exception:  # whatever it is: nothing is served until the sidecar is followed again
                self._near.end()
                place.lost()
                self._pause(_feed.pause(tries))
                tries += 1
        self._near.end()

    def _pause(self, seconds: float) -> None:
        until = monotonic() + seconds
        while not self._closed and monotonic() < until:
            time.sleep(_LOOK)

    def close(self) -> None:
        self._closed = True
        self.link.close()
        # The thread may need the near cache's lock, which this thread has within a destructor or a signal handler.
        if self._thread is not threading.current_thread() and self._near.may_wait():
            self._thread.join(_END)


def changes(settings: Settings, client: Link, place: Place, namespace: str, keys: List[bytes]) -> Iterator[Event]:
    """Yield what follows a place, over a connection of its own, until the client's link is closed."""
    link = Link(settings, client.welcomed)
    _fork.remember(link)
    tries = 0
    try:
        while not client.closed:
            try:
                told, conn = ask(link, place, settings.timeout)
                tries = 0
            except _feed.FINAL:
                raise
            except (CacheError, NotSent, Broken):
                place.lost()
                time.sleep(_feed.pause(tries))
                tries += 1
                continue
            yield from _feed.public(told, conn.welcome, namespace, keys)
        raise ClosedError("the client was closed")
    finally:
        link.close()
