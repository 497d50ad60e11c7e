"""A worker of the long job, with pymemcache. It prints each event as a line of JSON.

soak.py HOST:PORT NAME SECONDS COUNTERS OWNERS: COUNTERS is the end of the names of the counters
of all, OWNERS the workers, separated by commas, whose keys it may read.
"""

import json
import random
import sys
import time

from pymemcache.client.base import Client

address, name, seconds, suffix, owners = sys.argv[1:]
host, port = address.rsplit(":", 1)
owners = owners.split(",")
KEYS = 20
client = Client((host, int(port)), timeout=10, connect_timeout=10, default_noreply=False)
seqs = {}
known = {}  # the values that our keys certainly have
doubtful = {}  # until when a write whose outcome is unknown may take effect
generations = {"shared": 0, "cas": 0}


def event(op, key, call, seq=0, value=""):
    """Calls, and prints what came of it: call returns (outcome, value or None, result or None)."""
    e = {"worker": name, "op": op, "key": key, "seq": seq, "value": value, "start": time.time(), "error": ""}
    try:
        e["out"], got, result = call()
        if got is not None:
            e["value"] = got
        if result is not None:
            e["seq"] = result
    except Exception as error:  # the outcome is unknown
        e["out"], e["error"] = "unknown", repr(error)
        client.close()
    e["end"] = time.time()
    print(json.dumps(e), flush=True)
    if e["out"] == "unknown":
        time.sleep(0.1)
    return e


def write(kind):
    key = f"{name}:k{random.randrange(KEYS)}"
    seq = seqs[key] = seqs.get(key, 0) + 1
    value = f"{key} {seq} " + "x" * random.randrange(200)
    if kind in ("append", "prepend"):
        if key not in known:
            kind = "set"
        else:
            value = known[key] + f"+{seq}" if kind == "append" else f"{seq}+" + known[key]
    before = known.pop(key, "")

    def call():
        if kind == "delete":
            client.delete(key)  # gone, whether it was there or not
            return "ok", None, None
        if kind == "append":
            stored = client.append(key, value[len(before):])
        elif kind == "prepend":
            stored = client.prepend(key, value[: len(value) - len(before)])
        elif kind == "cas":
            _, unique = client.gets(key)
            stored = unique is not None and client.cas(key, value, unique)
        else:
            stored = client.set(key, value, expire=random.choice((0, 600)))
        return ("ok" if stored else "failed"), None, None

    e = event("write", key, call, seq, "" if kind == "delete" else value)
    if e["out"] == "unknown":
        doubtful[key] = time.time() + 5
    if e["out"] == "ok" and kind != "delete" and doubtful.get(key, 0) < time.time():
        known[key] = value


def read(many):
    keys = [f"{random.choice(owners)}:k{random.randrange(KEYS)}" for _ in range(10 if many else 1)]
    got, start, error = {}, time.time(), ""
    try:
        got = client.get_many(keys) if many else {keys[0]: client.get(keys[0])}
    except Exception as e:
        error = repr(e)
        client.close()
    end = time.time()
    for key in set(keys):
        value = got.get(key)
        out = "unknown" if error else "miss" if value is None else "ok"
        print(json.dumps({"worker": name, "op": "read", "key": key, "seq": 0, "value": (value or b"").decode(),
                          "start": start, "end": end, "out": out, "error": error}), flush=True)
    if error:
        time.sleep(0.1)


def touch():
    key = f"{name}:k{random.randrange(KEYS)}"
    event("touch", key, lambda: (("ok" if client.touch(key, 600) else "miss"), None, None))


def count(kind):
    key = f"{kind}-{generations[kind]}{suffix}"

    def call():
        if kind == "shared":
            n = client.incr(key, 1)
        else:
            value, unique = client.gets(key)
            n = None if value is None else int(value) + 1
            if n is not None:
                stored = client.cas(key, str(n), unique)
                if not stored:
                    return ("miss" if stored is None else "failed"), None, None
        return ("miss" if n is None else "ok"), None, n

    if event("count", key, call)["out"] == "miss":
        generations[kind] += 1
        key = f"{kind}-{generations[kind]}{suffix}"
        event("begin", key, lambda: (("ok" if client.add(key, "0") else "failed"), None, None))


end = time.time() + float(seconds)
while time.time() < end:
    random.choice((
        lambda: write("set"), lambda: write("set"), lambda: write("append"), lambda: write("prepend"),
        lambda: write("cas"), lambda: write("delete"), touch, lambda: read(False), lambda: read(False),
        lambda: read(True), lambda: count("shared"), lambda: count("cas"),
    ))()
    time.sleep(0.005)
