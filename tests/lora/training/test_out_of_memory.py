"""Too little memory is recognised however it is said, and halving is tried where it can help."""

from __future__ import annotations

from typing import Any

import pytest

from nomoat.lora.data.batches import batch_of, pieces, rows_each
from nomoat.lora.training.out_of_memory import device_lost, halved, out_of_memory

LOST = [
    "CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
]
FREED = [
    "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory",
    "MPS backend out of memory (MPS allocated: 17.99 GB)",
]


def _typed() -> list[BaseException]:
    import torch

    return [MemoryError(), torch.OutOfMemoryError("CUDA error: out of memory")]


def test_other_errors_are_not_taken_for_too_little_memory(examples: Any) -> None:
    for other in (RuntimeError("shapes differ"), ValueError(LOST[0])):
        assert not out_of_memory(other)
        assert not device_lost(other)
        assert halved(other, batch_of(examples[:8]), 10_000) is None


@pytest.mark.parametrize("said", LOST)
def test_a_shortage_outside_torchs_allocator_takes_the_device_with_it(
    said: str, examples: Any
) -> None:
    assert out_of_memory(RuntimeError(said))
    assert device_lost(RuntimeError(said))
    assert halved(RuntimeError(said), batch_of(examples[:8]), 10_000) is None


def test_a_shortage_that_torch_survives_halves_the_rows_down_to_one(examples: Any) -> None:
    batch = batch_of(examples[:7])
    for problem in [*_typed(), *map(RuntimeError, FREED)]:
        assert out_of_memory(problem)
        assert not device_lost(problem)
        limit: int | None = 10_000
        seen = []
        while limit is not None:
            seen.append(rows_each(batch, limit))
            assert max(len(p.input_ids) for p in pieces(batch, limit)) == seen[-1]
            limit = halved(problem, batch, limit)
        assert seen == [7, 4, 2, 1]
