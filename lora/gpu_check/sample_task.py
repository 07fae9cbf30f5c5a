"""A small base, rows and an adapter for the rows of the table, and one step seen from inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nomoat.aggregation.protocol.adapter import LORA_B, Adapter, AdapterSpec, Vector
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.conversations import ChatTurn, Conversation
from nomoat.lora.data.encoding import Encoder, Example
from nomoat.lora.data.normal_form import write_jsonl

if TYPE_CHECKING:
    from nomoat.lora.model.base_model import BaseModel

RANK, ALPHA = 8, 16.0
SETTINGS = TrainSettings(local_steps=12, batch_size=8, seq_len=96, learning_rate=1e-3)
SEED = b"gpu check"


def conversations(count: int = 48) -> list[Conversation]:
    """Questions and answers of mixed lengths."""
    found = []
    for number in range(count):
        words = " and then ".join(["it is written to the file"] * (1 + number % 4))
        turns = (ChatTurn("user", f"What is item {number}?"), ChatTurn("assistant", f"{words}."))
        found.append(Conversation(turns, {}, f"check:{number}"))
    return found


def shard_in(folder: Path) -> Path:
    """Write the rows into a file, as workers read them."""
    path = folder / "rows.jsonl"
    write_jsonl(conversations(), path)
    return path


def examples_for(tokenizer: Any) -> tuple[Example, ...]:
    """Return the rows in a model's tokens."""
    return Encoder.of(tokenizer, SETTINGS.seq_len).encode_all(conversations()).examples


def moved_adapter(spec: AdapterSpec) -> Adapter:
    """Return an adapter none of whose factors is zero: each has a gradient."""
    from nomoat.lora.model.adapter_spec import initial_adapter

    adapter = initial_adapter(spec, SEED)
    rng = np.random.default_rng(0)
    vector = adapter.vector.copy()
    for name, view in spec.manifest.views(vector).items():
        if name.endswith(LORA_B):
            view[:] = 0.02 * rng.standard_normal(view.shape)
    return Adapter(spec, vector)


def step_gradient(
    base: BaseModel, spec: AdapterSpec, examples: Sequence[Example]
) -> tuple[float, Vector]:
    """Return the loss of one batch, nats per token, and its gradient over the adapter (d,)."""
    from nomoat.lora.data.batches import batch_of
    from nomoat.lora.device import backends
    from nomoat.lora.model.adapter_slot import attach, detach, swap
    from nomoat.lora.training.loss import losses_of

    model = attach(base, spec)
    factors = swap(model, moved_adapter(spec))
    scale = backends.of(base.device).loss_scale
    batch = batch_of(examples)
    for parameter in factors.values():
        parameter.requires_grad_(True)
        parameter.grad = None
    model.train()
    with losses_of(model) as loss_of:
        loss = loss_of(batch, "sum") / len(batch.targets)
        (loss * scale).backward()
    parts = [
        p.grad.detach().float().cpu().numpy().ravel()
        for p in factors.values()
        if p.grad is not None
    ]
    model.eval()
    gradient: Vector = (np.concatenate(parts) / scale).astype(np.float32)
    detach(model)
    return float(loss.detach()), gradient


def apart(found: Vector, wanted: Vector) -> float:
    """‖found − wanted‖ / ‖wanted‖; infinite where they are of unlike sizes."""
    if found.shape != wanted.shape:
        return float("inf")
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
