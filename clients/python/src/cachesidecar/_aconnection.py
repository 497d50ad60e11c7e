"""One connection of an asyncio client. It belongs to one event loop, and is used from there only.

Calls of one tick share one write. One timer sweeps the calls whose time is over. The socket is the connection's own,
without a transport, so that it is known which requests were written when the sidecar stops reading.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from . import _doubt, _timers, _wire
from ._clock import monotonic
from ._frames import Frames
from .errors import Broken, BusyError, ClosedError, Malformed, NotSent, TimeoutError

_READ = 256 << 10  # bytes of one read
_MAX_QUEUED = 64 << 20  # bytes of requests that wait to be written
_ENDED = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF)
_SEND_FLAGS = getattr(socket, "MSG_NOSIGNAL", 0)
_SWEEP = 0.005  # seconds by which a call may be given up too late

#: What to do with an answer that comes after its call was given up.
Late = Callable[[bytes], None]


class Connection:
    """A greeted connection. An answer is a message with its length before it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, max_in_flight: int) -> None:
        self._loop, self._sock, self._max_in_flight = loop, sock, max_in_flight
        # With the moment of giving up, and the seconds until then.
        self._waiting: Dict[int, Tuple["asyncio.Future[bytes]", float, Optional[Late], float]] = {}
        self._late: Dict[int, Optional[Late]] = {}  # calls that were given up: the sidecar still works on them
        self._next = _wire.FIRST_ID
        self._queue: List[Tuple[int, bytes]] = []  # requests that are not written
        self._queued = 0  # bytes in it
        self._begun: Optional[memoryview] = None  # the rest of a request whose beginning is written
        self._begun_id = 0
        self.asked: Optional["asyncio.Future[None]"] = None  # the answer to a PING; None: there is no doubt
        self._asked_at = 0.0  # when the PING was posted
        self._silent = 0.0  # when the call began whose missing answer has led to it
        self._flushing = False  # at the end of this tick, or when the socket has room
        self._sweeper: Optional[_timers.Timer] = None
        self._sweep_at = 0.0
        self.frames = Frames()
        self.error: Optional[Exception] = None  # why the connection has ended
        self.leaving = False  # takes no new calls
        self.tokens: Set[bytes] = set()  # that came over this connection and are neither filled nor abandoned
        self.on_leaving: Optional[Callable[[], None]] = None
        loop.add_reader(sock.fileno(), self._readable)

    @property
    def alive(self) -> bool:
        return self.error is None and not self.leaving

    @property
    def in_flight(self) -> int:
        """The calls that are not answered, those that were given up among them."""
        return len(self._waiting) + len(self._late)

    async def call(self, end: _wire.Tail, timeout: float, late: Optional[Late] = None, token: bool = False) -> bytes:
        """Send a request and return the answer. late gets an answer that comes after the call was given up.

        token says that the request fills a token that came over this connection.
        """
        if self.asked is not None:
            timeout = await self._settle(self.asked, timeout)
        id, future = self.begin(end, timeout, token, late)
        return await self._wait(id, future, late)

    def begin(
        self, end: _wire.Tail, timeout: float, token: bool, late: Optional[Late] = None
    ) -> "Tuple[int, asyncio.Future[bytes]]":
        """Send a request. Return its id, and its answer to come: whoever waits no longer for it says give_up."""
        if self.error is not None or self.leaving and not token:
            if isinstance(self.error, ClosedError):
                raise self.error
            raise NotSent(self.error or "the sidecar closes the connection")
        if len(self._waiting) + len(self._late) >= self._max_in_flight or self._queued > _MAX_QUEUED:
            raise BusyError(f"{self.in_flight} calls are in flight: try again, or raise max_in_flight")
        id = self._next_id()
        return id, self._begin(id, _wire.frame(id, end), timeout, late)

    def give_up(self, id: int) -> None:
        """Wait no longer for a call. It is not written if that has not begun; else its answer is still to come."""
        call = self._waiting.pop(id, None)
        if call is not None:
            self._late[id] = call[2]

    async def greet(self, hello: bytes, timeout: float) -> List[Any]:
        """Make the first call of the connection, whose id is HELLO_ID. Return its decoded answer."""
        future = self._begin(_wire.HELLO_ID, hello, timeout, None)
        return _wire.decode((await self._wait(_wire.HELLO_ID, future, None))[4:])

    def announce_leaving(self) -> None:
        """Ask the sidecar to say when it closes. The answer may come at any time."""
        self._put(_wire.LEAVING_ID, _wire.frame(_wire.LEAVING_ID, _wire.tail(_wire.LEAVING, 0)))

    def post(self, end: _wire.Tail) -> None:
        """Send a request whose answer nobody waits for."""
        if self.error is None:
            self._put(_wire.LEAVING_ID, _wire.frame(self._next_id(), end))

    def report(self, end: _wire.Tail) -> None:
        """Send a request that may be dropped, at once: perhaps the loop does not run any more."""
        if self.error is not None or self._queued > _MAX_QUEUED:
            return
        self._queue.append((_wire.LEAVING_ID, _wire.frame(self._next_id(), end)))
        self._queued += len(self._queue[-1][1])
        try:
            while self._write_some():
                pass
        except OSError:  # there is no room, or the sidecar has gone: the next call finds out
            pass

    def _next_id(self) -> int:
        id = self._next
        self._next = id + 1 if id < _wire.LAST_ID else _wire.FIRST_ID
        return id

    def _begin(self, id: int, message: bytes, timeout: float, late: Optional[Late]) -> "asyncio.Future[bytes]":
        deadline = monotonic() + timeout
        future: "asyncio.Future[bytes]" = self._loop.create_future()
        self._waiting[id] = future, deadline, late, timeout
        self._put(id, message)
        if self._sweeper is None or deadline < self._sweep_at - _SWEEP:
            self._sweep_by(deadline)
        elif not _timers.goes_on(self._sweeper, self._loop):
            self._sweep_by(self._sweep_at)
        return future

    async def _wait(self, id: int, future: "asyncio.Future[bytes]", late: Optional[Late]) -> bytes:
        try:
            return await future
        except BaseException:  # cancelled, or failed
            self.give_up(id)
            if late is not None and future.done() and not future.cancelled() and future.exception() is None:
                late(future.result())  # the answer came, and then the cancellation, in one tick
            raise

    # -- doubt

    def _ask(self, since: float) -> None:
        """Post a PING after a call without an answer that began at since, unless one is under way."""
        if self.asked is None and self.alive:
            self.asked = self._loop.create_future()
            self._silent, self._asked_at = since, monotonic()
            self._put(_wire.LEAVING_ID, _wire.frame(_wire.PING_ID, _doubt.PING))

    def _settled(self) -> None:
        """End the doubt: the PING is answered, or the connection has ended."""
        asked, self.asked = self.asked, None
        if asked is not None and not self._loop.is_closed():
            asked.set_result(None)

    async def _settle(self, asked: "asyncio.Future[None]", timeout: float) -> float:
        """Wait while the connection is in doubt. Return how much of a call's time is left, or raise what it meets."""
        began = monotonic()
        wait = min(self._asked_at + _doubt.HESITATION - began, timeout)
        if wait > 0:
            await _timers.wait(asked, wait)
        if not asked.done():
            raise _doubt.hangs(self._silent)
        return max(0.001, timeout - (monotonic() - began))

    # -- writing

    def _put(self, id: int, message: bytes) -> None:
        self._queue.append((id, message))
        self._queued += len(message)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write what is queued, as far as the socket has room."""
        try:
            while self._write_some():
                pass
        except BlockingIOError:
            self._loop.add_writer(self._sock.fileno(), self._writable)
            return
        except OSError as e:
            self._flushing = False
            self._unwritten(e)
            return
        self._flushing = False

    def _writable(self) -> None:
        self._loop.remove_writer(self._sock.fileno())
        if self.error is None:
            self._flush()

    def _write_some(self) -> bool:
        """Make one write. Return whether there is more."""
        if self.error is not None:
            return False
        if self._begun is not None:
            self._begun = self._begun[self._sock.send(self._begun, _SEND_FLAGS) :]
            if self._begun:
                return True
            self._begun = None
        waiting = self._waiting
        queue = [one for one in self._queue if one[0] in waiting or not one[0]]  # the others were given up
        if len(queue) < len(self._queue):
            for id, _ in self._queue:
                if id not in waiting:
                    self._late.pop(id, None)  # it is not written: nothing is to come
        if not queue:
            self._queue, self._queued = [], 0
            return False
        data = b"".join([message for _, message in queue]) if len(queue) > 1 else queue[0][1]
        self._queue = queue
        n = self._sock.send(data, _SEND_FLAGS)
        if n == len(data):
            self._queue, self._queued = [], 0
            return False
        at = 0
        while n >= len(queue[at][1]):
            n -= len(queue[at][1])
            at += 1
        if n:
            self._begun, self._begun_id = memoryview(queue[at][1])[n:], queue[at][0]
            at += 1
        self._queue = queue[at:]
        self._queued = sum([len(message) for _, message in self._queue])
        return True

    def _unwritten(self, error: OSError) -> None:
        """The sidecar reads no more. It still answers what it has read."""
        self.leaving = True
        ids = ([self._begun_id] if self._begun is not None else []) + [id for id, _ in self._queue]
        self._queue, self._queued, self._begun = [], 0, None
        for id in ids:
            self._late.pop(id, None)
            self._fail(id, NotSent(f"the sidecar has closed the connection: {error}"))
        if error.errno not in _ENDED:
            self.end(NotSent(f"a write has failed: {error}"))
        self._end_if_left()

    # -- reading

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as e:
            self.end(Broken(f"the connection to the sidecar has ended: {e}"))
            return
        if not data:
            self.end(Broken("the sidecar has closed the connection"))
            return
        try:
            answers = self.frames.feed(data)
            for id, answer in answers:
                call = self._waiting.pop(id, None)
                if call is None:
                    self._take(id, answer)
                elif not call[0].done():
                    call[0].set_result(answer)
                elif call[2] is not None:
                    call[2](answer)  # it came after the end of the wait, in one tick
        except Malformed as e:
            self.end(e)
            return
        if self.leaving:
            self._end_if_left()

    def _take(self, id: int, answer: bytes) -> None:
        """Take an answer that no call waits for."""
        if id == _wire.LEAVING_ID:
            if _wire.decode(answer[4:])[1] == _wire.OK:
                self.leaving = True
                if self.on_leaving is not None:
                    self.on_leaving()
            return
        if id == _wire.PING_ID:
            self._settled()
            return
        late = self._late.pop(id, None)
        if late is not None:
            late(answer)

    # -- time

    def _sweep_by(self, deadline: float) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sweep_at = deadline
        self._sweeper = _timers.call_later(self._loop, deadline - monotonic(), self._sweep)

    def _sweep(self) -> None:
        """Give up the calls whose time is over."""
        self._sweeper = None
        now, first = monotonic(), None
        for id, (future, deadline, _, timeout) in list(self._waiting.items()):
            if deadline <= now:
                if not future.done():
                    future.set_exception(TimeoutError("no answer from the sidecar in time"))
                    self._ask(monotonic() - timeout)
            elif first is None or deadline < first:
                first = deadline
        if first is not None:
            self._sweep_by(first)

    # -- the end

    def _fail(self, id: int, error: Exception) -> None:
        call = self._waiting.pop(id, None)
        if call is not None and not call[0].done():
            call[0].set_exception(error)

    def settled(self, token: bytes) -> None:
        """Note that a token was filled or given back. What was posted is written first."""
        self.tokens.discard(token)
        if self.leaving:
            self._loop.call_soon(self._end_if_left)

    def _end_if_left(self) -> None:
        """End a connection that the sidecar is about to close, once nothing is expected of it."""
        if self.leaving and not self.tokens and not self._waiting:
            self.end(NotSent("the sidecar closes the connection"))

    def end(self, error: Exception) -> None:
        """End the connection. All calls that wait are told."""
        if self.error is not None:
            return
        self.error = error
        unsent = {id for id, _ in self._queue}
        if self._begun is not None:
            unsent.add(self._begun_id)
        fd = self._sock.fileno()
        if not self._loop.is_closed():
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
            if self._sweeper is not None:
                self._sweeper.cancel()
            for id in list(self._waiting):
                self._fail(id, NotSent(str(error)) if id in unsent and isinstance(error, Broken) else broken(error))
        self._waiting.clear()
        self._late.clear()
        self._settled()
        self._queue, self._begun = [], None
        self._sock.close()

    def forget(self) -> None:
        """Close the socket of a forked child. The loop, and what it watches, is the parent's."""
        self.error = NotSent("the process has forked")
        self._sock.close()


def broken(error: Exception) -> Exception:
    """Return the error of a call whose request was sent and whose connection has ended."""
    return error if isinstance(error, (Malformed, ClosedError)) else Broken(str(error))
