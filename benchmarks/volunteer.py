"""A volunteer's training, policy and log on, against the same steps in plain peft + PyTorch.

python benchmarks/volunteer.py [--quick] [--json] [--model DIR] [--steps N] [--repeats N]

step_ratio    plain's seconds per step / ours: 1 is as fast, more is faster. Both take turns on
              the same batches in one single-threaded process each; ours looks at orders and
              machine and writes its log as `nomoat run` does
yield_s       from the order to pause until the worker process, and all its memory, is gone:
              the longest of several
memory_error  largest relative error of the predicted against the measured peak (memory.py)
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from memory import chosen, measure

from nomoat.aggregation.adapter import AdapterSpec
from nomoat.aggregation.messages import TrainSettings
from nomoat.client import control
from nomoat.client.facts import Limits, Orders
from nomoat.client.governor import Governor
from nomoat.client.hands import Hands
from nomoat.client.keepsakes import DiskKeepsakes
from nomoat.client.ledger import Sent, tensors_of
from nomoat.client.ledger_file import Ledger
from nomoat.client.probes import Probes, local_now
from nomoat.client.shards import Shards, prepare
from nomoat.client.workbench import Workbench
from nomoat.lora.jobs import TrainJob
from nomoat.simulations.pocket import MODEL_DIR

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

RANK, ALPHA = 8, 16.0
ROWS = 400
SEED = b"benchmark"
SETTLE_S = 2.0  # rows are encoded, steps are being taken
MEMORY_CASES = (
    "10M-fp32-b4-t256-r8",
    "10M-bf16-b1-t512-r8-ck",
    "100M-fp32-b2-t256-r8",
    "100M-bf16-b4-t128-r8-ck",
)


@dataclass(frozen=True)
class Task:
    """What both train: the model's folder, the rows, the shape of a step."""

    model: str
    shards: Shards
    settings: TrainSettings
    checkpoint: Path

    def job(self, spec: AdapterSpec, steps: int) -> TrainJob:
        """The training as nomoat does it."""
        from nomoat.lora.base_model import initial_adapter

        settings = replace(self.settings, local_steps=steps)
        values = initial_adapter(spec, SEED).vector
        return TrainJob(self.shards.train, spec, values, settings, SEED, checkpoint=self.checkpoint)


