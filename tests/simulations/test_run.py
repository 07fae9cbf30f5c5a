"""A report that cannot be drawn costs a line, never the adapter."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nomoat.aggregation.errors import NomoatError
from nomoat.simulations import run
from nomoat.simulations.report.results import Result
from nomoat.simulations.run_folder import RunFolder


def result() -> Result:
    nothing: Any = None
    return Result(nothing, nothing, nothing, [], None, (), 1.0, 1.0)


@pytest.mark.parametrize("part", ["save_png", "loss_curve"])
def test_a_report_that_cannot_be_drawn_is_a_line(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no fonts\nanywhere")

    monkeypatch.setattr(run.plots, "loss_curve", lambda _: None)
    monkeypatch.setattr(run.plots, part, broken)
    drawn = run._drawn(result(), RunFolder(tmp_path))
    assert drawn.undrawn == "the report could not be drawn: no fonts anywhere"


def test_a_model_that_cannot_write_leaves_a_report_without_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        failed: Future[Any] = Future()
        failed.set_exception(NomoatError("a worker failed: IndexError"))
        failed.result()

    monkeypatch.setattr(run.samples, "take", broken)
    nothing: Any = SimpleNamespace()
    taken, why = run._samples(nothing, nothing)
    assert (taken, why) == ((), "the report has no samples: a worker failed: IndexError")
