"""Clients do everything at random while the sidecar is restarted, and every answer is checked.

    go run . -restart 5s -timeout 15m -- /usr/bin/python3 ../python/tests/soak.py --seconds 600 --history FILE
    go run -C ../.. ./internal/testing/checkhistory FILE

in clients/conformance. FILE is an absolute path.

It prints counts, what was wrong, and what was left at the end. checkhistory finds values that were old.
"""

import argparse
import asyncio
import collections
import faulthandler
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, os.environ.get("SOAK_SRC", str(HERE.parent / "src")))
sys.path.insert(0, str(HERE))

from cachesidecar import AsyncClient, Client  # noqa: E402
from cachesidecar.errors import CacheError  # noqa: E402
import soaktruth as truth  # noqa: E402
from soaktruth import Write, Wrong, make, name_of, now_ns, parse  # noqa: E402

WORKERS, THREADS, OWN = 4, 4, 8  # keys of one thread
COUNTER, LOADED = OWN - 2, OWN - 1  # the last two are numbers for incr, and results of loaders
KEYS = WORKERS * THREADS * OWN
NEAR_BOUND = 0.3
HUNG = 8.0  # s beyond its timeout within which a call must end


class Worker:
    """What the threads, or the tasks, of a process share."""

    def __init__(self, number: int, folder: str, history: str, end: float) -> None:
        self.number, self.end = number, end
        self.history = truth.History(history)
        self.table = truth.Table(folder + "/table", KEYS)
        self.counts: "collections.Counter[str]" = collections.Counter()
        self.loads = os.open(folder + "/loads", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.report = os.open(folder + "/wrong", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.clients: List[Any] = []
        self.memory: List[int] = []

    def wrong(self, what: str) -> None:
        self.counts["wrong"] += 1
        os.write(self.report, f"{now_ns()} worker {self.number} pid {os.getpid()}: {what}\n".encode())

    def make_clients(self, kind: Any) -> None:
        self.clients = [
            kind(near_cache=4 << 20, near_bound=NEAR_BOUND), kind(near_cache=4 << 20, near_bound=NEAR_BOUND, shared_memory=False),
            kind(), kind(shared_memory=False),
        ]

    def id(self, at: int) -> int:
        return os.getpid() * 8 + at + 1

    def check(self, key: int, value: Any, asked: int, at: int, fresh: bool = False) -> None:
        """Check a value that was read, and note the read."""
        if key % OWN == COUNTER:
            number = int(value)
            if number >> 32 != key:
                raise Wrong(f"the number of key {key} is {value!r}")
        else:
            number = parse(key, value)
        self.history.read(key, number, self.id(at), fresh or at >= 2, asked)

    def write(self, op: str, key: int, at: int, **more: Any) -> Tuple[Write, int]:
        """Begin a write, and return it with its number."""
        write = Write(self.history, op, key, self.id(at), **more)
        return write, self.table.attempt(key)

    def loaded(self, key: int, seq: int, settled: int, began: int) -> None:
        os.write(self.loads, f"{key} {seq} {seq == settled:d} {began} {now_ns()}\n".encode())

    def load(self, key: int) -> Callable[[], Any]:
        settled = self.table.settled(key)  # before its token is asked for

        def loader() -> Any:
            seq, began = self.table.attempted(key), now_ns()
            time.sleep(random.random() * 0.02)
            self.loaded(key, seq, settled, began)
            if random.random() < 0.05:
                raise LookupError("the loader fails")
            return make(key, seq)
        return loader

    def aload(self, key: int) -> Callable[[], Any]:
        settled = self.table.settled(key)  # before its token is asked for

        async def loader() -> Any:
            seq, began = self.table.attempted(key), now_ns()
            try:
                await asyncio.sleep(random.random() * 0.02)
            finally:
                self.loaded(key, seq, settled, began)
            if random.random() < 0.05:
                raise LookupError("the loader fails")
            return make(key, seq)
        return loader

    def sampled(self) -> None:
        with open("/proc/self/statm") as f:
            self.memory.append(int(f.read().split()[1]) * 4096)


def near_hits(clients: List[Any]) -> Tuple[int, int]:
    return sum(c.near_stats().hits for c in clients), sum(c._core.hits.count(False) for c in clients)


# Each plan is a call and what to do with its answer. It is the same for threads and tasks: a call is given as the
# client's method and its arguments, and the answer, or the error, is sent back.

def plan(w: Worker, mine: int, at: int) -> Any:
    """Choose something at random. It is a generator: it yields (method, arguments, keywords), and gets the answer."""
    dice = random.random()
    key = mine + random.randrange(OWN - 2)
    asked = now_ns()
    if dice < 0.02:
        yield from joined(w)
    elif dice < 0.03:
        yield from unsigned(w)
    elif dice < 0.35:  # any key
        other = random.randrange(KEYS) if random.random() < 0.6 else key
        fresh = random.random() < 0.1
        value = yield "get", (name_of(other),), {"fresh": True} if fresh else {}
        if value is not None:
            w.check(other, value, asked, at, fresh)
            w.counts["hits"] += 1
    elif dice < 0.40:
        others = random.sample(range(KEYS), 12)
        values = yield "get_many", ([name_of(k) for k in others],), {}
        if not set(values) <= {name_of(k) for k in others}:
            raise Wrong(f"get_many has other keys: {set(values)!r}")
        for k in others:
            if name_of(k) in values:
                w.check(k, values[name_of(k)], asked, at)
    elif dice < 0.58:
        ttl = random.choice([0, 0, 0, 40, 400])
        write, seq = w.write("set", key, at, ttl=ttl * 1_000_000)
        with write:
            write.fields["number"] = seq
            value = make(key, seq, ttl)
            if seq % 11 == 0:
                yield "set_many", ({name_of(key): value},), {"ttl": ttl / 1000 if ttl else None}
            else:
                yield "set", (name_of(key), value), {"ttl": ttl / 1000 if ttl else None, "flags": (seq & 0xFF) << 8}
        asked = now_ns()
        value = yield "get", (name_of(key),), {}
        if value is not None:
            w.check(key, value, asked, at)
            w.counts["own writes read"] += 1
    elif dice < 0.63:
        item = yield "get_item", (name_of(key),), {"fresh": True}
        if item is not None:
            w.check(key, item.value, asked, at, True)
            if item.flags & 0xFF not in (0, 2, 16, 32):
                raise Wrong(f"key {key}: the flags are {item.flags:#x}")
            write, seq = w.write("set", key, at)
            with write:
                write.fields["number"] = seq
                stored = yield "compare_and_swap", (name_of(key), make(key, seq), item.version), {}
                write.outcome = "done" if stored else "not stored"
    elif dice < 0.68:
        write, seq = w.write("delete", key, at)
        with write:
            yield "delete", (name_of(key),), {}
        asked = now_ns()
        value = yield "get", (name_of(key),), {}
        if value is not None:
            w.check(key, value, asked, at)
    elif dice < 0.76:
        key = mine + COUNTER
        write, seq = w.write("incr", key, at)
        with write:
            write.fields["initial"] = key << 32 | seq
            number = yield "incr", (name_of(key),), {"initial": key << 32 | seq}
            if number is None or number >> 32 != key:
                raise Wrong(f"incr of key {key}, attempt {seq}: {number}")
            write.fields["number"] = number
    elif dice < 0.94:
        other = random.randrange(KEYS // OWN) * OWN + LOADED
        loader = w.load(other) if isinstance(w.clients[0], Client) else w.aload(other)
        if random.random() < 0.5:
            value = yield "get_or_set", (name_of(other), loader), {"ttl": 2.0}
        else:
            value = yield "cached", (other, loader), {}
        w.check(other, value, asked, at)
        w.counts["loaded values"] += 1
    elif dice < 0.98 and mine // OWN % 2:  # a deletion ends tokens: half of the keys have none
        key = mine + LOADED
        write, seq = w.write("set", key, at, origin=True)  # its number is what loaders return from now on
        with write:
            write.fields["number"], write.fields["committed"] = seq, now_ns()
            yield "delete", (name_of(key),), {}
        w.table.settle(key, seq)
        asked = now_ns()
        loader = w.load(key) if isinstance(w.clients[0], Client) else w.aload(key)
        value = yield "get_or_set", (name_of(key), loader), {}
        w.check(key, value, asked, at)
    elif dice < 0.99:
        yield "touch", (name_of(mine + LOADED), 5.0), {}
    else:
        yield "ping", (), {}


# A key that nobody else has tells exactly what each call must answer. The sidecar may have lost it by a restart: then
# it has no value, and the plan ends.

def own_key(w: Worker, what: str) -> str:
    w.counts[what] += 1
    return f"soak:{what}:{os.getpid()}:{now_ns()}:{random.randrange(1 << 30)}"


def expect(what: str, got: Any, want: Any) -> None:
    if got != want:
        raise Wrong(f"{what}: {got!r:.80}, want {want!r:.80}")


def joined(w: Worker) -> Any:
    """Put a value together, and read it with get_and_touch. Its first get is before the last piece."""
    key = own_key(w, "joined")
    version = yield "append", (key, "x"), {}
    expect("append to nothing", version, None)
    first: Any = random.choice([("é", "☃"), (b"\xff", b"\0")])
    piece = random.randrange(2)
    yield "append", (key, first[0]), {"create": True, "ttl": 5.0}
    value = first[0]
    for i in range(random.randrange(1, 5)):
        now = yield "get", (key,), {}
        if now is None:
            return
        expect("get of the joined pieces", now, value)
        more = first[piece] * random.choice([1, 10, 20_000])
        version = yield "append" if i % 2 else "prepend", (key, more), {}
        if version is None:
            return
        value = value + more if i % 2 else more + value
    now = yield "get_and_touch", (key, 30.0), {}
    if now is None:
        return
    expect("get_and_touch", now, value)
    item = yield "get_item", (key,), {}
    if item is not None:
        expect("the touched value", item.value, value)
        if item.ttl is None or not 5 < item.ttl <= 30:
            raise Wrong(f"the ttl is {item.ttl} after get_and_touch with 30")
        w.counts["joined and touched"] += 1


def unsigned(w: Worker) -> Any:
    """Count past both ends of a number without a sign."""
    key = own_key(w, "unsigned")
    number = yield "decr_unsigned", (key, 1), {}
    expect("decr_unsigned of nothing", number, None)
    number = yield "incr_unsigned", (key, 1), {"initial": (1 << 64) - 3, "ttl": 5.0}
    expect("incr_unsigned with initial", number, (1 << 64) - 3)
    for name, delta, want in (
        ("incr_unsigned", 2, (1 << 64) - 1), ("incr_unsigned", 8, 7), ("decr_unsigned", 3, 4), ("decr_unsigned", 5, 0),
        ("incr_unsigned", 1 << 63, 1 << 63),
    ):
        number = yield name, (key, delta), {}
        if number is None:
            return
        expect(name, number, want)
    w.counts["counted past the ends"] += 1


def method(client: Any, name: str, args: Any, options: Dict[str, Any]) -> Any:
    if name != "cached":
        return getattr(client, name)(*args, **options)
    key, loader = args
    return client.cached(lambda n: loader(), ttl=2.0, key=lambda n: name_of(n))(key)


def tiny(options: Dict[str, Any], name: str) -> float:
    """Give few calls a tiny timeout. Return the time in which the call must end."""
    if name not in ("cached", "get_or_set"):
        if random.random() < 0.04:
            options["timeout"] = random.choice([0.001, 0.001, 0.005, 0.02])
        return 1.0 + HUNG
    return 4.0  # less than from restart to restart: a token that is neither filled nor abandoned is found


def refused(w: Worker, e: BaseException) -> None:
    w.counts["error " + (e.kind if isinstance(e, CacheError) else type(e).__name__)] += 1
    if isinstance(e, CacheError) and e.kind in ("internal", "bad_request", "encoding", "too_large", "not_stored"):
        w.wrong(f"an error that must not be: {e!r}")


def step(w: Worker, mine: int, at: int) -> None:
    steps, answer = plan(w, mine, at), None
    try:
        while True:
            name, args, options = steps.send(answer)
            limit, began = tiny(options, name), time.monotonic()
            w.counts["calls"] += 1
            try:
                answer = method(w.clients[at], name, args, options)
            finally:
                if time.monotonic() - began > limit:
                    w.wrong(f"{name} took {time.monotonic() - began:.1f} s")
    except StopIteration:
        pass
    except Wrong as e:
        w.wrong(f"client {at}: {e}")
    except (CacheError, LookupError) as e:
        refused(w, e)
    finally:
        steps.close()


def child(w: Worker, mine: int) -> None:
    faulthandler.dump_traceback_later(30, exit=True)
    random.seed()
    before = w.counts["wrong"]
    for _ in range(random.randrange(1, 30)):
        step(w, mine, random.randrange(4))
    if random.random() < 0.5:
        for c in w.clients:
            c.close()
    os._exit(3 if w.counts["wrong"] > before else 0)


def fork(w: Worker, mine: int) -> None:
    """Fork in the middle of the other threads' calls. The keys are the child's until it has ended."""
    w.counts["forks"] += 1
    pid = os.fork()
    if pid == 0:
        try:
            child(w, mine)
        except BaseException as e:
            w.wrong(f"the child has failed: {e!r}")
        finally:
            os._exit(4)
    _, status = os.waitpid(pid, 0)
    if status:
        w.wrong(f"the child has ended with status {status:#x}")


def close_early(w: Worker, mine: int) -> None:
    """Close a client in the middle of a call of another thread."""
    w.counts["closed early"] += 1
    client = Client(near_cache=1 << 20, timeout=1.0)
    thread = threading.Thread(target=lambda: closing_calls(w, client, mine))
    thread.start()
    time.sleep(random.random() * 0.01)
    client.close()
    thread.join(5)
    if thread.is_alive():
        w.wrong("a call goes on 5 s after its client was closed")


def closing_calls(w: Worker, client: Client, mine: int) -> None:
    for _ in range(1000):
        key = mine + random.randrange(OWN - 2)
        try:
            value = client.get(name_of(key))
            if value is not None:
                parse(key, value)
        except Wrong as e:
            w.wrong(str(e))
        except CacheError as e:
            if e.kind == "closed":
                return
            time.sleep(0.001)


def thread_main(w: Worker, number: int) -> None:
    mine = (w.number * THREADS + number) * OWN
    while time.time() < w.end:
        dice = random.random()
        if dice < 0.002:
            fork(w, mine)
        elif dice < 0.003:
            close_early(w, mine)
        else:
            step(w, mine, random.randrange(4))


def run_threads(w: Worker) -> Dict[str, Any]:
    w.make_clients(Client)
    threads = [threading.Thread(target=thread_main, args=(w, n)) for n in range(THREADS)]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        time.sleep(0.5)
        w.sampled()
        if time.time() > w.end + 60:
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
            w.wrong("threads go on 60 s after the end")
            os._exit(5)
    hits = near_hits(w.clients)
    for c in w.clients:
        c.close()
    w.clients = []
    return {"near": hits[0], "shared": hits[1]}


async def astep(w: Worker, mine: int, at: int) -> None:
    steps, answer = plan(w, mine, at), None
    try:
        while True:
            name, args, options = steps.send(answer)
            limit, began = tiny(options, name), time.monotonic()
            w.counts["calls"] += 1
            try:
                answer = await method(w.clients[at], name, args, options)
            finally:
                if time.monotonic() - began > limit:
                    w.wrong(f"{name} took {time.monotonic() - began:.1f} s")
    except StopIteration:
        pass
    except Wrong as e:
        w.wrong(f"async client {at}: {e}")
    except (CacheError, LookupError) as e:
        refused(w, e)
    finally:
        steps.close()


async def task_main(w: Worker, number: int) -> None:
    mine = (w.number * THREADS + number) * OWN
    while time.time() < w.end:
        dice = random.random()
        if dice < 0.06:
            task = asyncio.ensure_future(astep(w, mine, random.randrange(4)))
            await asyncio.sleep(random.random() * 0.004)
            w.counts["cancels"] += not task.done()
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass
        elif dice < 0.0615:
            await afork(w, mine)
        elif dice < 0.0625:
            await aclose_early(w, mine)
        else:
            await astep(w, mine, random.randrange(4))


async def afork(w: Worker, mine: int) -> None:
    w.counts["forks"] += 1
    pid = os.fork()
    if pid == 0:
        try:
            faulthandler.dump_traceback_later(30, exit=True)
            asyncio.set_event_loop(None)
            asyncio._set_running_loop(None)
            asyncio.new_event_loop().run_until_complete(achild(w, mine))
            os._exit(0)
        except BaseException as e:
            w.wrong(f"the child has failed: {e!r}")
        finally:
            os._exit(4)
    end = time.monotonic() + 40
    while True:
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            break
        await asyncio.sleep(0.005)
        if time.monotonic() > end:
            w.wrong("the child does not end")
            return
    if status:
        w.wrong(f"the child has ended with status {status:#x}")


async def achild(w: Worker, mine: int) -> None:
    random.seed()
    before = w.counts["wrong"]
    for _ in range(random.randrange(1, 20)):
        await astep(w, mine, random.randrange(4))
    for c in w.clients:
        await c.close()
    if w.counts["wrong"] > before:
        os._exit(3)


async def aclose_early(w: Worker, mine: int) -> None:
    w.counts["closed early"] += 1
    client = AsyncClient(near_cache=1 << 20)
    calls = [asyncio.ensure_future(client.get(name_of(mine + n))) for n in range(OWN - 2)]
    calls.append(asyncio.ensure_future(client.get_or_set(name_of(mine + LOADED), w.aload(mine + LOADED))))
    await asyncio.sleep(random.random() * 0.01)
    await client.close()
    done, left = await asyncio.wait(calls, timeout=5)
    if left:
        w.wrong("a call goes on 5 s after its client was closed")
    for task in done:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, (CacheError, LookupError)):
            w.wrong(f"after close: {error!r}")


def run_tasks(w: Worker) -> Dict[str, Any]:
    async def main() -> Dict[str, Any]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: w.wrong(f"the loop: {context!r}"))
        w.make_clients(AsyncClient)
        tasks = [asyncio.ensure_future(task_main(w, n)) for n in range(THREADS)]
        while True:
            done, left = await asyncio.wait(tasks, timeout=0.5)
            w.sampled()
            if not left:
                break
            if time.time() > w.end + 60:
                w.wrong(f"tasks go on 60 s after the end: {left!r}")
                os._exit(5)
        for task in done:
            task.result()
        hits = near_hits(w.clients)
        for c in w.clients:
            await c.close()
        w.clients = []
        gc.collect()
        await asyncio.sleep(0.3)
        left_tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if left_tasks:
            w.wrong(f"tasks are left: {left_tasks!r}")
        return {"near": hits[0], "shared": hits[1]}
    return asyncio.run(main())


def descriptors() -> List[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}").split(":")[0])
        except OSError:
            pass
    return sorted(found)


def work(number: int, folder: str, history: str, end: float) -> None:
    w = Worker(number, folder, history, end)
    threading.excepthook = lambda a: w.wrong(f"a thread: {a.exc_value!r}")
    sys.unraisablehook = lambda a: w.wrong(f"unraisable: {a.exc_value!r} {a.object!r}")
    before = descriptors()
    found = run_tasks(w) if number % 2 else run_threads(w)
    gc.collect()
    deadline = time.monotonic() + 5
    while (threading.active_count() > 1 or descriptors() != before) and time.monotonic() < deadline:
        time.sleep(0.05)
        gc.collect()  # what a finalizer has closed may be the last to refer to other objects
    if threading.active_count() > 1:
        w.wrong(f"threads are left: {threading.enumerate()!r}")
    after = collections.Counter(descriptors())
    after.subtract(before)
    if any(after.values()):
        w.wrong(f"descriptors are left, by kind: {({k: n for k, n in after.items() if n})}")
    half = len(w.memory) // 2
    if half > 60:  # two samples a second: a run of less than a minute does not settle
        settled, at_end = max(w.memory[half // 2 : half]), max(w.memory[-half // 4 :])
        found["memory"] = f"{settled >> 20} MiB, at the end {at_end >> 20} MiB"
        if at_end > settled * 1.1 + (10 << 20):
            w.wrong(f"the memory has grown from {settled >> 20} MiB to {at_end >> 20} MiB")
    print(json.dumps({**w.counts, **found}), flush=True)


def overlaps(folder: str) -> Tuple[int, List[str], "collections.Counter[str]"]:
    """Return the number of loads, those that overlap another one of their key for no reason, and counts of reasons.

    There are two reasons. A deletion ends the token of a load, and a load that was asked for before the latest deletion
    was acknowledged may be one of those. And a sidecar that restarts forgets its tokens, and while none serves each
    process loads for itself.
    """
    spans = truth.restarts(os.environ.get("CACHESIDECAR_RESTARTS"))
    by_key: Dict[Tuple[int, int], List[Tuple[int, int, bool]]] = collections.defaultdict(list)
    with open(folder + "/loads") as lines:
        for line in lines:
            key, seq, settled, began, ended = map(int, line.split())
            by_key[key, seq].append((began, ended, bool(settled)))
    n, reasons, without = 0, collections.Counter[str](), []
    for (key, seq), loads in by_key.items():
        loads.sort()
        n += len(loads)
        latest, settled = 0, True  # of the loads so far, the one that ends last
        for began, ended, now_settled in loads:
            if began < latest:
                if any(down - 1_500_000_000 < began < up + 1_500_000_000 for down, up in spans):
                    reasons["beside a restart"] += 1
                elif not settled or not now_settled:  # either token may be the one that was ended
                    reasons["beside a deletion"] += 1
                else:
                    without.append(f"{began} key {key}, after deletion {seq}: a load began {latest - began} ns before another ended")
            if ended > latest:
                latest, settled = ended, now_settled
    return n, without, reasons


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--worker", type=int)
    parser.add_argument("--folder")
    parser.add_argument("--history", required=True)
    parser.add_argument("--end", type=float, default=0)
    o = parser.parse_args()
    faulthandler.enable()
    if o.worker is not None:
        work(o.worker, o.folder, o.history, o.end)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        end = time.time() + o.seconds
        truth.History(o.history).begin(NEAR_BOUND, [key for key in range(KEYS) if key % OWN == LOADED])
        command = [sys.executable, __file__, "--folder", folder, "--history", o.history, "--end", str(end), "--worker"]
        workers = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(WORKERS)]
        total: "collections.Counter[str]" = collections.Counter()
        failed = 0
        for n, p in enumerate(workers):
            out, _ = p.communicate()
            failed += p.returncode != 0
            for name, count in (json.loads(out) if out else {}).items():
                if isinstance(count, int):
                    total[name] += count
                else:
                    print(f"worker {n}: {name} {count}")
        for name in sorted(total):
            print(f"{name}: {total[name]}")
        n, without, reasons = overlaps(folder)
        print(f"loads: {n}; overlapping another of their key: {dict(reasons)}")
        wrong = Path(folder, "wrong").read_text().splitlines() if Path(folder, "wrong").exists() else []
        wrong += without
        for line in wrong[:40]:
            print(line)
        if failed:
            print(f"{failed} workers have failed")
        print(f"{len(wrong)} wrong answers")
        return 1 if wrong or failed else 0


if __name__ == "__main__":
    sys.exit(main())
