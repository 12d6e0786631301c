"""A PostgreSQL server of a test: a temporary folder, a free port of this machine, no password.

PostgreSQL refuses to run as root; where the tests do, it runs as the user that its package made.
"""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PACKAGED = "/usr/lib/postgresql"
USER = "postgres"


def server_tools() -> Path | None:
    """The folder of initdb and pg_ctl, the newest that is installed."""
    found = shutil.which("pg_ctl")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path(PACKAGED).glob("*/bin"), key=lambda folder: int(folder.parent.name))
    return folders[-1] if folders else None


@dataclass
class Cluster:
    """A running server."""

    folder: Path
    tools: Path
    port: int

    @property
    def url(self) -> str:
        """Of its one database."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    def run(self, tool: str, *arguments: str) -> None:
        """One of PostgreSQL's own programs, as a user that is not root."""
        subprocess.run(
            [self.tools / tool, "-D", self.folder / "data", *arguments],
            user=USER if os.getuid() == 0 else None,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
        )

    def sql(self, statement: str) -> None:
        """Runs a statement that needs no transaction."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        log = str(self.folder / "log")
        self.run("pg_ctl", "-w", "-l", log, "-o", f"{options} -c fsync=off", "start")

    def stop(self) -> None:
        """Ends it at once, as a machine that is switched off would."""
        self.run("pg_ctl", "-w", "-m", "immediate", "stop")


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A new server, removed at the end."""
    tools = server_tools()
    assert tools is not None, "PostgreSQL is not installed"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place)
        if os.getuid() == 0:
            shutil.chown(folder, USER)
        made = Cluster(folder, tools, port)
        made.run("initdb", "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        made.start()
        try:
            yield made
        finally:
            made.stop()
