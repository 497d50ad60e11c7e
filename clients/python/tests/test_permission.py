"""What a program is told whose user may not open the sidecar's socket."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from raw import missing

STRANGER, APPS, OTHERS = 65_533, 65_532, 65_531  # without names

# It becomes another user once all is imported: the modules may be in a folder that is closed to others.
PROGRAM = """
import asyncio, os, sys
import cachesidecar

path, gid, uid = sys.argv[1] or None, int(sys.argv[2]), int(sys.argv[3])
stat = os.stat

def but_run(p, *args, **named):  # there may be a sidecar of this machine
    if str(p).startswith("/run/cachesidecar/"):
        raise FileNotFoundError(p)
    return stat(p, *args, **named)

os.stat = but_run
os.setgroups([])
os.setgid(gid)
os.setuid(uid)

async def later():
    async with cachesidecar.AsyncClient(path) as cache:
        return await cache.set("k", "v")

def now():
    with cachesidecar.Client(path) as cache:
        return cache.set("k", "v")

for call in (now, lambda: asyncio.run(later())):
    try:
        call()
    except Exception as e:
        print(type(e).__name__, e)
"""

FOLDER = "the folder FOLDER belongs to group "
IN_GROUP = "and user 65533 is not in it: usermod -aG 65532 65533, and start this program anew from a new login"
TO_APPS = "give it to the group of its apps (socket_group and socket_mode; "


@pytest.mark.parametrize(
    "folder_mode, mode, folder_group, group, own, want",
    [
        (0o755, 0o660, 0, APPS, OTHERS, f"the socket belongs to group 65532 and has mode 0660, {IN_GROUP}"),
        (0o755, 0o660, 0, 0, OTHERS, f"the socket belongs to group root and has mode 0660: {TO_APPS}"),
        (0o755, 0o600, 0, APPS, APPS, f"the socket belongs to group 65532 and has mode 0600: {TO_APPS}"),
        (0o750, 0o666, APPS, APPS, OTHERS, f"{FOLDER}65532 and has mode 0750, {IN_GROUP}"),
        (0o700, 0o666, APPS, APPS, APPS, f"{FOLDER}65532 and has mode 0700: let all search it: chmod a+x FOLDER"),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_denied(
    folder_mode: int, mode: int, folder_group: int, group: int, own: int, want: str, given: bool
) -> None:
    if os.geteuid() != 0:
        missing("only root can become another user: run it as root")
    with tempfile.TemporaryDirectory(dir="/tmp") as top, socket.socket(socket.AF_UNIX) as listener:
        os.chmod(top, 0o755)
        folder = Path(top) / "cachesidecar"
        folder.mkdir()
        path = folder / "cachesidecar.sock"
        listener.bind(str(path))
        listener.listen()
        for p, g, m in ((path, group, mode), (folder, folder_group, folder_mode)):
            os.chown(p, 0, g)
            os.chmod(p, m)
        env = {**os.environ, "XDG_RUNTIME_DIR": top, "PYTHONPATH": os.pathsep.join(sys.path)}
        env.pop("CACHESIDECAR_SOCKET", None)
        arguments = [str(path) if given else "", str(own), str(STRANGER)]
        told = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], env=env, stdout=subprocess.PIPE, check=True)
    lines = told.stdout.decode().splitlines()
    want = want.replace("FOLDER", str(folder))
    begin = f"ConnectionError cannot connect to the sidecar at {path}: permission denied: {want}"
    assert len(lines) == 2 and all(line.startswith(begin) for line in lines), (lines, begin)
    assert "start cachesidecar" not in lines[0]
