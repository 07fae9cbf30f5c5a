"""How many modules of the community's adapter this machine can train: `--rank auto`."""

from __future__ import annotations

from nomoat.aggregation.enrolment import CommunityInfo
from nomoat.aggregation.errors import UsageError
from nomoat.client.config import VolunteerSettings
from nomoat.client.room import room
from nomoat.lora.memory import Training, Weights
from nomoat.lora.memory_plan import affordable_rank
from nomoat.lora.model_files import config, resolve
from nomoat.lora.model_shape import ModelShape
from nomoat.lora.train import CPU_TOKENS


def rank_of(settings: VolunteerSettings, info: CommunityInfo) -> int:
    """The rank its owner set, or the largest that fits what memory is free now.

    The community's rank is not known before its first round; what is more than that is not used.
    Raises DoesNotFit if not even rank 1 fits, UsageError if the model's need cannot be predicted.
    """
    if settings.rank != "auto":
        return settings.rank
    try:
        model = ModelShape.from_config(config(resolve(settings.base)))
    except UsageError as problem:
        raise UsageError(f"{problem}; give --rank a number") from None
    place = room(settings.device, settings.machine.max_vram_share or 1.0)
    training = _on_gpu(info) if place.host.quantises else _on_cpu(info)
    return affordable_rank(model, training, place.free_bytes, place.host)


def _on_gpu(info: CommunityInfo) -> Training:
    return Training(info.batch_size, info.seq_len, 1, weights=Weights.BF16, autocast=True)


def _on_cpu(info: CommunityInfo) -> Training:
    """A CPU trains a batch in pieces of a few hundred tokens (lora/train.py), in 32 bits."""
    rows = min(info.batch_size, max(1, CPU_TOKENS // info.seq_len))
    return Training(rows, info.seq_len, 1, weights=Weights.FP32)
