"""Devices without bfloat16 train in float16: gradients neither vanish nor overflow."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.device import backends
from nomoat.lora.model.base_model import initial_adapter
from nomoat.lora.training.checkpoint import Paused, read, write
from nomoat.lora.training.loss import Losses
from nomoat.lora.training.loss_scale import LossScale
from nomoat.lora.training.progress import NO_BREAKS, Breaks
from nomoat.lora.training.train import Given, Trained, train

SETTINGS = TrainSettings(local_steps=3, batch_size=6, seq_len=64, learning_rate=1e-3)
JOB, PIECE = b"j" * 32, 60
TOO_LARGE = 2.0**22  # for the first backward pass of the tiny model in float16


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the processor compute in float16, its loss scaled by what is set here at first."""

    class Half(backends.Device):
        factor = 1.0

        def autocast(self) -> contextlib.AbstractContextManager[Any]:
            return torch.autocast("cpu", torch.float16)

        @property
        def loss_scale(self) -> float:
            return self.factor

    monkeypatch.setitem(backends.KINDS, "cpu", Half)
    return Half


def run(model: Any, spec: Any, examples: Any, breaks: Breaks = NO_BREAKS) -> Trained:
    given = Given(None, breaks)
    return train(model, initial_adapter(spec, b"i"), examples, SETTINGS, b"s", lambda: 0.0, given)


def test_a_gradient_too_small_for_float16_comes_back_whole() -> None:
    found = {}
    for factor in (1.0, 2.0**13):
        leaf = torch.ones(4, requires_grad=True)
        scaling, loss = LossScale(factor), (leaf.half() * 1.0).float().sum() * 1e-8
        (loss * scaling.factor).backward()
        assert leaf.grad is not None
        assert scaling.unscale(leaf.grad, loss)
        found[factor] = leaf.grad
    assert not found[1.0].any()
    assert torch.allclose(found[2.0**13], torch.full((4,), 1e-8), rtol=1e-3)


def test_steps_in_float16_are_those_of_float32_within_its_precision(
    model: Any, spec: Any, examples: Any, scale: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for factor in (2.0**13, TOO_LARGE):
        monkeypatch.setattr(scale, "factor", factor)
        found[factor] = run(model, spec, examples)
    monkeypatch.setitem(backends.KINDS, "cpu", backends.Device)
    exact = run(model, spec, examples)
    moved = exact.vector - initial_adapter(spec, b"i").vector
    for half in found.values():
        assert (half.steps, half.tokens) == (exact.steps, exact.tokens)  # no step is lost
        assert half.last_loss == pytest.approx(exact.last_loss, rel=2e-3)
        other = half.vector - initial_adapter(spec, b"i").vector
        assert moved @ other > 0.98 * np.linalg.norm(moved) * np.linalg.norm(other)


def test_an_overflow_halves_the_scale_and_the_step_is_taken_all_the_same(
    model: Any, spec: Any, examples: Any, scale: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "factor", TOO_LARGE)
    passes, real = 0, Losses.__call__

    def counted(self: Losses, batch: Any, reduction: str) -> Any:
        nonlocal passes
        passes += 1
        return real(self, batch, reduction)

    monkeypatch.setattr(Losses, "__call__", counted)
    assert run(model, spec, examples).steps == SETTINGS.local_steps
    assert SETTINGS.local_steps < passes < SETTINGS.local_steps + 22


def test_a_loss_that_is_not_finite_is_told_and_not_tried_at_every_scale(
    model: Any, spec: Any, examples: Any, scale: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "factor", 2.0**13)
    calls, real = 0, Losses.__call__

    def broken(self: Losses, batch: Any, reduction: str) -> Any:
        nonlocal calls
        calls += 1
        return real(self, batch, reduction) * float("nan")

    monkeypatch.setattr(Losses, "__call__", broken)
    with pytest.raises(NomoatError, match="training diverged at step 1"):
        run(model, spec, examples)
    assert calls == SETTINGS.local_steps


def test_a_run_in_float16_that_paused_anywhere_ends_with_the_same_bits(
    model: Any,
    spec: Any,
    examples: Any,
    scale: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scale, "factor", TOO_LARGE)
    whole, path = run(model, spec, examples, Breaks(most_tokens=PIECE)), tmp_path / "c"

    def stopped_at(call: int) -> None:
        left = call

        def between(taken: Any) -> None:
            nonlocal left
            left -= 1
            if not left:
                write(path, taken())
                raise Paused

        run(model, spec, examples, Breaks(JOB, None, between, PIECE))

    for call in (1, 8, 15):  # before the first overflow, amid others, after the last
        with pytest.raises(Paused):
            stopped_at(call)
        again = run(model, spec, examples, Breaks(JOB, read(path, JOB), None, PIECE))
        assert np.array_equal(again.vector, whole.vector)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("inf"), float("nan")])
def test_a_checkpoint_with_a_scale_that_no_device_has_counts_as_none(
    model: Any, spec: Any, examples: Any, tmp_path: Path, factor: float
) -> None:
    path = tmp_path / "c"

    def between(taken: Any) -> None:
        saved = taken()
        place = dataclasses.replace(saved.place, loss_scale=factor)
        write(path, dataclasses.replace(saved, place=place))
        raise Paused

    with pytest.raises(Paused):
        run(model, spec, examples, Breaks(JOB, None, between, PIECE))
    assert read(path, JOB) is None
