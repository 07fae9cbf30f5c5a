from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nomoat.aggregation.errors import BadData, NomoatError
from nomoat.lora.training.checkpoint import (
    Paused,
    RunPosition,
    TrainingCheckpoint,
    capture,
    read,
    restore,
    write,
)

JOB = b"j" * 32
STEPS, MICRO = 5, 3
Hook = Callable[[RunPosition, Any, Any], None]


class Run:
    """Training as lora/training/train.py does: factors are views of one tensor, fused AdamW."""

    def __init__(self) -> None:
        import torch

        torch.manual_seed(7)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 3)
        )
        parameters = list(self.layers.parameters())
        self.flat = torch.cat([p.detach().reshape(-1) for p in parameters])
        self.flat.grad = torch.zeros_like(self.flat)
        start = 0
        for parameter in parameters:
            end = start + parameter.numel()
            parameter.data = self.flat[start:end].view_as(parameter)
            parameter.grad = self.flat.grad[start:end].view_as(parameter)
            start = end
        self.optimizer = torch.optim.AdamW([self.flat], lr=0.01, fused=True)

    def stepped(self) -> dict[str, Any]:
        """What the optimiser makes for itself."""
        self.optimizer.step()
        return dict(self.optimizer.state[self.flat])

    def go(self, hook: Hook, start: RunPosition | None = None) -> list[float]:
        """Micro-steps from `start`; the hook is called between any two."""
        import torch

        place = start or RunPosition(0, 0, 0, 0.0, ())
        losses = list(place.losses)
        for step in range(place.step, STEPS):
            first = place.micro if step == place.step else 0
            for micro in range(first, MICRO):
                rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(step * 10 + micro))
                loss = self.layers(rows).square().mean() / MICRO
                loss.backward()
                losses.append(loss.item())
                done = len(losses)
                if micro + 1 < MICRO:
                    here = RunPosition(step, micro + 1, 4 * done, 0.5 * done, tuple(losses))
                    hook(here, self.optimizer, self.flat)
            self.optimizer.step()
            self.flat.grad.zero_()
            if step + 1 < STEPS:
                here = RunPosition(step + 1, 0, 4 * done, 0.5 * done, tuple(losses))
                hook(here, self.optimizer, self.flat)
        return losses


def uninterrupted() -> tuple[bytes, list[float]]:
    run = Run()
    losses = run.go(lambda *_: None)
    return run.flat.numpy().tobytes(), losses


@pytest.mark.parametrize("stop", range(1, STEPS * MICRO))
def test_a_run_paused_anywhere_ends_with_the_same_bits(stop: int, tmp_path: Path) -> None:
    import torch

    path, calls = tmp_path / "checkpoint", 0

    def pausing(place: RunPosition, optimizer: Any, flat: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == stop:
            write(path, capture(JOB, place, optimizer, flat))
            raise Paused

    with pytest.raises(Paused):
        Run().go(pausing)
    torch.manual_seed(999)  # another process, another state of its generator
    saved, run = read(path, JOB), Run()
    assert saved is not None
    place = restore(saved, run.optimizer, run.flat)
    losses = run.go(lambda *_: None, place)
    assert (run.flat.numpy().tobytes(), losses) == uninterrupted()


def test_the_factors_stay_views_of_the_flat_tensor(tmp_path: Path) -> None:
    first = Run()
    first.go(lambda *_: None)
    write(
        tmp_path / "c", capture(JOB, RunPosition(1, 0, 1, 1.0, (0.5,)), first.optimizer, first.flat)
    )
    saved, second = read(tmp_path / "c", JOB), Run()
    assert saved is not None
    restore(saved, second.optimizer, second.flat)
    joined = [value for p in second.layers.parameters() for value in p.detach().flatten().tolist()]
    assert joined == first.flat.tolist()


def made(tmp_path: Path) -> Path:
    run = Run()
    run.go(lambda *_: None)
    write(
        tmp_path / "c", capture(JOB, RunPosition(1, 2, 3, 4.0, (0.1, 0.2)), run.optimizer, run.flat)
    )
    return tmp_path / "c"


def test_a_checkpoint_of_another_job_counts_as_none(tmp_path: Path) -> None:
    path = made(tmp_path)
    found = read(path, JOB)
    assert found is not None
    assert found.place == RunPosition(1, 2, 3, 4.0, (0.1, 0.2))
    assert read(path, b"k" * 32) is None
    assert read(tmp_path / "absent", JOB) is None


def test_a_cut_or_garbled_file_counts_as_none(tmp_path: Path) -> None:
    path = made(tmp_path)
    data = path.read_bytes()
    for size in [0, 4, 8, 9, 100, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:size])
        assert read(path, JOB) is None
    path.write_bytes(b"\xff" * len(data))
    assert read(path, JOB) is None
    path.write_bytes(data.replace(b'\\"step\\": 1', b'\\"step\\":-1'))
    assert read(path, JOB) is None


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    import torch

    saved = read(made(tmp_path), JOB)
    assert saved is not None
    run = Run()
    wrong = TrainingCheckpoint(JOB, saved.place, {**saved.tensors, "values": torch.zeros(3)})
    with pytest.raises(BadData, match="another shape"):
        restore(wrong, run.optimizer, run.flat)
    half = {**saved.tensors, "values": saved.tensors["values"].half()}
    with pytest.raises(BadData, match="another shape"):
        restore(TrainingCheckpoint(JOB, saved.place, half), run.optimizer, run.flat)


def test_a_fused_optimisers_state_is_where_the_values_are(tmp_path: Path) -> None:
    import torch

    saved = read(made(tmp_path), JOB)
    assert saved is not None
    run = Run()
    before = {name: value.device for name, value in run.stepped().items()}
    restore(saved, run.optimizer, run.flat)
    state = run.optimizer.state[run.flat]
    assert {name: value.device for name, value in state.items()} == before
    elsewhere = torch.zeros_like(run.flat, device="meta")  # stands for a device of its own
    other = torch.optim.AdamW([elsewhere], lr=0.01)
    restore(saved, other, elsewhere)
    assert {value.device.type for value in other.state[elsewhere].values()} == {"meta"}


def test_a_capture_is_a_copy() -> None:
    run = Run()
    taken = capture(JOB, RunPosition(0, 0, 0, 0.0, ()), run.optimizer, run.flat)
    before = taken.tensors["values"].tolist()
    run.go(lambda *_: None)
    assert taken.tensors["values"].tolist() == before
    assert run.flat.tolist() != before


@pytest.mark.skipif(os.name != "posix", reason="needs /dev/full")
def test_a_disk_that_is_full_is_one_line_and_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NomoatError, match="No space left"):
        made(tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
