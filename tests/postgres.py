"""PostgreSQL for tests: a server of Debian's package on a socket of its own, once a session."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

SUPERUSER = "coordinator"
QUICK = ("fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=30")


def programs() -> Path | None:
    """The folder of Debian's newest server; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: p.parts[4])
    return found[-1].parent if found else None


def _as_another(command: list[str]) -> list[str]:
    """A server refuses to run as root."""
    return (
        ["setpriv", "--reuid=nobody", "--clear-groups", *command] if os.geteuid() == 0 else command
    )


@dataclass
class Server:
    """One server. folder: of its data and its socket."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def url(self, schema: str = "public", **more: str) -> str:
        """The address of one schema of its database."""
        options = "".join(f"&{key}={value}" for key, value in more.items())
        search = f"options=-csearch_path%3D{schema}"
        return f"postgresql://{SUPERUSER}@/postgres?host={self.folder}&{search}{options}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        import psycopg

        folder, at = str(self.folder), programs()
        assert at is not None
        settings = [
            word for each in (*QUICK, f"unix_socket_directories={folder}") for word in ("-c", each)
        ]
        command = [str(at / "postgres"), "-D", f"{folder}/data", "-h", "", *settings]
        self.process = None
        for _ in range(300):
            if self.process is None or self.process.poll() is not None:  # its old sessions go first
                with (self.folder / "log").open("ab") as log:
                    self.process = subprocess.Popen(
                        _as_another(command), stdout=log, stderr=log, cwd=folder
                    )
            try:
                psycopg.connect(self.url()).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def kill(self) -> None:
        """End it as a loss of power does: it and its sessions at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        # Its children see that it is gone, and end by themselves.

    def stop(self) -> None:
        """End it, sessions or not."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(3)  # SIGQUIT: at once
            self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def schema(self) -> str:
        """Make an empty schema; its address."""
        import psycopg

        name = f"s{os.urandom(6).hex()}"
        with psycopg.connect(self.url(), autocommit=True) as made:
            made.execute(f'CREATE SCHEMA "{name}"'.encode())
        return self.url(name)


def made() -> Server:
    """Make a server and start it; skips where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    at = programs()
    if at is None:
        pytest.skip("no PostgreSQL server is installed (Debian: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="pg.", dir="/tmp"))  # a socket's path is short
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
    command = [str(at / "initdb"), "-D", f"{folder}/data", "-U", SUPERUSER, "-A", "trust",
               "-E", "UTF8", "--locale=C", "--no-sync"]  # fmt: skip
    subprocess.run(_as_another(command), check=True, capture_output=True, cwd=folder)
    guarded = "local all guarded scram-sha-256\nlocal all all trust\n"
    (folder / "data/pg_hba.conf").write_text(guarded)
    server = Server(folder)
    server.start()
    return server
