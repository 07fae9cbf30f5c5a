"""What a run leaves behind, and goes on from after a kill: one folder.

    config.toml      every setting, the versions, the command that repeats the run
    metrics.jsonl    one object per round
    checkpoint.npz   the last ended round: the state that --resume continues
    summary.json, adapter/, report.html, curve.png   when the run has ended

Every file is whole or absent. The checkpoint carries its own round's record, so that a kill
between two files costs nothing.
"""

from __future__ import annotations

import io
import json
import platform
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tomlkit

from nomoat.aggregation.adapter import AdapterSpec
from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.methods.base import MethodState
from nomoat.lora.durable import replacing
from nomoat.server.records import Checkpoint, RoundRecord
from nomoat.simulations.scenario import Scenario

VERSIONS = ("nomoat", "flwr", "torch", "transformers", "peft", "numpy")


class RunFolder:
    """The folder of one run: a Journal of its rounds and the place of its results."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.metrics = path / "metrics.jsonl"
        self.checkpoint = path / "checkpoint.npz"
        self.summary = path / "summary.json"
        self.adapter = path / "adapter"
        self.report = path / "report.html"
        self.curve = path / "curve.png"
        self._spec: AdapterSpec | None = None

    @classmethod
    def create(cls, path: Path, scenario: Scenario, argv: list[str]) -> RunFolder:
        """A new run's folder; UsageError if there is a run in it already."""
        folder = cls(path)
        if folder.config.exists():
            raise UsageError(f"{path} holds a run already: add --resume, or choose another --out")
        write_text(folder.config, config_text(scenario, argv))
        return folder

    @classmethod
    def reopen(cls, path: Path) -> tuple[RunFolder, Scenario]:
        """The folder of a run to resume, and the scenario it was started with."""
        folder = cls(path)
        if not folder.config.exists():
            raise UsageError(f"{path} holds no run to resume: config.toml is missing")
        settings = tomlkit.parse(folder.config.read_text("utf-8")).unwrap()
        return folder, Scenario.model_validate(settings["scenario"])

    def bind(self, spec: AdapterSpec) -> None:
        """Say what adapter the checkpoints are of; needed before `last`."""
        self._spec = spec

    def last(self) -> Checkpoint | None:
        """The last ended round; what metrics.jsonl says beyond it is cut off."""
        if not self.checkpoint.exists():
            return None
        with np.load(self.checkpoint, allow_pickle=False) as stored:
            meta = json.loads(bytes(stored["meta"]).decode())
            arrays = {k[6:]: stored[k] for k in stored.files if k.startswith("state.")}
        assert self._spec is not None
        state = MethodState.from_arrays(self._spec, arrays)
        records = [r for r in read_metrics(self.metrics) if r["round"] < meta["round"]]
        self._write_metrics([*records, meta["record"]])
        return Checkpoint(meta["round"], state, meta["losses"])

    def write(self, record: RoundRecord, checkpoint: Checkpoint) -> None:
        """Write an ended round: first the checkpoint with its record, then the metrics line."""
        meta = {
            "round": checkpoint.round,
            "losses": checkpoint.losses,
            "record": record.as_json(),
        }
        state = checkpoint.state.to_arrays()
        content = io.BytesIO()
        arrays: dict[str, Any] = {f"state.{name}": values for name, values in state.items()}
        np.savez(content, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays)
        with replacing(self.checkpoint) as file:
            file.write(content.getvalue())
        self._write_metrics([*read_metrics(self.metrics), record.as_json()])

    def records(self) -> list[dict[str, Any]]:
        """All rounds so far."""
        return read_metrics(self.metrics)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """summary.json."""
        write_text(self.summary, json.dumps(summary, indent=2) + "\n")

    def _write_metrics(self, records: list[dict[str, Any]]) -> None:
        write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in records))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The objects of a metrics.jsonl; none if it is not there."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with replacing(path) as file:
        file.write(text.encode())


def config_text(scenario: Scenario, argv: list[str]) -> str:
    """config.toml: settings, versions, and the command that repeats the run."""
    document = tomlkit.document()
    document.add(tomlkit.comment("Every setting of this run. Repeat it with:"))
    document.add(tomlkit.comment(f"  {replay_command(argv)}"))
    settings = {k: v for k, v in scenario.model_dump().items() if v is not None}
    settings["target_modules"] = list(scenario.target_modules)
    document["scenario"] = settings
    document["versions"] = {name: version(name) for name in VERSIONS} | {
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    return tomlkit.dumps(document)


def replay_command(argv: list[str]) -> str:
    """The command line as a person would type it."""
    return shlex.join(["nomoat", *argv]) if argv else "nomoat simulate"
