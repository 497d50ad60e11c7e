"""What a process may do that may not open the sidecar's socket."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path


def remedy(path: str) -> str:
    """Say what keeps this process from the socket at a path, a folder or the file itself, and what to do."""
    thing, what, bit = path, "the socket", 0o020
    advice = (
        "give it to the group of its apps (socket_group and socket_mode; SocketGroup= and SocketMode= of a socket unit)"
    )
    for folder in reversed(Path(os.path.abspath(path)).parents):
        if not os.access(folder, os.X_OK):
            thing, what, bit = str(folder), f"the folder {folder}", 0o010
            advice = f"let all search it: chmod a+x {folder}"
            break
    try:
        s = os.stat(thing)
    except OSError as e:
        return str(e)
    group, within = _group(s.st_gid), s.st_gid in (os.getegid(), *os.getgroups())
    of = f"{what} belongs to group {group} and has mode {stat.S_IMODE(s.st_mode) & 0o777:04o}"
    if not s.st_mode & bit or s.st_gid == 0 and not within:  # no user should become root for it
        return f"{of}: {advice}"
    if within:
        return f"{of}, and this process is in that group: look at its owner, access lists and security modules"
    user = _user()
    of += (
        f", and user {user} is not in it: usermod -aG {group} {user}, and start this program anew from a new login, "
        "since a process has its groups from its start"
    )
    return of if thing == path else f"{of}; or {advice}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _user() -> str:
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
