"""The parts of the measurement: each tells of its figures as it finds them."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cards import loops, shapes
from cards.shapes import StepShape
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.simulations.pocket import MODEL_DIR

MIB = 1 << 20
POCKET = StepShape(8, 128)
SHORT, LONG = StepShape(4, 256), (StepShape(1, 1024), StepShape(4, 1024))


_told: list[Callable[[dict[str, Any]], None]] = []  # who is told of figures, in this process


def tell_to(told: Callable[[dict[str, Any]], None]) -> None:
    """Have every figure told to `told`."""
    _told.append(told)


def tell(name: str, value: Any, note: str = "") -> None:
    """Tell of one figure."""
    if isinstance(value, float):
        value = float(f"{value:.4g}")
    for told in _told:
        told({"figure": name, "value": value, "note": note})


def _card(device: str, quick: bool) -> None:
    """Name of the card, and what it makes of one large product of matrices."""
    import torch

    from nomoat.lora.device import backends

    found = backends.pick(device)
    found.start()
    name = torch.cuda.get_device_name() if found.kind == "cuda" else found.kind
    tell("card", name, f"torch {torch.__version__}, {found.dtype()}")
    side = 256 if quick else 8192
    a = torch.randn(side, side, device=found.place, dtype=torch.bfloat16)
    b = torch.randn(side, side, device=found.place, dtype=torch.bfloat16)

    def products() -> None:
        for _ in range(10):
            a @ b

    (ms,) = loops.median_ms([products], 10, found, 3)
    tell("matmul_tflops", 2 * side**3 / ms / 1e9, "bf16, as measured")
    if peak := shapes.peak_tflops(name):
        tell("peak_tflops", peak, "bf16, as its maker says")


def _against_plain(device: str, quick: bool) -> None:
    """step_ratio_plain: the least of all cells. Both ways in turns, in this process."""
    ratios = []
    for name, mixed, base, shape in _cells(device, quick):
        steps, turns = (2, 1) if quick else (24, 2)
        rows = _rows(base(), shape, mixed)
        ways = [
            loops.ours(loops.slot_in(base()), rows, shape.rows, steps),
            loops.plain(base(), rows, shape.rows, steps),
        ]
        mine, theirs = loops.median_ms(ways, steps, _device(device), turns)
        tell(f"{name}_step_ms", mine, f"{shape.rows} × {shape.tokens}")
        tell(f"{name}_plain_step_ms", theirs)
        tell(f"{name}_step_ratio_plain", theirs / mine)
        ratios.append(theirs / mine)
    tell("step_ratio_plain", min(ratios), "the least of these cells")


def _against_trl(device: str, quick: bool) -> None:
    """trl_ratio: the least of all cells."""
    if find_spec("trl") is None:
        tell("trl_ratio", None, "trl is not installed")
        return
    from transformers import AutoTokenizer

    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        for name, mixed, base, shape in _cells(device, quick):
            steps, turns = (2, 1) if quick else (24, 2)
            rows = _rows(base(), shape, mixed)
            ways = [
                loops.ours(loops.slot_in(base()), rows, shape.rows, steps),
                loops.sft(base(), rows, shape.rows, steps, folder, tokenizer),
            ]
            mine, theirs = loops.median_ms(ways, steps, _device(device), turns)
            tell(f"{name}_trl_step_ms", theirs, f"ours beside it {mine:.2f}")
            tell(f"{name}_trl_ratio", theirs / mine)
            ratios.append(theirs / mine)
    tell("trl_ratio", min(ratios), "the least of these cells")


def _cells(device: str, quick: bool) -> list[tuple[str, bool, Callable[[], Any], StepShape]]:
    """(name, rows of mixed lengths, the base, a step's shape) that rivals are held against."""
    from nomoat.lora.model.base_model import load

    def pocket() -> Any:
        return load(str(MODEL_DIR), device)

    def larger() -> Any:
        return shapes.random_base("tiny" if quick else "100M", device)

    short = StepShape(2, 32) if quick else SHORT
    small = StepShape(2, 32) if quick else POCKET
    return [
        ("pocket_mixed", True, pocket, small),
        ("100M_full", False, larger, short),
        ("100M_mixed", True, larger, short),
    ]


def _rows(base: Any, shape: StepShape, mixed: bool) -> Any:
    made = shapes.mixed_rows if mixed else shapes.full_rows
    return made(64, shape.tokens, base.model.config.vocab_size)


def _device(device: str) -> Any:
    from nomoat.lora.device import backends

    return backends.pick(device)


def _steps(device: str, quick: bool) -> None:
    """Milliseconds of a step: the pocket model, 100M and 1B."""
    from nomoat.lora.model.base_model import load

    bases: list[tuple[str, Callable[[], Any], StepShape]] = [
        ("pocket", lambda: load(str(MODEL_DIR), device), POCKET)
    ]
    for size in ("100M", "1B"):
        name = "tiny" if quick else size
        bases.append((size, lambda name=name: shapes.random_base(name, device), SHORT))  # type: ignore[misc]
    for name, made, usual in bases:
        base, steps = made(), 2 if quick else 40
        shape = StepShape(2, 32) if quick else usual
        way = loops.ours(loops.slot_in(base), _rows(base, shape, False), shape.rows, steps)
        (ms,) = loops.median_ms([way], steps, _device(device), 1 if quick else 3)
        tell(f"{name}_step_ms", ms, f"{shape.rows} × {shape.tokens}, every token trained on")
        del base, way
        _device(device).give_back()


def _throughput(size: str, bits: int) -> Callable[[str, bool], None]:
    def measured(device: str, quick: bool) -> None:
        """Tokens a second, the share of the card's peak, memory against its prediction."""
        import torch

        began = time.monotonic()
        packs = bits if torch.device(device).type == "cuda" else 16
        base = shapes.random_base("tiny" if quick else size, device, packs)
        label = size if bits == 16 else f"{size}_{bits}bit"
        model = loops.slot_in(base)
        tell(f"{label}_made_s", time.monotonic() - began)
        for usual in LONG:
            shape = StepShape(1, 64) if quick else usual
            _throughput_of((label, size, bits), base, model, shape, quick)

    return measured


def _throughput_of(
    what: tuple[str, str, int], base: Any, model: Any, shape: StepShape, quick: bool
) -> None:
    import torch

    from nomoat.lora.device import backends

    label, size, bits = what
    device, cuda = backends.of(base.device), base.device.type == "cuda"
    steps = 2 if quick else 10
    rows = _rows(base, shape, mixed=False)
    way = loops.ours(model, rows, shape.rows, steps)
    device.give_back()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    (ms,) = loops.median_ms([way], steps, device, 1 if quick else 2)
    named = f"{label}_{shape.rows}x{shape.tokens}"
    tell(f"{named}_step_ms", ms)
    tell(f"{named}_tokens_s", 1000 * shape.rows * shape.tokens / ms)
    tflops = shapes.step_flops(size, shape, loops.RANK) / ms / 1e9
    peak = shapes.peak_tflops(torch.cuda.get_device_name()) if cuda else None
    if peak:
        tell(f"{named}_peak_share", tflops / peak, f"{tflops:.0f} TFLOP/s")
    if cuda:
        seen, wanted = torch.cuda.max_memory_allocated(), _predicted(size, bits, shape)
        held = torch.cuda.max_memory_reserved()
        note = (
            f"predicted {wanted / MIB:.0f} MiB, allocated {seen / MIB:.0f}, held {held / MIB:.0f}"
        )
        tell(f"{named}_memory_error", wanted / seen - 1, note)


def _predicted(size: str, bits: int, shape: StepShape) -> int:
    """Bytes that the planner would say."""
    from nomoat.lora.memory.prediction import TrainingShape, Weights, cuda_host, predict
    from nomoat.lora.model.shape import ModelShape

    weights = Weights.NF4 if bits == 4 else Weights.BF16
    training = TrainingShape(shape.rows, shape.tokens, loops.RANK, weights=weights, autocast=True)
    found = predict(ModelShape.from_config(shapes.config_of(size)), training, cuda_host())
    return found.total


def _start(device: str, quick: bool) -> None:
    """From nothing to the end of the first step: a worker process of the pocket model."""
    del quick
    from nomoat.lora.model.base_model import initial_adapter, new_spec
    from nomoat.lora.workers.jobs import TrainJob
    from nomoat.lora.workers.pool import Pool

    spec = new_spec(str(MODEL_DIR), loops.RANK, loops.ALPHA)
    settings = TrainSettings(1, 0, 8, 64, loops.RATE)
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "rows.jsonl"
        rows = [{"prompt": f"Item {i}?", "completion": f"It is good {i % 9}."} for i in range(64)]
        shard.write_text("".join(json.dumps(row) + "\n" for row in rows))
        vector = initial_adapter(spec, b"i").vector
        job = TrainJob(shard, spec, vector, settings, loops.SEED)
        for _ in range(2):  # the first reads files from the disk
            began = time.monotonic()
            with Pool(str(MODEL_DIR), 1, device=device, shared=False) as pool:
                found = pool.submit(job).result()
                seconds = time.monotonic() - began
            assert math.isfinite(found.last_loss)
            tell("start_to_first_step_s", seconds)


PARTS: dict[str, tuple[Callable[[str, bool], None], float]] = {  # and seconds of each, at most
    "card": (_card, 90),  # imports from a cold disk are its, too
    "plain": (_against_plain, 90),
    "1B": (_throughput("1B", 16), 60),
    "7B": (_throughput("7B", 4), 100),
    "steps": (_steps, 70),
    "trl": (_against_trl, 90),
    "start": (_start, 60),
}
