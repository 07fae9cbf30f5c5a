"""The federation as a bare PyTorch program: the processes share the volunteers and average.

    NOMOAT_BENCHMARK_PLAN=plan.json NOMOAT_BENCHMARK_HANDS=plain python -m rivals.bare

Each of the plan's workers holds one base model and a fixed part of the volunteers; all start from
one adapter, train, and average by tokens through torch.distributed (gloo, on this machine). There
are no messages, no checks and no report: what is left is the work itself. Prints the losses.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

from rivals.hands import Hands, Values, hands, one_thread
from rivals.plan import Plan


def worker(rank: int, meeting_place: str, out: str) -> None:
    """One process's share of the federation; the first writes the losses to `out`."""
    one_thread()
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch.distributed

    plan = Plan.read()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting_place}", rank=rank, world_size=plan.workers
    )
    losses = federate(plan, hands(plan), rank)
    if rank == 0:
        Path(out).write_text(json.dumps({"losses": losses}), "utf-8")
    torch.distributed.barrier()
    os._exit(0)  # taking gloo down may abort: its threads race with the other side's end


def federate(plan: Plan, mine: Hands, rank: int) -> list[float]:
    """Macro held-out loss before training and after each round."""
    values = mine.initial()
    losses = [_macro_loss(plan, mine, values, rank)]
    for seeds in plan.seeds:
        weighted, weight = values * 0.0, 0.0
        for place in range(rank, len(plan.volunteers), plan.workers):
            seed = bytes.fromhex(seeds[place])
            trained, _ = mine.train(values, plan.volunteers[place], seed)
            weighted += trained
            weight += 1
        values = _sum(weighted) / _sum_of(weight)
        losses.append(_macro_loss(plan, mine, values, rank))
    return losses


def _macro_loss(plan: Plan, mine: Hands, values: Values, rank: int) -> float:
    share = plan.volunteers[rank :: plan.workers]
    return _sum_of(sum(mine.evaluate(values, v) for v in share)) / len(plan.volunteers)


def _sum(values: Values) -> Values:
    """The sum of all processes' values, in float32."""
    import torch

    tensor = torch.from_numpy(values)
    torch.distributed.all_reduce(tensor)
    found: Values = tensor.numpy()
    return found


def _sum_of(value: float) -> float:
    import torch

    tensor = torch.tensor(value, dtype=torch.float64)
    torch.distributed.all_reduce(tensor)
    return float(tensor)


def main() -> None:
    """Start the workers, wait for them, print what the first found."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        meeting_place, out = f"{scratch}/meeting-place", f"{scratch}/losses.json"
        processes = [
            context.Process(target=worker, args=(rank, meeting_place, out))
            for rank in range(Plan.read().workers)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            sys.exit("a worker failed")
        sys.stdout.write(Path(out).read_text("utf-8") + "\n")


if __name__ == "__main__":
    main()
