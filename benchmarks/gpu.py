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
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ALL_S = 290.0
sys.path.append(str(HERE))


def figures(part: str, limit_s: float, how: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run one part in its own process and yield its figures; one that fails says so in one."""
    command = [sys.executable, "-P", "-W", "ignore", str(HERE / "gpu.py"), "--part", part]
    command += ["--device", how.device, *(["--quick"] if how.quick else [])]
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "HF_HUB_OFFLINE": "1"}
    began = time.monotonic()
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    errors: list[str] = []
    readers = [
        threading.Thread(target=_read, args=(child.stdout, lines.put), daemon=True),
        threading.Thread(target=_read, args=(child.stderr, errors.append), daemon=True),
    ]
    for reader in readers:
        reader.start()
    problem = ""
    try:
        while (line := lines.get(timeout=max(0.1, began + limit_s - time.monotonic()))) is not None:
            if line.startswith('{"figure"'):
                yield {"part": part, **json.loads(line)}
        if child.wait(10):
            said = [error for error in errors if error and error.strip()]
            problem = f"failed: {said[-1].strip()[:200] if said else child.returncode}"
    except (queue.Empty, subprocess.TimeoutExpired):
        problem = f"not done within {limit_s:.0f} s"
    finally:
        child.kill()
        child.wait()
    seconds = time.monotonic() - began
    note = problem or "ok"
    yield {"part": part, "figure": f"part_{part}_s", "value": round(seconds, 1), "note": note}


def _read(stream: Any, into: Any) -> None:
    for line in stream:
        into(line)
    into(None)


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
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)
    how = parser.parse_args()
    if how.part:
        from cards.parts import PARTS

        from nomoat.lora.workers.environment import prepare

        prepare()
        PARTS[how.part][0](how.device, how.quick)
        return
    found = run(how)
    if how.json:
        sys.stdout.write(json.dumps({f["figure"]: f["value"] for f in found}) + "\n")


if __name__ == "__main__":
    main()
