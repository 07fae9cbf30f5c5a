"""One worker process as its parent sees it: how it is started, spoken to and ended."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nomoat.aggregation.errors import DoesNotFit, NomoatError
from nomoat.lora.device.present import HIDING, may_use_gpu
from nomoat.lora.workers import jobs, worker
from nomoat.lora.workers.environment import PRELOAD_VARIABLE

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

CLOSE_TIMEOUT_S = 10.0
PRELOAD_MODULE = "nomoat.lora.workers.preloaded"


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A running worker and the pipe to it."""

    process: BaseProcess
    pipe: Connection
    sending: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, what: jobs.Job | jobs.Order) -> None:
        """Send it, unless the process is gone."""
        with self.sending, contextlib.suppress(OSError):
            self.pipe.send(what)

    def hear(self) -> tuple[str, Any]:
        """Wait for its next answer; EOFError or OSError if the process has died."""
        what, value = self.pipe.recv()
        return what, value

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()

    def stop(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Close the pipe, at which it ends; kill it if it has not within `timeout_s`."""
        self.pipe.close()
        self.process.join(timeout_s)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def died(self) -> NomoatError:
        """Clean up after a process that hung up, and say why it most likely did."""
        self.stop()
        code = self.process.exitcode
        if code == -9:
            return DoesNotFit(
                "a worker process was killed, most likely because the memory ran out; use fewer "
                "workers, a smaller batch size or a smaller model"
            )
        return NomoatError(f"a worker process ended unexpectedly (exit code {code})")


def start(context: Any, base: jobs.HeldBase) -> WorkerProcess:
    """Start a worker that loads a base; OSError if the system allows no more processes."""
    ours, theirs = context.Pipe()
    child = context.Process(target=worker.main, args=(theirs, base), daemon=True)
    with _deaf_to_interrupts():
        child.start()
    theirs.close()
    return WorkerProcess(child, ours)


def context_for(base: jobs.HeldBase, shared: bool) -> Any:
    """Return the multiprocessing context that starts workers for `base`.

    shared: fork them from a server that has imported torch and loaded the base (Linux); else each
    is a new interpreter, and always where a GPU may be used: a process that has started CUDA must
    not be forked, and any library that the server imports may start it (bitsandbytes does). From
    the server GPUs are hidden, so that none of them can.
    """
    if not shared or may_use_gpu(base.device):
        return multiprocessing.get_context("spawn")
    return forked_from([PRELOAD_MODULE], {PRELOAD_VARIABLE: base.folder})


def forked_from(modules: Sequence[str], values: Mapping[str, str]) -> Any:
    """Return a context that forks processes from a server that has imported `modules`.

    values: of its environment; GPUs are hidden from it. Without fork servers each process is a new
    interpreter.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    with _variables({**values, **dict.fromkeys(HIDING, "")}), _deaf_to_interrupts():
        forkserver.ensure_running()  # returns at once; imports and loads by itself
    return context


def failure(what: str, value: Any) -> NomoatError:
    """Return the error that a worker's answer stands for, in one line."""
    if what in ("error", "lost") and isinstance(value, NomoatError):
        return value
    last = str(value).strip().rpartition("\n")[2]
    error = NomoatError(f"a worker failed: {last[:300]}")
    error.__cause__ = RuntimeError(str(value))  # the worker's traceback, for --debug
    return error


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """A process started in here inherits the mask: Ctrl-C is its parent's to handle."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
