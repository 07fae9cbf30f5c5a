"""Recording what a GPU is given to do, and replaying it as one launch: CUDA graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class KernelRecorder(Protocol):
    """Records work on one device."""

    def in_order(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that everything stays in which is recorded, replayed or read from it."""
        ...

    def record(self, work: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        """Run `work` without computing anything; return what computes it.

        The same tensors are read and written each time, the result among them. RuntimeError where
        `work` cannot be recorded, or its memory is not there.
        """
        ...

    def begin_anew(self) -> None:
        """Give the memory of recordings that nobody has any more back."""
        ...


@cache
def _stream(place: torch.device) -> torch.cuda.Stream:
    """Return one stream for all recorders: libraries keep 64 MiB for every stream they meet."""
    import torch

    return torch.cuda.Stream(place)


class CudaRecorder:
    """Recordings that share one pool of memory: none keeps anything for the next."""

    def __init__(self, place: torch.device) -> None:
        import torch

        self._stream = _stream(place)
        self._pool = torch.cuda.graph_pool_handle()

    @contextlib.contextmanager
    def in_order(self) -> Iterator[None]:
        """Give everything to one stream, behind what was given before and before what follows."""
        import torch

        outside = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(outside)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            outside.wait_stream(self._stream)

    def record(self, work: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        """Record a CUDA graph on the stream of `in_order`."""
        import torch

        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            found = work()

        def replay() -> torch.Tensor:
            graph.replay()
            return found

        return replay

    def begin_anew(self) -> None:
        """Leave the pool to recordings that still live, and empty the caching allocator."""
        import torch

        self._pool = torch.cuda.graph_pool_handle()
        torch.cuda.empty_cache()
