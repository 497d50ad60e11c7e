"""The link of a sync client to the sidecar: it connects, greets, and connects anew.

It has no thread of its own. A call that finds no connection makes one; other calls wait for it. A call of a destructor
or a signal handler whose thread is in another call goes over a connection of its own (_nested).
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

from . import _clock, _greenlets, _wire
from ._calls import Call
from ._clock import monotonic
from ._connection import Connection
from ._hello import Welcome, welcome
from ._nested import Nesting
from ._pace import MOVE_AGAIN, MOVE_FOR, Pace
from ._settings import Settings
from ._socket import connect, find, unreachable
from .errors import Broken, CacheError, ClosedError, ConnectionError, NotSent, TimeoutError

#: How much longer a LEASE waits than it tells the sidecar: a token that comes late delays other callers.
LEASE_GRACE = 0.1

#: Welcomed is told of each greeting: the socket's path, the token, and what the sidecar has said.
Welcomed = Callable[[str, str, Welcome], None]

#: LateAnswer gets an answer that came after its call was given up: the call, its connection, and the answer.
LateAnswer = Callable[[Call, Any, bytes], None]


def until_ns(now_ns: int, timeout: float) -> int:
    """Return the moment of the boot clock at which a call that begins now is given up, or a little earlier."""
    return max(1, now_ns + int(timeout * 1e9) - min(_clock.CLOCK_ERROR_NS, int(timeout * 2.5e8)))


class Greeted(Connection):
    """A connection and what the sidecar has said on it."""

    welcome: Welcome


class Link:
    """The present connection, or why there is none."""

    def __init__(self, settings: Settings, welcomed: Optional[Welcomed] = None) -> None:
        self._settings = settings
        self.welcomed = welcomed
        self._pace = Pace()
        self._dialing = _greenlets.Locks()
        self.live: Optional[Greeted] = None
        self._by_thread: Dict[int, Greeted] = {}  # with greenlets, and in place of live: by thread
        self.closed = False
        self.max_value = 0  # 0: not known before HELLO
        self.nesting = Nesting()

    def _aside(self) -> Link:
        """Return a link with a connection of its own, for a call that may not wait for others."""
        if self.closed:
            raise ClosedError("the client was closed")
        link = Link(self._settings, self.welcomed)
        link._pace = self._pace
        return link

    def do(
        self, call: Call, timeout: float, on: Optional[Greeted] = None, late: Optional[LateAnswer] = None,
        began: float = 0.0, attempt: int = 0,
    ) -> Tuple[bytes, Greeted]:
        """Make a call, if need be over a second connection. on is the connection that a token came by.

        attempt is 1 if the call has failed once already, since the moment began.
        """
        if self.nesting.may_wait():
            return self.nesting.run(self._do, call, timeout, on, late, began, attempt)
        link = self._aside()
        try:
            return link._do(call, timeout, None, late, began, attempt)
        finally:
            link.close()

    def _do(
        self, call: Call, timeout: float, on: Optional[Greeted], late: Optional[LateAnswer], began: float, attempt: int
    ) -> Tuple[bytes, Greeted]:
        began = began or monotonic()
        left = timeout if not attempt else max(0.001, timeout - (monotonic() - began))
        while True:
            conn = on or self.live
            if conn is None or on is None and not conn.alive:
                conn = self.get(left)
                left = max(0.001, timeout - (monotonic() - began))
            until = until_ns(_clock.boot_ns(), left) if call.until_at and conn.welcome.one_clock else 0
            grace = LEASE_GRACE if call.op == _wire.LEASE else 0.0
            hear = None if late is None else partial(late, call, conn)
            try:
                return conn.call(call.tail(int(left * 1000) or 1, until), left + grace, hear, on is not None), conn
            except NotSent as e:
                if on is not None or attempt and not conn.leaving or monotonic() - began >= timeout:
                    raise ConnectionError(f"the request was not sent: {e}") from None
            except Broken as e:
                if not call.reads or attempt or monotonic() - began >= timeout:
                    raise TimeoutError(f"no answer, its outcome is unknown: {e}") from None
            attempt += 1
            left = max(0.001, timeout - (monotonic() - began))

    def do_many(self, calls: List[Call], timeout: float) -> Tuple[List[Union[bytes, Exception]], Greeted]:
        """Make calls that are sent together. Those that were not sent go over a second connection; no other does."""
        if self.nesting.may_wait():
            return self.nesting.run(self._do_many, calls, timeout)
        link = self._aside()
        try:
            return link._do_many(calls, timeout)
        finally:
            link.close()

    def _do_many(self, calls: List[Call], timeout: float) -> Tuple[List[Union[bytes, Exception]], Greeted]:
        began = monotonic()
        conn = self.get(timeout)
        outcomes = self._send_many(conn, calls, timeout, began)
        unsent = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, NotSent)]
        if unsent:
            again: List[Union[bytes, Exception]]
            try:
                conn = self.get(max(0.001, timeout - (monotonic() - began)))
                again = self._send_many(conn, [calls[i] for i in unsent], timeout, began)
            except CacheError as e:
                again = [e] * len(unsent)
            for i, outcome in zip(unsent, again):
                outcomes[i] = outcome
        for i, outcome in enumerate(outcomes):
            if isinstance(outcome, NotSent):
                outcomes[i] = ConnectionError(f"the request was not sent: {outcome}")
            elif isinstance(outcome, Broken):
                outcomes[i] = TimeoutError(f"no answer, its outcome is unknown: {outcome}")
        return outcomes, conn

    def _send_many(
        self, conn: Greeted, calls: List[Call], timeout: float, began: float
    ) -> List[Union[bytes, Exception]]:
        left = max(0.001, timeout - (monotonic() - began))
        until = until_ns(_clock.boot_ns(), left) if conn.welcome.one_clock else 0
        return conn.call_many([call.tail(int(left * 1000) or 1, until) for call in calls], left)

    def get(self, timeout: float) -> Greeted:
        """Return the connection, or make one. Wait for a sidecar that has said that it closes."""
        deadline = monotonic() + timeout
        while True:
            try:
                return self._get(deadline)
            except ConnectionError:
                if self.closed:
                    raise ClosedError("the client was closed") from None
                now = monotonic()
                if not self._pace.moving(now) or now + MOVE_AGAIN > deadline or self.closed:
                    raise
            except CacheError:
                raise
            except BaseException:  # from outside, such as a signal handler's: the lock may be held for ever
                self._dialing = _greenlets.Locks()
                raise
            time.sleep(MOVE_AGAIN)

    def _get(self, deadline: float) -> Greeted:
        dialing = self._dialing.own()
        if not dialing.acquire(True, max(0.0, deadline - monotonic())):
            raise ConnectionError("not connected: another call still connects")
        try:
            if self.closed:
                raise ClosedError("the client was closed")
            conn = self.present()
            if conn is not None and conn.alive:
                return conn
            self._change(None)
            refused = self._pace.refuses(monotonic())
            if refused is not None:
                raise type(refused)(f"not connected: {refused}")
            try:
                conn = self._dial(deadline)
            except CacheError as e:
                self._pace.failed(e, monotonic())
                raise
            self._pace.succeeded()
            other = self._change(conn)
            if self.closed:  # meanwhile
                self.close()
                raise ClosedError("the client was closed")
            if other is not None:  # made while an interrupted call left this one alone
                other.leaving = True
            return conn
        finally:
            dialing.release()

    def present(self) -> Optional[Greeted]:
        """Return the connection of this thread's calls, if there is one."""
        thread = _greenlets.thread_id()
        return self._by_thread.get(thread) if thread else self.live

    def _change(self, conn: Optional[Greeted]) -> Optional[Greeted]:
        """Replace the connection of this thread's calls. Return the one before."""
        thread = _greenlets.thread_id()
        if not thread:
            other, self.live = self.live, conn
            return other
        other = self._by_thread.pop(thread, None)
        if conn is not None:
            if len(self._by_thread) >= _greenlets.MOST_THREADS:
                for at, one in list(self._by_thread.items()):
                    if not one.in_flight and self._by_thread.pop(at, None) is one:
                        one.end(NotSent("other threads connect"))
                        break
            self._by_thread[thread] = conn
        return other

    def _all(self) -> List[Greeted]:
        """Forget all connections, and return them."""
        conns, self.live, self._by_thread = [self.live, *self._by_thread.values()], None, {}
        return [conn for conn in conns if conn is not None]

    def _dial(self, deadline: float) -> Greeted:
        path, token = find(self._settings.socket), self._settings.secret()
        now = monotonic()
        # A socket that a supervisor keeps is there before the next sidecar is.
        limit = max(self._settings.connect_timeout, MOVE_FOR if self._pace.moving(now) else 0.0)
        deadline = min(deadline, now + limit)
        try:
            return self._greet(path, token, deadline)
        except (NotSent, Broken):
            # A sidecar that ends closes what it has just accepted.
            try:
                return self._greet(path, token, deadline)
            except (NotSent, Broken) as e:
                raise ConnectionError(f"no HELLO from the sidecar at {path}: {e}") from None

    def _greet(self, path: str, token: str, deadline: float) -> Greeted:
        s = self._settings
        before = _clock.boot_ns()
        try:
            sock = connect(path, deadline)
        except OSError as e:
            raise e if isinstance(e, CacheError) else unreachable(path, e) from None
        conn = Greeted(sock, s.max_in_flight)
        try:
            answer = conn.greet(_wire.hello(s.name, token, s.namespace), deadline)
            conn.welcome = welcome(answer, before, _clock.boot_ns())
            conn.frames.max_answer = conn.welcome.max_answer
            self.max_value = conn.welcome.max_value
            conn.on_leaving = self._leaves
            conn.announce_leaving()
        except TimeoutError as e:
            conn.end(NotSent(str(e)))
            raise ConnectionError(f"no HELLO from the sidecar at {path}: {e}") from None
        except BaseException as e:
            conn.end(NotSent(str(e)))
            raise
        if self.welcomed is not None:
            self.welcomed(path, token, conn.welcome)
        return conn

    def _leaves(self) -> None:
        self._pace.leaves(monotonic())

    def close(self) -> None:
        """Close the connection. Calls in flight fail with ClosedError."""
        self.closed = True
        for conn in self._all():
            conn.end(ClosedError("the client was closed"))

    def forked(self) -> None:
        """Begin anew in a forked child: the connection and the locks are the parent's."""
        self._dialing = _greenlets.Locks()
        self._pace = Pace()
        self.nesting.forked()
        for conn in self._all():
            conn.forget()
