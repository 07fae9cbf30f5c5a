"""Puts a device with CUDA's rules in the place of a GPU: for nomoat, and for whatever starts it.

Tensors stay on the processor; what is imitated is the context (driver.py), the errors, and the
libraries that start CUDA when somebody imports them, as bitsandbytes does.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import stand_in_driver as driver

STARTERS = ("bitsandbytes", "xformers", "flash_attn", "liger_kernel")


def install() -> None:
    """Have modules changed as soon as they are imported."""
    driver.watch_forks()
    changes: dict[str, Callable[[ModuleType], None]] = {"peft": _drag_in}
    if os.environ.get("FAKE_GPU_MISSING") != "1":  # else only the libraries are there
        changes["nomoat.lora.device.present"] = _is_present
        changes["nomoat.lora.device.backends"] = _stands_in
        changes["nomoat.lora.device.gpu_queue"] = _keeps_its_tickets
    sys.meta_path.insert(0, _Changing(changes))


class _Changing(importlib.abc.MetaPathFinder):
    def __init__(self, changes: dict[str, Callable[[ModuleType], None]]) -> None:
        self._changes = changes

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        change = self._changes.pop(name, None)
        if change is None:
            return None
        spec = importlib.util.find_spec(name)  # by the other finders: this one has forgotten it
        assert spec is not None
        assert spec.loader is not None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            change(module)

        loader.exec_module = exec_module
        return spec


def _drag_in(_: ModuleType) -> None:
    for name in STARTERS:
        importlib.import_module(name)


def _is_present(present: Any) -> None:
    present.torch_built_for = lambda: frozenset({"cuda"})
    present.driver_nodes = lambda: ("nvidiactl",)


def _keeps_its_tickets(gpu_queue: Any) -> None:
    gpu_queue.shared_folder = lambda: driver.folder() / "turns"


def _stands_in(backends: Any) -> None:
    import torch

    class FakeCuda(backends.Cuda):  # type: ignore[misc]
        """CUDA as nomoat meets it; its tensors are the processor's."""

        def __init__(self, place: Any) -> None:
            super().__init__(torch.device("cpu"))
            self.index = place.index or 0

        @classmethod
        def is_there(cls) -> bool:
            return driver.visible()

        def start(self) -> None:
            count = driver.count()
            if self.index >= count:
                raise backends.UsageError(
                    f"there is no cuda:{self.index}: CUDA counts {count} here"
                )
            driver.start("nomoat")
            backends.KINDS["cpu"] = FakeCuda  # from now on this process computes there

        def dtype(self) -> Any:
            return torch.float32

        def autocast(self) -> Any:
            _fail_if_told("fail")
            return contextlib.nullcontext()

        def recorder(self) -> Any:
            return _Repeats()

        def synchronise(self) -> None:
            """Done already."""

        def give_back(self) -> None:
            driver.say("give_back")

        def total_bytes(self) -> int:
            return driver.TOTAL_BYTES

        def random_state(self) -> Any:
            return {}

        def set_random_state(self, states: Any) -> None:
            del states

    backends.KINDS["cuda"] = FakeCuda


class _Repeats:
    """A recorder that computes nothing at first, and everything anew when replayed."""

    def in_order(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def record(self, work: Callable[[], Any]) -> Callable[[], Any]:
        driver.say("record")
        _fail_if_told("record")
        return work

    def begin_anew(self) -> None:
        driver.say("begin_anew")


def _fail_if_told(file: str) -> None:
    """Each line of the file is how one forward pass (`fail`), or one recording (`record`), fails:
    not at all, out of memory …
    """
    import torch

    told = driver.folder() / file
    if not told.exists():
        return
    first, _, rest = told.read_text().partition("\n")
    told.write_text(rest) if rest else told.unlink()
    if first == "oom":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if first == "cublas":
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")
    if first == "cannot":
        raise RuntimeError("operation not permitted when stream is capturing")
    if first == "lost":
        (driver.folder() / "lost").touch()
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")
