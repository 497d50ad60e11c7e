"""A PostgreSQL server of one test. It listens on a socket in its folder only."""

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Dict, Optional

import psycopg2
from raw import LIMIT, missing, wait_for

INSTALL = "install PostgreSQL (Debian: postgresql) to test with a database"


def tool(name: str) -> str:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, folders)]))
    return found or missing(INSTALL)


class Postgres:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user: Dict[str, Any] = {}
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            try:
                entry = pwd.getpwnam("postgres")
            except KeyError:
                missing(INSTALL)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            self.user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        data = str(folder / "data")
        subprocess.run(
            [tool("initdb"), "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-locale"],
            cwd=folder, check=True, capture_output=True, **self.user,
        )  # fmt: skip
        self.log = (folder / "log").open("wb")
        self.server = subprocess.Popen(
            [tool("postgres"), "-D", data, "-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"],
            cwd=folder, stdout=self.log, stderr=self.log, **self.user,
        )  # fmt: skip
        self.url = f"postgresql:///postgres?host={folder}&user=tester"
        wait_for(self.connect, "PostgreSQL").close()

    def connect(self) -> Optional[Any]:
        try:
            return psycopg2.connect(self.url)
        except psycopg2.OperationalError:
            return None

    def stop(self) -> None:
        self.server.send_signal(signal.SIGINT)  # ends the connections too
        self.server.wait(LIMIT)
        self.log.close()
