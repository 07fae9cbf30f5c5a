"""What the fork server imports and loads before it forks workers: shared by all, copied by none.

Only worker processes and the fork server import this module; it brings torch along.
"""

from __future__ import annotations

import gc
import logging
import os
import signal

from nomoat.aggregation.errors import NomoatError

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle, imports included

# One thread per worker; read when torch and tokenizers are first imported.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"  # the pool has resolved the model; workers need no network
os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # loading threads would not survive the fork
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asks for GPUs without starting CUDA

# With nomoat[gpu], peft imports it, and on a CPU it tells of kernels that nobody asked for.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

import peft  # noqa: E402, F401
import torch  # noqa: E402
import transformers.models.auto.modeling_auto  # noqa: E402
import transformers.models.auto.tokenization_auto  # noqa: E402, F401

import nomoat.lora.workers.worker  # noqa: E402, F401 - imported here, its pages are shared as well
from nomoat.lora.model.base_model import BaseModel, load, pick_device  # noqa: E402

MODEL_VARIABLE = "NOMOAT_PRELOAD_MODEL"

torch.set_num_threads(1)
_loaded: dict[str, BaseModel] = {}


def base_model(folder: str, device: str, bits: int | None = None) -> BaseModel:
    """The model in `folder`: the preloaded one if that is it, and a CPU and all bits are meant."""
    if folder in _loaded and bits is None and pick_device(device).type == "cpu":
        return _loaded[folder]
    return load(folder, device, bits=bits)


def _preload(folder: str) -> None:
    if torch.cuda.is_available():  # CUDA must start after the fork
        return
    try:
        _loaded[folder] = load(folder, "cpu")
    except NomoatError:
        return  # each worker meets the same error and reports it
    gc.collect()
    gc.freeze()  # the collector would touch, and so copy, every shared page


if os.environ.get(MODEL_VARIABLE):
    _preload(os.environ.pop(MODEL_VARIABLE))
