"""get_or_set of a key that has no value, for threads: the thread of the first caller asks, loads and fills."""

from __future__ import annotations

from typing import Any, Callable, List, Tuple

from . import _calls, _encode, _greenlets, _wire
from ._core import FAIL_OPEN
from ._link import Greeted
from ._loads import loading, not_loading
from ._settings import TTL
from ._state import ThreadFlight
from ._view import ThreadView
from .errors import BusyError, CacheError, TimeoutError


class Load:
    """A get_or_set that has found nothing."""

    def __init__(
        self, client: ThreadView, key: bytes, loader: Callable[[], Any], ttl: TTL, flags: int, options: int,
        codec: _encode.Codec,
    ) -> None:
        self._client, self._key, self._loader, self._ttl = client, key, loader, ttl
        self._flags, self._options, self._codec = flags, options, codec
        self._loads = client._state.loads
        self._at = (client._name, key, options, _greenlets.thread_id())
        self._mine = (client._core.settings.socket, client._name, key)
        self._nesting = client._core.nesting
        self._link = client._link
        self._passed = False

    def run(self, alone: bool) -> Any:
        """Return the value, loaded by this thread or by another."""
        not_loading(self._mine, self._key)
        if self._nesting.may_wait() and self._link.nesting.may_wait():
            return self._nesting.run(self._run, alone)
        if not self._client._core.settings.fail_open:
            raise BusyError(
                f"{self._key!r} is asked for within another call of this thread, by a destructor or a signal handler, "
                "or while the interpreter ends: use get and set there, or set fail_open"
            )
        with loading(self._mine):
            return self._loader()

    def _run(self, alone: bool) -> Any:
        settings = self._client._core.settings
        while True:
            flight, first, begins = self._loads.join(self._at, ThreadFlight(alone))
            if first:
                return self._fly(flight, begins)
            if not flight.ended.wait(settings.wait_timeout + 2 * settings.load_timeout):
                raise TimeoutError(f"another thread still loads {self._key!r}")
            if not flight.again:
                break
        if flight.error is not None:
            raise flight.error
        return None if flight.found is None else self._codec.decode(self._key, *flight.found)

    def _fly(self, flight: ThreadFlight, begins: bool) -> Any:
        """Carry a flight out, for all its callers."""
        try:
            if not begins:
                self._wait_for_turn(flight)
            try:
                return self._get(flight)
            finally:
                if not self._passed:
                    self._pass()
        except Exception as e:
            flight.error = e
            raise
        except BaseException:
            flight.again = True
            raise
        finally:
            self._loads.over()
            flight.ended.set()

    def _wait_for_turn(self, flight: ThreadFlight) -> None:
        """Wait until the flight before this one has ended, or loads."""
        settings = self._client._core.settings
        try:
            if flight.begins.wait(settings.wait_timeout + settings.load_timeout):
                return
            raise TimeoutError(f"another thread still loads {self._key!r}")
        except BaseException:
            if not self._loads.withdraw(self._at, flight):
                self._pass()  # its turn has come just now
            raise

    def _pass(self) -> None:
        self._passed = True
        following = self._loads.passes(self._at)
        if following is not None:
            following.begins.set()

    def _get(self, flight: ThreadFlight) -> Any:
        if flight.alone:
            return self._load(flight)
        try:
            answer, conn = self._ask()
        except FAIL_OPEN:
            if not self._client._core.settings.fail_open:
                raise
            return self._load(flight)
        if answer[1] == _wire.LEASED:
            return self._fill(flight, _wire.data(answer, 2), conn)
        item = _calls.item(self._key, answer)
        if item is not None:
            flight.found = item.data, item.flags
            return self._codec.decode(self._key, *flight.found)
        return None if answer[2:3] == [_wire.ABSENT] else self._load(flight)

    def _ask(self) -> Tuple[List[Any], Greeted]:
        """Ask until the answer is other than "another caller still loads": that sidecar is alive."""
        settings = self._client._core.settings
        for _ in range(max(1, int(settings.wait_timeout / settings.timeout))):
            answer, conn = self._client._lease(self._key, self._options)
            if answer[1] != _wire.TIMEOUT:
                break
        _calls.check(answer)
        return answer, conn

    def _load(self, flight: ThreadFlight) -> Any:
        with loading(self._mine):
            value = self._nesting.leave(self._loader)
        data, mark = self._codec.encode(value)
        flight.found = data, mark | self._flags
        return value

    def _fill(self, flight: ThreadFlight, token: bytes, conn: Greeted) -> Any:
        """Load the value and give it to all who wait for it. Give the token back after any failure."""
        client = self._client
        filled = False
        try:
            self._pass()
            value = self._load(flight)
            assert flight.found is not None
            data, flags = flight.found
            if len(data) <= (conn.welcome.max_value or len(data)):
                try:
                    answer, _ = client._call(
                        _calls.fill(client._ns, self._key, token, data, flags, self._ttl), None, conn
                    )
                    filled = not _calls.nothing_done(answer)
                except CacheError:  # also if it may have come: to give back a token that was used does nothing
                    pass
        finally:
            if not filled:
                end = _calls.abandon(client._ns, self._key, token).tail(int(client._timeout * 1000), 0)
                self._link.nesting.run(conn.post, end)
            self._link.nesting.run(conn.settled, token)
        return value
