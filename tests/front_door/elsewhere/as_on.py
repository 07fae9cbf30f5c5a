"""python as_on.py NOMOAT'S ARGUMENTS: our code as other systems would run it, on this one.

What we use is imported first, as this system has it. Then what another lacks is taken away and
every module of ours is imported: what macOS lacks, in a process of its own; what Windows lacks, in
this one, which then runs the command. Processes that it starts are new interpreters.
"""

from __future__ import annotations

import importlib
import importlib.abc
import multiprocessing.resource_tracker
import os
import pkgutil
import signal
import sys
import tomllib
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
THEIRS = """
torch transformers peft flwr.app flwr.serverapp flwr.clientapp flwr.supernode.fleet_http_client
fastapi uvicorn httpx sqlalchemy pyarrow.parquet matplotlib.pyplot psutil pynvml
pydantic_settings tomlkit jinja2 prometheus_client segno detect_secrets stdnum mnemonic msgpack
cryptography.x509 platformdirs typer rich.live asyncio multiprocessing.spawn
multiprocessing.popen_spawn_posix concurrent.futures.process logging.handlers tarfile zipfile
getpass tempfile webbrowser alembic
"""
# What Windows has not: modules, functions of os, names of signal.
MODULES = ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "syslog")
OF_OS = """
fork forkpty getuid geteuid getgid getegid getpgid killpg setsid sched_getaffinity nice uname
statvfs mkfifo chown fchmod getloadavg wait3 wait4 setpriority getpriority
"""
OF_SIGNAL = """
SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGSTOP SIGCONT alarm setitimer pthread_sigmask
"""


class Missing(importlib.abc.MetaPathFinder):
    """Finds that a module is not there."""

    def find_spec(self, name: str, _path: Any, _target: Any = None) -> None:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def become(platform: str) -> None:
    """Take away what `platform` lacks."""
    sys.platform = platform
    if platform == "darwin":
        del os.sched_getaffinity
        return
    for holder, names in ((os, OF_OS), (signal, OF_SIGNAL)):
        for name in names.split():
            if hasattr(holder, name):
                delattr(holder, name)
    multiprocessing.resource_tracker._HAVE_SIGMASK = False  # type: ignore[attr-defined]
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Missing())
    console = types.ModuleType("msvcrt")
    console.LK_LOCK, console.LK_NBLCK = 1, 2  # type: ignore[attr-defined]
    console.locking = lambda *_: None  # type: ignore[attr-defined]
    sys.modules["msvcrt"] = console


def import_all() -> int:
    """Import every module of ours; how many there are."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    count = 0
    for room in settings["tool"]["setuptools"]["packages"]:
        for found in pkgutil.iter_modules(importlib.import_module(room).__path__, f"{room}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
                count += 1
    return count


def on_macos() -> None:
    """Import everything as on macOS; an error ends this program, too."""
    child = os.fork()
    if child == 0:
        become("darwin")
        print("darwin", import_all(), flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit("not imported without what macOS lacks")


def main(arguments: Sequence[str]) -> None:
    """Import everything as on macOS, then as on Windows, and run a command there."""
    for name in THEIRS.split():
        importlib.import_module(name)
    on_macos()
    become("win32")
    print("win32", import_all(), flush=True)
    from nomoat.cli import app

    app(list(arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
