"""Every message of a round, frozen; bounds stand at the field they bound (docs/protocol.md §2, §3).

The coordinator announces, volunteers answer. Training and reporting are two exchanges: a volunteer
first says that it is ready and only then, inside a short aggregation, hands over its update.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import numpy as np

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec, as_vector
from nomoat.aggregation.protocol.wire import Body, Limit, encode, message

Digest: TypeAlias = Annotated[bytes, Limit(32, 32)]
Name: TypeAlias = Annotated[str, Limit(1, 200)]
Round: TypeAlias = Annotated[int, Limit(1, 1_000_000)]
Count: TypeAlias = Annotated[int, Limit(0, 2**40)]
Loss: TypeAlias = Annotated[float, Limit(0, 1e4)]

MAX_LOCAL_STEPS = 100_000
MAX_BATCH = 4096
MAX_SEQ_LEN = 131_072
MAX_RANK = 1024
MAX_PROX = 1e3


@message("layer")
@dataclass(frozen=True, slots=True)
class LayerShape:
    """One adapted layer: W is (d_out, d_in)."""

    name: Name
    d_out: Annotated[int, Limit(1, 1 << 20)]
    d_in: Annotated[int, Limit(1, 1 << 20)]


@message("spec")
@dataclass(frozen=True, slots=True)
class AdapterShape:
    """An AdapterSpec on the wire."""

    layers: Annotated[tuple[LayerShape, ...], Limit(1, 20_000)]
    rank: Annotated[int, Limit(1, MAX_RANK)]
    alpha: Annotated[float, Limit(1e-6, 1e6)]
    rslora: bool
    target_modules: Annotated[tuple[Name, ...], Limit(1, 256)]

    def __post_init__(self) -> None:
        # Unsorted or repeated layers are refused when decoded, by the name of who sent them.
        self.spec()

    @classmethod
    def of(cls, spec: AdapterSpec) -> AdapterShape:
        """The wire form of `spec`."""
        layers = tuple(LayerShape(x.name, x.d_out, x.d_in) for x in spec.layers)
        return cls(layers, spec.rank, float(spec.alpha), spec.rslora, spec.target_modules)

    def spec(self) -> AdapterSpec:
        """The AdapterSpec described; LocalProtocolError if layers are unsorted or repeated."""
        layers = tuple(LayerSpec(x.name, x.d_out, x.d_in, self.rank) for x in self.layers)
        return AdapterSpec(layers, self.rank, self.alpha, self.rslora, self.target_modules)

    def open(self, data: bytes) -> Adapter:
        """The adapter of this shape in `data`.

        LocalProtocolError on a wrong length, unsorted layers or values that are not finite.
        """
        spec = self.spec()
        if len(data) != 4 * spec.size:
            raise LocalProtocolError(f"{len(data)} bytes where the shape needs {4 * spec.size}")
        vector = as_vector(data)
        if not np.isfinite(vector).all():
            raise LocalProtocolError("adapter has values that are not finite")
        return Adapter(spec, vector)


@message("train.settings")
@dataclass(frozen=True, slots=True)
class TrainSettings:
    """A volunteer's training in a round. Steps are optimiser steps; lr is this round's peak.

    `local_epochs` > 0 replaces `local_steps`: as many steps as that many passes over the data need.
    `prox`: FedProx's μ. `keep_moments`: go on with the optimiser's state of the last round this
    volunteer trained in. `personal`: what stays with the volunteer
    (aggregation/methods/composition.py).
    """

    local_steps: Annotated[int, Limit(1, MAX_LOCAL_STEPS)] = 12
    local_epochs: Annotated[int, Limit(0, 100)] = 0
    batch_size: Annotated[int, Limit(1, MAX_BATCH)] = 8
    seq_len: Annotated[int, Limit(8, MAX_SEQ_LEN)] = 512
    learning_rate: Annotated[float, Limit(0, 10)] = 5e-3
    train_a: bool = True
    train_b: bool = True
    prox: Annotated[float, Limit(0, MAX_PROX)] = 0.0
    keep_moments: bool = False
    personal: Annotated[str, Limit(1, 16)] = "none"


# Words of a Decline after which a round's number is of no use any more: whoever says them has seen
# that round, or a later one, go further.
STALE = "stale round"
SPENT = "trained from this version already"
# Of a Decline to measure: the candidate has no finite loss, which counts against it.
DIVERGED = "loss is not finite"


@message("train.local")
@dataclass(frozen=True, slots=True)
class TrainTask:
    """Coordinator → volunteer: train the broadcast adapter on your data and keep the result.

    Of the adapter's modules the first `trainable_rank` may be trained, the rest are frozen.
    """

    round: Round
    method: Name
    base_hash: Digest
    shape: AdapterShape
    trainable_rank: Annotated[int, Limit(1, MAX_RANK)]
    settings: TrainSettings
    seed: Digest
    adapter: Annotated[bytes, Body()]  # float32 little-endian, (d,)


@message("ready", grows=True)
@dataclass(frozen=True, slots=True)
class Ready:
    """Volunteer → coordinator: trained and stored. Losses are mean nats per trained token.

    `rank`: how many of the adapter's modules this volunteer trained.
    """

    round: Round
    steps: Annotated[int, Limit(1, MAX_LOCAL_STEPS)]
    tokens: Annotated[int, Limit(1, 2**40)]
    first_loss: Loss
    last_loss: Loss
    seconds: Annotated[float, Limit(0, 1e7)]
    rank: Annotated[int, Limit(1, MAX_RANK)]


@message("query.report")
@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Coordinator → volunteer: hand over what exchange `exchange` of the method sums.

    `reply` is what the coordinator made of the exchange before it (empty in the first).
    """

    round: Round
    exchange: Annotated[int, Limit(1, 4)]
    adapter_hash: Digest
    reply: Annotated[bytes, Body()] = b""


