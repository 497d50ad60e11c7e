"""Timers of an event loop that go on while a test has stopped the clock, as freezegun and time-machine do.

An event loop counts on time.monotonic. If that stands still, none of its timers ends, and what has begun one meanwhile
waits for ever also afterwards: the end is a moment of the other clock. So a thread counts in its place then.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, Awaitable, Callable, Protocol, TypeVar

from ._clock import monotonic

_T = TypeVar("_T")
_FAR = 1.0  # seconds; the clock of an event loop that was blocked may be late
_GENUINE = [time.monotonic]  # in a list, in which freezegun does not find and replace it


class Timer(Protocol):
    """A timer that runs."""

    def cancel(self) -> Any: ...


def stopped(loop: asyncio.AbstractEventLoop) -> bool:
    """Report whether a loop counts on a clock that may stand still."""
    return time.monotonic is not _GENUINE[0] or abs(loop.time() - monotonic()) > _FAR


def goes_on(timer: Timer, loop: asyncio.AbstractEventLoop) -> bool:
    """Report whether a timer that was begun earlier still counts."""
    return isinstance(timer, threading.Timer) or not stopped(loop)


def call_later(loop: asyncio.AbstractEventLoop, seconds: float, function: Callable[[], None]) -> Timer:
    """Call a function on a loop after some time."""
    if not stopped(loop):
        return loop.call_later(seconds, function)

    def tell() -> None:
        try:
            loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop was closed
            pass

    thread = threading.Timer(seconds, tell)
    thread.daemon = True
    try:
        thread.start()
    except RuntimeError:  # no thread can be started
        return loop.call_later(seconds, function)
    return thread


async def wait(future: "asyncio.Future[Any]", seconds: float) -> None:
    """Wait until a future is done, at most for some time."""
    loop = asyncio.get_running_loop()
    woken = loop.create_future()

    def wake(_: Any = None) -> None:
        if not woken.done():
            woken.set_result(None)

    timer = call_later(loop, seconds, wake)
    future.add_done_callback(wake)
    try:
        await woken
    finally:
        timer.cancel()
        future.remove_done_callback(wake)


async def within(seconds: float, awaitable: Awaitable[_T]) -> _T:
    """Return the result of an awaitable, which is cancelled after some time: as asyncio.wait_for."""
    task = asyncio.ensure_future(awaitable)
    try:
        await wait(task, seconds)
        late = not task.done()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    if late:
        raise asyncio.TimeoutError
    return task.result()


async def sleep(seconds: float) -> None:
    """Wait for some time."""
    await wait(asyncio.get_running_loop().create_future(), seconds)
