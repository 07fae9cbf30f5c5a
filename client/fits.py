"""Whether a community's training fits this machine, predicted before anything is loaded."""

from __future__ import annotations

import math
from pathlib import Path

from nomoat.aggregation.enrolment import CommunityInfo
from nomoat.aggregation.errors import DoesNotFit, UsageError
from nomoat.client.room import Room
from nomoat.lora.memory import Training, Weights
from nomoat.lora.memory_plan import Plan, plan
from nomoat.lora.model_files import config, resolve, stored_bytes
from nomoat.lora.model_shape import ALL_LINEAR, ModelShape


def line(info: CommunityInfo, base: str, room: Room) -> str:
    """What a training takes of this machine, for the consent sheet.

    DoesNotFit says what would fit; nothing is known of an unknown family of models.
    """
    free = f"{room.free_bytes / 1e9:.1f} GB free"
    try:
        found = need(info, resolve(base), room)
    except DoesNotFit as problem:
        raise DoesNotFit(
            f"a training of {info.name} does not fit this {room.device}: it {problem}"
        ) from None
    except UsageError:
        return f"{room.device}, {free}; what this model takes is not known before it is loaded"
    return f"{room.device}: a training takes about {found.predicted.total / 1e9:.1f} GB of {free}"


def need(info: CommunityInfo, folder: Path, room: Room) -> Plan:
    """How to train what `info` announces in `room`; DoesNotFit, or UsageError if it is not known.

    The rank is not announced: it is what makes an adapter of that many values on all linear maps.
    """
    shape = ModelShape.from_config(config(folder))
    per_rank = shape.adapter_parameters(1, (ALL_LINEAR,))
    wish = Training(
        info.batch_size,
        info.seq_len,
        max(1, math.ceil(info.adapter_values / per_rank)),
        weights=Weights.BF16 if room.host.quantises else Weights.FP32,
        autocast=room.host.quantises,
    )
    return plan(shape, wish, room.free_bytes, room.host, stored_bytes=stored_bytes(folder))
