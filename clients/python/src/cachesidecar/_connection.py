"""One connection of a sync client, shared by all its threads: its calls, and the writing half.

A calling thread writes its request itself, and reads its answer itself if no other thread reads (_reading). So a call
of one thread costs two system calls and no change of threads. `_writing` is held while a request is written.

An exception within a write, also a KeyboardInterrupt, ends the connection: its bytes are never out of step.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from typing import Any, List, Optional, Tuple, Union

import _socket

from . import _doubt, _greenlets, _wire
from ._clock import monotonic
from ._reading import Late, Reading, Waiter
from .errors import Broken, BusyError, CacheError, ClosedError, NotSent, TimeoutError

_ENDED = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF)
_LEADERLESS = 0.01  # seconds after which a thread that waits for room looks whether somebody still reads
_POST = 0.1  # seconds in which the rest of a posted request must be written
_IDLE = 0.005  # seconds after which a look at the connection precedes a call
_GLANCE = 0.002  # seconds between two looks for the answer to a PING
_SEND_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)
_pack_head = struct.Struct(">IBBI").pack

#: Request is the id of one that is being written, and how many bytes of the same write are behind it.
Request = Tuple[int, int]


class Connection(Reading):
    """A greeted connection. It is safe for concurrent use. An answer is a message with its length before it."""

    def __init__(self, sock: _socket.socket, max_in_flight: int) -> None:
        super().__init__(sock)
        self._max_in_flight = max_in_flight
        self._send = sock.send
        self._next = _wire.FIRST_ID
        self._full = False  # the socket had no room for what was posted
        self._silent = 0.0  # when the call began whose missing answer has led to the last PING

    def call(self, end: _wire.Tail, timeout: float, late: Optional[Late] = None, token: bool = False) -> bytes:
        """Send a request and return the answer. late gets an answer that comes after the timeout.

        token says that the request fills a token that came over this connection.
        """
        began = monotonic()
        try:
            if self.asked:
                timeout = self._settle(timeout)
                began = monotonic()
            if began - self._used > _IDLE or self._late and self.in_flight >= self._max_in_flight:
                self._look()
            id, waiter = self._begin(end, began + timeout, token)
            if waiter is None:
                return self._lead(id, timeout, began + timeout, late)
            return self._finish(id, waiter, began + timeout, late)
        except TimeoutError:
            self._ask(began)
            raise
        except (CacheError, NotSent, Broken):
            raise
        except BaseException as e:
            self._interrupted(e)
            raise

    def _interrupted(self, error: BaseException) -> None:
        """End the connection after an exception from outside: it may have left a lock held."""
        self.end(NotSent(f"a call was interrupted: {error!r}"))

    def call_many(self, ends: List[_wire.Tail], timeout: float) -> List[Union[bytes, Exception]]:
        """Send requests with one write. Return the answers, or what became of each: NotSent, if it may be repeated."""
        began = monotonic()
        try:
            return self._call_many(ends, timeout)
        except NotSent as e:
            return [e] * len(ends)
        except TimeoutError:
            self._ask(began)
            raise
        except (CacheError, Broken):
            raise
        except BaseException as e:
            self._interrupted(e)
            raise

    def _call_many(self, ends: List[_wire.Tail], timeout: float) -> List[Union[bytes, Exception]]:
        if self.asked:
            timeout = self._settle(timeout)
        deadline = monotonic() + timeout
        if self._late and self.in_flight + len(ends) > self._max_in_flight:
            self._look()  # answers to calls that were given up may have come
        self._lock_writing(deadline)
        try:
            self._admit(False, len(ends))
            begun = [(self._id(), Waiter()) for _ in ends]
            messages = [_wire.frame(id, end) for (id, _), end in zip(begun, ends)]
            requests, behind = [], sum(map(len, messages))
            for (id, _), message in zip(begun, messages):
                behind -= len(message)
                requests.append((id, behind))
            self._waiting.update(begun)
            unsent: List[Union[bytes, Exception]] = []
            try:
                self._write(requests, False, b"".join(messages), deadline)
            except NotSent as e:
                unsent = [e] * e.last
                del begun[len(ends) - e.last :]
        finally:
            self._unlock_writing()
        answers: List[Union[bytes, Exception]] = []
        # The last one is first: a thread that leaves makes the last waiter the leader, and this thread must be there.
        while begun:
            id, waiter = begun.pop()
            try:
                answers.append(self._finish(id, waiter, deadline))
            except Exception as e:
                answers.append(e)
                if isinstance(e, TimeoutError):
                    self._ask(deadline - timeout)
            except BaseException:
                for id, waiter in begun:
                    if not self._give_up(id, None):
                        self._pass_on(id, waiter)
                    elif waiter.leads:
                        self._leave()
                raise
        answers.reverse()
        return answers + unsent

    def _finish(self, id: int, waiter: Waiter, deadline: float, late: Optional[Late] = None) -> bytes:
        if waiter.lock.acquire(False):  # told before
            return self._told(id, waiter, deadline, late)
        if self._leading.acquire(False):
            if not waiter.lock.acquire(False):
                return self._lead(id, max(0.001, deadline - monotonic()), deadline, late)
            self._leave()  # told just now
            return self._told(id, waiter, deadline, late)
        return self._follow(id, waiter, deadline, late)

    def post(self, end: _wire.Tail) -> None:
        """Send a request whose answer nobody waits for. If another thread writes, that one sends it."""
        if self.error is None and len(self._posts) < self._max_in_flight:
            self._posts.append(end)
        self._flush()

    def _flush(self) -> None:
        """Send what is posted, unless another thread writes."""
        try:
            if self._writing.acquire(False):
                self._unlock_writing()
        except BaseException as e:
            self._interrupted(e)
            raise

    def report(self, end: _wire.Tail) -> None:
        """Send a request that may be dropped. Read what has come: perhaps no other call does."""
        self._look()
        if self.alive and not self.asked:
            self.post(end)

    # -- doubt

    def _ask(self, since: float) -> None:
        """Post a PING after a call without an answer that began at since, unless one is under way."""
        if self.alive and self._asking.acquire(False):
            self._silent, self.asked = since, monotonic()
            self._posts.append(_doubt.PING)
            self._flush()

    def _settle(self, timeout: float) -> float:
        """Wait while the connection is in doubt. Return how much of a call's time is left, or raise what it meets."""
        began = monotonic()
        until = min(self.asked + _doubt.HESITATION, began + timeout)
        while True:
            self._look()
            if self._posts:
                self._flush()  # the PING may have found no room
            now = monotonic()
            if not self.asked or not self.alive:
                return max(0.001, timeout - (now - began))
            if now >= until:
                raise _doubt.hangs(self._silent)
            time.sleep(min(_GLANCE, until - now))

    def greet(self, hello: bytes, deadline: float) -> List[Any]:
        """Make the first call of the connection, whose id is HELLO_ID. Return its decoded answer."""
        self._lock_writing(deadline)
        try:
            self._leading.acquire()
            self._waiting[_wire.HELLO_ID] = None
            waiter = self._write([(_wire.HELLO_ID, 0)], True, hello, deadline)
        finally:
            self._unlock_writing()
        if waiter is not None:
            return _wire.decode(self._finish(_wire.HELLO_ID, waiter, deadline)[4:])
        return _wire.decode(self._lead(_wire.HELLO_ID, deadline - monotonic(), deadline, None)[4:])

    def announce_leaving(self) -> None:
        """Ask the sidecar to say when it closes. The answer may come at any time."""
        self._lock_writing(monotonic() + 1)
        try:
            message = _wire.frame(_wire.LEAVING_ID, _wire.tail(_wire.LEAVING, 0))
            self._write([], False, message, monotonic() + 1)
        finally:
            self._unlock_writing()

    # -- writing

    def _begin(self, end: _wire.Tail, deadline: float, token: bool) -> Tuple[int, Optional[Waiter]]:
        """Write a request. Return its id, and its waiter unless the caller leads."""
        if not self._writing.acquire(False):
            self._lock_writing(deadline)
        try:
            self._admit(token, 1)
            id = self._id()
            waiter = None if self._leading.acquire(False) else Waiter()
            self._waiting[id] = waiter
            n, data = end
            message = _pack_head(len(data) + 6, 0x91 + n, 0xCE, id) + data
            left = self._write([(id, 0)], waiter is None, message, deadline)
        finally:
            self._unlock_writing()
        return id, waiter or left

    def _lock_writing(self, deadline: float) -> None:
        if self.error is not None:  # an interrupted call may have left the lock held
            raise self.error if isinstance(self.error, ClosedError) else NotSent(self.error)
        if not self._writing.acquire(True, max(0.0, deadline - monotonic())):
            raise TimeoutError("the request could not be written in time: other requests were being written")

    def _unlock_writing(self) -> None:
        while True:
            try:
                if self._posts:
                    self._write_posts()
            finally:
                self._writing.release()
            if self.error is not None:
                self._bury()
            elif self.leaving and self._leading.acquire(False):
                self._leave()
            if not self._posts or self._full or not self._writing.acquire(False):
                return

    def _write_posts(self) -> None:
        """Write what was posted. What the socket has no room for waits for the next thread that writes."""
        self._full = False
        try:
            while self._posts and self.error is None:
                end = self._posts[0]
                message = _wire.frame(_wire.PING_ID if end is _doubt.PING else self._id(), end)
                n = self._send(message, _SEND_FLAGS)
                del self._posts[:1]
                if n < len(message):
                    self._write_rest([], False, memoryview(message)[n:], monotonic() + _POST)
        except BlockingIOError:
            self._full = True
        except (NotSent, TimeoutError, OSError):
            self.leaving = True
            self._posts.clear()  # nothing is sent any more

    def _admit(self, token: bool, n: int) -> None:
        if isinstance(self.error, ClosedError):
            raise self.error
        if self.error is not None or self.leaving and not token:
            raise NotSent(self.error or "the sidecar closes the connection")
        if self.in_flight + n > self._max_in_flight:
            raise BusyError(f"{self.in_flight} calls are in flight: try again, or raise max_in_flight")

    def _id(self) -> int:
        id = self._next
        self._next = id + 1 if id < _wire.LAST_ID else _wire.FIRST_ID
        return id

    def _write(self, requests: List[Request], leads: bool, message: bytes, deadline: float) -> Optional[Waiter]:
        """Write requests. Return the waiter of a leader that has left the reading while it waited for room."""
        try:
            n = self._send(message, _SEND_FLAGS)
            if n == len(message):
                return None
        except BlockingIOError:
            n = 0
        except BaseException as e:
            self._unwritten(requests, leads, e, len(message))
        waiter = Waiter() if leads else None
        if waiter is not None:
            self._waiting[requests[0][0]] = waiter
        self._write_rest(requests, leads, memoryview(message)[n:], deadline)
        return waiter

    def _write_rest(self, requests: List[Request], reads: bool, rest: memoryview, deadline: float) -> None:
        """Write what is left of requests. The sidecar may wait for room as well, so somebody reads meanwhile."""
        try:
            while rest:
                left = deadline - monotonic()
                if left <= 0:
                    raise TimeoutError("the request could not be written in time")
                reads = reads or self._takes_over(requests)
                if _greenlets.wait(self._sock, reads, True, min(left, 3600.0 if reads else _LEADERLESS)) and reads:
                    self._take()
                try:
                    rest = rest[self._send(rest, _SEND_FLAGS) :]
                except BlockingIOError:
                    pass
        except BaseException as e:
            self._unwritten(requests, reads, e, len(rest))
        if reads:
            self._leave()

    def _takes_over(self, requests: List[Request]) -> bool:
        """Say whether a thread that waits for room leads from now on: it was made the leader, or there is none."""
        for id, _ in requests:
            waiter = self._waiting.get(id)
            if waiter is not None and waiter.leads:
                waiter.lock.acquire()  # it was released, or is just now
                waiter.leads = False
                return True
        return self._leading.acquire(False)

    def _take(self) -> None:
        """Hand over what has come."""
        try:
            data = self._recv(self.frames.room(), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if not data:
            raise BrokenPipeError(errno.EPIPE, "the sidecar has closed the connection")
        self._deliver(data, -1)

    def _unwritten(self, requests: List[Request], leads: bool, error: BaseException, left: int) -> None:
        """Undo the beginning of calls after a failed write, of which left bytes were not taken. Raise what they met."""
        ended = isinstance(error, OSError) and error.errno in _ENDED
        # If the sidecar reads no more, it still answers what it has read: the requests whose last byte was taken wait.
        undone = [id for id, behind in requests if behind < left or not ended]
        for id in undone:
            waiter = self._waiting.pop(id, None)
            leads = leads or waiter is not None and waiter.leads  # made the leader meanwhile
        if ended:
            self.leaving = True
            if leads:
                self._leading.release()
            unsent = NotSent(f"the sidecar has closed the connection: {error}")
            unsent.last = len(undone)
            raise unsent from None
        self.end(NotSent(f"a write has ended early: {error!r}"))
        if leads:
            self._leading.release()
        raise error
