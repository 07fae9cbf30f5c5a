"""Volunteers trained at once over one base, against one after the other: time for each.

    python benchmarks/engine.py [--json] [--device cpu] [--volunteers 1 4 16] [--steps 12]
        [--cells 8x128 …]

Both ways take the same steps on the same rows, in turn, and the median of the rounds counts. Rows
are of random tokens, all trained on, which is the dearest case.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.encoding import Example
from nomoat.lora.workers.environment import prepare
from nomoat.simulations.pocket import MODEL_DIR

prepare()  # before torch: one thread, as our workers have

CPU_CELLS = ((1, 32), (1, 64), (2, 64), (4, 64))  # rows × tokens of a step
GPU_CELLS = ((1, 256), (8, 128))


@dataclass(frozen=True)
class Cell:
    """One measurement: milliseconds of one volunteer's step."""

    rows: int
    tokens: int
    volunteers: int
    alone_ms: float
    together_ms: float

    @property
    def ratio(self) -> float:
        """Times as fast as one after the other."""
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
    """Time both ways in turn."""
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

    def alone() -> None:
        for one in group[: how.alone]:
            train(model, one.adapter, one.examples, settings, one.seed, time.monotonic)

    def together() -> None:
        train_together(model, group, time.monotonic)

    def timed(way: Callable[[], None], count: int) -> float:
        began = time.perf_counter()
        way()
        device.synchronise()
        seconds = time.perf_counter() - began
        return 1000 * seconds / (count * int(how.steps))

    times: list[tuple[float, float]] = []
    for _ in range(how.rounds + 1):  # the first warms up
        first = timed(alone, min(how.alone, volunteers))
        times.append((first, timed(together, volunteers)))
    detach(model)
    one, all_of_them = (statistics.median(t[way] for t in times[1:]) for way in (0, 1))
    return Cell(rows, tokens, volunteers, one, all_of_them)


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

    from nomoat.lora.model.base_model import load

    base = load(str(how.model), how.device)
    on_gpu = base.device.type == "cuda"
    counts = how.volunteers or ([1, 8, 64] if on_gpu else [1, 4, 16])
    cells = []
    usual = GPU_CELLS if on_gpu else CPU_CELLS
    given = tuple(tuple(int(size) for size in cell.split("x")) for cell in how.cells)
    for rows, tokens in given or usual:
        for volunteers in counts:
            cell = measured(base, rows, tokens, volunteers, how)
            cells.append(cell)
            if not how.json:
                print(f"{rows} × {tokens:4d}, {volunteers:3d} volunteers: {cell.alone_ms:7.2f} ms "
                      f"a step alone, {cell.together_ms:7.2f} ms together, {cell.ratio:5.2f} ×",
                      flush=True)  # fmt: skip
    if how.json:
        sys.stdout.write(json.dumps(summary(cells, on_gpu)) + "\n")


def summary(cells: list[Cell], on_gpu: bool) -> dict[str, Any]:
    """The ratios by their names, and every cell."""
    found: dict[str, Any] = {
        "device": "cuda" if on_gpu else "cpu",
        "cells": [{**vars(cell), "ratio": round(cell.ratio, 3)} for cell in cells],
    }
    for cell in cells:
        if on_gpu and (cell.rows, cell.volunteers) == (8, 64):
            found["gpu_ratio_64"] = round(cell.ratio, 2)
        if not on_gpu and (cell.rows, cell.tokens, cell.volunteers) == (1, 32, 16):
            found["cpu_ratio_1"] = round(cell.ratio, 2)
    return found


if __name__ == "__main__":
    main()
