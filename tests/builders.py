"""Values that many tests need; a test that needs another says what differs, or builds its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec, as_bytes
from nomoat.aggregation.protocol.enrolment import CommunityInfo
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.messages import (
    AdapterShape,
    EvaluateTask,
    TrainSettings,
    TrainTask,
)

SPEC = AdapterSpec((LayerSpec("q", 4, 3, 2),), 2, 4.0, target_modules=("q",))
BASE = b"b" * 32  # a base model's content hash


def adapter(seed: int, spec: AdapterSpec = SPEC) -> Adapter:
    """An adapter of normally distributed values, another for each seed."""
    values = np.random.default_rng(seed).standard_normal(spec.size)
    return Adapter(spec, values.astype(np.float32))


def at_rank(spec: AdapterSpec, rank: int) -> AdapterSpec:
    """The same layers and α at another rank."""
    layers = tuple(LayerSpec(x.name, x.d_out, x.d_in, rank) for x in spec.layers)
    return AdapterSpec(layers, rank, spec.alpha, spec.rslora, spec.target_modules)


def train_task(start: Adapter, number: int = 1, **changes: Any) -> TrainTask:
    """The task of round `number` to train `start`, all of it, by fedavg and default settings."""
    shape, settings = AdapterShape.of(start.spec), TrainSettings()
    body, rank = as_bytes(start.vector), start.spec.rank
    made = TrainTask(number, "fedavg", BASE, shape, rank, settings, b"s" * 32, body)
    return replace(made, **changes)


def evaluate_task(candidate: Adapter, number: int = 1, **changes: Any) -> EvaluateTask:
    """The task of round `number` to measure `candidate`."""
    shape, body = AdapterShape.of(candidate.spec), as_bytes(candidate.vector)
    return replace(EvaluateTask(number, BASE, shape, TrainSettings(), body), **changes)


def community_info(**changes: Any) -> CommunityInfo:
    """What a masked community named town says of itself; nobody has signed it."""
    made = CommunityInfo(
        name="town",
        public=b"k" * 32,
        about="",
        base_model="pocket",
        base_license="",
        base_hash=BASE,
        base_bytes=0,
        adapter_values=9,
        method="fedavg",
        local_steps=1,
        batch_size=1,
        seq_len=8,
        secure=True,
        min_participants=2,
        allow_weak=True,
        admission="open",
        protocol_low=1,
        protocol_high=1,
        ca=b"ca",
        now=0,
        signature=bytes(64),
    )
    return replace(made, **changes)


def topic_rows(path: Path, topic: str) -> Path:
    """A data file of thirty rows about `topic`."""
    lines = (json.dumps({"text": f"{topic} says number {i} of {topic}"}) for i in range(30))
    path.write_text("\n".join(lines) + "\n")
    return path


class OneKey:
    """Of a stand-in for a CoordinatorClient: its community has changed its key as `keys` says."""

    community: bytes

    @property
    def keys(self) -> CommunityKeys:
        return CommunityKeys(self.community)

    def checked(self, check: Callable[[CommunityKeys], Any]) -> Any:
        return check(self.keys)