@contextmanager
def at_home(task: Task, folder: Path) -> Iterator[tuple[Hands, Ledger]]:
    """Hands with a governor beside them that looks at this real machine, and a log."""
    kept = DiskKeepsakes(folder / "kept")
    hands = Hands(Workbench(task.model, "cpu"), task.shards, kept, task.checkpoint)
    probes = Probes(folder, lambda: hands.pids)
    limits = Limits(min_free_disk_bytes=0, on_battery=True, on_metered=True)
    governor = Governor(
        folder,
        limits,
        probes.facts,
        hands,
        handing_over=lambda: False,
        told=lambda _decision: None,
        now=lambda: local_now(time.time()),
    )
    stop = threading.Event()
    thread = threading.Thread(target=governor.run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield hands, Ledger(folder)
    finally:
        stop.set()
        thread.join()
        hands.close()


def ours(hands: Hands, ledger: Ledger, job: TrainJob) -> float:
    """Seconds per step of one training, its update logged as if it left."""
    trained = hands.run(job)
    sent = Sent(
        time.time(), "benchmark", "nobody", "sa.masked", 1, 4 * job.spec.size, "", True,
        tensors_of(job.spec.manifest), 1.0, 1.0, 8,
    )  # fmt: skip
    began = time.perf_counter()
    ledger.record(sent)
    return (trained.seconds + time.perf_counter() - began) / trained.steps


def plain(pipe: Connection, task: Task) -> None:
    """A process that takes the same steps as anybody would write them, as often as it is asked."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from nomoat.lora import preloaded  # noqa: F401 - one thread, as our workers have
    from nomoat.lora.batches import shuffled_rows
    from nomoat.lora.encoding import Encoder, collate
    from nomoat.lora.formats import read

    tokenizer = AutoTokenizer.from_pretrained(task.model)
    model: Any = AutoModelForCausalLM.from_pretrained(task.model, dtype=torch.float32)
    model.config.use_cache = False
    config = peft.LoraConfig(
        r=RANK, lora_alpha=int(ALPHA), target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(model, config).train()
    encoder = Encoder.of(tokenizer, task.settings.seq_len)
    examples = encoder.encode_all(read(task.shards.train).conversations).examples
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    while (steps := pipe.recv()) is not None:
        optimizer = torch.optim.AdamW(trained, lr=task.settings.learning_rate, weight_decay=0.0)
        began = time.perf_counter()
        for rows in islice(shuffled_rows(examples, task.settings.batch_size, SEED), steps):
            batch = collate([examples[row] for row in rows], tokenizer.eos_token_id or 0)
            tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
            loss = model(**tensors).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        pipe.send((time.perf_counter() - began) / steps)


@contextmanager
def somebody_else(task: Task) -> Iterator[Connection]:
    """The process of `plain`, asked through a pipe."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=plain, args=(there, task), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        here.send(None)
        process.join()


def step_seconds(task: Task, folder: Path, spec: AdapterSpec, how: argparse.Namespace) -> Any:
    """Seconds per step: ours and plain's, in turns; the first turn warms both up."""
    pairs = []
    with at_home(task, folder) as (hands, ledger), somebody_else(task) as other:
        for _ in range(how.repeats + 1):
            mine = ours(hands, ledger, task.job(spec, how.steps))
            other.send(how.steps)
            pairs.append((mine, other.recv()))
    return pairs[1:]


def yield_seconds(task: Task, folder: Path, spec: AdapterSpec, repeats: int) -> list[float]:
    """How long it takes from writing the order until every worker is gone, each time."""
    found = []
    with at_home(task, folder) as (hands, _ledger):
        hands.run(task.job(spec, 2))  # the base is loaded
        training = threading.Thread(target=_until_closed, args=(hands, task.job(spec, 100_000)))
        training.start()
        for _ in range(repeats):
            task.checkpoint.unlink(missing_ok=True)
            while not hands.working:
                time.sleep(0.01)
            time.sleep(SETTLE_S)
            pids = hands.pids
            began = time.perf_counter()
            control.write(folder, Orders(paused=True))
            while any(psutil.pid_exists(pid) for pid in pids):
                time.sleep(0.001)
            found.append(time.perf_counter() - began)
            assert task.checkpoint.exists(), "nothing was laid down"
            control.write(folder, Orders())
        hands.close()
        training.join()
    return found


def _until_closed(hands: Hands, job: TrainJob) -> None:
    from nomoat.client.hands import Overtaken

    try:
        hands.run(job)
    except Overtaken:
        return


def memory_errors(cases: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """Predicted against measured, one process each."""
    return [measure(case, folder, "cpu") for case in chosen(",".join(cases), "cpu")]


def rows(path: Path) -> Path:
    """Question and answer rows of mixed lengths."""
    lines = [
        {
            "prompt": f"What is item {i}?",
            "completion": f"Item {i} is " + "very " * (i % 9) + "good.",
        }
        for i in range(ROWS)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(how: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """All three measurements."""
    from nomoat.lora.base_model import new_spec

    settings = TrainSettings(batch_size=8, seq_len=64, learning_rate=1e-3)
    shards = prepare(rows(scratch / "rows.jsonl"), scratch / "shards", 0.1)
    task = Task(str(how.model), shards, settings, scratch / "training.safetensors")
    spec = new_spec(str(how.model), RANK, ALPHA)
    pairs = step_seconds(task, scratch, spec, how)
    yields = yield_seconds(task, scratch, spec, 2 if how.quick else 5)
    errors = memory_errors(MEMORY_CASES[:1] if how.quick else MEMORY_CASES, scratch)
    mine, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    return {
        "step_ratio": statistics.median(other / own for own, other in pairs),
        "yield_s": max(yields),
        "memory_error": max(abs(row["error"]) for row in errors),
        "step_ms": 1000 * mine,
        "plain_step_ms": 1000 * theirs,
        "yields_s": yields,
        "memory": {row["case"]: row["error"] for row in errors},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL_DIR)
    parser.add_argument("--steps", type=int, default=0, help="per turn")
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="too short to mean much")
    parser.add_argument("--json", action="store_true")
    how = parser.parse_args()
    how.steps = how.steps or (10 if how.quick else 60)
    how.repeats = how.repeats or (1 if how.quick else 5)
    with tempfile.TemporaryDirectory() as scratch:
        found = run(how, Path(scratch))
    if how.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    sys.stdout.write(
        f"step {found['step_ms']:.1f} ms, plain {found['plain_step_ms']:.1f} ms: step_ratio "
        f"{found['step_ratio']:.2f}\nyield_s {found['yield_s']:.2f}\n"
        f"memory_error {found['memory_error']:.1%}\n"
    )


if __name__ == "__main__":
    main()