@message("report")
@dataclass(frozen=True, slots=True)
class Report:
    """Volunteer → coordinator, unmasked: the vector.

    weight: 1; whatever it says, everyone counts the same.
    """

    round: Round
    exchange: Annotated[int, Limit(1, 4)]
    weight: Annotated[float, Limit(1e-9, 1.0)]
    vector: Annotated[bytes, Body()]  # float32 little-endian


@message("evaluate.heldout")
@dataclass(frozen=True, slots=True)
class EvaluateTask:
    """Coordinator → volunteer: loss of this adapter on your held-out rows."""

    round: Annotated[int, Limit(0, 1_000_000)]
    base_hash: Digest
    shape: AdapterShape
    settings: TrainSettings
    adapter: Annotated[bytes, Body()]


@message("evaluation", grows=True)
@dataclass(frozen=True, slots=True)
class Evaluation:
    """Volunteer → coordinator: mean held-out loss, nats per token, over that many tokens.

    `personal`: of the same rows, with what this volunteer keeps to itself; None if it has nothing.
    """

    round: Annotated[int, Limit(0, 1_000_000)]
    loss: Loss
    tokens: Annotated[int, Limit(1, 2**40)]
    personal: Loss | None = None


@message("decline", grows=True)
@dataclass(frozen=True, slots=True)
class Decline:
    """Volunteer → coordinator: not this time, and why (a fixed word, never exception text)."""

    round: Annotated[int, Limit(0, 1_000_000)]
    reason: Annotated[str, Limit(1, 40)]


@message("query.reply")
@dataclass(frozen=True, slots=True)
class ExchangeReply:
    """Coordinator → volunteer: what exchange `exchange` − 1 gave, before a masked one opens."""

    round: Round
    exchange: Annotated[int, Limit(2, 4)]
    adapter_hash: Digest
    reply: Annotated[bytes, Body()]


@message("noted")
@dataclass(frozen=True, slots=True)
class Noted:
    """Volunteer → coordinator: received, nothing to add."""

    round: Annotated[int, Limit(0, 1_000_000)]


def task_digest(task: TrainTask | EvaluateTask) -> bytes:
    """The name of a task: SHA-256 of its head, which names its body; 32 bytes."""
    return hashlib.sha256(encode(task).head).digest()
