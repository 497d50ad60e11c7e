"""Does what pylibmc can do, against the server HOST:PORT."""

import sys
import time

import pylibmc

failures = []


def same(what, got, want):
    if got != want:
        failures.append(f"{what}: {got!r}, want {want!r}")


def raises(what, error, call, *args, **kwargs):
    try:
        failures.append(f"{what}: {call(*args, **kwargs)!r}, want {error.__name__}")
    except error:
        pass


def single(c):
    c.flush_all()
    same("get of nothing", c.get("a"), None)
    same("get of nothing, default", c.get("a", 1), 1)
    same("replace of nothing", c.replace("a", "x"), False)
    same("append to nothing", c.append("a", "x"), False)
    same("delete of nothing", c.delete("a"), False)
    same("set", c.set("a", "one", time=100), True)
    same("add of what is there", c.add("a", "x"), False)
    same("add", c.add("b", "two"), True)
    same("replace", c.replace("b", "three"), True)
    same("append", c.append("b", ">"), True)
    same("prepend", c.prepend("b", "<"), True)
    same("get", c.get("b"), "<three>")
    same("touch", c.touch("b", 100), True)
    same("delete", (c.delete("b"), c.get("b")), (True, None))
    same("in", ("a" in c, "b" in c), (True, False))
    c["item"] = "x"
    same("an item", c["item"], "x")
    del c["item"]
    raises("an item that is gone", KeyError, c.__getitem__, "item")
    for value in (b"\r\nEND\r\n\0\xff", b"", "ü", 7, -7, 1 << 40, True, 1.5, None, [1, "two"], {"a": {"b": 1}}):
        c.set("value", value)
        same(f"get of {type(value).__name__}", c.get("value"), value)
    c.set("long", "abc " * 2000, min_compress_len=100)
    same("a long value", c.get("long"), "abc " * 2000)

    c.set("n", 5)
    same("incr", c.incr("n", 3), 8)
    same("decr", c.decr("n", 2), 6)
    same("decr below 0", c.decr("n", 20), 0)
    same("get of a number", c.get("n"), 0)
    raises("incr of nothing", pylibmc.NotFound, c.incr, "none")
    values = {f"many-{i}": f"v{i}" for i in range(300)}
    same("set_multi", c.set_multi(values, time=100), [])
    same("get_multi", c.get_multi([*values, "none"]), values)
    same("get_multi, a prefix", c.get_multi(["1", "2"], key_prefix="many-"), {"1": "v1", "2": "v2"})
    same("incr_multi", (c.set_multi({"m1": 1, "m2": 2}), c.incr_multi(["m1", "m2"]), c.get("m2")), ([], None, 3))
    same("delete_multi", (c.delete_multi(["many-1", "many-2"]), c.get("many-2")), (True, None))


def swaps(c):
    c.set("a", "one")
    value, cas = c.gets("a")
    same("gets", value, "one")
    same("cas", c.cas("a", "four", cas), True)
    same("cas again", c.cas("a", "five", cas), False)
    same("get behind cas", c.get("a"), "four")


def times(c):
    c.set("short", "x", time=1)
    same("until a point in time", (c.set("point", "x", time=int(time.time()) + 100), c.get("point")), (True, "x"))
    same("in the past", (c.set("past", "x", time=-1), c.get("past")), (True, None))
    for _ in range(100):
        if c.get("short") is None:
            break
        time.sleep(0.1)
    same("what has expired", c.get("short"), None)


def server(c):
    stats = c.get_stats()[0][1]
    for name in ("cmd_get", "bytes", "version", "threads"):
        if name not in stats and name.encode() not in stats:
            failures.append(f"stats lacks {name}")
    c.set("flushed", "x")
    same("flush_all", (c.flush_all(), c.get("flushed")), (True, None))
    raises("a value too large", pylibmc.Error, c.set, "large", b"x" * (2 << 20))
    c.disconnect_all()
    same("behind disconnect_all", (c.set("again", "x"), c.get("again")), (True, "x"))


plain = pylibmc.Client([sys.argv[1]])
other = pylibmc.Client([sys.argv[1]], behaviors={"tcp_nodelay": True, "ketama": True, "cas": True})
single(plain)
single(other)
swaps(other)
times(plain)
server(plain)
pool = pylibmc.ClientPool(plain, 2)
with pool.reserve() as c:
    same("a pool", (c.set("pooled", 1), c.get("pooled")), (True, 1))
sys.exit("\n".join(failures) or 0)
