"""Rows on memory: it runs out in the middle, and there is too little from the start."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from nomoat.aggregation.errors import DoesNotFit
from nomoat.lora.gpu_check.row import CheckPlace, GpuRow, expect
from nomoat.lora.gpu_check.sample_task import ALPHA, RANK, SEED, SETTINGS, apart, examples_for
from nomoat.lora.training.pieces.recordings import LEAST_PIECES

ROWS, COPIES = 64, 8  # rows of a step; the base's rows, so often over
STEPS = LEAST_PIECES + 2  # so that pieces are recorded
LITTLE_BYTES = 2 << 20  # less than the base takes


def runs_out(place: CheckPlace) -> str:
    """Train with the memory that half a batch needs, and compare with a run that had enough."""
    import torch

    from nomoat.lora.model.adapter_slot import attach
    from nomoat.lora.model.adapter_spec import initial_adapter, new_spec
    from nomoat.lora.model.base_model import load
    from nomoat.lora.training.train import train

    base = load(place.model, place.device)
    spec = new_spec(place.model, RANK, ALPHA)
    start, examples = initial_adapter(spec, SEED), examples_for(base.tokenizer) * COPIES
    settings = replace(SETTINGS, local_steps=STEPS, batch_size=ROWS)
    model = attach(base, spec)

    def trained() -> Any:
        return train(model, start, examples, settings, SEED, time.monotonic)

    torch.cuda.reset_peak_memory_stats()
    resting = torch.cuda.memory_allocated()
    wanted = trained()
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    allowed = resting + 0.7 * (peak - resting)
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.mem_get_info()[1])
    before = torch.cuda.memory_stats()["num_ooms"]
    found = trained()
    shortages = torch.cuda.memory_stats()["num_ooms"] - before
    difference = apart(found.vector - start.vector, wanted.vector - start.vector)
    mib = 1 << 20
    text = (
        f"{shortages} shortages at {allowed / mib:.0f} of {peak / mib:.0f} MiB, "
        f"loss {found.last_loss:.4f} and {wanted.last_loss:.4f}, {difference:.1%} apart"
    )
    same = abs(found.last_loss / wanted.last_loss - 1) < 0.01 and difference < 0.1
    return expect(shortages > 0 and same and found.steps == STEPS, text)


def does_not_fit(place: CheckPlace) -> str:
    """Load a base where too little is free."""
    import torch

    from nomoat.lora.device import backends
    from nomoat.lora.model.base_model import load

    backends.pick(place.device).start()
    torch.cuda.set_per_process_memory_fraction(LITTLE_BYTES / torch.cuda.mem_get_info()[1])
    try:
        load(place.model, place.device)
    except DoesNotFit as problem:
        return expect("\n" not in str(problem), f"exit code {problem.exit_code}: {problem}")
    return expect(False, "it was loaded")


def rows_of_memory() -> list[GpuRow]:
    """All of them."""
    return [
        GpuRow("out of memory in the middle", "smaller pieces, the same result", 110, runs_out),
        GpuRow("a base that does not fit", "one line, exit code 7", 60, does_not_fit),
    ]
