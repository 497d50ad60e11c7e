"""The reading half of a sync connection: which thread reads, who is told, and the end.

The thread that reads, the leader, reads until its own answer has come, hands other answers over, and makes a waiting
thread the leader when it leaves. It holds `_leading`. `_waiting` maps the ids of calls to their Waiter. Whoever takes
an id out of it, which is atomic, decides what becomes of the call: so a thread that gives up and a leader that brings
its answer cannot both succeed. A call is in `_waiting` before its thread tries to lead, and a leader looks at
`_waiting` after it has stopped: so no call is left without a leader.

An exception within a read, also a KeyboardInterrupt, ends the connection: its bytes are never out of step.
"""

from __future__ import annotations

import socket
import struct
import threading
from typing import Callable, Dict, List, Optional, Set

import _socket

from . import _greenlets, _wire
from ._clock import monotonic
from ._frames import Frames
from .errors import Broken, ClosedError, Malformed, NotSent, TimeoutError

_LOOK = 16 << 10  # bytes of one read while no call is in flight
_unpack_head = struct.Struct(">IBBI").unpack_from

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


class Reading:
    """The answers of a connection, on their way to the threads that wait for them."""

    def __init__(self, sock: _socket.socket) -> None:
        self._sock = sock
        self._recv = self._recv_greenlet if _greenlets.present() else sock.recv
        self._writing = threading.Lock()
        self._leading = threading.Lock()
        self._waiting: Dict[int, Optional[Waiter]] = {}  # None: the call's own thread leads
        self._late: Dict[int, Optional[Late]] = {}  # calls that were given up: the sidecar still works on them
        self._posts: List[_wire.Tail] = []  # requests that the next thread which writes sends, too
        self.asked = 0.0  # when a PING was posted that is not answered: the connection is in doubt; 0.0: it is not
        self._asking = threading.Lock()  # held while a PING is under way
        self._patience = -1.0  # the system's time limit of a read, in seconds
        self._used = monotonic()
        self.frames = Frames()  # of the leader
        self.error: Optional[Exception] = None  # why the connection has ended
        self.leaving = False  # takes no new calls
        self.tokens: Set[bytes] = set()  # that came over this connection and are neither filled nor abandoned
        self.on_leaving: Optional[Callable[[], None]] = None

    @property
    def alive(self) -> bool:
        return self.error is None and not self.leaving

    @property
    def in_flight(self) -> int:
        """The calls that are not answered, those that were given up among them."""
        return len(self._waiting) + len(self._late)

    # -- leading

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
            if self.error is not None:
                self._bury()
        if self._posts and self._writing.acquire(False):
            self._unlock_writing()  # an answer has come, so there may be room again
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

    def _recv_greenlet(self, n: int, flags: int = 0) -> bytes:
        """Read as a socket that blocks does, and let other greenlets run meanwhile."""
        if not flags:
            _greenlets.wait(self._sock, True, False, self._patience)
        return self._sock.recv(n, socket.MSG_DONTWAIT)

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
        if id == _wire.PING_ID and self.asked:
            self.asked = 0.0
            self._asking.release()
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
        """Wait no longer for a call. Return False if its thread is being told something."""
        self._late[id] = late  # before it leaves _waiting: a leader finds it in one of them
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

    def _unlock_writing(self) -> None:
        raise NotImplementedError

    def settled(self, token: bytes) -> None:
        """Note that a token was filled or given back."""
        self.tokens.discard(token)
        if self.leaving and self._leading.acquire(False):
            self._leave()

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
        while self._writing.acquire(False):
            led = False
            try:
                self._posts.clear()  # by the holder of _writing only
                led = self._leading.acquire(False)
                if led:
                    self._sock.close()
            finally:
                if led:
                    self._leading.release()
                self._writing.release()
            # A leader that left just now found this thread within, and did not close the socket.
            if led or self._leading.locked():
                return

    def forget(self) -> None:
        """Close the socket of a forked child. The parent goes on with its own."""
        self.error = NotSent("the process has forked")
        self._sock.close()


_NONE = Waiter()


def _broken(error: Optional[Exception]) -> Exception:
    """Return the error of a call whose request was sent and whose connection has ended."""
    return error if isinstance(error, (Malformed, ClosedError)) else Broken(str(error))
