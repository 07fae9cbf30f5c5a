"""A real federation on one machine: coordinator and volunteers as processes of their own.

Everything goes through the commands people use, over TLS on loopback, each process with its own
home; nothing is shared but the files a person would hand over (an invitation, a base model).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from nomoat.aggregation.errors import NomoatError
from nomoat.server.rounds.records import RoundRecord

# -P: a folder called nomoat where the command is typed, such as a clone, is not the package.
PROGRAM = (sys.executable, "-P", "-m", "nomoat")
END_S = 15.0
LOOK_S = 0.1


def free_port() -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class LoopbackFederation:
    """A community and its volunteers below `root`; everything ends with the block."""

    root: Path
    program: Sequence[str] = PROGRAM
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The community's folder."""
        return self.root / "community"

    def home(self, name: str) -> Path:
        """A volunteer's home."""
        return self.root / name

    def __enter__(self) -> LoopbackFederation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        until = time.monotonic() + END_S
        for process in self.processes.values():
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def init(self, name: str, base: Path, options: Sequence[str]) -> None:
        """nomoat init."""
        address = f"localhost:{self.port}"
        given = ("--name", name, "--base", str(base), "--address", address, *options)
        self.call("init", str(self.folder), *given)

    def up(self, *options: str) -> None:
        """nomoat up, in the background; rounds are written to up.out."""
        where = ("--host", "127.0.0.1", "--port", str(self.port))
        self.start("up", "up", str(self.folder), "--json", "--no-web", *where, *options)

    def invite(self, uses: int) -> str:
        """nomoat invite: the link."""
        return self.call("invite", str(self.folder), "--uses", str(uses), "--quiet").strip()

    def join(self, name: str, link: str, data: Path, base: Path, *options: str) -> None:
        """nomoat join, in the background, as volunteer `name`."""
        given = ("--data", str(data), "--base", str(base), "--as", name, "--yes", "--accept-weak")
        self.start(name, "join", link, *given, *options)

    def rerun(self, name: str) -> None:
        """nomoat run of a volunteer that has joined, in the background."""
        self.start(name, "run")

    def kill(self, name: str) -> None:
        """kill -9 a process, and only it: as if the machine had run out of memory."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def call(self, *arguments: str, home: str = "operator") -> str:
        """Run a command to its end; its stdout. NomoatError with its last line if it fails."""
        done = subprocess.run(
            [*self.program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=self._environment(home),
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["(no message)"]
            raise NomoatError(f"nomoat {arguments[0]}: {said[-1]}")
        return done.stdout.decode()

    def start(self, name: str, *arguments: str) -> None:
        """Start a command in the background; its output goes to NAME.out and NAME.err."""
        with (
            (self.root / f"{name}.out").open("ab") as out,
            (self.root / f"{name}.err").open("ab") as err,
        ):
            self.processes[name] = subprocess.Popen(
                [*self.program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=self._environment(name),
            )

    def records(self) -> list[RoundRecord]:
        """The rounds that have ended so far, as `up` wrote them."""
        path = self.root / "up.out"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [RoundRecord(**json.loads(line)) for line in lines]

    def state(self, name: str) -> dict[str, Any]:
        """Read a volunteer's status; empty before it has written one."""
        for path in self.home(name).glob("communities/*/state.json"):
            try:
                found: dict[str, Any] = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            return found
        return {}

    def hosted(self) -> dict[str, Any]:
        """Read the coordinator's status; empty before it has written one."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def wait(self, what: str, done: Callable[[], bool], seconds: float) -> None:
        """Wait until `done()`; NomoatError naming `what` after `seconds`, or if a process died."""
        for _ in self.watch(what, done, seconds):
            pass

    def watch(self, what: str, done: Callable[[], bool], seconds: float) -> Iterator[None]:
        """As `wait`, giving the caller a turn between two looks."""
        until = time.monotonic() + seconds
        while not done():
            for name, process in self.processes.items():
                if process.poll() not in (None, 0):
                    raise NomoatError(f"{name} ended while waiting for {what}: {self.last(name)}")
            if time.monotonic() > until:
                raise NomoatError(f"{what}: not within {seconds:.0f} s ({self.last('up')})")
            yield
            time.sleep(LOOK_S)

    def last(self, name: str) -> str:
        """The last line a process wrote to stderr."""
        path = self.root / f"{name}.err"
        lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        return lines[-1] if lines else "it said nothing"

    def _environment(self, home: str) -> dict[str, str]:
        return {**os.environ, **self.environment, "NOMOAT_HOME": str(self.home(home))}
