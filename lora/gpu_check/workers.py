"""Rows on worker processes: started, paused, killed, taking turns; no CUDA in who starts them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nomoat.aggregation.errors import UsageError
from nomoat.lora.gpu_check.row import CheckPlace, GpuRow, expect
from nomoat.lora.gpu_check.sample_task import ALPHA, RANK, SEED, SETTINGS, apart, shard_in
from nomoat.lora.workers.jobs import HeldBase
from nomoat.lora.workers.process import context_for

MIB = 1 << 20
PAUSE_S = 2.0  # and the micro-step under way, after which the memory is gone
DRIVER_S = 5.0  # a driver counts the memory of a process that ended for a while
LONG = replace(SETTINGS, local_steps=4000)
SHORT = replace(SETTINGS, local_steps=150)


def used_bytes(device: str) -> int:
    """Bytes of the device that anybody holds, as the driver says."""
    from nomoat.lora.device.nvml_pids import opened
    from nomoat.lora.device.present import gpu_of

    nvml, handle = opened(gpu_of(device) or 0)
    return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)


def a_pool(place: CheckPlace) -> Any:
    """Return a pool of one worker that gives back what it took."""
    from nomoat.lora.workers.pool import Pool

    return Pool(place.model, 1, place.device, shared=False)


def a_job(
    pool: Any, place: CheckPlace, settings: Any = SETTINGS, checkpoint: Path | None = None
) -> Any:
    """Return a training from the usual start; a worker finds out its layers, so that nobody else
    imports what may start CUDA.
    """
    from nomoat.lora.model.adapter_spec import initial_adapter
    from nomoat.lora.workers.jobs import SpecJob, TrainJob

    spec = pool.submit(SpecJob(RANK, ALPHA)).result().spec
    start = initial_adapter(spec, SEED).vector
    return TrainJob(shard_in(place.folder), spec, start, settings, SEED, checkpoint=checkpoint)


def started_and_paused(place: CheckPlace) -> str:
    """Start a worker, train, write an answer, pause in the middle of a long run."""
    from nomoat.lora.workers.jobs import SampleJob

    before, began = used_bytes(place.device), time.monotonic()
    pool = a_pool(place)
    job = a_job(pool, place, LONG, place.folder / "checkpoint")
    first = pool.submit(replace(job, settings=SETTINGS, checkpoint=None)).result()
    ready_s = time.monotonic() - began
    (answer,) = pool.submit(SampleJob(("What is item 3?",), job.spec, first.vector, 8)).result()
    steps: list[Any] = []
    pool.tell_of_steps(steps.append)
    future = pool.submit(job)
    while not steps and not future.done():
        time.sleep(0.01)
    during, began = used_bytes(place.device), time.monotonic()
    pool.pause(10.0)
    paused_s = time.monotonic() - began
    while used_bytes(place.device) > before + 64 * MIB and time.monotonic() < began + DRIVER_S:
        time.sleep(0.05)
    gone_s, left = time.monotonic() - began, used_bytes(place.device) - before
    text = (
        f"first steps after {ready_s:.1f} s, {(during - before) // MIB} MiB; paused in "
        f"{paused_s:.2f} s, given back in {gone_s:.2f} s, {left // MIB} MiB left"
    )
    kept = (place.folder / "checkpoint").exists()
    fine = kept and len(answer) > 0 and paused_s < PAUSE_S + 1 and left <= 64 * MIB
    expect(not _started_here(), "CUDA was started in the process that starts the worker")
    return expect(fine, text)


def _started_here() -> bool:
    import torch

    return bool(torch.cuda.is_initialized())


def killed_and_resumed(place: CheckPlace) -> str:
    """Kill -9 whoever has the worker, in the middle; go on from what the worker wrote."""
    checkpoint = place.folder / "checkpoint"
    context = context_for(HeldBase(place.model, place.device), shared=False)
    here, there = context.Pipe(duplex=False)
    victim = context.Process(target=_train_and_tell, args=(there, place, checkpoint))
    victim.start()
    expect(here.poll(100), "no step was taken")
    os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join()
    until = time.monotonic() + 15
    while not checkpoint.exists() and time.monotonic() < until:
        time.sleep(0.02)
    expect(checkpoint.exists(), "the worker wrote nothing")
    with a_pool(place) as pool:
        job = a_job(pool, place, SHORT, checkpoint)
        steps: list[Any] = []
        pool.tell_of_steps(steps.append)
        resumed = pool.submit(job).result()
        at = steps[0].step
        expect(at > 1, "it began again")
        whole = pool.submit(replace(job, checkpoint=None)).result()
    start = job.vector
    difference = apart(resumed.vector - start, whole.vector - start)
    bits = "to the bit" if np.array_equal(resumed.vector, whole.vector) else f"{difference:.2%} off"
    text = f"resumed at step {at}, {bits}, loss {resumed.last_loss:.4f} and {whole.last_loss:.4f}"
    return expect(difference < 0.05 and resumed.steps == whole.steps, text)


def _train_and_tell(pipe: Any, place: CheckPlace, checkpoint: Path) -> None:
    """Train, and say so after the first step that is told of."""
    pool = a_pool(place)
    job = a_job(pool, place, SHORT, checkpoint)

    def told(step: Any) -> None:
        with contextlib.suppress(OSError):
            pipe.send(step.step)

    pool.tell_of_steps(told)
    pool.submit(job).result()
    pipe.send(0)


def killed_worker(place: CheckPlace) -> str:
    """Kill -9 the worker itself: its job fails in one line, the next one has a new worker."""
    with a_pool(place) as pool:
        steps: list[Any] = []
        pool.tell_of_steps(steps.append)
        future = pool.submit(a_job(pool, place, LONG))
        while not steps and not future.done():
            time.sleep(0.01)
        for pid in pool.pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        problem = future.exception()
        again = pool.submit(a_job(pool, place)).result()
    text = f"{type(problem).__name__}, then {again.steps} steps"
    return expect("\n" not in str(problem) and again.steps == SETTINGS.local_steps, text)


def taking_turns(place: CheckPlace) -> str:
    """Let two pools hold the base side by side; then one wants more than anybody has predicted."""
    from nomoat.lora.workers.jobs import SpecJob

    told: list[str | None] = []
    with a_pool(place) as one, a_pool(place) as other:
        for pool in (one, other):
            pool.tell_of_turns(told.append)
        both = [pool.submit(SpecJob(RANK, ALPHA)) for pool in (one, other)]
        for future in both:
            future.result()
        expect(not told, f"they did not share: {told[:1]}")
        one.submit(a_job(one, place)).result()
    said = next((reason for reason in told if reason), "")
    return expect(bool(said) and told[-1] is None, said or "nobody waited")


def peft_under_hiding(place: CheckPlace) -> str:
    """Import peft, and what it drags in, where GPUs are hidden."""
    del place
    import peft
    import torch

    del peft
    seen = "started" if torch.cuda.is_initialized() else "not started"
    return expect(seen == "not started", seen)


def refused(place: CheckPlace) -> str:
    """Ask for a GPU where the variables of this process show none."""
    from nomoat.lora.device import backends

    try:
        found = backends.pick(place.device if place.device != "auto" else "cuda")
        found.start()
    except UsageError as problem:
        return expect("\n" not in str(problem), str(problem))
    return expect(False, f"{found.place} was started")


def rows_of_workers() -> list[GpuRow]:
    """All of them; what looks at the memory of the whole device is alone."""
    hidden = tuple((name, "") for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"))
    return [
        GpuRow("importing peft", "starts no CUDA where it is hidden", 90, peft_under_hiding,
               pretended=hidden),
        GpuRow("CUDA_VISIBLE_DEVICES empty", "refused in one line", 60, refused, pretended=hidden),
        GpuRow("CUDA_VISIBLE_DEVICES=99", "refused in one line", 60, refused,
               pretended=(("CUDA_VISIBLE_DEVICES", "99"),)),
        GpuRow("CUDA_VISIBLE_DEVICES wrong", "refused in one line", 60, refused,
               pretended=(("CUDA_VISIBLE_DEVICES", "GPU-nobody"),)),
        GpuRow("started and paused", f"within {PAUSE_S:.0f} s, the memory given back", 120,
               started_and_paused, alone=True),
        GpuRow("killed -9 and resumed", "the result of a run that was not", 150,
               killed_and_resumed, alone=True),
        GpuRow("a worker killed -9", "one line, and a new worker", 120, killed_worker, alone=True),
        GpuRow("two volunteers", "share what fits, else take turns", 150, taking_turns, alone=True),
    ]  # fmt: skip
