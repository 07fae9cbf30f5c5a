"""Fused attention and torch.compile: do they pay for a volunteer's training step.

    python benchmarks/kernels.py [--model DIR | --size 10M|100M|1B] [--device cpu|cuda] [--steps N]
        [--seq-len N] [--ways sdpa,eager] [--json] [--quick]

Each way trains the same steps with lora/training/train.py in a process of its own, in turns:
`sdpa` as nomoat does it, `eager` attention, and `compiled`: every decoder layer through
torch.compile (the layers are alike, so one is compiled and all use it). Printed: a step's time over
that of sdpa, and what the first training took longer than a later one, which is what compiling
costs at each start.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cards.shapes import SIZES
from memory import save_random

from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.simulations.pocket import MODEL_DIR

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

WAYS = ("sdpa", "eager", "compiled")
SEED = b"kernels"


def worker(pipe: Connection, way: str, how: argparse.Namespace) -> None:
    """Train `how.steps` steps whenever asked; answer with seconds per step."""
    from nomoat.lora.model.adapter_slot import attach
    from nomoat.lora.model.base_model import initial_adapter, load, new_spec
    from nomoat.lora.training.train import train
    from nomoat.lora.workers import preloaded  # noqa: F401 - one thread, as our workers have

    base = load(str(how.model), how.device)
    spec = new_spec(base.model.config, 8, 16.0)
    model: Any = attach(base, spec)
    if way == "eager":
        base.model.set_attn_implementation("eager")
    if way == "compiled":
        for layer in base.model.get_decoder().layers:
            layer.compile(dynamic=True)
    settings = TrainSettings(
        local_steps=how.steps, batch_size=how.batch_size, seq_len=how.seq_len, learning_rate=1e-4
    )
    rows = examples(base.model.config.vocab_size, how)
    start = initial_adapter(spec, SEED)
    while pipe.recv():
        began = time.perf_counter()
        trained = train(model, start, rows, settings, SEED, time.perf_counter)
        assert np.isfinite(trained.last_loss)
        pipe.send((time.perf_counter() - began) / how.steps)


def examples(vocabulary: int, how: argparse.Namespace) -> list[Any]:
    """Rows of random tokens of many lengths, the later half of each learnt."""
    from nomoat.lora.data.encoding import Example

    chance = np.random.default_rng(0)
    found = []
    for _ in range(how.batch_size * 8):
        length = int(chance.integers(how.seq_len // 4, how.seq_len + 1))
        ids = chance.integers(3, min(vocabulary, 500), length).astype(np.int32)
        found.append(Example(ids, np.arange(length) >= length // 2))
    return found


def measure(how: argparse.Namespace) -> dict[str, Any]:
    """Seconds per step of each way: of the first training, and the median of the later ones."""
    context = multiprocessing.get_context("spawn")
    taken: dict[str, list[float]] = {way: [] for way in how.ways}
    with ExitStack() as processes:
        pipes = {}
        for way in how.ways:
            pipes[way], there = context.Pipe()
            process = context.Process(target=worker, args=(there, way, how), daemon=True)
            process.start()
            processes.callback(process.join)
            processes.callback(pipes[way].send, False)
        for _ in range(how.repeats + 1):
            for way, pipe in pipes.items():
                pipe.send(True)
                taken[way].append(pipe.recv())
    later = {way: statistics.median(times[1:]) for way, times in taken.items()}
    return {
        "step_ms": {way: round(1000 * seconds, 2) for way, seconds in later.items()},
        "over_sdpa": {way: round(seconds / later["sdpa"], 3) for way, seconds in later.items()},
        "start_s": {
            way: round(how.steps * (times[0] - later[way]), 2) for way, times in taken.items()
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL_DIR)
    parser.add_argument("--size", choices=tuple(SIZES), help="random weights instead of --model")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="too short to mean much")
    parser.add_argument("--ways", default=",".join(WAYS), help="comma-separated; sdpa is needed")
    how = parser.parse_args()
    how.ways = how.ways.split(",")
    if unknown := set(how.ways) - set(WAYS):
        parser.error(f"no way {min(unknown)!r}; choose {', '.join(WAYS)}")
    if how.quick:
        how.steps, how.repeats, how.batch_size, how.seq_len = 2, 1, 2, 32
    with tempfile.TemporaryDirectory() as folder:
        if how.size:
            how.model = save_random(how.size, Path(folder))
            for file in MODEL_DIR.glob("tokenizer*"):
                shutil.copy(file, how.model)
        found = measure(how)
    if how.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    for way in how.ways:
        sys.stdout.write(
            f"{way:<9} {found['step_ms'][way]:>9.1f} ms a step, {found['over_sdpa'][way]:.2f} of "
            f"sdpa's; {found['start_s'][way]:.1f} s more in the first training\n"
        )


if __name__ == "__main__":
    main()
