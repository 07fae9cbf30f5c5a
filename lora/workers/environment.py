"""Variables that torch, tokenizers and transformers read when they are first imported."""

from __future__ import annotations

import logging
import os
import threading

PRELOAD_VARIABLE = "NOMOAT_PRELOAD_MODEL"  # the folder of the base that the fork server loads

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def prepare() -> None:
    """Set what a worker's libraries need; call it before the first of them is imported."""
    for name in _THREADS:
        os.environ[name] = "1"  # one thread per worker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_OFFLINE"] = "1"  # the pool has resolved the model; workers need no network
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # loading threads would not survive a fork
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asks for GPUs without starting CUDA
    # peft imports it where it is installed; on a CPU it tells of kernels that nobody asked for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    _bars_without_semaphore()


def _bars_without_semaphore() -> None:
    """Give progress bars a lock of this process: a worker that is killed would leak tqdm's own."""
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())
