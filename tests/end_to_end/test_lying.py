"""A real community whose audit meets a member that lies: processes, TLS, and evidence for all."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from commands_here import CommandsHere

from builders import topic_rows
from nomoat.aggregation.errors import NomoatError

HERE = Path(__file__).parent
HONEST, LIAR = ("ada", "ben"), "mallory"
OPTIONS = (
    "--min-volunteers", "3", "--min-reports", "2", "--allow-weak", "--max-rounds", "1",
    "--local-steps", "2", "--batch-size", "2", "--seq-len", "32", "--audit", "--norm-bound", "0.05",
)  # fmt: skip
STEP_S = 400.0


@pytest.mark.timeout(1200)
def test_a_member_that_sends_too_much_is_left_out_held_and_proved_to_the_others(
    tmp_path: Path, tiny_model: Path
) -> None:
    with CommandsHere(tmp_path, environment={"OMP_NUM_THREADS": "1"}) as town:
        town.init("town", tiny_model, OPTIONS)
        town.up()
        town.wait("the port", lambda: bool(town.hosted()), STEP_S)
        link = town.invite(3)
        honest, liar = (
            replace(town, program=(sys.executable, str(HERE / program), *attack))
            for program, *attack in (("arithmetic.py",), ("lying.py", "scaled"))
        )
        for name in (*HONEST, LIAR):
            machine = liar if name == LIAR else honest
            data = topic_rows(tmp_path / f"{name}.jsonl", name)
            machine.join(name, link, data, tiny_model, "--accept-audit")
        town.wait("the round", lambda: len(town.records()) > 1, STEP_S)
        record = town.records()[1]
        assert record.committed
        assert tuple(record.contributors) == HONEST
        assert "times the bound" in record.dropped[LIAR]
        assert record.excluded == 1
        assert list(record.held) == [LIAR]
        told = json.loads(town.call("evidence", LIAR, "--json", home="ada"))
        assert (told["round"], told["says"]) == (1, record.dropped[LIAR])
        with pytest.raises(NomoatError, match="the roster names no evidence"):
            town.call("evidence", "ben", home="ada")
        town.wait("its hold", lambda: "times the bound" in json.dumps(town.state(LIAR)), STEP_S)
