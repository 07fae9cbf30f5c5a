"""A command in the background is one of its own: it outlives who started it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nomoat import background


@pytest.mark.skipif(os.name != "posix", reason="sessions are Unix's")
def test_a_command_in_the_background_has_a_session_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "said.out"
    process = background.start(("--version",), out)
    try:
        assert os.getsid(process.pid) == process.pid
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert out.read_text().startswith("nomoat ")
