"""How a client gets the shared memory: of a real sidecar, and of servers that lie."""

import gc
import gzip
import os
import socket
import struct
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import msgpack
import pytest
from raw import DELETE, OK, Connection, Sidecar, extension, missing, python, wait_for
from test_region import GOLDEN

from cachesidecar import _attach
from cachesidecar._clock import boot_id, boot_ns
from cachesidecar._region import ABSENT, PureRegion, Region

HELLO = {"v": [1], "client": "test", "token": None, "ns": "users"}


@pytest.fixture(scope="module")
def sidecar() -> Iterator[Sidecar]:
    with tempfile.TemporaryDirectory() as folder:
        one = Sidecar(Path(folder))
        yield one
        one.stop()


@pytest.fixture(params=["pure", "native"])
def region(request: pytest.FixtureRequest, sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> Region:
    return attached(request.param, sidecar, monkeypatch)


def attached(name: str, sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> Region:
    if name == "native":
        extension()
    monkeypatch.setenv("CACHESIDECAR_PURE", "1" if name == "pure" else "")
    got = _attach.attach(sidecar.path, HELLO, 5)
    assert got is not None and isinstance(got, PureRegion) == (name == "pure")
    return got


def test_a_value_that_is_read_twice_is_found_until_it_is_written(sidecar: Sidecar, region: Region) -> None:
    c = Connection(sidecar.path)
    for i in range(50):
        key, value = b"key-%d" % i, os.urandom(20 * i)
        c.set("users", key, value)
        assert region.get(b"users", key) is None  # it was not asked for
        c.share("users", key)
        found = wait_for(lambda: region.get(b"users", key), "a value that was read twice")
        assert found[0] == value and found[1] == 0 and 3_500_000 < found[3] <= 3_600_000
        c.set("users", key, b"new")
        assert region.get(b"users", key) is None  # withdrawn before the answer
        c.share("users", key)
        assert wait_for(lambda: region.get(b"users", key), "the new value")[0] == b"new"
        assert c.call(DELETE, "users", [key])[2][0][0] == OK
        assert region.get(b"users", key) is None
    c.close()


def test_regions_do_not_leak(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pure", "native"):
        gc.collect()
        before = open_things()
        for i in range(30):
            attached(name, sidecar, monkeypatch).close()
            attached(name, sidecar, monkeypatch)
        gc.collect()
        assert open_things() == before


def is_region(line: str) -> bool:
    """Tells whether a line of maps is the begin of a region's mapping."""
    return " r--s " in line and ("/cachesidecar-" in line or line.endswith("/region"))


def open_things() -> List[str]:
    fds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    links = [os.readlink(fd) for fd in fds if os.path.lexists(fd)]
    maps = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if is_region(line)]
    return sorted(link for link in links if not link.startswith("/proc")) + maps


def test_the_region_is_not_in_core_dumps(region: Region) -> None:
    lines = Path("/proc/self/smaps").read_text().splitlines()
    begins = [i for i, line in enumerate(lines) if is_region(line)]
    flags = [next(line for line in lines[i:] if line.startswith("VmFlags:")) for i in begins]
    assert flags and all(" dd" in f for f in flags), flags


def test_a_child_of_fork_reads(sidecar: Sidecar, region: Region) -> None:
    c = Connection(sidecar.path)
    c.set("users", b"fork", b"value")
    c.share("users", b"fork")
    wait_for(lambda: region.get(b"users", b"fork"), "the value")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:  # the lease may just have ended: the machine is busy
            status = int(wait_for(lambda: region.get(b"users", b"fork"), "the value")[0] != b"value")
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    c.close()


WRITER = """
import os, sys, time, zlib
from raw import Connection, SET, GET, SHARE
c, end, i = Connection(sys.argv[1]), time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < end:
    i += 1
    key = b"hot-%d" % (i % 4)
    body = os.urandom(16) * (i * 37 % 1000)
    value = key + b"|%d|" % zlib.crc32(body) + body
    c.send([1, SET, 0, "users", key, value], *([2 + n, GET, 0, "users", key, SHARE] for n in range(3)))
    for _ in range(4):
        c.receive()
print(i)
"""


@pytest.mark.parametrize("name", ["pure", "native"])
def test_no_torn_values(name: str, sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer at full speed; each value tells its key and its checksum."""
    region, writes = attached(name, sidecar, monkeypatch), []
    writer = threading.Thread(target=lambda: writes.append(python(WRITER, sidecar.path, "2.5")))
    writer.start()
    reads, different = 0, set()
    while writer.is_alive():
        for i in range(1000):
            key = b"hot-%d" % (i % 4)
            found = region.get(b"users", key)
            if found:
                of, sum, body = found[0].split(b"|", 2)
                assert of == key and int(sum) == zlib.crc32(body), found[2]
                reads += 1
                different.add(found[2])
    writer.join()
    assert writes[0].returncode == 0, writes[0].stderr
    assert int(writes[0].stdout) > 1000 and reads > 1000 and len(different) > 200, (reads, len(different))


def test_a_restart_closes_the_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sidecar = Sidecar(tmp_path)
    try:
        regions = [attached(name, sidecar, monkeypatch) for name in ("pure", "native")]
        c = Connection(sidecar.path)
        c.set("users", b"a", b"value")
        c.share("users", b"a")
        for r in regions:
            wait_for(lambda: r.get(b"users", b"a"), "the value")
        sidecar.stop()
        for r in regions:
            assert r.closed and r.get(b"users", b"a") is None
        sidecar.start()
        again = attached("native", sidecar, monkeypatch)
        assert not again.closed and again.id != regions[0].id
    finally:
        sidecar.stop()


def test_a_killed_sidecar_is_believed_no_longer_than_max_staleness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar = Sidecar(tmp_path)
    regions = [attached(name, sidecar, monkeypatch) for name in ("pure", "native")]
    c = Connection(sidecar.path)
    c.set("users", b"a", b"value")
    c.share("users", b"a")
    for r in regions:
        wait_for(lambda: r.get(b"users", b"a"), "the value")
    assert sidecar.process is not None
    sidecar.process.kill()
    sidecar.process.wait()
    later = boot_ns() + 2_000_000_000  # max_staleness
    for r in regions:
        assert not r.closed and r.get(b"users", b"a", later) is None


# Servers that lie.


class Liar:
    """Answers HELLO and SHARED as a test wants."""

    def __init__(self, folder: Path, answer: Callable[[socket.socket], None]) -> None:
        self.path = str(folder / "liar.sock")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen()
        self.answer = answer
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        peer, _ = self.listener.accept()
        with peer:
            try:
                self.answer(peer)
                while peer.recv(4096):
                    pass
            except OSError:
                pass

    def close(self) -> None:
        self.thread.join()
        self.listener.close()


def frame(*parts: object) -> bytes:
    body = msgpack.packb(list(parts))
    return struct.pack(">I", len(body)) + bytes(body)


def play(
    folder: Path, offer: Optional[Dict[str, Any]] = None, boot: Optional[Dict[str, Any]] = None, descriptors: int = 1,
    before: bytes = b"", raw: Optional[bytes] = None, timeout: float = 5, reply: int = OK, epoch: int = 0,
) -> Optional[Region]:  # fmt: skip
    """Lets a client attach to a server that is right but for what the arguments say."""
    if not GOLDEN.exists():
        missing("set CACHESIDECAR_REGIONS to internal/shm/testdata/regions of the repository")
    path = folder / "region"
    golden = gzip.decompress((GOLDEN / "good.gz").read_bytes())
    path.write_bytes(golden)
    (of,) = struct.unpack_from("<Q", golden, 40)

    def answer(peer: socket.socket) -> None:
        now = boot_ns()
        welcome = frame(1, OK, {"v": 1, "epoch": of + epoch, "boot": {"id": boot_id(), "now_ns": now, **(boot or {})}})
        right = {"layout": 1, "size": 1 << 20, "id": 7, "counter": 1, "now_ns": now, "path": str(path)}
        shared = frame(2, reply, {**right, **(offer or {})} if reply == OK else "refused")
        data = raw if raw is not None else before + welcome + shared
        fds = [os.open(path, os.O_RDONLY) for _ in range(descriptors)]
        socket.send_fds(peer, [data], fds) if fds else peer.sendall(data)
        for fd in fds:
            os.close(fd)
        if raw is not None:
            peer.shutdown(socket.SHUT_WR)

    liar = Liar(folder, answer)
    try:
        return _attach.attach(liar.path, HELLO, timeout)
    finally:
        liar.close()
        os.unlink(liar.path)


def test_a_server_that_is_right(tmp_path: Path) -> None:
    for descriptors in (1, 2, 4):
        got = play(tmp_path, descriptors=descriptors)
        assert got is not None and got.id == 7
        got.close()


LIES: Dict[str, Dict[str, Any]] = {
    "another clock": {"boot": {"id": "other"}},
    "no clock": {"boot": {"id": ""}},
    "a clock behind": {"offer": {"now_ns": 1}},
    "a clock ahead": {"offer": {"now_ns": 1 << 62}},
    "a time that is none": {"offer": {"now_ns": "now"}},
    "another region": {"offer": {"id": 8}},
    "another process's region": {"epoch": 1},
    "an id that is none": {"offer": {"id": "7"}},
    "a negative id": {"offer": {"id": -1}},
    "an older counter": {"offer": {"counter": 2}},
    "another layout": {"offer": {"layout": 2}},
    "no descriptor": {"descriptors": 0},
    "an error": {"reply": 20},
    "no map": {"raw": frame(1, OK, None) + frame(2, OK, None)},
    "another id": {"before": frame(7, OK, {})},
    "garbage": {"raw": b"\0\0\0\4\xc1\xc1\xc1\xc1"},
    "a bomb": {"raw": b"\0\0\0\5\xdd\xff\xff\xff\xff"},
    "an answer too long": {"raw": b"\x7f\xff\xff\xff" + b"x" * 100},
    "half an answer": {"raw": frame(1, OK, {"v": 1})[:7]},
    "nothing": {"raw": b"\0"},
}


@pytest.mark.parametrize("lie", sorted(LIES))
def test_lies(lie: str, tmp_path: Path) -> None:
    gc.collect()
    before = open_things()
    for pure in ("1", ""):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CACHESIDECAR_PURE", pure)
            assert play(tmp_path, **LIES[lie]) is None
    gc.collect()
    assert open_things() == before


def test_silence_ends_in_time(tmp_path: Path) -> None:
    began = time.monotonic()
    assert play(tmp_path, raw=b"\0\0", timeout=0.2) is None
    liar = Liar(tmp_path, lambda peer: None)
    assert _attach.attach(liar.path, HELLO, 0.2) is None
    liar.close()
    assert time.monotonic() - began < 10
    assert _attach.attach(str(tmp_path / "nothing.sock"), HELLO, 0.2) is None
