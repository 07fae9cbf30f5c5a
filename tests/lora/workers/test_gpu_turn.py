"""A worker on several GPUs has a ticket of each, drawn in one order, and gives all back."""

from __future__ import annotations

from pathlib import Path

import pytest

from nomoat.lora.device import gpu_queue
from nomoat.lora.device.gpu_queue import GpuQueue, queues_for
from nomoat.lora.workers.gpu_turn import WorkerTurn


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two GPUs, whose driver says nothing."""
    monkeypatch.setattr(gpu_queue, "shared_folder", lambda: tmp_path / "turns")
    monkeypatch.setattr(gpu_queue, "may_use_gpu", lambda _device: True)
    monkeypatch.setattr(
        gpu_queue, "gpus_of", lambda device: tuple(int(name[-1]) for name in device.split(","))
    )
    return tmp_path / "turns"


def tickets(folder: Path) -> dict[str, int]:
    return {gpu.name: len(list(gpu.glob("ticket-*"))) for gpu in sorted(folder.iterdir())}


def test_everybody_draws_in_one_order_whatever_the_settings_say() -> None:
    orders = ("cuda:1,cuda:0", "cuda:0,cuda:1")
    names = [[queue.name for queue in queues_for(device)] for device in orders]
    assert names[0] == names[1]
    assert len(set(names[0])) == 2


def test_a_turn_is_one_of_every_gpu_and_all_are_given_back(machine: Path) -> None:
    turn = WorkerTurn("cuda:0,cuda:1")
    assert turn.take(5, lambda: True)
    assert tickets(machine) == {"gpu-0": 1, "gpu-1": 1}
    turn.used_by(frozenset({1}))
    assert not turn.is_over(idle=True)
    turn.give_back()
    assert tickets(machine) == {"gpu-0": 0, "gpu-1": 0}


def test_who_is_not_wanted_any_more_while_a_second_gpu_is_busy_keeps_none(machine: Path) -> None:
    other = GpuQueue(1).draw()
    assert other is not None
    assert other.wait(lambda: True, lambda _reason: None, None)
    looks = iter([True, True, True, False])
    turn, told = WorkerTurn("cuda:0,cuda:1"), []
    turn.told = told.append  # type: ignore[method-assign]
    assert not turn.take(5, lambda: next(looks))
    assert "its turn at the GPU" in str(told[0])
    assert tickets(machine) == {"gpu-0": 0, "gpu-1": 1}
    other.give_back()
