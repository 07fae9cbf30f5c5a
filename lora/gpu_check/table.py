"""The whole table: which rows there are, and what they come to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from nomoat.lora.device import present
from nomoat.lora.gpu_check.families import rows_of_families
from nomoat.lora.gpu_check.memory import rows_of_memory
from nomoat.lora.gpu_check.precision import rows_of_precision
from nomoat.lora.gpu_check.row import CheckPlace, GpuRow, SeenRow, expect
from nomoat.lora.gpu_check.running import last_words, run_rows
from nomoat.lora.gpu_check.workers import rows_of_workers

ALL_S: Final = 350.0  # of all rows together; what is left by then is not begun
CORES_EACH: Final = 2  # of a row that runs beside others
NO_GPU: Final = "no GPU"


def a_gpu(place: CheckPlace) -> str:
    """Start the device."""
    import torch

    from nomoat.lora.device import backends

    device = backends.pick(place.device)
    expect(device.kind != "cpu", NO_GPU)
    device.start()
    name = torch.cuda.get_device_name(device.place) if device.kind == "cuda" else device.kind
    return f"{name}, {str(device.dtype()).removeprefix('torch.')}, torch {torch.__version__}"


def program(arguments: Sequence[str], place: CheckPlace) -> str:
    """Run a nomoat command, whose exit code decides; what it says goes where the row's words go."""
    command = [sys.executable, "-P", "-m", "nomoat", *arguments, str(place.folder / "out")]
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "HF_HUB_OFFLINE": "1"}
    began = time.monotonic()
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=False,
        env=environment,
        cwd=place.folder,
    )
    said = last_words(place.folder)
    expect(done.returncode == 0, f"exit code {done.returncode}: {said}")
    return f"exit code 0 after {time.monotonic() - began:.0f} s"


def rows_of_commands() -> list[GpuRow]:
    """Whole programs, as a user starts them."""
    simulate = ("simulate", "--rounds", "1", "--local-steps", "4", "--quiet", "--json", "--out")
    trying = ("try", "--rounds", "1", "--json", "--keep")
    return [
        GpuRow("nomoat simulate", "one round ends", 120, partial(program, simulate), alone=True),
        GpuRow("nomoat try", "three volunteers, one round", 240, partial(program, trying),
               alone=True),
    ]  # fmt: skip


def all_rows() -> list[GpuRow]:
    """Every row but the first, which says that there is a GPU."""
    return [
        *rows_of_precision(),
        *rows_of_memory(),
        *rows_of_families(),
        *rows_of_workers(),
        *rows_of_commands(),
    ]


def check(
    device: str, model: str, folder: Path, rows: Sequence[GpuRow], all_s: float = ALL_S
) -> Iterator[SeenRow]:
    """Yield the first row and, where it has found a GPU, all `rows`, each as soon as it ends."""
    ends = time.monotonic() + all_s
    place = CheckPlace(device, model, folder)
    if not present.may_use_gpu(device):
        seen = f"{NO_GPU}: {present.why_no_cuda()}"
        yield SeenRow("a GPU", "it starts", seen, False, 0.0)
        return
    first = GpuRow("a GPU", "it starts", 60, a_gpu)
    (there,) = run_rows([first], _own(place, "first"), ends, 1)
    yield there
    if there.ok:
        at_once = max(1, (os.cpu_count() or 1) // CORES_EACH)
        yield from run_rows(rows, _own(place, "rest"), ends, at_once)


def _own(place: CheckPlace, name: str) -> CheckPlace:
    folder = place.folder / name
    folder.mkdir()
    return CheckPlace(place.device, place.model, folder)


def shown(row: SeenRow) -> str:
    """Return the row as one line of the table."""
    mark = "ok" if row.ok else "✗ "
    return f"{mark}  {row.what:28s} {row.seen}  [{row.expected}; {row.seconds:.0f} s]"


def passed(rows: Sequence[SeenRow]) -> bool:
    """Return True if every row is as expected, or there is no GPU that could be otherwise."""
    none = len(rows) == 1 and rows[0].seen.startswith(NO_GPU)
    return none or all(row.ok for row in rows)


def as_json(rows: Sequence[SeenRow]) -> list[dict[str, Any]]:
    """Return the rows as plain values."""
    return [
        {"what": row.what, "expected": row.expected, "seen": row.seen, "ok": row.ok,
         "seconds": round(row.seconds, 1)}
        for row in rows
    ]  # fmt: skip
