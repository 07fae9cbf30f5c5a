"""`nomoat service install` and `remove`: writes the unit, checks it, tells the system."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.service.unit_files import Installation, Service, installation, lint

Run: TypeAlias = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def wanted(
    home: Home, folder: CommunityFolder | None, environment: Mapping[str, str]
) -> Installation:
    """The unit that starts `nomoat run` with the session, for one community or for all."""
    root = home.root if folder is None else folder.root
    service = Service(
        "nomoat" if folder is None else f"nomoat-{folder.root.name[:8]}",
        "nomoat volunteer",
        (
            *(sys.executable, "-P", "-m", "nomoat", "run"),
            *(() if folder is None else ("--community", folder.root.name)),
        ),
        str(root),
        str(root / "service.out"),
        {"NOMOAT_HOME": str(home.root)} if environment.get("NOMOAT_HOME") else {},
    )
    user = os.getuid() if hasattr(os, "getuid") else 0
    return installation(service, sys.platform, str(Path.home()), user)


def coordinator(folder: Path) -> Installation:
    """The unit that keeps the community in this folder up; UsageError if there is none in it."""
    root = folder.resolve()
    if not (root / "community.toml").is_file():
        raise UsageError(
            f"no community is kept in {folder}: name its folder, or make one with nomoat init"
        )
    digest = hashlib.sha256(str(root).encode()).hexdigest()[:8]  # several may live on a machine
    service = Service(
        f"nomoat-coordinator-{digest}",
        f"nomoat coordinator of {root.name}",
        (sys.executable, "-P", "-m", "nomoat", "up", str(root)),
        str(root),
        str(root / "service.out"),
        courteous=False,
    )
    user = os.getuid() if hasattr(os, "getuid") else 0
    return installation(service, sys.platform, str(Path.home()), user)


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run one of the system's own commands and keep what it says."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def install(wanted: Installation, platform: str, run: Run = run) -> str:
    """Write the unit, lint it, start it; what was done. Nothing stays behind if a step fails."""
    problem = lint(wanted.content, platform)
    if problem:
        raise NomoatError(f"the service file is not right: {problem}")
    path = Path(wanted.path)
    before = path.read_bytes() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wanted.content)
    try:
        if wanted.verify and shutil.which(wanted.verify[0]):
            _do(wanted.verify, run)
        for command in wanted.install:
            _do(command, run)
    except NomoatError:
        _put_back(path, before)
        raise
    return f"installed {path}; it starts with your session (nomoat service remove undoes it)"


def remove(wanted: Installation, run: Run = run) -> str:
    """Stop the service and delete its file; a service that is not there is no error."""
    path = Path(wanted.path)
    if not path.exists():
        return "no service is installed"
    first, *rest = wanted.remove
    run(first)  # it may not be running
    path.unlink()
    for command in rest:
        _do(command, run)
    return f"removed {path}"


def render_manual(wanted: Installation) -> str:
    """The steps to take by hand where the system's commands are missing."""
    steps = "\n".join("  " + " ".join(command) for command in wanted.install)
    return f"write {wanted.path}, then:\n{steps}"


def _do(command: Sequence[str], run: Run) -> None:
    shown = " ".join(command)
    try:
        done = run(command)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise NomoatError(f"{shown} failed: {problem}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NomoatError(f"{shown} failed: {said[-1] if said else done.returncode}")


def _put_back(path: Path, before: bytes | None) -> None:
    if before is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(before)
