"""An invitation leaves the list of processes as soon as it was read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
from nomoat.client.identity.own_arguments import hide
hide(sys.argv[1])
hide("not there")
hide("")
print(Path("/proc/self/cmdline").read_bytes().decode(), sys.argv[1])
"""


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="Linux keeps it there")
def test_a_secret_is_no_longer_in_the_command_line_and_everything_else_is() -> None:
    secret = "nomoat://join/" + "q" * 300
    command = [sys.executable, "-c", PROGRAM, secret, "--data", "rows.jsonl"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    shown, ours = said.rsplit(" ", 1)
    assert secret not in shown
    assert "-" * len(secret) in shown
    assert shown.rstrip("\0").endswith("--data\0rows.jsonl")
    assert ours.strip() == secret  # the program itself has it still
