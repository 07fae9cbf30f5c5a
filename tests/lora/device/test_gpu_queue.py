"""Tickets are files that live as long as their process, and what others write there is data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nomoat.lora.device.gpu_queue import GpuQueue, Turn, owner
from nomoat.storage.locks import is_locked, lock

GIB = 1 << 30


@pytest.fixture(autouse=True)
def nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    """8 GiB, all free, nobody on it."""
    fake = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda _: "GPU-8f2a/../x",
        nvmlDeviceGetComputeRunningProcesses=lambda _: [],
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(free=8 * GIB, total=8 * GIB),
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


@pytest.fixture
def queue(tmp_path: Path) -> GpuQueue:
    return GpuQueue(0, tmp_path / "shared")


def drawn(queue: GpuQueue) -> Turn:
    turn = queue.draw()
    assert turn is not None
    return turn


def served(turn: Turn, need: int | None = None) -> str | None:
    """Wait no longer than one look; why not, None if it is served."""
    said: list[str | None] = []
    if turn.wait(lambda: not said, said.append, need):
        return None
    return said[0]


def test_the_second_waits_for_the_first_and_is_told_whose_it_is(queue: GpuQueue) -> None:
    first, second = drawn(queue), drawn(queue)
    assert served(first) is None
    first.used_by(frozenset({os.getpid()}))
    why = f"its turn at the GPU: another nomoat of yours (process {os.getpid()}) has it"
    assert served(second) == why
    assert queue.pids() == {os.getpid()}
    assert (first.is_over(idle=False), first.is_over(idle=True)) == (False, True)
    first.give_back()
    assert served(second) is None
    assert not second.is_over(idle=True)


def test_what_fits_together_runs_together_until_one_needs_more(queue: GpuQueue) -> None:
    first, second = drawn(queue), drawn(queue)
    assert (served(first, 3 * GIB), served(second, 3 * GIB)) == (None, None)
    assert second.fits(4 * GIB)
    assert not second.fits(5 * GIB)
    first.give_back()
    assert second.fits(None)


def test_programs_of_strangers_leave_less_to_share(queue: GpuQueue, nvml: Any) -> None:
    nvml.nvmlDeviceGetMemoryInfo = lambda _: SimpleNamespace(free=4 * GIB, total=8 * GIB)
    first, second = drawn(queue), drawn(queue)
    assert served(first, 3 * GIB) is None
    assert served(second, 3 * GIB) is not None
    nvml.nvmlDeviceGetComputeRunningProcesses = lambda _: [
        SimpleNamespace(pid=os.getpid(), usedGpuMemory=4 * GIB)
    ]
    first.used_by(frozenset({os.getpid()}))  # what holds the memory is the first itself
    assert served(second, 3 * GIB) is None


PROGRAM = """
import sys, time
from pathlib import Path
from nomoat.lora.device.gpu_queue import GpuQueue
turn = GpuQueue(0, Path(sys.argv[1])).draw()
assert turn.wait(lambda: True, print, None)
print("has it", flush=True)
time.sleep(100)
"""


def test_a_process_that_is_killed_leaves_no_ticket_behind(queue: GpuQueue, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "shared")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "has it\n"
        # Its NVML is the real one, or none: the folder is named by number there.
        mine = drawn(GpuQueue(0, tmp_path / "shared"))
        (tickets,) = {path.parent for path in (tmp_path / "shared").rglob("ticket-*")} - {
            mine._path.parent
        }
        (ticket,) = tickets.glob("ticket-*")
        assert is_locked(ticket)
        program.send_signal(signal.SIGKILL)
        program.wait()
        assert not is_locked(ticket)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 9000,
        b"[]",
        b'{"pids": [1], "need_bytes": "a lot", "running": true, "owner": "0"}',
        b'{"pids": [1], "need_bytes": -5, "running": true, "owner": "0"}',
        b'{"pids": "x", "need_bytes": null, "running": true, "owner": "0"}',
    ],
)
def test_what_is_no_ticket_keeps_nobody_waiting(queue: GpuQueue, content: bytes) -> None:
    turn = drawn(queue)
    path = turn._path.with_name("ticket-5")
    path.write_bytes(content)
    handle = os.open(path, os.O_RDONLY)
    assert lock(handle)
    assert served(turn) is None
    assert queue.pids() == frozenset()
    os.close(handle)


def test_a_ticket_belongs_to_whoever_owns_the_file_whatever_it_says(queue: GpuQueue) -> None:
    turn = drawn(queue)
    said = {"number": 1, "owner": "root's", "pids": [], "need_bytes": 0, "running": False}
    path = turn._path.with_name("ticket-1")
    path.write_text(json.dumps(said))
    handle = os.open(path, os.O_RDONLY)
    assert lock(handle)
    with queue._alone():
        (other, _) = sorted(queue._live(), key=lambda ticket: ticket.number)
    assert (other.number, other.owner) == (1, owner())
    os.close(handle)


def test_where_there_can_be_no_tickets_there_are_no_turns(tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("a file where the folder should be")
    queue = GpuQueue(0, tmp_path / "shared")
    assert queue.draw() is None
    assert queue.pids() == frozenset()


def test_a_link_to_somewhere_else_is_not_followed(queue: GpuQueue, tmp_path: Path) -> None:
    turn = drawn(queue)
    turn._path.with_name("ticket-2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("{}")
    assert served(turn) is None
    assert (tmp_path / "elsewhere").read_text() == "{}"


def test_waiting_ends_as_soon_as_nobody_wants_it_any_more(queue: GpuQueue) -> None:
    first, second = drawn(queue), drawn(queue)
    assert served(first) is None
    ended, found = threading.Event(), []
    waiting = threading.Thread(
        target=lambda: found.append(second.wait(lambda: not ended.is_set(), lambda _: None, None))
    )
    waiting.start()
    ended.set()
    waiting.join(60)
    assert found == [False]
