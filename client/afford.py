"""How many modules of the community's adapter this machine can train: `--rank auto`."""

from __future__ import annotations

from nomoat.aggregation.enrolment import CommunityInfo
from nomoat.aggregation.errors import UsageError
from nomoat.client.config import VolunteerSettings
from nomoat.client.probes import attempt
from nomoat.lora.memory import Host, Training, Weights, cpu_host, cuda_host
from nomoat.lora.memory_plan import affordable_rank
from nomoat.lora.model_files import config, resolve
from nomoat.lora.model_shape import ModelShape
from nomoat.lora.train import CPU_TOKENS

WORKER_BYTES = 450 << 20  # a worker process with torch and transformers imported, before a model


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
    free = None if settings.device == "cpu" else attempt("gpu memory", _free_gpu_bytes)
    if free is None:
        return affordable_rank(model, _on_cpu(info), _free_bytes(), cpu_host(WORKER_BYTES))
    host: Host = cuda_host()
    training = Training(info.batch_size, info.seq_len, 1, weights=Weights.BF16, autocast=True)
    return affordable_rank(model, training, free, host)


def _on_cpu(info: CommunityInfo) -> Training:
    """A CPU trains a batch in pieces of a few hundred tokens (lora/train.py), in 32 bits."""
    rows = min(info.batch_size, max(1, CPU_TOKENS // info.seq_len))
    return Training(rows, info.seq_len, 1, weights=Weights.FP32)


def _free_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def _free_gpu_bytes() -> int:
    import pynvml

    pynvml.nvmlInit()
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    return int(pynvml.nvmlDeviceGetMemoryInfo(device).free)
