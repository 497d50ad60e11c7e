"""The link of an asyncio client to the sidecar: it connects, greets, and connects anew. See _link."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Optional, Tuple

from . import _clock, _timers, _wire
from ._aconnection import Connection
from ._calls import Call
from ._clock import monotonic
from ._hello import Welcome, welcome
from ._link import LEASE_GRACE, LateAnswer, Welcomed, until_ns
from ._pace import MOVE_AGAIN, MOVE_FOR, Pace
from ._settings import Settings
from ._socket import find, full, unreachable
from .errors import Broken, CacheError, ClosedError, ConnectionError, NotSent, TimeoutError


class Greeted(Connection):
    """A connection and what the sidecar has said on it."""

    welcome: Welcome


class Link:
    """The present connection of one event loop, or why there is none."""

    def __init__(self, settings: Settings, welcomed: Optional[Welcomed] = None) -> None:
        self._settings = settings
        self.welcomed = welcomed
        self._pace = Pace()
        self._dialing: Optional["asyncio.Task[Greeted]"] = None
        self.live: Optional[Greeted] = None
        self.closed = False
        self.max_value = 0  # 0: not known before HELLO

    async def do(
        self, call: Call, timeout: float, on: Optional[Greeted] = None, late: Optional[LateAnswer] = None,
        began: float = 0.0, attempt: int = 0,
    ) -> Tuple[bytes, Greeted]:
        """Make a call, if need be over a second connection. on is the connection that a token came by.

        attempt is 1 if the call has failed once already, since the moment began.
        """
        began = began or monotonic()
        left = timeout if not attempt else max(0.001, timeout - (monotonic() - began))
        while True:
            conn = on or self.live
            if conn is None or on is None and not conn.alive:
                conn = await self.get(left)
                left = max(0.001, timeout - (monotonic() - began))
            until = until_ns(_clock.boot_ns(), left) if call.until_at and conn.welcome.one_clock else 0
            grace = LEASE_GRACE if call.op == _wire.LEASE else 0.0
            hear = None if late is None else partial(late, call, conn)
            try:
                tail = call.tail(int(left * 1000) or 1, until)
                return await conn.call(tail, left + grace, hear, on is not None), conn
            except NotSent as e:
                if on is not None or attempt and not conn.leaving or monotonic() - began >= timeout:
                    raise ConnectionError(f"the request was not sent: {e}") from None
            except Broken as e:
                if not call.reads or attempt or monotonic() - began >= timeout:
                    raise TimeoutError(f"no answer, its outcome is unknown: {e}") from None
            attempt += 1
            left = max(0.001, timeout - (monotonic() - began))

    async def get(self, timeout: float) -> Greeted:
        """Return the connection, or make one. Wait for a sidecar that has said that it closes."""
        deadline = monotonic() + timeout
        while True:
            try:
                return await self._get(deadline)
            except ConnectionError:
                now = monotonic()
                if not self._pace.moving(now) or now + MOVE_AGAIN > deadline or self.closed:
                    raise
            await _timers.sleep(MOVE_AGAIN)

    async def _get(self, deadline: float) -> Greeted:
        if self.closed:
            raise ClosedError("the client was closed")
        if self.live is not None and self.live.alive:
            return self.live
        if self._dialing is None:
            refused = self._pace.refuses(monotonic())
            if refused is not None:
                raise type(refused)(f"not connected: {refused}")
            # A task of its own: a caller that is cancelled does not take the connection from the others.
            self._dialing = asyncio.ensure_future(self._redial())
            self._dialing.add_done_callback(_retrieve)
        dialing = self._dialing
        await _timers.wait(dialing, max(0.0, deadline - monotonic()))
        if not dialing.done():
            raise ConnectionError("not connected: the sidecar has not answered yet")
        if dialing.cancelled():
            raise ClosedError("the client was closed")
        return dialing.result()

    async def _redial(self) -> Greeted:
        try:
            conn = await self._dial()
        except CacheError as e:
            self._pace.failed(e, monotonic())
            raise
        finally:
            self._dialing = None
        if self.closed:
            conn.end(ClosedError("the client was closed"))
            raise ClosedError("the client was closed")
        self._pace.succeeded()
        self.live = conn
        return conn

    async def _dial(self) -> Greeted:
        path, token = find(self._settings.socket), self._settings.secret()
        now = monotonic()
        # A socket that a supervisor keeps is there before the next sidecar is.
        deadline = now + max(self._settings.connect_timeout, MOVE_FOR if self._pace.moving(now) else 0.0)
        try:
            return await self._greet(path, token, deadline)
        except (NotSent, Broken):
            # A sidecar that ends closes what it has just accepted.
            try:
                return await self._greet(path, token, deadline)
            except (NotSent, Broken) as e:
                raise ConnectionError(f"no HELLO from the sidecar at {path}: {e}") from None

    async def _greet(self, path: str, token: str, deadline: float) -> Greeted:
        s = self._settings
        before = _clock.boot_ns()
        conn = Greeted(asyncio.get_running_loop(), await _connect(path, deadline), s.max_in_flight)
        try:
            hello = _wire.hello(s.name, token, s.namespace)
            answer = await conn.greet(hello, max(0.001, deadline - monotonic()))
            conn.welcome = welcome(answer, before, _clock.boot_ns())
        except TimeoutError as e:
            conn.end(NotSent(str(e)))
            raise ConnectionError(f"no HELLO from the sidecar at {path}: {e}") from None
        except BaseException as e:
            conn.end(NotSent(str(e)))
            raise
        conn.frames.max_answer = conn.welcome.max_answer
        self.max_value = conn.welcome.max_value
        conn.on_leaving = self._leaves
        conn.announce_leaving()
        if self.welcomed is not None:
            self.welcomed(path, token, conn.welcome)
        return conn

    def _leaves(self) -> None:
        self._pace.leaves(monotonic())

    def close(self) -> None:
        """Close the connection. Calls in flight fail with ClosedError."""
        self.closed = True
        conn, self.live = self.live, None
        if conn is not None:
            conn.end(ClosedError("the client was closed"))
        if self._dialing is not None:
            self._dialing.cancel()

    def drop(self) -> None:
        """Begin anew: the event loop was closed, or the process has forked."""
        conn, self.live, self._dialing = self.live, None, None
        if conn is not None:
            conn.forget()
        self._pace = Pace()


def _retrieve(dialing: "asyncio.Task[Greeted]") -> None:
    """Take the error of a dial whose callers have all left, so that asyncio does not report it."""
    if not dialing.cancelled():
        dialing.exception()


async def _connect(path: str, deadline: float) -> socket.socket:
    """Return a socket that is connected to path before a moment of time.monotonic. It does not block."""
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(path)
            return sock
        except OSError as e:
            sock.close()
            if not full(e) or monotonic() + 0.002 > deadline:
                raise unreachable(path, e) from e
        await _timers.sleep(0.002)
