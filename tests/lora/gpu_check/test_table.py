"""The table of a GPU: a row that hangs or dies hides no other; rows work on a processor, too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nomoat.aggregation.errors import NomoatError
from nomoat.lora.gpu_check import running
from nomoat.lora.gpu_check.families import KINDS, whole_way
from nomoat.lora.gpu_check.precision import same_laid_out, same_step, same_with_checkpointing
from nomoat.lora.gpu_check.row import CheckPlace, GpuRow, SeenRow
from nomoat.lora.gpu_check.running import run_rows
from nomoat.lora.gpu_check.table import all_rows, check, passed
from nomoat.lora.model.bases.pocket import FOLDER
from tests.fake_gpu.machine import FakeGpu

pytestmark = pytest.mark.timeout(800)  # a program that starts workers


def fine(place: CheckPlace) -> str:
    return f"{place.device}, {len(list(place.folder.iterdir()))} file"


def hangs(place: CheckPlace) -> str:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (place.folder.parent / "child").write_text(str(child.pid))
    child.wait()
    return "never"


def dies(place: CheckPlace) -> str:
    os.write(2, b"the last words\n")
    os._exit(3)


def amiss(place: CheckPlace) -> str:
    raise NomoatError("two lines\nof it")


def breaks(place: CheckPlace) -> str:
    raise KeyError("x")


@pytest.fixture(autouse=True)
def imports_nothing_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "IMPORTED", ())


@pytest.fixture
def place(tmp_path: Path) -> CheckPlace:
    return CheckPlace("cpu", str(FOLDER), tmp_path)


def test_a_row_that_hangs_dies_or_breaks_hides_no_other(place: CheckPlace) -> None:
    rows = [
        GpuRow("hangs", "", 2.0, hangs, alone=True),
        GpuRow("dies", "", 60.0, dies),
        GpuRow("amiss", "", 60.0, amiss),
        GpuRow("breaks", "", 60.0, breaks),
        GpuRow("fine", "", 60.0, fine),
    ]
    found = {row.what: row for row in run_rows(rows, place, time.monotonic() + 120, 2)}
    assert found["fine"].ok
    assert found["fine"].seen == "cpu, 1 file"
    seen = {name: row.seen for name, row in found.items() if not row.ok}
    assert seen == {
        "hangs": "nothing within 2 s; without a word",
        "dies": "the process ended: the last words",
        "amiss": "two lines of it",
        "breaks": "KeyError: 'x'",
    }
    assert list(found)[-1] == "hangs"  # alone, after those that may run side by side
    pid, until = int((place.folder / "child").read_text()), time.monotonic() + 20
    while not ended(pid) and time.monotonic() < until:  # a signal takes its time to arrive
        os.sched_yield()
    assert ended(pid)


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_row_for_which_no_time_is_left_says_so(place: CheckPlace) -> None:
    (row,) = run_rows([GpuRow("fine", "", 9.0, fine)], place, time.monotonic() - 1, 1)
    assert (row.ok, row.seen) == (False, "not begun: no time is left")


@pytest.mark.parametrize("kind", ["gpt2", "qwen3_moe"])
def test_a_family_goes_the_whole_way(place: CheckPlace, kind: str) -> None:
    assert kind in KINDS
    assert "trained" in whole_way(kind, place)


def test_a_step_is_compared_with_a_processors(place: CheckPlace) -> None:
    assert "0.00% apart" in same_step("bfloat16", None, "auto", place)
    assert "0.00% apart" in same_with_checkpointing(place)
    assert "0.00% apart" in same_laid_out(None, place)


def test_no_row_needs_more_time_than_all_may_take() -> None:
    assert len({row.what for row in all_rows()}) == len(all_rows())
    assert all(row.limit_s <= 240 for row in all_rows())


def test_without_a_gpu_the_table_is_one_row_and_nothing_is_wrong(tmp_path: Path) -> None:
    (row,) = check("cpu", str(FOLDER), tmp_path, [])
    assert row.seen.startswith("no GPU: ")
    assert passed([row])
    assert not passed([SeenRow("a GPU", "", "it does not start", False, 1.0)])


def test_rows_of_workers_hold_under_cudas_rules(tmp_path: Path, model_folder: Path) -> None:
    """A process that has CUDA is not forked; a run whose volunteer was killed goes on."""
    gpu = FakeGpu(tmp_path / "gpu")
    file = tmp_path / "rows.py"
    file.write_text(PROGRAM)
    done = gpu.run("-W", "ignore", str(file), str(model_folder), str(tmp_path), timeout_s=700)
    assert done.returncode == 0, done.stderr
    found = {row["what"]: row for row in json.loads(done.stdout)}
    assert [row for row in found.values() if not row["ok"]] == []
    assert "to the bit" in found["killed -9 and resumed"]["seen"]
    assert gpu.forks() == []


PROGRAM = """
import dataclasses, json, sys, time
from pathlib import Path
from nomoat.lora.gpu_check import running, workers
from nomoat.lora.gpu_check.row import CheckPlace

running.IMPORTED = ()
if __name__ == "__main__":
    rows = [dataclasses.replace(row, limit_s=600) for row in workers.rows_of_workers()
            if row.what in ("CUDA_VISIBLE_DEVICES empty", "killed -9 and resumed")]
    place = CheckPlace("cuda", sys.argv[1], Path(sys.argv[2]))
    found = list(running.run_rows(rows, place, time.monotonic() + 600, 1))
    print(json.dumps([dataclasses.asdict(row) for row in found]))
"""
