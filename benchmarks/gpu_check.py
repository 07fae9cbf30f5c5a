"""This machine's GPU with nomoat, in one table: what, expected, seen (`make gpu-check`).

Each row is a process of its own with a time limit, so that one that hangs hides no other. Without a
GPU the table says so in its first row, and that is all. Six minutes at most.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from nomoat.simulations.pocket import MODEL_DIR

HERE = Path(__file__).parent
ALL_S = 350.0  # of all rows together; what is left by then is not begun
BEGAN = time.monotonic()
START = "import json, sys, time\nfrom pathlib import Path\nMODEL = sys.argv[1]\n"


@dataclass(frozen=True)
class Check:
    """One row: a program that prints what is seen and raises where that is not `expected`."""

    what: str
    expected: str
    limit_s: float
    program: str


@dataclass(frozen=True)
class Seen:
    """The end of a row."""

    what: str
    expected: str
    seen: str
    ok: bool
    seconds: float


PRESENT = Check(
    "a GPU",
    "torch finds one and it starts",
    40,
    """
from nomoat.lora.device import backends
device = backends.pick("auto")
assert device.kind != "cpu", "no GPU"
device.start()
import torch
name = torch.cuda.get_device_name() if torch.cuda.is_available() else device.kind
print(f"{name}, {device.dtype()}")
""",
)

CHECKS = (
    Check("importing peft", "starts no CUDA in a worker that is told to use a processor", 60, """
import os
from nomoat.lora.device.present import HIDING
for name in HIDING: os.environ[name] = ""
import peft, torch
assert not torch.cuda.is_initialized(), "CUDA was started"
print("not started")
"""),
    Check("loss on the GPU", "within 2 % of float32 on a processor", 60, """
import torch
from nomoat.lora.model.base_model import load
found = []
for device in ("cpu", "auto"):
    base = load(MODEL, device)
    ids = torch.arange(3, 131, device=base.device)[None] % base.model.config.vocab_size
    with torch.no_grad():
        found.append(float(base.model(input_ids=ids, labels=ids).loss))
assert abs(found[1] / found[0] - 1) < 0.02, found
print(f"{found[0]:.4f}, {found[1]:.4f}")
"""),
    Check("a worker", "is started, trains nothing twice, gives its memory back", 90, """
from nomoat.lora.device.nvml_pids import opened
from nomoat.lora.device.present import gpu_of
from nomoat.lora.workers.jobs import SpecJob
from nomoat.lora.workers.pool import Pool
def used():
    nvml, device = opened(gpu_of("auto") or 0)
    return nvml.nvmlDeviceGetMemoryInfo(device).used
if __name__ == "__main__":
    before, began = used(), time.monotonic()
    pool = Pool(MODEL, 1, shared=False)
    pool.submit(SpecJob(8, 16.0)).result()
    ready_s, during = time.monotonic() - began, used()
    pool.pause(10.0)
    until = time.monotonic() + 5
    while used() > before + (64 << 20) and time.monotonic() < until: time.sleep(0.1)
    assert used() <= before + (64 << 20), "memory was kept"
    print(f"ready after {ready_s:.1f} s, {(during - before) >> 20} MiB, given back")
"""),
    Check("two workers", "take turns", 120, """
from nomoat.lora.workers.jobs import SpecJob
from nomoat.lora.workers.pool import Pool
if __name__ == "__main__":
    told = []
    one, other = Pool(MODEL, 1, shared=False), Pool(MODEL, 1, shared=False)
    other.tell_of_turns(told.append)
    one.submit(SpecJob(8, 16.0)).result()
    other.submit(SpecJob(8, 16.0)).result()
    one.close(), other.close()
    assert told, "the second did not wait"
    print(told[0])
"""),
)  # fmt: skip

COMMANDS = (
    ("nomoat simulate", "one round ends", 90,
     ("simulate", "--rounds", "1", "--local-steps", "4", "--quiet", "--json", "--out")),
    ("nomoat try", "three volunteers, one round", 120,
     ("try", "--rounds", "1", "--json", "--keep")),
)  # fmt: skip


def run(command: list[str], what: str, expected: str, limit_s: float) -> Seen:
    """Run a row's process; its last line is what was seen."""
    began = time.monotonic()
    limit_s = min(limit_s, BEGAN + ALL_S - began)
    if limit_s <= 0:
        return Seen(what, expected, "not begun: the six minutes are over", False, 0.0)
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit_s, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return Seen(what, expected, f"nothing within {limit_s:.0f} s", False, limit_s)
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or [""]
    return Seen(what, expected, said[-1][:90], done.returncode == 0, time.monotonic() - began)


def programmed(check: Check, folder: Path) -> Seen:
    """Run a check's program from a file: its workers import it again."""
    file = folder / "row.py"
    file.write_text(START + check.program)
    command = [sys.executable, "-P", str(file), str(MODEL_DIR)]
    return run(command, check.what, check.expected, check.limit_s)


def rows(folder: Path) -> list[Seen]:
    """Every row, or the first alone where there is no GPU."""
    found = [programmed(PRESENT, folder)]
    if not found[0].ok:
        return found
    found += [programmed(check, folder) for check in CHECKS]
    for what, expected, limit_s, arguments in COMMANDS:
        command = [sys.executable, "-P", "-m", "nomoat", *arguments, str(folder / what.split()[1])]
        found.append(run(command, what, expected, limit_s))
    engine = [sys.executable, "-P", str(HERE / "engine.py"), "--json", "--steps", "6"]
    found.append(run(engine, "64 volunteers at once", "gpu_ratio_64 ≥ 40", 120))
    return found


def main() -> None:
    """Print the table, or the rows as one object; exit code 1 if a row is not as expected."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true")
    how = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nomoat-gpu-check-") as folder:
        found = rows(Path(folder))
    if how.json:
        sys.stdout.write(json.dumps({"rows": [asdict(row) for row in found]}) + "\n")
    else:
        for row in found:
            mark = "ok" if row.ok else "--"
            print(f"{mark}  {row.what:24s} {row.seen}  [{row.expected}; {row.seconds:.0f} s]")
    no_gpu = len(found) == 1 and "no GPU" in found[0].seen
    sys.exit(0 if no_gpu or all(row.ok for row in found) else 1)


if __name__ == "__main__":
    main()
