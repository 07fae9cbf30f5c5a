"""Write a checkpoint in the middle of a training step, and resume from it with the same bits.

What decides the rest of a run is saved exactly as it is in memory: trained values, their gradient
so far, the optimiser's moments and count, the random generators, losses and tokens. Base weights,
data and order are not: the job that made the checkpoint gives them again, and a checkpoint of any
other job is refused. The file is safetensors: numbers and a JSON header, no code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nomoat.aggregation.errors import BadData
from nomoat.lora.device import backends
from nomoat.storage.atomic import replacing

if TYPE_CHECKING:
    import torch

FORMAT: Final = "nomoat checkpoint 1"
MAX_BYTES: Final = 16 << 30
MAX_LOSS_SCALE: Final = 2.0**24


class Paused(Exception):
    """Raised by the hook between micro-steps, after its checkpoint is on disk."""


@dataclass(frozen=True, slots=True)
class RunPosition:
    """A point in a run: `step` optimiser steps and `micro` micro-batches of the next are done.

    tokens: trained on in whole steps. seconds: spent so far. losses: of each step so far, nats,
    last that of the step under way. most_tokens: padded tokens of a micro-batch at most.
    loss_scale: the gradient so far is that of the loss times it.
    """

    step: int
    micro: int
    tokens: int
    seconds: float
    losses: tuple[float, ...]
    most_tokens: int = 0
    loss_scale: float = 1.0


@dataclass(frozen=True, eq=False, slots=True)
class TrainingCheckpoint:
    """A position and the tensors that belong to it. `job`: SHA-256 of what is being trained."""

    job: bytes
    place: RunPosition
    tensors: Mapping[str, torch.Tensor]


def capture(
    job: bytes, place: RunPosition, optimizer: torch.optim.Optimizer, flat: torch.Tensor
) -> TrainingCheckpoint:
    """Copy the state of a run whose trained values are the one tensor `flat` with its gradient."""
    import torch

    tensors = {"values": flat.detach(), "random": torch.get_rng_state()}
    if flat.grad is not None:
        tensors["gradient"] = flat.grad
    for name, value in optimizer.state.get(flat, {}).items():
        tensors[f"optimizer.{name}"] = torch.as_tensor(value)
    tensors |= backends.of(flat.device).random_state()
    # copies: the run may go on while the file is written
    return TrainingCheckpoint(
        job, place, {name: t.detach().cpu().clone() for name, t in tensors.items()}
    )


def restore(
    saved: TrainingCheckpoint, optimizer: torch.optim.Optimizer, flat: torch.Tensor
) -> RunPosition:
    """Put `saved` back into a run set up afresh; return the position to go on from.

    `flat`'s storage stays, so that the model's factors remain views of it. Raises BadData where
    shapes or dtypes differ.
    """
    import torch

    tensors = dict(saved.tensors)
    values = tensors.pop("values", None)
    if values is None or values.shape != flat.shape or values.dtype != flat.dtype:
        raise BadData("the checkpoint is of an adapter of another shape; train this round anew")
    with torch.no_grad():
        flat.copy_(values)
        gradient = tensors.pop("gradient", None)
        if gradient is not None:
            flat.grad = torch.zeros_like(flat) if flat.grad is None else flat.grad
            flat.grad.copy_(gradient)
        elif flat.grad is not None:
            flat.grad.zero_()
    moments = {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith("optimizer.")}
    optimizer.state[flat] = {name: _placed(v, flat) for name, v in moments.items()}
    torch.set_rng_state(tensors["random"])
    backends.of(flat.device).set_random_state(tensors)
    return saved.place


def _placed(value: torch.Tensor, flat: torch.Tensor) -> torch.Tensor | int:
    """Move a moment, or a fused step count, to the values' device; bitsandbytes counts in int."""
    if value.ndim == 0 and not value.is_floating_point():
        return int(value)
    return value.clone().to(flat.device)


def write(path: Path, checkpoint: TrainingCheckpoint) -> None:
    """Write a checkpoint, whole or not at all; NomoatError if the disk is full."""
    from safetensors.torch import save

    place = checkpoint.place
    header = {
        "step": place.step,
        "micro": place.micro,
        "tokens": place.tokens,
        "seconds": place.seconds,
        "losses": [loss.hex() for loss in place.losses],
        "most_tokens": place.most_tokens,
        "loss_scale": place.loss_scale,
    }
    metadata = {"format": FORMAT, "job": checkpoint.job.hex(), "place": json.dumps(header)}
    with replacing(path, 0o600) as file:  # an update tells about the data it was made from
        file.write(save(dict(checkpoint.tensors), metadata))


def read(path: Path, job: bytes) -> TrainingCheckpoint | None:
    """Return the checkpoint in `path` if it is one of `job`, else None.

    A damaged file counts as none: the round is then trained anew, which is always right.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or metadata.get("job") != job.hex():
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return TrainingCheckpoint(job, _place(json.loads(metadata["place"])), tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def _place(header: dict[str, Any]) -> RunPosition:
    losses = tuple(float.fromhex(loss) for loss in header["losses"])
    counts = [int(header[name]) for name in ("step", "micro", "tokens", "most_tokens")]
    if min(counts) < 0:
        raise ValueError("a place before the beginning")
    step, micro, tokens, most_tokens = counts
    seconds, scale = float(header["seconds"]), float(header.get("loss_scale", 1.0))
    if not 1.0 <= scale <= MAX_LOSS_SCALE:
        raise ValueError("a loss scale that no device has")
    return RunPosition(step, micro, tokens, seconds, losses, most_tokens, scale)
