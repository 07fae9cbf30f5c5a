"""Too little memory: how an exception says so, and what may be tried next."""

from __future__ import annotations

from nomoat.lora.data.batches import Batch, rows_each

# Some shortages have no type of their own.
FREED = ("can't allocate memory", "MPS backend out of memory")
LOST = (
    "error: out of memory",  # torch.AcceleratorError: "CUDA error: …"
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def out_of_memory(problem: BaseException) -> bool:
    """Tell whether an exception says that memory ran out, on a GPU or a CPU."""
    return _typed(problem) or _says(problem, FREED + LOST)


def device_lost(problem: BaseException) -> bool:
    """Tell whether memory ran out outside torch's allocator.

    The GPU may refuse this process everything from then on; only a new process is sure to work.
    """
    return not _typed(problem) and _says(problem, LOST)


def device_failed(problem: BaseException) -> bool:
    """Tell whether the GPU itself failed: after such an error nothing works in this process."""
    text = str(problem)
    return isinstance(problem, RuntimeError) and ("CUDA error:" in text or "HIP error:" in text)


def halved(problem: BaseException, batch: Batch, most_tokens: int) -> int | None:
    """Return the padded tokens of half as many rows as a piece of `batch` has under `most_tokens`.

    None where fewer rows are no help: `problem` is another one, the device is lost, or a piece is
    one row already.
    """
    if not out_of_memory(problem) or device_lost(problem):
        return None
    rows = rows_each(batch, most_tokens)
    return -(-rows // 2) * batch.input_ids.shape[1] if rows > 1 else None


def _typed(problem: BaseException) -> bool:
    import torch

    return isinstance(problem, MemoryError | torch.OutOfMemoryError)


def _says(problem: BaseException, any_of: tuple[str, ...]) -> bool:
    return isinstance(problem, RuntimeError) and any(words in str(problem) for words in any_of)
