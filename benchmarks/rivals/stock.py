"""A stock Flower deployment: SuperLink, SuperNodes and `flwr run`, doing a round's exchanges.

Its best practical configuration on one machine: TLS, node authentication and SQLite as in ours;
the app's parts in sub-processes as they come, with the one interval that can be set brought from
1 s to 0.1 s; no dependency installation, telemetry, update check or log streaming; no torch.
The pauses of 3 s in its Grid and in its SuperNode cannot be set.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nomoat.client.identity.keys import node_key
from nomoat.server.community.certificates import make_authority, make_server
from nomoat.simulations.loopback.processes import free_port
from rivals.process_tree import CommandFailed, end_tree

APP = Path(__file__).parent / "stock_app"
START_S, ROUND_S = 120.0, 180.0


@dataclass(frozen=True)
class Stock:
    """Seconds of each exchange of each round, and of everything from the first process on."""

    exchanges: list[list[float]]
    wall_s: float

    @property
    def rounds(self) -> list[float]:
        """Seconds of each round."""
        return [sum(round_) for round_ in self.exchanges]


@dataclass
class Deployment:
    """A SuperLink and its SuperNodes below `root`."""

    root: Path
    environment: Mapping[str, str]
    volunteers: int
    port: int = field(default_factory=free_port)

    def run(self, rounds: int, values: int) -> Stock:
        """Start everything, run the app, end everything."""
        self.root.mkdir(parents=True)
        self._certify()
        with ExitStack() as things:
            started = time.monotonic()
            self._start(things, "superlink", *self._superlink())
            for number in range(self.volunteers):
                self._admit(number)
                self._start(things, f"node{number}", *self._supernode(number))
            out = self.root / "out.json"
            app = self.root / "app"
            shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
            settings = {"rounds": rounds, "volunteers": self.volunteers, "values": values}
            given = " ".join(f"{key}={value}" for key, value in settings.items())
            self._flwr("run", str(app), "stock", "--run-config", f'{given} out="{out}"')
            until = time.monotonic() + START_S + rounds * ROUND_S
            while not out.exists() or not out.read_text():
                if time.monotonic() > until:
                    raise CommandFailed(f"no result; the SuperLink said:\n{self._said()}")
                time.sleep(0.05)
            found = json.loads(out.read_text())
            return Stock(found["seconds"], found["ended"] - started)

    def _certify(self) -> None:
        """An authority, a server certificate, and a connection `flwr` knows as "stock"."""
        now = datetime.datetime.now(datetime.UTC)
        authority = make_authority("stock", now)
        server = make_server(authority, ("localhost", "127.0.0.1"), now)
        (self.root / "ca.pem").write_bytes(authority.certificate)
        (self.root / "server.pem").write_bytes(server.certificate)
        (self.root / "server.key").write_bytes(server.key)
        home = self.root / "home"
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "stock"\n\n[superlink.stock]\naddress = "127.0.0.1:'
            f'{self.port}"\nroot-certificates = "{self.root / "ca.pem"}"\n'
        )

    def _superlink(self) -> tuple[str, ...]:
        tls = ("--ssl-ca-certfile", "ca.pem", "--ssl-certfile", "server.pem")
        return (
            "flower-superlink", *tls, "--ssl-keyfile", "server.key", "--enable-supernode-auth",
            "--database", "link.db", "--host", "127.0.0.1", "--port", str(self.port),
            "--disable-runtime-dependency-installation",
        )  # fmt: skip

    def _supernode(self, number: int) -> tuple[str, ...]:
        return (
            "flower-supernode", "--superlink", f"127.0.0.1:{self.port}",
            "--root-certificates", "ca.pem", "--auth-supernode-private-key", f"node{number}.key",
            "--port", str(free_port()),
        )  # fmt: skip

    def _admit(self, number: int) -> None:
        key = node_key(self.root / f"node{number}.key").public_key()
        public = self.root / f"node{number}.pub"
        public.write_bytes(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
        self._flwr("supernode", "register", str(public), "stock", patient=number == 0)

    def _flwr(self, *arguments: str, patient: bool = False) -> None:
        """Run a command of flwr's; again while the SuperLink is not up yet, if `patient`."""
        until = time.monotonic() + START_S
        while True:
            done = subprocess.run(
                [found("flwr"), *arguments],
                cwd=self.root,
                env=self._environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                return
            if not patient or time.monotonic() > until:
                raise CommandFailed(f"flwr {arguments[0]}: {(done.stdout + done.stderr)[-2000:]}")
            time.sleep(0.2)

    def _start(self, things: ExitStack, name: str, program: str, *arguments: str) -> None:
        with (self.root / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [found(program), *arguments],
                cwd=self.root,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        things.callback(end_tree, process)

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(found("flwr")).parent), os.environ.get("PATH", "")])
        return {
            **self.environment,
            "PATH": path,  # its processes start each other by name
            "FLWR_HOME": str(self.root / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        }

    def _said(self) -> str:
        logs = sorted(self.root.glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs)


def found(program: str) -> str:
    """A script of flwr's: beside this Python, else on the path."""
    beside = Path(sys.executable).with_name(program)
    where: Any = str(beside) if beside.exists() else shutil.which(program)
    if where is None:
        raise CommandFailed(f"{program} is not installed beside {sys.executable}")
    return str(where)
