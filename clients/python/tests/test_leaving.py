"""What callers leave behind who close a client, or are cancelled, at the worst moment."""

import asyncio
import gc
import threading
import time
from types import SimpleNamespace
from typing import Any, Dict, List

import pytest

from cachesidecar import AsyncClient, _memory
from cachesidecar._hello import Welcome
from raw import LIMIT

TOLD: Dict[str, Any] = {"node": "n", "epoch": 1, "features": ["shared"], "limits": {"value": 1}}


def test_close_while_the_memory_is_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: List[BaseException] = []
    region = SimpleNamespace(epoch=1)
    memory = _memory.Memory(lambda path, hello, limit: region, {}, LIMIT)

    def close() -> None:
        try:
            memory.close()
        except BaseException as e:
            failed.append(e)

    closer = threading.Thread(target=close)
    start = threading.Thread.start

    def starts_late(thread: threading.Thread) -> None:
        if thread is not closer:
            start(closer)
            time.sleep(0.05)  # the closing thread must find this moment, or wait for its end
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts_late)
    monkeypatch.setattr(threading, "excepthook", lambda args: failed.append(args.exc_value))
    memory.welcomed("", "", Welcome(TOLD, 0, 0))
    closer.join(LIMIT)
    assert not closer.is_alive() and not failed
    assert memory.region is None


def test_nobody_waits_for_a_dial_that_fails(tmp_path: Any) -> None:
    told: List[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        client = AsyncClient(str(tmp_path / "none"))
        call = asyncio.ensure_future(client.get("k"))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        await asyncio.sleep(0.01)
        await client.close()
        gc.collect()

    asyncio.run(main())
    assert told == []
