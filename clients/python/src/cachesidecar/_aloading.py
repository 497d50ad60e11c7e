"""get_or_set of a key that has no value, for asyncio: a task asks, loads and fills. See _loading."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from typing import Any, Callable, List, Tuple

from . import _calls, _encode, _timers, _wire
from ._alink import Greeted
from ._astate import TaskFlight
from ._aview import TaskView
from ._core import FAIL_OPEN
from ._loads import loading, not_loading
from ._settings import TTL
from .errors import CacheError, ClosedError, TimeoutError


class Load:
    """A get_or_set that has found nothing."""

    def __init__(
        self, client: TaskView, key: bytes, loader: Callable[[], Any], ttl: TTL, flags: int, options: int
    ) -> None:
        self._client, self._key, self._loader, self._ttl = client, key, loader, ttl
        self._flags, self._options = flags, options
        self._loads = client._state.loads
        self._at = (client._name, key, options)
        self._mine = (client._core.settings.socket, client._name, key)
        self._passed = False
        self._context = contextvars.copy_context()  # of the caller, in which its loader runs
        self._value: Any = None  # the loader's own, for the first caller

    async def run(self, alone: bool) -> Any:
        """Return the value, loaded by this call or by another."""
        if self._client._link.closed:
            raise ClosedError("the client was closed")
        not_loading(self._mine, self._key)
        while True:
            flight, first, begins = self._loads.join(self._at, TaskFlight(alone, self._begin))
            if begins:
                self._begin(flight)
            await self._wait(flight)
            if flight.again and not self._client._link.closed:
                continue
            if flight.error is not None:
                raise flight.error
            if flight.again:
                raise ClosedError("the client was closed")
            if first and self._value is not None:
                return self._value
            return None if flight.found is None else _encode.decode(self._key, *flight.found)

    async def _wait(self, flight: TaskFlight) -> None:
        future = asyncio.get_running_loop().create_future()
        flight.waiters.append(future)
        try:
            await future
        except BaseException:
            if not future.get_loop().is_closed() and self._loads.leave(flight):
                if flight.task is not None:
                    flight.left = True
                    flight.task.cancel()
                elif self._loads.withdraw(self._at, flight):
                    self._loads.over()
            raise

    def _begin(self, flight: TaskFlight) -> None:
        flight.task = task = self._context.run(self._task, flight)
        self._client._state.tasks.add(task)
        task.add_done_callback(self._client._state.tasks.discard)
        task.add_done_callback(lambda _: self._land(flight))

    def _task(self, flight: TaskFlight) -> "asyncio.Task[None]":
        return asyncio.ensure_future(self._fly(flight))

    def _land(self, flight: TaskFlight) -> None:
        """The flight is over, also if its task was cancelled before it ran."""
        if not self._passed:
            self._pass()
        self._loads.over()
        task = flight.task
        if task is not None and (task.cancelled() or task.exception() is not None):
            flight.again = True
        for waiter in flight.waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _fly(self, flight: TaskFlight) -> None:
        """Carry a flight out, for all its callers."""
        try:
            await self._get(flight)
        except asyncio.CancelledError as e:
            if flight.left or self._client._link.closed:
                raise
            flight.error = e  # the loader's own
        except Exception as e:
            flight.error = e

    def _pass(self) -> None:
        self._passed = True
        following = self._loads.passes(self._at)
        if following is not None:
            following.begin(following)

    async def _get(self, flight: TaskFlight) -> None:
        if flight.alone:
            return await self._load(flight)
        try:
            answer, conn = await self._ask()
        except FAIL_OPEN:
            if not self._client._core.settings.fail_open:
                raise
            return await self._load(flight)
        if answer[1] == _wire.LEASED:
            return await self._fill(flight, _wire.data(answer, 2), conn)
        item = _calls.item(self._key, answer)
        if item is not None:
            flight.found = item.data, item.flags
        elif answer[2:3] != [_wire.ABSENT]:
            await self._load(flight)

    async def _ask(self) -> Tuple[List[Any], Greeted]:
        """Ask until the answer is other than "another caller still loads": that sidecar is alive."""
        settings = self._client._core.settings
        for _ in range(max(1, int(settings.wait_timeout / settings.timeout))):
            answer, conn = await self._client._lease(self._key, self._options)
            if answer[1] != _wire.TIMEOUT:
                break
        _calls.check(answer)
        return answer, conn

    async def _load(self, flight: TaskFlight) -> None:
        with loading(self._mine):
            value = self._loader()
            if inspect.isawaitable(value):
                try:
                    value = await _timers.within(self._client._core.settings.load_timeout, value)
                except asyncio.TimeoutError as e:
                    if isinstance(e, CacheError):
                        raise
                    raise TimeoutError(f"the loader of {self._key!r} took longer than load_timeout") from e
        data, mark = _encode.encode(value)
        flight.found = data, mark | self._flags
        self._value = value

    async def _fill(self, flight: TaskFlight, token: bytes, conn: Greeted) -> None:
        """Load the value and give it to all who wait for it. Give the token back after any failure."""
        client = self._client
        filled = False
        try:
            self._pass()
            await self._load(flight)
            assert flight.found is not None
            data, flags = flight.found
            if len(data) <= (conn.welcome.max_value or len(data)):
                try:
                    answer, _ = await client._call(
                        _calls.fill(client._ns, self._key, token, data, flags, self._ttl), None, conn
                    )
                    filled = not _calls.nothing_done(answer)
                except CacheError:  # also if it may have come: to give back a token that was used does nothing
                    pass
        finally:
            if not filled:
                conn.post(_calls.abandon(client._ns, self._key, token).tail(int(client._timeout * 1000), 0))
            conn.settled(token)
