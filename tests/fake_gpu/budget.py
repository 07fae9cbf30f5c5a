"""A card's memory that is not there: every tensor's bytes are counted, and there is a limit.

What goes beyond it raises torch's own error, as its caching allocator does, wherever in a forward
or a backward pass that is.
"""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from nomoat.lora.device import backends

TOTAL = 1 << 30


class CardMemory(TorchDispatchMode):
    """While it is open, storages that operations make are counted; those of inputs are not."""

    def __init__(self) -> None:
        super().__init__()
        self._known: set[int] = set()
        self.now = self.peak = self.ooms = 0
        self.limit = TOTAL

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        for given in tree_iter((args, kwargs)):
            if isinstance(given, torch.Tensor):
                self._known.add(_key(given))
        result = function(*args, **(kwargs or {}))
        for made in tree_iter(result):
            if isinstance(made, torch.Tensor) and _key(made) not in self._known:
                self._count(made.untyped_storage())
        if self.now > self.limit:
            self.ooms += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        self._known.add(storage._cdata)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have torch.cuda tell of this memory, and "cuda" be a place of the processor's."""

        class Counted(backends.Cuda):
            """Copies to it are real copies."""

            def __init__(self, place: torch.device) -> None:
                super().__init__(torch.device("cpu", 1 + (place.index or 0)))

            @classmethod
            def is_there(cls) -> bool:
                return True

            def start(self) -> None:
                torch.zeros(1)

            def dtype(self) -> torch.dtype:
                return torch.float32

        def fraction(share: float) -> None:
            self.limit = int(share * TOTAL)

        def forget_peak() -> None:
            self.peak = self.now

        monkeypatch.setitem(backends.KINDS, "cuda", Counted)
        for name, stands_in in {
            "reset_peak_memory_stats": forget_peak,
            "memory_allocated": lambda: self.now,
            "max_memory_allocated": lambda: self.peak,
            "empty_cache": lambda: None,
            "mem_get_info": lambda: (TOTAL - self.now, TOTAL),
            "memory_stats": lambda: {"num_ooms": self.ooms},
            "set_per_process_memory_fraction": fraction,
        }.items():
            monkeypatch.setattr(torch.cuda, name, stands_in)


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
