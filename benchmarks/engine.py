"""Volunteers trained at once over one base, against one after the other: time for each.

    python benchmarks/engine.py [--json] [--device cpu] [--volunteers 1 4 16] [--steps 12]
        [--cells 8x128 …]

All ways take the same steps on the same rows, in turn, and the median of the rounds counts. Rows
are of random tokens, all trained on, which is the dearest case. Ratios are against one volunteer
after the other, kernel by kernel; what recorded kernels take for one stands beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.encoding import Example
from nomoat.lora.workers.environment import prepare
from nomoat.simulations.pocket import MODEL_DIR

prepare()  # before torch: one thread, as our workers have
sys.path.append(str(Path(__file__).resolve().parent))

CPU_CELLS = ((1, 32), (1, 64), (2, 64), (4, 64))  # rows × tokens of a step
GPU_CELLS = ((1, 256), (8, 128))


@dataclass(frozen=True)
class Cell:
    """One measurement: milliseconds of one volunteer's step.

    alone_ms: one after the other, kernel by kernel; recorded_ms: with the device's recordings, None
    where there are none.
    """

    model: str
    rows: int
    tokens: int
    volunteers: int
    alone_ms: float
    recorded_ms: float | None
    together_ms: float

    @property
    def ratio(self) -> float:
        """Times as fast as one after the other, kernel by kernel."""
        return self.alone_ms / self.together_ms


def rows_of(count: int, tokens: int, vocabulary: int, seed: int) -> tuple[Example, ...]:
    """Rows of random tokens, every one of them but the first trained on."""
    rng = np.random.default_rng(seed)
    trained = np.ones(tokens, bool)
    trained[0] = False
    return tuple(
        Example(rng.integers(3, vocabulary, tokens).astype(np.int32), trained) for _ in range(count)
    )


def measured(base: Any, rows: int, tokens: int, volunteers: int, how: argparse.Namespace) -> Cell:
    """Time all ways in turn."""
    from nomoat.lora.device import backends
    from nomoat.lora.model.adapter_slot import attach, detach
    from nomoat.lora.model.base_model import initial_adapter, new_spec
    from nomoat.lora.training.together import JoinedTraining, train_together
    from nomoat.lora.training.train import train

    device = backends.of(base.device)
    spec = new_spec(base.model.config, 8, 16.0)
    settings = TrainSettings(how.steps, 0, rows, tokens, 1e-4)
    vocabulary = base.model.config.vocab_size
    group = [
        JoinedTraining(
            initial_adapter(spec, b"i"),
            rows_of(4 * rows, tokens, vocabulary, n),
            settings,
            bytes([n % 256]),
        )
        for n in range(volunteers)
    ]  # fmt: skip
    model: Any = attach(base, spec)
    one_by_one = min(how.alone, volunteers)

    def alone() -> None:
        for one in group[:one_by_one]:
            train(model, one.adapter, one.examples, settings, one.seed, time.monotonic)

    def by_kernels() -> None:
        with unrecorded(device):
            alone()

    def together() -> None:
        train_together(model, group, time.monotonic)

    def timed(way: Callable[[], None], count: int) -> float:
        began = time.perf_counter()
        way()
        device.synchronise()
        seconds = time.perf_counter() - began
        return 1000 * seconds / (count * int(how.steps))

    ways = [(by_kernels, one_by_one), (together, volunteers)]
    if device.recorder() is not None:
        ways.append((alone, one_by_one))
    times = [[timed(*way) for way in ways] for _ in range(how.rounds + 1)]  # the first warms up
    detach(model)
    found = [statistics.median(column) for column in zip(*times[1:], strict=True)]
    recorded = found[2] if len(found) > 2 else None
    return Cell(base.folder.name, rows, tokens, volunteers, found[0], recorded, found[1])


@contextlib.contextmanager
def unrecorded(device: Any) -> Iterator[None]:
    """Have this kind of device record nothing."""
    from nomoat.lora.device import backends

    class Unrecorded(type(device)):  # type: ignore[misc]
        """Computes kernel by kernel."""

        def recorder(self) -> None:
            return None

    before = backends.KINDS[device.place.type]
    backends.KINDS[device.place.type] = Unrecorded
    try:
        yield
    finally:
        backends.KINDS[device.place.type] = before


def bases(how: argparse.Namespace) -> Iterator[tuple[Any, Sequence[tuple[int, int]], list[int]]]:
    """Yield each base, the cells to measure with it, and the numbers of volunteers."""
    from cards.shapes import random_base

    from nomoat.lora.device import backends
    from nomoat.lora.model.base_model import load

    on_gpu = backends.pick(how.device).kind == "cuda"
    given = tuple((int(rows), int(tokens)) for rows, _, tokens in
                  (cell.partition("x") for cell in how.cells))  # fmt: skip
    usual = [1, 8, 64] if on_gpu else [1, 4, 16]
    cells = given or (GPU_CELLS if on_gpu else CPU_CELLS)
    yield load(str(how.model), how.device), cells, how.volunteers or usual
    if on_gpu and not given:
        yield random_base("100M", how.device), ((1, 256),), how.volunteers or [8, 32]


def main() -> None:
    """Print a table, or one object with the ratios that goals are set for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", type=Path, default=MODEL_DIR)
    parser.add_argument("--volunteers", type=int, nargs="+")
    parser.add_argument("--cells", nargs="+", default=[], help="rows x tokens of a step: 8x128 …")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", type=int, default=4, help="trained one after the other")
    how = parser.parse_args()

    cells = []
    for base, shapes, counts in bases(how):
        for rows, tokens in shapes:
            for volunteers in counts:
                cell = measured(base, rows, tokens, volunteers, how)
                cells.append(cell)
                print(shown(cell), file=sys.stderr if how.json else sys.stdout, flush=True)
    if how.json:
        sys.stdout.write(json.dumps(summary(cells)) + "\n")


def shown(cell: Cell) -> str:
    """Return a cell as a line of the table."""
    recorded = "" if cell.recorded_ms is None else f" ({cell.recorded_ms:.2f} recorded)"
    return (
        f"{cell.model}, {cell.rows} × {cell.tokens:4d}, {cell.volunteers:3d} volunteers: "
        f"{cell.alone_ms:7.2f} ms{recorded} a step alone, {cell.together_ms:7.2f} ms together, "
        f"{cell.ratio:5.2f} ×"
    )


def summary(cells: list[Cell]) -> dict[str, Any]:
    """The ratios by their names, and every cell."""
    found: dict[str, Any] = {
        "cells": [{**vars(cell), "ratio": round(cell.ratio, 3)} for cell in cells]
    }
    goals = {  # whose ratio has a name
        "gpu_ratio_64": ("pocket_model", 8, 128, 64),
        "gpu_ratio_100m_32": ("100M", 1, 256, 32),
        "cpu_ratio_1": ("pocket_model", 1, 32, 16),
    }
    for cell in cells:
        for name, goal in goals.items():
            if goal == (cell.model, cell.rows, cell.tokens, cell.volunteers):
                found[name] = round(cell.ratio, 2)
    return found


if __name__ == "__main__":
    main()
