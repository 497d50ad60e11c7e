"""One connection of a sync client, shared by all its threads.

A calling thread writes its request itself, and reads its answer itself if no other thread reads. So a call of one
thread costs two system calls and no change of threads. The thread that reads, the leader, reads until its own answer
has come, hands other answers over, and makes a waiting thread the leader when it leaves.

`_writing` is held while a request is written, `_leading` by the leader. `_waiting` maps the ids of calls to their
Waiter. Whoever takes an id out of it, which is atomic, decides what becomes of the call: so a thread that gives up and
a leader that brings its answer cannot both succeed. A call is in `_waiting` before its thread tries to lead, and a
leader looks at `_waiting` after it has stopped: so no call is left without a leader.

An exception within a read or a write, also a KeyboardInterrupt, ends the connection: its bytes are never out of step.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import threading
from time import monotonic
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

from . import _wire
from ._frames import Frames
from .errors import Broken, BusyError, CacheError, ClosedError, Malformed, NotSent, TimeoutError

_ENDED = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF)
_LOOK = 16 << 10  # bytes of one read while no call is in flight
_LEADERLESS = 0.01  # seconds after which a thread that waits for room looks whether somebody still reads
_IDLE = 0.005  # seconds after which a look at the connection precedes a call
_SEND_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)
_pack_head, _unpack_head = struct.Struct(">IBBI").pack, struct.Struct(">IBBI").unpack_from

#: What to do with an answer that comes after its call was given up.
Late = Callable[[bytes], None]


class Waiter:
    """A call whose answer another thread reads. Its lock is released once there is something to do."""

    __slots__ = ("lock", "answer", "leads")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.answer: Optional[bytes] = None  # None, and not leads: the connection has ended
        self.leads = False


class Connection:
    """A greeted connection. It is safe for concurrent use. An answer is a message with its length before it."""

    def __init__(self, sock: socket.socket, max_in_flight: int) -> None:
        self._sock = sock
        self._send, self._recv = sock.send, sock.recv
        self._max_in_flight = max_in_flight
        self._writing = threading.Lock()
        self._leading = threading.Lock()
        self._waiting: Dict[int, Optional[Waiter]] = {}  # None: the call's own thread leads
        self._late: Dict[int, Late] = {}
        self._next = _wire.FIRST_ID
        self._patience = -1.0  # the system's time limit of a read, in seconds
        self._used = monotonic()
        self.frames = Frames()  # of the leader
        self.error: Optional[Exception] = None  # why the connection has ended
        self.leaving = False  # takes no new calls
        self.tokens = 0  # that came over this connection and are neither filled nor abandoned
        self.on_leaving: Optional[Callable[[], None]] = None

    @property
    def alive(self) -> bool:
        return self.error is None and not self.leaving

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    def call(self, end: _wire.Tail, timeout: float, late: Optional[Late] = None, token: bool = False) -> bytes:
        """Send a request and return the answer. late gets an answer that comes after the timeout.

        token says that the request fills a token that came over this connection.
        """
        began = monotonic()
        try:
            if began - self._used > _IDLE:
                self._look()
            id, waiter = self._begin(end, began + timeout, token)
            if waiter is None:
                return self._lead(id, timeout, began + timeout, late)
            return self._finish(id, waiter, began + timeout, late)
        except (CacheError, NotSent, Broken):
            raise
        except BaseException as e:
            self._interrupted(e)
            raise

    def _interrupted(self, error: BaseException) -> None:
        """End the connection after an exception from outside: it may have left a lock held."""
        self.end(NotSent(f"a call was interrupted: {error!r}"))

    def call_many(self, ends: List[_wire.Tail], timeout: float) -> List[Union[bytes, Exception]]:
        """Send requests with one write. Return the answers, or what became of each."""
        try:
            return self._call_many(ends, timeout)
        except (CacheError, NotSent, Broken):
            raise
        except BaseException as e:
            self._interrupted(e)
            raise

    def _call_many(self, ends: List[_wire.Tail], timeout: float) -> List[Union[bytes, Exception]]:
        deadline = monotonic() + timeout
        self._lock_writing(deadline)
        try:
            self._admit(False, len(ends))
            begun = [(self._id(), Waiter()) for _ in ends]
            message = b"".join([_wire.frame(id, end) for (id, _), end in zip(begun, ends)])
            self._waiting.update(begun)
            self._write([id for id, _ in begun], False, message, deadline)
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
            except BaseException:
                for id, waiter in begun:
                    if not self._give_up(id, None):
                        self._pass_on(id, waiter)
                    elif waiter.leads:
                        self._leave()
                raise
        answers.reverse()
        return answers

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
        """Send a request whose answer nobody waits for, if that is possible now."""
        if self.error is not None or not self._writing.acquire(False):
            return
        try:
            self._write([], False, _wire.frame(self._id(), end), monotonic() + 0.1)
        except (NotSent, TimeoutError, OSError):
            pass
        finally:
            self._unlock_writing()

    def greet(self, hello: bytes, deadline: float) -> List[Any]:
        """Make the first call of the connection, whose id is HELLO_ID. Return its decoded answer."""
        self._lock_writing(deadline)
        try:
            self._leading.acquire()
            self._waiting[_wire.HELLO_ID] = None
            waiter = self._write([_wire.HELLO_ID], True, hello, deadline)
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
            left = self._write([id], waiter is None, message, deadline)
        finally:
            self._unlock_writing()
        return id, waiter or left

    def _lock_writing(self, deadline: float) -> None:
        if self.error is not None:  # an interrupted call may have left the lock held
            raise self.error if isinstance(self.error, ClosedError) else NotSent(self.error)
        if not self._writing.acquire(True, max(0.0, deadline - monotonic())):
            raise TimeoutError("the request could not be written in time: other requests were being written")

    def _unlock_writing(self) -> None:
        self._writing.release()
        if self.error is not None:
            self._bury()
        elif self.leaving and self._leading.acquire(False):
            self._leave()

    def _admit(self, token: bool, n: int) -> None:
        if isinstance(self.error, ClosedError):
            raise self.error
        if self.error is not None or self.leaving and not token:
            raise NotSent(self.error or "the sidecar closes the connection")
        if len(self._waiting) + n > self._max_in_flight:
            raise BusyError(f"{len(self._waiting)} calls are in flight: try again, or raise max_in_flight")

    def _id(self) -> int:
        id = self._next
        self._next = id + 1 if id < _wire.LAST_ID else _wire.FIRST_ID
        return id

    def _write(self, ids: List[int], leads: bool, message: bytes, deadline: float) -> Optional[Waiter]:
        """Write requests. Return the waiter of a leader that has left the reading while it waited for room."""
        try:
            n = self._send(message, _SEND_FLAGS)
            if n == len(message):
                return None
        except BlockingIOError:
            n = 0
        except BaseException as e:
            self._unwritten(ids, leads, e)
        waiter = Waiter() if leads else None
        if waiter is not None:
            self._waiting[ids[0]] = waiter
        self._write_rest(ids, leads, memoryview(message)[n:], deadline)
        return waiter

    def _write_rest(self, ids: List[int], reads: bool, rest: memoryview, deadline: float) -> None:
        """Write what is left of requests. The sidecar may wait for room as well, so somebody reads meanwhile."""
        try:
            poll = select.poll()
            while rest:
                left = deadline - monotonic()
                if left <= 0:
                    raise TimeoutError("the request could not be written in time")
                reads = reads or self._takes_over(ids)
                poll.register(self._sock, select.POLLOUT | (select.POLLIN if reads else 0))
                for _, event in poll.poll(min(left, 3600.0 if reads else _LEADERLESS) * 1000 + 1):
                    if reads and event & ~select.POLLOUT:
                        self._take()
                try:
                    rest = rest[self._send(rest, _SEND_FLAGS) :]
                except BlockingIOError:
                    pass
        except BaseException as e:
            self._unwritten(ids, reads, e)
        if reads:
            self._leave()

    def _takes_over(self, ids: List[int]) -> bool:
        """Say whether a thread that waits for room leads from now on: it was made the leader, or there is none."""
        for id in ids:
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

    def _unwritten(self, ids: List[int], leads: bool, error: BaseException) -> None:
        """Undo the beginning of calls whose requests were not written whole. Raise what they have met."""
        for id in ids:
            waiter = self._waiting.pop(id, None)
            leads = leads or waiter is not None and waiter.leads  # made the leader meanwhile
        if isinstance(error, OSError) and error.errno in _ENDED:
            # The sidecar reads no more. It still answers what it has read.
            self.leaving = True
            if leads:
                self._leading.release()
            raise NotSent(f"the sidecar has closed the connection: {error}") from None
        self.end(NotSent(f"a write has ended early: {error!r}"))
        if leads:
            self._leading.release()
        raise error

    # -- reading

    def _lead(self, id: int, timeout: float, deadline: float, late: Optional[Late]) -> bytes:
        """Read until the answer to a call has come. The caller leads."""
        try:
            if timeout != self._patience:
                self._be_patient(timeout)
            while True:
                try:
                    data = self._recv(self.frames.room())
                except BlockingIOError:
                    data = None
                if data:
                    if self.frames.empty and len(data) > 9:  # mostly it is the one answer that is waited for
                        length, _, kind, its = _unpack_head(data)
                        if length + 4 == len(data) and kind == 0xCE and its == id:
                            self._waiting.pop(id, None)
                            answer = data
                            break
                    mine = self._deliver(data, id)
                    if mine is not None:
                        answer = mine
                        break
                    if self.error is not None:
                        raise self.error
                elif data is not None:
                    raise self.error or Broken("the sidecar has closed the connection")
                left = deadline - monotonic()
                if left <= 0:
                    self._give_up(id, late)
                    self._used = monotonic()
                    self._leave()
                    raise TimeoutError(f"no answer from the sidecar within {timeout:g} s")
                self._be_patient(left)
        except TimeoutError:
            raise
        except BaseException as e:
            raise self._lost(id, e)
        self._used = monotonic()
        if self._waiting or self.leaving:
            self._leave()
        else:
            self._leading.release()
            if self._waiting:
                self._lead_again()
        return answer

    def _lost(self, id: int, error: BaseException) -> BaseException:
        """End the connection after a failed read. Return the error of the caller's call."""
        self._waiting.pop(id, None)
        if isinstance(error, (Malformed, ClosedError, Broken, NotSent)):
            failed: Exception = error
        elif isinstance(error, OSError):
            failed = error = Broken(f"the connection to the sidecar has ended: {error}")
        else:
            failed = Broken(f"a read has ended early: {error!r}")
        if isinstance(error, NotSent):  # another thread has ended the connection
            error = _broken(error)
        self.end(failed)
        self._leading.release()
        self._bury()
        return error

    def _be_patient(self, seconds: float) -> None:
        """Bound the next reads."""
        seconds = max(seconds, 0.001)
        whole = int(seconds)
        self._sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", whole, int((seconds - whole) * 1e6))
        )
        self._patience = seconds

    def _deliver(self, data: bytes, own: int) -> Optional[bytes]:
        """Hand answers over. Return the leader's own, if it is among them."""
        mine: Optional[bytes] = None
        for id, answer in self.frames.feed(data):
            if id != own:
                self._hand_over(id, answer)
            elif self._waiting.pop(id, _NONE) is not _NONE:
                mine = answer
        return mine

    def _hand_over(self, id: int, answer: bytes) -> None:
        if id == _wire.LEAVING_ID:
            if _wire.decode(answer[4:])[1] == _wire.OK:
                self.leaving = True
                if self.on_leaving is not None:
                    self.on_leaving()
            return
        waiter = self._waiting.pop(id, None)
        if waiter is not None:
            waiter.answer = answer
            waiter.lock.release()
        elif self._late:
            late = self._late.pop(id, None)
            if late is not None:
                late(answer)

    def _give_up(self, id: int, late: Optional[Late]) -> bool:
        """Take a call back. Return False if its thread is being told something."""
        if late is not None and len(self._late) < self._max_in_flight:
            self._late[id] = late
        if self._waiting.pop(id, _NONE) is not _NONE:
            return True
        self._late.pop(id, None)
        return False

    def _leave(self) -> None:
        """Make another thread the leader, if one waits. Else the next call leads."""
        waiting = self._waiting
        while True:
            if self.error is not None:
                self._leading.release()
                self._bury()
                return
            for id in reversed(list(waiting)):  # the last call reads longest
                waiter = waiting.pop(id, None)
                if waiter is not None:
                    waiter.leads = True
                    waiting[id] = waiter
                    waiter.lock.release()
                    return
            self._end_if_left()
            self._leading.release()
            if self.error is not None:
                self._bury()
            if not waiting or not self._leading.acquire(False):
                return

    def _lead_again(self) -> None:
        """Lead for a call that began while the leader left."""
        if self._leading.acquire(False):
            self._leave()

    def _follow(self, id: int, waiter: Waiter, deadline: float, late: Optional[Late]) -> bytes:
        """Wait until another thread has read the answer to a call, or has left the reading to this one."""
        try:
            told = waiter.lock.acquire(True, max(0.0, deadline - monotonic()))
        except BaseException:
            if not self._give_up(id, late):
                self._pass_on(id, waiter)
            elif waiter.leads:  # told in the moment in which the wait ended
                self._leave()
            raise
        if not told:
            if self._give_up(id, late):
                if waiter.leads:  # told in the moment in which the wait ended
                    self._leave()
                raise TimeoutError("no answer from the sidecar in time")
            waiter.lock.acquire()  # just now
        return self._told(id, waiter, deadline, late)

    def _told(self, id: int, waiter: Waiter, deadline: float, late: Optional[Late]) -> bytes:
        if waiter.answer is not None:
            return waiter.answer
        if waiter.leads:
            return self._lead(id, max(0.001, deadline - monotonic()), deadline, late)
        raise _broken(self.error)

    def _pass_on(self, id: int, waiter: Waiter) -> None:
        """Leave after an interrupted wait whose thread was made the leader."""
        waiter.lock.acquire()
        if waiter.leads:
            self._waiting.pop(id, None)
            self._leave()

    def _look(self) -> None:
        """Read what has come while no call was in flight: the sidecar's farewell, or the end."""
        if not self._leading.acquire(False):
            return
        try:
            while self.error is None:
                data = self._recv(_LOOK, socket.MSG_DONTWAIT)
                if not data:
                    raise Broken("the sidecar has closed the connection")
                self._deliver(data, -1)
        except BlockingIOError:
            pass
        except Exception as e:
            self.end(e if isinstance(e, Malformed) else NotSent(str(e)))
        except BaseException as e:
            self.end(NotSent(f"a read has ended early: {e!r}"))
            self._leave()
            raise
        self._leave()

    # -- the end

    def _end_if_left(self) -> None:
        """End a connection that the sidecar is about to close, once nothing is expected of it."""
        if self.leaving and not self.tokens and self._writing.acquire(False):
            try:
                if not self._waiting:
                    self.end(NotSent("the sidecar closes the connection"))
            finally:
                self._writing.release()

    def end(self, error: Exception) -> None:
        """End the connection. All calls that wait are told."""
        if self.error is None:
            self.error = error
        try:
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes the leader
        except OSError:
            pass
        for id in list(self._waiting):
            waiter = self._waiting.pop(id, None)
            if waiter is not None and not waiter.leads:
                waiter.lock.release()
        self._late.clear()
        self._bury()

    def _bury(self) -> None:
        """Close the socket unless a thread is within a call of it, which then does so itself."""
        if self._writing.acquire(False):
            try:
                if self._leading.acquire(False):
                    try:
                        self._sock.close()
                    finally:
                        self._leading.release()
            finally:
                self._writing.release()

    def forget(self) -> None:
        """Close the socket of a forked child. The parent goes on with its own."""
        self.error = NotSent("the process has forked")
        self._sock.close()


_NONE = Waiter()


def _broken(error: Optional[Exception]) -> Exception:
    """Return the error of a call whose request was sent and whose connection has ended."""
    return error if isinstance(error, (Malformed, ClosedError)) else Broken(str(error))
