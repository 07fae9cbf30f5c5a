"""Rows run side by side, each in a process group that ends with it or with its time.

Importing torch and transformers is most of a short row's time, so rows are forked from a server
that has imported both, and nothing that could start a GPU: GPUs are hidden from it, and a row gets
them back before it imports anything else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from nomoat.aggregation.errors import NomoatError
from nomoat.lora.gpu_check.row import CheckPlace, GpuRow, SeenRow
from nomoat.lora.workers.environment import prepare
from nomoat.lora.workers.process import forked_from

IMPORTED = (
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
)
SHOWN = 110  # characters of what was seen
SAID = "said"  # the file of what a row's process and its children write


@dataclass(frozen=True, eq=False)
class _Running:
    row: GpuRow
    process: Any
    pipe: Connection
    began: float
    ends: float
    place: CheckPlace


def run_rows(
    rows: Sequence[GpuRow], place: CheckPlace, ends: float, at_once: int
) -> Iterator[SeenRow]:
    """Yield each row when it has ended; first those that may run side by side, then the others.

    ends: on the monotonic clock, when no row is begun any more and those that run are stopped.
    """
    context = forking_context()
    waiting = sorted(rows, key=lambda row: row.alone)  # stable: otherwise in the order given
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and _may_begin(waiting[0], running, at_once):
                row = waiting.pop(0)
                if time.monotonic() >= ends:
                    yield SeenRow(row.what, row.expected, "not begun: no time is left", False, 0.0)
                else:
                    number = len(rows) - len(waiting)
                    running.append(_begun(context, row, _own(place, number), ends))
            for found in _ended(running) if running else ():
                running.remove(found)
                yield _seen(found)
    finally:
        for left in running:
            _end(left)


def _may_begin(row: GpuRow, running: Sequence[_Running], at_once: int) -> bool:
    if row.alone or any(other.row.alone for other in running):
        return not running
    return len(running) < at_once


def _own(place: CheckPlace, number: int) -> CheckPlace:
    folder = place.folder / f"row-{number}"
    folder.mkdir()
    return replace(place, folder=folder)


def forking_context() -> Any:
    """Return what starts the rows' processes; no GPU can be started in it before they run."""
    prepare()
    # The tracker of semaphores starts with the server, and would warn of those of killed rows.
    return forked_from(IMPORTED, {"PYTHONWARNINGS": "ignore"})


def _begun(context: Any, row: GpuRow, place: CheckPlace, ends: float) -> _Running:
    here, there = context.Pipe(duplex=False)
    environment = {**os.environ, **dict(row.pretended)}
    process = context.Process(target=_row, args=(there, row.program, place, environment))
    began = time.monotonic()
    process.start()
    there.close()
    return _Running(row, process, here, began, min(ends, began + row.limit_s), place)


def _ended(running: Sequence[_Running]) -> list[_Running]:
    """Wait for a row that has something to say, or whose time is over."""
    soonest = min(one.ends for one in running)
    ready = wait([one.pipe for one in running], max(0.0, soonest - time.monotonic()))
    now = time.monotonic()
    return [one for one in running if one.pipe in ready or now >= one.ends]


def _seen(one: _Running) -> SeenRow:
    row, seconds = one.row, time.monotonic() - one.began
    said = last_words(one.place.folder)
    ok, seen = False, f"nothing within {seconds:.0f} s; {said}"
    if one.pipe.poll():
        try:
            ok, seen = one.pipe.recv()
        except (EOFError, OSError):
            seen = f"the process ended: {said}"
    _end(one)
    return SeenRow(row.what, row.expected, " ".join(seen.split())[:SHOWN], ok, seconds)


def _end(one: _Running) -> None:
    """End the row's process and all that it has started."""
    with contextlib.suppress(OSError):
        os.killpg(one.process.pid, signal.SIGKILL)
    one.process.kill()
    one.process.join()
    one.pipe.close()


def last_words(folder: Path) -> str:
    """Return the last line that a row, whose folder this is, or a program of it has written."""
    file = folder / SAID
    lines = file.read_text(errors="replace").strip().splitlines() if file.exists() else []
    return lines[-1] if lines else "without a word"


def _row(pipe: Connection, program: Any, place: CheckPlace, environment: Mapping[str, str]) -> None:
    """Run one row in this process, its own group's first, and tell how it went."""
    if hasattr(os, "setsid"):
        os.setsid()
    with (place.folder / SAID).open("wb", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    try:
        found = (True, program(place))
    except (NomoatError, AssertionError) as problem:
        found = (False, str(problem) or type(problem).__name__)
    except BaseException as problem:  # noqa: BLE001 - a row that breaks is a row of the table
        traceback.print_exc()
        found = (False, f"{type(problem).__name__}: {problem}")
    with contextlib.suppress(OSError):
        pipe.send(found)
