"""A run's folder: all that it leaves behind, and goes on from after a kill.

    config.toml             every setting, the versions, the command that repeats the run
    metrics.jsonl           one object per round
    checkpoint.safetensors  the last ended round: the state that --resume continues
    volunteers/             what volunteers keep to themselves between rounds, if anything
    shards/                 the data as training wants it, while the run is at work
    summary.json, adapter/, report.html, curve.png   when the run has ended

Every file is whole or absent. The checkpoint carries its own round's record, so that a kill
between two files costs nothing.
"""

from __future__ import annotations

import contextlib
import json
import platform
import shlex
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.lora.data.template_clock import TODAY
from nomoat.server.rounds.acceptance import HeldOutLosses
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.records import RoundRecord
from nomoat.simulations.scenario import Scenario
from nomoat.storage import arrays
from nomoat.storage.atomic import held, replacing

VERSIONS = ("nomoat", "flwr", "torch", "transformers", "peft", "numpy")


class RunFolder:
    """The folder of one run: a Journal of its rounds and the place of its results."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.metrics = path / "metrics.jsonl"
        self.checkpoint = path / "checkpoint.safetensors"
        self.summary = path / "summary.json"
        self.adapter = path / "adapter"
        self.report = path / "report.html"
        self.curve = path / "curve.png"
        self.volunteers = path / "volunteers"  # what each keeps to itself between rounds
        self.shards = path / "shards"
        self.lock = path / ".lock"
        self._spec: AdapterSpec | None = None
        self._inputs = b""
        self._new = False

    @classmethod
    def create(cls, path: Path, scenario: Scenario, argv: list[str]) -> RunFolder:
        """A new run's folder; UsageError if there is a run, or anything of a run's name, in it."""
        folder = cls(path)
        if folder.config.exists():
            raise UsageError(f"{path} holds a run already: add --resume, or choose another --out")
        if taken := next((p for p in folder._results() if p.exists()), None):
            raise UsageError(f"{taken} is in the way: choose another --out")
        write_text(folder.config, config_text(scenario, argv))
        folder._new = True
        return folder

    @classmethod
    def reopen(cls, path: Path) -> tuple[RunFolder, Scenario]:
        """The folder of a run to resume, and the scenario it was started with."""
        folder = cls(path)
        if not folder.config.exists():
            raise UsageError(f"{path} holds no run to resume: config.toml is missing")
        try:
            settings = tomlkit.parse(folder.config.read_text("utf-8")).unwrap()["scenario"]
            # What may be dropped was decided when the run began, or nobody asked then.
            return folder, Scenario.model_validate({**settings, "allow_dropping": True})
        except (OSError, ValueError, KeyError, TOMLKitError) as problem:
            why = " ".join(str(problem).split())[:160]
            raise UsageError(f"{folder.config} is not what a run wrote: {why}") from None

    def settle(self, scenario: Scenario) -> None:
        """Write into config.toml what the run chose itself: sequence length and learning rate."""
        document = tomlkit.parse(self.config.read_text("utf-8"))
        table: Any = document["scenario"]
        chosen = {"seq_len": scenario.seq_len, "learning_rate": scenario.learning_rate}
        if any(table.get(name) != value for name, value in chosen.items()):
            table.update(chosen)
            write_text(self.config, tomlkit.dumps(document))

    @contextlib.contextmanager
    def occupied(self) -> Iterator[None]:
        """Be the only process at work on this run, and have `shards` while the block runs.

        Raises NomoatError if another one is. A run that was killed left its shards behind: they go.
        """
        with held(self.lock, f"{self.path} is being worked on by another nomoat; wait for it"):
            shutil.rmtree(self.shards, ignore_errors=True)
            self.shards.mkdir(mode=0o700)
            try:
                yield
            finally:
                shutil.rmtree(self.shards, ignore_errors=True)
                with contextlib.suppress(OSError):  # some systems keep what is open
                    self.lock.unlink()

    def bind(self, spec: AdapterSpec, inputs: bytes) -> None:
        """Say what adapter the checkpoints are of, and what it is made from; before `last`.

        inputs: a digest of the base model and the data. A run can go on only with its own.
        """
        self._spec, self._inputs = spec, inputs

    def last(self) -> FederationCheckpoint | None:
        """The last ended round; what metrics.jsonl says beyond it is cut off.

        UsageError if model or data are not those of the run, or its files have been changed.
        """
        if not self.checkpoint.exists():
            return None
        meta, arrays = self._stored()
        if meta["inputs"] != self._inputs.hex():
            raise UsageError(
                f"{self.path}: the base model or the data have changed since this run started; "
                "bring them back, or start a new run"
            )
        assert self._spec is not None
        checkpoint = FederationCheckpoint.from_arrays(
            meta["round"], self._spec, arrays, meta["losses"]
        )
        records = [r for r in read_metrics(self.metrics) if r["round"] < meta["round"]]
        if len(records) != meta["round"]:
            raise UsageError(f"{self.metrics} lacks rounds of this run: start a new one")
        self._write_metrics([*records, meta["record"]])
        best = meta.get("best")
        return replace(
            checkpoint,
            personal=meta.get("personal", {}),
            best=None if best is None else HeldOutLosses(**best),
        )

    def _stored(self) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            return arrays.unpack(self.checkpoint.read_bytes())
        except (OSError, ValueError):
            raise UsageError(f"{self.checkpoint} is damaged: start a new run") from None

    def write(self, record: RoundRecord, checkpoint: FederationCheckpoint) -> None:
        """Write an ended round: first the checkpoint with its record, then the metrics line."""
        meta = {
            "round": checkpoint.round,
            "inputs": self._inputs.hex(),
            "losses": checkpoint.losses,
            "personal": checkpoint.personal,
            "best": None if checkpoint.best is None else asdict(checkpoint.best),
            "record": record.as_json(),
        }
        with replacing(self.checkpoint) as file:
            file.write(arrays.pack(meta, checkpoint.to_arrays()))
        self._write_metrics([*read_metrics(self.metrics), record.as_json()])

    def history(self) -> Iterable[RoundRecord]:
        """The records of all ended rounds, in order."""
        return map(RoundRecord.from_json, self.records())

    def records(self) -> list[dict[str, Any]]:
        """All rounds so far."""
        return read_metrics(self.metrics)

    def base_loss(self) -> float | None:
        """The held-out loss before training, if it was measured already."""
        records = self.records()
        return records[0]["loss"] if records else None

    def write_summary(self, summary: dict[str, Any]) -> None:
        """summary.json."""
        write_text(self.summary, json.dumps(summary, indent=2) + "\n")

    def forget(self) -> None:
        """Leave nothing behind of a new run that failed before its first round was over."""
        if not self._new or self.checkpoint.exists():
            return
        self.config.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # there was something else in it before
            self.path.rmdir()

    def _results(self) -> tuple[Path, ...]:
        names = (self.metrics, self.checkpoint, self.summary, self.adapter, self.report)
        return (*names, self.curve, self.volunteers, self.shards)

    def _write_metrics(self, records: list[dict[str, Any]]) -> None:
        write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in records))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The objects of a metrics.jsonl up to the first line that is none; none if it is not there."""
    records: list[dict[str, Any]] = []
    if not path.exists():
        return records
    with contextlib.suppress(ValueError):
        for line in path.read_text("utf-8").splitlines():
            records.append(json.loads(line))
    return records


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
        "template_clock": TODAY.isoformat(),  # the time that chat templates are told
    }
    return tomlkit.dumps(document)


def replay_command(argv: list[str]) -> str:
    """The command line as a person would type it."""
    return shlex.join(["nomoat", *argv]) if argv else "nomoat simulate"
