"""The longest row that can be trained on here, decided before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nomoat.aggregation.errors import DoesNotFit, UsageError
from nomoat.client.machine.free_memory import free_memory
from nomoat.client.training.memory_fit import Workload, planned


def row_fits(
    folder: Path, rank: int, device: str = "auto", at_once: int = 1
) -> Callable[[int], bool]:
    """A test of sequence lengths: one row at a time, `at_once` processes sharing the memory.

    A model whose need cannot be predicted is taken to fit.
    """
    memory = free_memory(device)
    memory = replace(memory, free_bytes=memory.free_bytes // at_once)

    def fits(seq_len: int) -> bool:
        try:
            planned(Workload(1, seq_len, rank), folder, memory, None)
        except DoesNotFit:
            return False
        except UsageError:
            return True
        return True

    return fits
