"""A machine with a GPU that is not there, for tests that start programs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LIBRARIES = Path(__file__).parent / "libraries"


@dataclass(frozen=True)
class FakeGpu:
    """A driver whose state is `folder`; libraries that start CUDA when imported are installed.

    missing: only those libraries are there, no GPU.
    """

    folder: Path
    missing: bool = False
    more: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """For a program that shall see it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(filter(None, (str(LIBRARIES), os.environ.get("PYTHONPATH"))))
        hidden = {"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"}
        inherited = {name: value for name, value in os.environ.items() if name not in hidden}
        known = {"FAKE_GPU": str(self.folder), "FAKE_GPU_MISSING": "1" if self.missing else "0"}
        return {**inherited, "PYTHONPATH": path, **known, **self.more}

    def run(self, *command: str, timeout_s: float = 240.0) -> subprocess.CompletedProcess[str]:
        """Run Python on this machine."""
        return subprocess.run(
            [sys.executable, "-P", *command],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def log(self) -> list[str]:
        """What happened, in the order in which it did: words and a process id."""
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    def starts(self) -> set[str]:
        """Who started CUDA."""
        return {line.split(" ")[0] for line in self.log() if line.startswith("start(")}

    def forks(self) -> list[str]:
        """Forks of a process that had started it."""
        return [line for line in self.log() if line.startswith("FORKED")]

    def fail(self, *passes: str) -> None:
        """Let the next forward passes go so: "" well, "oom", "cublas" or "lost"."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "fail").write_text("\n".join(passes))
