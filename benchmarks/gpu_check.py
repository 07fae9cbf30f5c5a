"""This machine's GPU with nomoat, in one table: what, expected, seen (`make gpu-check`).

    python benchmarks/gpu_check.py [--json] [--device cuda:1] [--only WORD,WORD…] [--dry]

The rows of `nomoat doctor --gpu`, and volunteers trained at once (engine.py). Each is a process of
its own with a time limit, so that one that hangs hides no other. Without a GPU the table says so in
its first row, and that is all. Six minutes at most. --dry names the rows and their limits, and
runs none: what it imports is what a machine with a GPU needs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from nomoat.lora.gpu_check.row import CheckPlace, GpuRow, expect
from nomoat.lora.gpu_check.table import all_rows, as_json, check, passed, shown
from nomoat.simulations.pocket import MODEL_DIR

ENGINE = Path(__file__).resolve().parent / "engine.py"
RATIO_64 = 40.0


def volunteers_at_once(place: CheckPlace) -> str:
    """Train 64 volunteers of the pocket model over one base, and one after the other."""
    command = [sys.executable, "-P", str(ENGINE), "--json", "--steps", "6", "--rounds", "1"]
    command += ["--cells", "8x128", "--volunteers", "64", "--device", place.device]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ratio = json.loads(done.stdout)["gpu_ratio_64"]
    return expect(ratio >= RATIO_64, f"{ratio} times as fast")


def main() -> None:
    """Print the table, or the rows as one object; exit code 1 if a row is not as expected."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", default="", help="rows in whose name one of these words stands")
    parser.add_argument("--dry", action="store_true")
    how = parser.parse_args()
    at_once = f"{RATIO_64:.0f} times as fast"
    engine = GpuRow("64 volunteers at once", at_once, 120, volunteers_at_once, alone=True)
    words = how.only.split(",")
    rows = [row for row in [*all_rows(), engine] if any(word in row.what for word in words)]
    if how.dry:
        for each in rows:
            sys.stdout.write(f"{each.limit_s:4.0f} s at most  {each.what}: {each.expected}\n")
        return
    found = []
    with tempfile.TemporaryDirectory(prefix="nomoat-gpu-check-") as folder:
        for row in check(how.device, str(MODEL_DIR), Path(folder), rows):
            found.append(row)
            print(shown(row), file=sys.stderr if how.json else sys.stdout, flush=True)
    if how.json:
        sys.stdout.write(json.dumps({"rows": as_json(found)}) + "\n")
    sys.exit(0 if passed(found) else 1)


if __name__ == "__main__":
    main()
