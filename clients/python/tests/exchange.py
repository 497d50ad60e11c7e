"""Writes or reads the keys of clients/conformance/exchange_test.go, which gives the task as JSON."""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from cachesidecar import Client  # noqa: E402
from playing import same, value_of  # noqa: E402

task = json.load(sys.stdin)
with Client(task["socket"], namespace="users", timeout=10.0, connect_timeout=10.0, shared_memory=False) as client:
    for e in task["entries"]:
        key, want = e["key"], value_of(e["value"])
        if task["do"] == "write":
            client.set(key, want, flags=e["flags"])
            continue
        got, item = client.get(key), client.get_item(key)
        assert item is not None, f"{key}: a miss"
        assert same(got, want), f"{key}: {got!r}, want {want!r}"
        assert item.flags & ~0xFF == e["flags"], f"{key}: the flags are {item.flags:#x}, want {e['flags']:#x}"
