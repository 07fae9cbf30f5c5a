"""A volunteer's training, policy and log on, against the same steps in plain peft + PyTorch.

python benchmarks/volunteer.py [--quick] [--json] [--model DIR] [--steps N] [--repeats N]
    [--device cpu|cuda] [--trl]

step_ratio    plain's seconds per step / ours: 1 is as fast, more is faster. Both take turns on
              the same rows in one process each (of one thread on a CPU); ours looks at orders and
              machine and writes its log as `nomoat run` does
trl_ratio     the same for trl's SFTTrainer, with --trl (pip install trl)
yield_s       from the order to pause until the worker process, and all its memory, is gone:
              the longest of several
memory_error  largest relative error of the predicted against the measured peak (memory.py)
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from memory import chosen, measure

from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.client.data.split import prepare
from nomoat.client.machine import owner_orders
from nomoat.client.machine.governor import Governor
from nomoat.client.machine.probes import Probes, local_now
from nomoat.client.machine.readings import MachineLimits, Orders
from nomoat.client.sent.log import SentMessage, tensors_of
from nomoat.client.sent.log_file import SentLog
from nomoat.client.training.personal_state import DiskPersonalStates
from nomoat.client.training.shared_worker import SharedWorker
from nomoat.client.training.trainer import Trainer
from nomoat.lora.workers.jobs import TrainJob
from nomoat.simulations.pocket import MODEL_DIR
from rivals.steps import ALPHA, RANK, Rival, Task, plain, sft, somebody_else

ROWS = 400
SETTLE_S = 2.0  # rows are encoded, steps are being taken
MEMORY_CASES = (
    "10M-fp32-b4-t256-r8",
    "10M-bf16-b1-t512-r8-ck",
    "100M-fp32-b2-t256-r8",
    "100M-bf16-b4-t128-r8-ck",
)


@contextmanager
def at_home(task: Task, folder: Path) -> Iterator[tuple[Trainer, SentLog]]:
    """Trainer with a governor beside them that looks at this real machine, and a log."""
    states = DiskPersonalStates(folder / "kept")
    trainer = Trainer(SharedWorker(task.model, task.device), task.split, states, task.checkpoint)
    probes = Probes(folder, lambda: trainer.pids)
    limits = MachineLimits(
        min_free_disk_bytes=0, on_battery=True, on_metered=True, yield_gpu=False
    )  # the rival is on the GPU, too
    governor = Governor(
        folder,
        limits,
        probes.readings,
        trainer,
        handing_over=lambda: False,
        told=lambda _decision: None,
        now=lambda: local_now(time.time()),
    )
    stop = threading.Event()
    thread = threading.Thread(target=governor.run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield trainer, SentLog(folder)
    finally:
        stop.set()
        thread.join()
        trainer.close()


def ours(trainer: Trainer, sent_log: SentLog, job: TrainJob) -> float:
    """Seconds per step of one training, its update logged as if it left."""
    trained = trainer.run(job)
    sent = SentMessage(
        time.time(), "benchmark", "nobody", "sa.masked", 1, 4 * job.spec.size, "", True,
        tensors_of(job.spec.manifest), 1.0, 1.0, 8,
    )  # fmt: skip
    began = time.perf_counter()
    sent_log.record(sent)
    return (trained.seconds + time.perf_counter() - began) / trained.steps


def step_seconds(
    rival: Rival, task: Task, folder: Path, spec: AdapterSpec, how: argparse.Namespace
) -> list[tuple[float, float]]:
    """Seconds per step, (ours, the rival's), in turns; the first turn warms both up."""
    pairs = []
    with at_home(task, folder) as (trainer, sent_log), somebody_else(rival, task) as other:
        for _ in range(how.repeats + 1):
            mine = ours(trainer, sent_log, task.job(spec, how.steps))
            other.send(how.steps)
            pairs.append((mine, other.recv()))
    return pairs[1:]


def yield_seconds(task: Task, folder: Path, spec: AdapterSpec, repeats: int) -> list[float]:
    """Measure the time from writing the order until every worker is gone, each time."""
    found = []
    with at_home(task, folder) as (trainer, _sent_log):
        trainer.run(task.job(spec, 2))  # the base is loaded
        training = threading.Thread(target=_until_closed, args=(trainer, task.job(spec, 100_000)))
        training.start()
        for _ in range(repeats):
            task.checkpoint.unlink(missing_ok=True)
            while not trainer.working:
                time.sleep(0.01)
            time.sleep(SETTLE_S)
            pids = trainer.pids
            began = time.perf_counter()
            owner_orders.write(folder, Orders(paused=True))
            while any(psutil.pid_exists(pid) for pid in pids):
                time.sleep(0.001)
            found.append(time.perf_counter() - began)
            assert task.checkpoint.exists(), "nothing was written"
            owner_orders.write(folder, Orders())
        trainer.close()
        training.join()
    return found


def _until_closed(trainer: Trainer, job: TrainJob) -> None:
    from nomoat.client.round.work import Overtaken

    try:
        trainer.run(job)
    except Overtaken:
        return


def memory_errors(cases: Sequence[str], folder: Path, device: str) -> list[dict[str, Any]]:
    """Predicted against measured, one process each."""
    return [measure(case, folder, device) for case in chosen(",".join(cases), device)]


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
    from nomoat.lora.model.base_model import new_spec

    settings = TrainSettings(batch_size=8, seq_len=64, learning_rate=1e-3)
    split = prepare(rows(scratch / "rows.jsonl"), scratch / "shards", 0.1)
    checkpoint = scratch / "training.safetensors"
    task = Task(str(how.model), split, settings, checkpoint, how.device)
    spec = new_spec(str(how.model), RANK, ALPHA)
    pairs = step_seconds(plain, task, scratch, spec, how)
    trl = step_seconds(sft, task, scratch, spec, how) if how.trl else []
    yields = yield_seconds(task, scratch, spec, 2 if how.quick else 5)
    cases = MEMORY_CASES[:1] if how.quick else MEMORY_CASES
    errors = memory_errors(cases, scratch, how.device)
    mine, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    return {
        "step_ratio": ratio(pairs),
        "trl_ratio": ratio(trl) if trl else None,
        "yield_s": max(yields),
        "memory_error": max(abs(row["error"]) for row in errors),
        "step_ms": 1000 * mine,
        "plain_step_ms": 1000 * theirs,
        "trl_step_ms": 1000 * statistics.median(other for _, other in trl) if trl else None,
        "yields_s": yields,
        "memory": {row["case"]: row["error"] for row in errors},
        "device": how.device,
    }


def ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """The rival's seconds per step over ours, as it comes in most turns."""
    return statistics.median(other / own for own, other in pairs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL_DIR)
    parser.add_argument("--steps", type=int, default=0, help="per turn")
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="too short to mean much")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--trl", action="store_true", help="trl's SFTTrainer, too; needs trl")
    how = parser.parse_args()
    how.steps = how.steps or (10 if how.quick else 60)
    how.repeats = how.repeats or (1 if how.quick else 5)
    with tempfile.TemporaryDirectory() as scratch:
        found = run(how, Path(scratch))
    if how.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    lines = [
        f"step {found['step_ms']:.1f} ms, plain {found['plain_step_ms']:.1f} ms: "
        f"step_ratio {found['step_ratio']:.2f}",
        f"yield_s {found['yield_s']:.2f}",
        f"memory_error {found['memory_error']:.1%}",
    ]
    if how.trl:
        lines.insert(1, f"trl {found['trl_step_ms']:.1f} ms: trl_ratio {found['trl_ratio']:.2f}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
