"""The conversations, encodings and golden bytes that every client is held to."""

from __future__ import annotations

import json
import os
import tracemalloc
from typing import Any, Dict, List

import pytest

from cachesidecar import EncodingError, _encode
from playing import AsyncPlayer, SyncPlayer, same, value_of

FILE = os.environ.get("CONFORMANCE")
HOW = "run `go run . -players 2 -- python3 -m pytest ../python/tests` in clients/conformance"


def manifest() -> Dict[str, Any]:
    if not FILE:
        return {"conversations": [], "encodings": []}
    with open(FILE, encoding="utf-8") as f:
        return dict(json.load(f))


M = manifest()


@pytest.mark.skipif(not FILE, reason=HOW)
def test_there_are_conversations() -> None:
    assert len(M["conversations"]) > 50 and len(M["encodings"]) > 20


@pytest.mark.parametrize("player", [0, 1], ids=["sync", "async"])
@pytest.mark.parametrize("conversation", M["conversations"], ids=lambda c: str(c["name"]).replace(" ", "-"))
def test_conversation(conversation: Dict[str, Any], player: int) -> None:
    if player >= len(conversation["sockets"]):
        pytest.fail(f"the runner expects {len(conversation['sockets'])} player: give it -players 2")
    steps: List[Dict[str, Any]] = conversation["calls"][player]
    (SyncPlayer, AsyncPlayer)[player]().play(conversation["sockets"][player], conversation["client"], steps)


@pytest.mark.parametrize("one", M["encodings"], ids=lambda e: f"{e['flags']}-{e.get('hex', 'none')[:24]}")
def test_encoding(one: Dict[str, Any]) -> None:
    if one.get("error"):
        data = bytes.fromhex(one["hex"])
        tracemalloc.start()
        try:
            with pytest.raises(EncodingError):
                _encode.decode(b"k", data, one["flags"])
            assert tracemalloc.get_traced_memory()[1] < 4 * len(data) + (1 << 20), "memory for what is refused"
        finally:
            tracemalloc.stop()
        return
    value = value_of(one["value"])
    if "hex" in one:
        assert same(_encode.decode(b"k", bytes.fromhex(one["hex"]), one["flags"]), value)
    if "msgpack" in one["value"] and type(value) in (int, str, bytes):
        return  # they have an encoding of their own, and only other programs write them so
    data, mark = _encode.encode(value)
    assert mark == one["flags"] & 0xFF
    assert same(_encode.decode(b"k", data, mark), value)
