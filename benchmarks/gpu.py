"""One card's figures: our steps against plain peft and trl, tokens a second, starts, memory.

    python benchmarks/gpu.py [--json] [--device cuda] [--quick] [--parts plain,trl,…]

Each part is a process with its own limit of time and prints its figures as it finds them, so that
one that fails hides no other; all together take less than five minutes. Models are made of random
weights on the device: speed and memory do not depend on what they say.

step_ratio_plain      seconds of a step in plain peft with PyTorch over ours, the least of three
                      cells (100M and the pocket model; full rows and rows of mixed lengths)
trl_ratio             the same for trl's SFTTrainer; None where trl is not installed
pocket_step_ms, 100M_step_ms, 1B_step_ms: 8 × 128 and 4 × 256 tokens, every one trained on
…_tokens_s, …_peak_share: of the bf16 peak that the card's maker names
start_to_first_step_s: from no process at all to the end of a worker's first step
…_memory_error        predicted over allocated peak, less one
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nomoat.lora.gpu_check.running import forking_context

HERE = Path(__file__).resolve().parent
ALL_S = 290.0
sys.path.append(str(HERE))


def figures(part: str, limit_s: float, how: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run one part in its own process and yield its figures; one that fails says so in one."""
    context = forking_context()
    began = time.monotonic()
    here, there = context.Pipe(duplex=False)
    given = (there, part, how.device, how.quick, dict(os.environ))
    child = context.Process(target=_child, args=given)
    child.start()
    there.close()
    note = f"not done within {limit_s:.0f} s"
    try:
        while here.poll(max(0.0, began + limit_s - time.monotonic())):
            found = here.recv()
            if isinstance(found, str):
                note = found
                break
            yield {"part": part, **found}
    except EOFError:
        note = "the process ended"
    finally:
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        child.kill()
        child.join()
    seconds = round(time.monotonic() - began, 1)
    yield {"part": part, "figure": f"part_{part}_s", "value": seconds, "note": note}


def _child(
    pipe: Connection, part: str, device: str, quick: bool, environment: dict[str, str]
) -> None:
    """Measure one part, its process group's first, and end with a word on how it went."""
    os.setsid()
    os.environ.clear()
    os.environ.update({**environment, "FLWR_TELEMETRY_ENABLED": "0", "HF_HUB_OFFLINE": "1"})
    from cards.parts import PARTS, tell_to

    tell_to(pipe.send)
    try:
        PARTS[part][0](device, quick)
        pipe.send("ok")
    except Exception as problem:  # noqa: BLE001 - the other parts go on
        traceback.print_exc()
        pipe.send(f"failed: {type(problem).__name__}: {problem}"[:200])


def run(how: argparse.Namespace) -> list[dict[str, Any]]:
    """Every part, while there is time; each figure is printed when it is found."""
    from cards.parts import PARTS

    found = []
    ends = time.monotonic() + ALL_S
    for part in how.parts.split(",") if how.parts else PARTS:
        left = ends - time.monotonic()
        if left < 5:
            continue
        for figure in figures(part, min(PARTS[part][1] if part in PARTS else left, left), how):
            found.append(figure)
            value = figure["value"]
            shown = f"{figure['figure']:34s} {value!s:>12}  {figure['note']}"
            print(shown, file=sys.stderr if how.json else sys.stdout, flush=True)
    return found


def main() -> None:
    """Print a line for each figure, and at the end one object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--quick", action="store_true", help="tiny shapes: only to see that it runs"
    )
    parser.add_argument("--parts", default="")
    how = parser.parse_args()
    found = run(how)
    if how.json:
        sys.stdout.write(json.dumps({f["figure"]: f["value"] for f in found}) + "\n")


if __name__ == "__main__":
    main()
