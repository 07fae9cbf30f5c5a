"""Jobs and orders of a worker process: frozen, picklable, and free of torch."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, Vector
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.conversations import Conversation
from nomoat.lora.layout.parts import WHOLE, Layout
from nomoat.lora.model.targets import Targets
from nomoat.lora.scan.plan import ScanPlan
from nomoat.lora.training.moments import Moments


@dataclass(frozen=True, slots=True)
class HeldBase:
    """A base model and how a worker holds it; the fields are those of pool.Pool."""

    folder: str
    device: str = "auto"
    bits: int | None = None
    threads: int = 1
    base_hash: bytes | None = None
    layout: Layout = WHOLE


@dataclass(frozen=True, eq=False, slots=True)
class TrainJob:
    """Train the adapter on a shard (a file `conversations.write_jsonl` wrote) → train.Trained.

    frozen: modules that are added to the model and stay as they are. moments: the optimiser's, of
    an earlier round. checkpoint: the file that is written when the run has to pause, and resumed.
    most_tokens: padded tokens of one forward pass at most. checkpointing: activations are computed
    again where they are needed, to save memory. adam_8bit: moments in 8 bits (bitsandbytes).
    needs_bytes: of the device, as predicted; None where nobody has.
    share: of the rows, the part that is trained on.
    """

    shard: Path
    spec: AdapterSpec
    vector: Vector = field(repr=False)
    settings: TrainSettings
    seed: bytes
    frozen: Adapter | None = field(default=None, repr=False)
    moments: Moments | None = field(default=None, repr=False)
    checkpoint: Path | None = None
    most_tokens: int | None = None
    checkpointing: bool = False
    adam_8bit: bool = False
    needs_bytes: int | None = None
    share: float = 1.0


@dataclass(frozen=True, eq=False, slots=True)
class JointJob:
    """Train several adapters at once over the base → a list of train.Trained or NomoatError.

    most_tokens, needs_bytes: as in TrainJob, of all together. Of the jobs, those fields of theirs
    count that say what is trained.
    """

    parts: tuple[TrainJob, ...]
    most_tokens: int | None = None
    needs_bytes: int | None = None


@dataclass(frozen=True, eq=False, slots=True)
class EvaluateJob:
    """Loss of the adapter (None: of the base alone) on a shard → evaluate.MeasuredLoss.

    most_tokens, needs_bytes: as in TrainJob.
    """

    shard: Path
    spec: AdapterSpec
    vector: Vector | None = field(repr=False)
    settings: TrainSettings
    most_tokens: int | None = None
    needs_bytes: int | None = None


@dataclass(frozen=True, eq=False, slots=True)
class SampleJob:
    """Write on from each prompt with the adapter (None: the base alone) → tuple[str, …].

    `continue_text`: go on writing the prompt instead of answering it (data of plain text).
    """

    prompts: tuple[str, ...]
    spec: AdapterSpec
    vector: Vector | None = field(repr=False)
    max_new_tokens: int = 48
    continue_text: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class ScanJob:
    """Try texts in a shard's questions under two adapters of one shape → scan.shifts.Shifts."""

    shard: Path
    spec: AdapterSpec
    before: Vector = field(repr=False)
    after: Vector = field(repr=False)
    seq_len: int
    plan: ScanPlan


@dataclass(frozen=True, eq=False, slots=True)
class RowLossesJob:
    """Read rows one by one with the adapter (None: the base alone) → tuple[RowReading, …].

    seconds: none is begun after that, and what is missing then is missing at the end.
    """

    rows: tuple[Conversation, ...]
    spec: AdapterSpec
    vector: Vector | None = field(repr=False)
    seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class SpecJob:
    """Examine the worker's model → examination.Examined, so that nobody else needs torch.

    seq_len: tokens of the rows that it shall read; UsageError if it cannot.
    """

    rank: int
    alpha: float
    target_modules: Targets = "all-linear"
    rslora: bool = False
    seq_len: int = 0


@dataclass(frozen=True, slots=True)
class ShardJob:
    """Encode a shard without training on it → encoding.Encoded's counts, as ShardCounts."""

    shard: Path
    seq_len: int


@dataclass(frozen=True, slots=True)
class LengthsJob:
    """Measure a shard's rows in tokens → lengths.RowLengths, with what the model reads at most."""

    shard: Path


@dataclass(frozen=True, slots=True)
class ShardCounts:
    """A shard as training sees it."""

    examples: int
    tokens: int
    trained_tokens: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Write the checkpoint of the run and end it; without an answer if there is none."""


@dataclass(frozen=True, slots=True)
class Throttle:
    """The share of the time that may be spent working, in (0, 1]; without an answer."""

    share: float


Order: TypeAlias = Pause | Throttle
Job: TypeAlias = (
    TrainJob
    | JointJob
    | EvaluateJob
    | SampleJob
    | ScanJob
    | RowLossesJob
    | SpecJob
    | ShardJob
    | LengthsJob
)


OF_THIS_MACHINE = frozenset({"checkpoint", "most_tokens", "checkpointing", "needs_bytes"})


def need_bytes(job: Job, holding: int | None = None) -> int | None:
    """Return what the job takes of the device at its peak, None if nobody has predicted it.

    holding: to hold the base and read a row, which is all that other jobs than these do.
    """
    return job.needs_bytes if isinstance(job, TrainJob | JointJob | EvaluateJob) else holding


def digest(job: TrainJob) -> bytes:
    """Return the SHA-256 of what is trained: everything but how this machine goes about it."""
    hashed = hashlib.sha256(b"nomoat training\0")
    for item in fields(job):
        if item.name not in OF_THIS_MACHINE:
            hashed.update(item.name.encode() + b"\0" + _name(getattr(job, item.name)))
    return hashed.digest()


def _name(value: object) -> bytes:
    """SHA-256 of a field's value: a file's and an array's content, anything else as it is shown."""
    if isinstance(value, Path):
        return hashlib.sha256(value.read_bytes()).digest()
    if isinstance(value, np.ndarray):
        return hashlib.sha256(value.tobytes()).digest()
    if is_dataclass(value):
        parts = [_name(getattr(value, item.name)) for item in fields(value)]
        return hashlib.sha256(b"".join(parts)).digest()
    return hashlib.sha256(repr(value).encode()).digest()


@dataclass(frozen=True, slots=True)
class Interval:
    """Start and end of one job, seconds of the system-wide monotonic clock."""

    started: float
    finished: float


def busy_seconds(intervals: tuple[Interval, ...]) -> float:
    """Return the seconds in which at least one interval lasts: the length of their union."""
    total, reached = 0.0, float("-inf")
    for interval in sorted(intervals, key=lambda x: x.started):
        start = max(interval.started, reached)
        total += max(0.0, interval.finished - start)
        reached = max(reached, interval.finished)
    return total
