"""Requests and answers as bytes: the golden ones of internal/wire/testdata/messages.json."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any, Callable, Dict

import msgpack
import pytest

from cachesidecar import _calls, _hello, _wire, errors
from cachesidecar._frames import Frames
from cachesidecar._wire import text
from raw import ROOT

FILE = ROOT / "internal" / "wire" / "testdata" / "messages.json"
MESSAGES = json.loads(FILE.read_text()) if FILE.exists() else []
NAMED: Dict[str, Any] = {f"{m['kind']} {m['name']}": m for m in MESSAGES}
SRC = Path(_wire.__file__).parent

U, K, V, T = text("users"), b"user:42", b"Ada", b"\x01\x02\x03"
UNTIL = 86401234567890
C = _calls

REQUESTS: Dict[str, Callable[[], _calls.Call]] = {
    "ping": lambda: C.PING,
    "get with the connection's namespace": lambda: C.get(_wire.NIL, K, 0),
    "get": lambda: C.get(U, K, _wire.FRESH | _wire.NO_LOAD),
    "mget": lambda: C.mget(U, [K, b"user:43"], _wire.STALE_OK),
    "set": lambda: C.store(U, K, V, 0, None, _wire.MODE_SET, 0, False),
    "set if the version is still the same": lambda: C.store(U, K, V, 1, 60, 3, 7148934231982080001, True),
    "delete": lambda: C.delete(U, [K], False, False, None, False),
    "delete, kept as stale, with a hold": lambda: C.delete(U, [K], True, False, 0.5, True),
    "delete from the cache alone": lambda: C.delete(U, [K], False, True, None, False),
    "touch": lambda: C.touch(U, K, 60, False),
    "incr": lambda: C.incr(U, K, -5, None, None, False),
    "incr without an initial value, with a TTL": lambda: C.incr(U, K, 1, None, 1, True),
    "incr with an initial value": lambda: C.incr(U, K, 1, 10, 1, False),
    "set, given up at a moment": lambda: C.store(U, K, V, 0, None, 0, 0, False),
    "delete, given up at a moment": lambda: C.delete(U, [K], False, False, None, False),
    "touch, given up at a moment": lambda: C.touch(U, K, 60, False),
    "fill, given up at a moment": lambda: C.fill(U, K, T, V, 0, None),
    "lease": lambda: C.lease(U, K, _wire.STALE_OK),
    "fill": lambda: C.fill(U, K, T, V, 1, None),
    "fill with an empty value that expires": lambda: C.fill(U, K, T, b"", 0, 60),
    "fill: the token is given back": lambda: C.abandon(U, K, T),
    "flush a namespace in the cluster": lambda: C.flush(U, False, True),
    "flush everything on this host": lambda: C.flush(_wire.NIL, True, False),
    "stats": lambda: C.stats(False),
    "watch from where it was left": lambda: C.watch(U, 0, 99, 1234, 250),
    "leaving": lambda: C.LEAVING,
    "hits, without an answer": lambda: C.hits(U, [K], 0, 0, 16),
    "get to be shared": lambda: C.get(_wire.NIL, b"a", _wire.SHARE),
    "set: append, or store if absent": lambda: C.store(U, K, V, 1, None, _wire.MODE_APPEND, 0, False, True),
    "set: prepend": lambda: C.store(U, K, V, 0, None, _wire.MODE_PREPEND, 0, True),
    "incr of unsigned numbers downwards, with an initial value":
        lambda: C.unsigned(U, K, 2**64 - 1, 2**63, 1, True, False),
    "metaget and touch, given up at a moment": lambda: C.get_and_touch(U, K, 60),
}

skip = pytest.mark.skipif(not MESSAGES, reason="the golden bytes are in the repository: run the tests there")


@skip
@pytest.mark.parametrize("name", REQUESTS)
def test_request(name: str) -> None:
    golden = bytes.fromhex(NAMED["request " + name]["hex"])
    until = UNTIL if "given up" in name else 0
    assert _wire.frame(7, REQUESTS[name]().tail(1000, until)) == golden


@skip
def test_hello() -> None:
    message = _wire.hello("billing", "s3cret", "users")
    golden = NAMED["request hello"]["message"]
    assert msgpack.unpackb(message[4:]) == [_wire.HELLO_ID, *golden[1:]]
    welcome = _hello.welcome([_wire.HELLO_ID, *_decoded("hello")[1:]], 0, 0)
    assert welcome.version == 1 and welcome.features == {"shared"}


@skip
@pytest.mark.parametrize("name", [n for n in NAMED if n.startswith("answer ")])
def test_answer(name: str) -> None:
    """Every answer is found in the stream, also if it comes byte by byte."""
    message = bytes.fromhex(NAMED[name]["hex"])
    frames, found = Frames(), []
    for at in range(len(message)):
        found += frames.feed(message[at : at + 1])
    assert found == [(7, message)]
    assert frames.feed(message + message) == [(7, message)] * 2 and frames.empty
    assert json.loads(json.dumps(_wire.decode(message[4:]), default=lambda b: {"bin": b.hex()})) == NAMED[name]["message"]


@skip
def test_results() -> None:
    def answer(name: str) -> Any:
        return _wire.decode(bytes.fromhex(NAMED["answer " + name]["hex"])[4:])

    item = _calls.item(K, answer("hit"))
    assert item is not None
    assert (item.data, item.flags, item.version, item.ttl, item.source) == (V, 1, 7148934231982080001, 59.0, "l2")
    stale = _calls.item(K, answer("stale"))
    assert stale is not None and stale.stale and stale.age == 4.0
    assert _calls.item(K, answer("miss")) is None
    assert _calls.stored(answer("set")) == 7148934231982080001 and _calls.stored(answer("set, but it exists")) is None
    assert _calls.deleted(answer("delete"), 2) == [True, False]
    assert _calls.present(answer("touch")) and _calls.number(answer("incr")) == -3
    with pytest.raises(errors.NotStoredError):
        _calls.number(answer("incr of no number"))
    with pytest.raises(errors.OriginError, match="503"):
        _calls.item(K, answer("error: the origin failed"))
    both = C.get_and_touch(U, K, 60)
    touched = answer("metaget without the value, touched")
    item = _calls.touched_item(K, touched)
    assert item is not None and (item.data, item.ttl, item.source) == (b"", 60.0, "")
    assert _calls.changed(both, touched) == [(K, 7148934231982080002)]
    left, miss = answer("metaget: a stale value, and the claim"), answer("metaget: a miss")
    assert _calls.touched_item(K, left) is None and _calls.changed(both, left) == []
    assert _calls.touched_item(K, miss) is None and _calls.changed(both, miss) == [(K, 0)]
    assert _calls.number(answer("incr of an unsigned number that expires")) == 2**64 - 1
    touch = C.touch(U, K, 60, False)
    assert _calls.changed(touch, answer("touch")) == [(K, 6)]  # the event's version, not the value's


def _decoded(name: str) -> Any:
    return _wire.decode(bytes.fromhex(NAMED["answer " + name]["hex"])[4:])


@pytest.mark.parametrize("answer", [[0, 0], [0, 0, b"v"], [0, 0, b"v", "x", 1, 0], [0, 0, 5, 0, 1, 0], [0, 2, b"t", 1]])
def test_half_an_answer(answer: Any) -> None:
    with pytest.raises(errors.InternalError):
        _calls.item(K, answer)


@pytest.mark.parametrize("message", [b"\xc1", b"\x90", b"\x92\xa1x\x00", b"\x92\x07\xa1x", b"\x07", b"\x92\x07", b""])
def test_no_answer(message: bytes) -> None:
    with pytest.raises(errors.Malformed):
        _wire.decode(message)


def test_an_answer_that_is_too_long() -> None:
    with pytest.raises(errors.Malformed, match="4294967295"):
        Frames().feed(b"\xff\xff\xff\xff")


def test_numbers_are_as_short_as_they_can_be() -> None:
    for n in [0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1]:
        assert _wire.uint(n) == msgpack.packb(n)
    for n in [-1, -32, -33, -(2**63), 5]:
        assert _wire.sint(n) == msgpack.packb(n)
    for size in [0, 255, 256, 65535, 65536]:
        assert _wire.binary(b"x" * size) == msgpack.packb(b"x" * size)


@pytest.mark.parametrize("file", sorted(SRC.glob("*.py")), ids=lambda p: str(p.name))
def test_python_3_9(file: Path) -> None:
    ast.parse(file.read_text(), feature_version=(3, 9))
    assert all(len(line) <= 120 for line in file.read_text().splitlines()), f"{file.name} has lines above 120 columns"
